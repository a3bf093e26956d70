#!/usr/bin/env bash
# From a folder of documents to a retriever that is trained on them, and its measured gain.
set -euo pipefail

usage() {
    cat <<'HELP'
usage: bash perspective/4_synthesize/scripts/run.sh [OPTION...]

An LLM writes queries of your documents; those that pass the checks, with a mined hard negative each, train the
embedder. It is measured before and after, and against training on as many pairs that were made of the same documents
without the LLM (headings, or first sentences): the difference is what the LLM was worth. Finished stages are
skipped; a killed run resumes.

  --documents PATH     a folder with .txt and .md files, or a .jsonl, .csv or .parquet file with a document a row;
                       default: the documents of datasets/docstrings, which is made first
  --collection PATH    a collection with judged queries of these documents, in the BEIR layout, to measure with;
                       default with --documents: held-out queries of the LLM, which show less
  --llm NAME           the LLM; default smollm2, which needs no download
  --base_url URL       an OpenAI-compatible server, with --llm MODEL
  --n_examples N       queries to ask for; default 320
  --overwrite          overwrite existing output; replies of the LLM are kept
  --help               show this help

Other options are those of generate.sh, such as --languages ko or --temperature 0. Settings are environment variables:
EMBEDDER (default minilm), SEED (100), MAX_LENGTH (128 tokens a text), N_HELD_OUT (100).
HELP
}

fail() {
    echo "error: $*" >&2
    exit 2
}

documents="" collection="" overwrite=() asked=() n_examples=320
LLM="${LLM:-smollm2}"
while (($#)); do
    case "$1" in
    --help | -h)
        usage
        exit 0
        ;;
    --*=*)
        # Split --name=value.
        set -- "${1%%=*}" "${1#*=}" "${@:2}"
        continue
        ;;
    --model | --dataset | --output_path | --documents_path) fail "$1: not here; see --help" ;;
    --seed) fail "--seed: set SEED in the environment" ;;
    --recipe_path)
        [[ -f "${2:-}" ]] || fail "--recipe_path ${2:-}: no such file"
        asked+=("$1" "$(cd "$(dirname "$2")" && pwd)/$(basename "$2")")
        shift 2
        continue
        ;;
    --overwrite) overwrite=(--overwrite) ;;
    --documents | --collection | --llm | --n_examples)
        (($# > 1)) || fail "$1 needs a value"
        case "$1" in
        --documents) documents="$2" ;;
        --collection) collection="$2" ;;
        --llm) LLM="$2" ;;
        --n_examples) n_examples="$2" ;;
        esac
        shift
        ;;
    *) asked+=("$1") ;;
    esac
    shift
done
[[ -z "$collection" || -n "$documents" ]] || fail "--collection goes with --documents"
[[ -z "$documents" || -e "$documents" ]] || fail "$documents: no such file or folder"
[[ -z "$collection" || -d "$collection" ]] || fail "$collection: no such folder"
# Stages run in the root folder.
for model in LLM EMBEDDER; do
    [[ "${!model:-}" != *[/.]* || ! -e "${!model}" ]] || printf -v "$model" "%s" "$(cd "$(dirname "${!model}")" && pwd)/$(basename "${!model}")"
done
[[ -z "$documents" ]] || documents="$(cd "$(dirname "$documents")" && pwd)/$(basename "$documents")"
[[ -z "$collection" ]] || collection="$(cd "$collection" && pwd)"

here="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
export EMBEDDER="${EMBEDDER:-minilm}" SEED="${SEED:-100}" LLM
bash "$here/../../../scripts/setup.sh" --retrieval
source "$here/../../../scripts/common.sh"
cd "$ROOT"
stage6="perspective/6_retrieval/scripts"

n_held_out=0
if [[ -z "$documents" ]]; then
    bash "$stage6/make_docs_set.sh"
    documents="$ROOT/datasets/docstrings/corpus.jsonl" collection="$ROOT/datasets/docstrings" name=docstrings
else
    name="$("$PYTHON" -m perspective.layout "$documents")"
    [[ -n "$collection" ]] || n_held_out="${N_HELD_OUT:-100}"
fi
export DATASETS="$name"
results="$("$PYTHON" -m perspective.synthesis.settings "$name" "$LLM")"
[[ -n "$collection" ]] || collection="$results/held_out"

# ${array[@]+"${array[@]}"}: bash 3.2 (macOS) treats an empty array as unset.
bash "$here/generate.sh" --documents_path "$documents" --n_examples "$n_examples" ${asked[@]+"${asked[@]}"}
bash "$here/filter.sh" --n_held_out "$n_held_out" ${overwrite[@]+"${overwrite[@]}"}

# The same number of pairs for both, so that only their origin differs.
n_pairs="$(wc -l <"$results/pairs.jsonl")" n_control=0
[[ ! -f "$results/control.jsonl" ]] || n_control="$(wc -l <"$results/control.jsonl")"
if ((n_control > 1 && n_control < n_pairs)); then
    echo "note: both are trained on $((n_control)) pairs, as many as can be made without the LLM; it wrote $((n_pairs))" >&2
    n_pairs="$n_control"
fi

# Trains on a file of pairs. Usage: train PAIRS
train() {
    local mined="$results/mined/$1-${EMBEDDER//\//_}"
    bash "$stage6/mine_negatives.sh" --train_file "$results/$1.jsonl" --corpus_path "$results/train_corpus.jsonl" \
        --output_path "$mined" ${overwrite[@]+"${overwrite[@]}"}
    bash "$stage6/finetune.sh" --train_file "$mined/"*.jsonl --output_dir "$results/trained-$1" \
        --max_pairs "$n_pairs" --num_train_epochs 3 --per_device_train_batch_size 32 --max_source_length "${MAX_LENGTH:-128}" \
        ${overwrite[@]+"${overwrite[@]}"}
}

# Evaluates an embedder. Usage: measure EMBEDDER [OPTION...]
measure() {
    COLLECTION="$collection" EMBEDDER="$1" bash "$stage6/evaluate.sh" --output_path "$results/measures" \
        ${overwrite[@]+"${overwrite[@]}"} "${@:2}"
}

# Prints the file of an embedder's result. Usage: result_of EMBEDDER
result_of() {
    echo "$results/measures/$(basename "$("$PYTHON" -m perspective.retrieval.layout "$(basename "$collection")" "$1")")"
}

((n_control < 2)) || train control
train pairs
echo "== $EMBEDDER as it comes" >&2
measure "$EMBEDDER"
if ((n_control > 1)); then
    echo "== trained on pairs made without an LLM, against that" >&2
    measure "$results/trained-control" --compare "$(result_of "$EMBEDDER")"
else
    echo "note: no pairs can be made of these documents without an LLM: they have no titles and are of one sentence" >&2
fi
echo "== trained on the queries of $LLM, against $EMBEDDER as it comes: the gain" >&2
measure "$results/trained-pairs" --compare "$(result_of "$EMBEDDER")"
if ((n_control > 1)); then
    echo "== the same against the pairs made without an LLM: what the LLM was worth" >&2
    measure "$results/trained-pairs" --compare "$(result_of "$results/trained-control")"
fi
if ((n_held_out)); then
    echo "note: measured with queries of the LLM itself; they show that such queries are answered better, not that" \
        "people's are. With judged queries of people: --collection FOLDER" >&2
fi
