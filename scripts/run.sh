#!/usr/bin/env bash
# Runs the whole pipeline: set-up, data, the six stages, the table of before and after.
set -euo pipefail

HERE="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"

usage() {
    cat <<'HELP'
usage: bash scripts/run.sh [OPTION...]

Adapts a small text embedder to a perspective with the judgments of a small LLM, and measures the
clustering before and after. Finished stages are recognised and skipped; a killed run goes on.

  --dataset NAME       banking77 (default), few_nerd_nat, mtop_domain, stackexchange, demo, or all;
                       may be repeated
  --data_path FILE     your own texts (.jsonl, .csv, .parquet); --dataset then only names them
  --text_column NAME   field that holds the text (default: input)
  --label_column NAME  field that holds the label, where there is one (default: label)
  --perspective WORDS  what should be alike in your own texts, such as "intent" (default: topic)
  --embedder NAME      minilm (default, no download), gte, e5, a sentence-transformers id, a folder
  --llm NAME           smollm2 (default, no download), starling, starling-rm, a hub id, a folder,
                       a .gguf file, or the name of a server's model with --base_url
  --load_in FORM       4bit or 8bit: a larger LLM on a smaller CUDA card
  --base_url URL       an OpenAI-compatible server judges; its key from OPENAI_API_KEY
  --budget MONEY       the most that the server may cost; also needs --price_in MONEY and
                       --price_out MONEY, for a million tokens read and written
  --recorded_path FILE earlier predictions, ours or published, take the LLM's place
  --judge NAME         answer (default for a local LLM: reads each text once), pair, choice, reward
  --recipe NAME        distill (default of answer), standard (triplets) or published (triplets; batch
                       2, learning rate 5e-7, 8 epochs)
  --rounds N           adapt again from the adapted embedder, N times in all, ended early where the LLM
                       has nothing more to tell (default: 1)
  --scale NAME         small (default) or large
  --max_query N        triplets to ask about (default: 1024)
  --seed N             of sampling and training (default: 100)
  --overwrite          make every file anew
  --help               show this

The same settings are read from the environment: DATASETS, EMBEDDER, LLM, MAX_QUERY, SEED, SCALE; and
LAUNCH, which starts embedding and fine-tuning in several processes ("torchrun --nproc_per_node 8").
HELP
}

fail() {
    echo "error: $*" >&2
    exit 2
}

names=()
data=()       # where the texts are, for the stages that read them by --data_path
judge_data=() # the same for the judging stage, whose --data_path is the triplets
labels=()
judge=()
recipe=()
overwrite=()
recorded=""
kind=""
rounds=1
server=""
OPTIONS=(--dataset --data_path --text_column --label_column --perspective --embedder --llm --load_in --judge
    --base_url --budget --price_in --price_out --recorded_path --recipe --rounds --scale --max_query --seed
    --overwrite --help)

absolute() { # a path that still holds when the working directory changes
    case "$1" in /*) echo "$1" ;; *) echo "$PWD/$1" ;; esac
}

while (($#)); do
    option="$1"
    value="${2:-}"
    case "$option" in
    --help | -h)
        usage
        exit 0
        ;;
    --overwrite)
        overwrite=(--overwrite)
        shift
        continue
        ;;
    --*=*)
        # --name=value is --name value
        set -- "${option%%=*}" "${option#*=}" "${@:2}"
        continue
        ;;
    esac
    known=""
    for name in "${OPTIONS[@]}"; do [[ "$name" == "$option" ]] && known=1; done
    [[ -n "$known" ]] || fail "unknown option $option; known: ${OPTIONS[*]}"
    [[ $# -ge 2 && -n "$value" ]] || fail "$option needs a value (see --help)"
    shift 2
    case "$option" in
    --dataset)
        [[ "$value" != *[[:space:]/]* ]] || fail "--dataset \"$value\": a name without spaces and slashes; repeat --dataset for several"
        names+=("$value")
        ;;
    --data_path)
        [[ -f "$value" ]] || fail "$value: no such file"
        data+=(--data_path "$(absolute "$value")")
        judge_data+=(--text_path "$(absolute "$value")")
        default_name="$(basename "${value%.*}" | tr -c 'A-Za-z0-9_\n' '_')"
        ;;
    --text_column)
        data+=("$option" "$value")
        judge_data+=("$option" "$value")
        ;;
    --label_column) labels+=("$option" "$value") ;;
    --judge)
        [[ "$value" != oracle ]] || fail "--judge oracle answers by the labels: for analysis, with predict_triplet.sh alone"
        kind="$value"
        judge+=("$option" "$value")
        ;;
    --perspective | --load_in | --budget | --price_in | --price_out) judge+=("$option" "$value") ;;
    --base_url)
        server=1
        judge+=("$option" "$value")
        ;;
    --recorded_path)
        [[ -f "$value" ]] || fail "$value: no such file"
        recorded="$(absolute "$value")"
        judge+=("$option" "$recorded")
        ;;
    --recipe) recipe+=("$option" "$value") ;;
    --rounds)
        [[ "$value" =~ ^[1-9][0-9]*$ ]] || fail "--rounds $value: must be a whole number of at least 1"
        rounds="$value"
        ;;
    --embedder) export EMBEDDER="${value%/}" ;;
    --llm) export LLM="${value%/}" ;;
    --scale) export SCALE="$value" ;;
    --max_query) export MAX_QUERY="$value" ;;
    --seed) export SEED="$value" ;;
    esac
done
[[ ${#data[@]} -eq 0 || -n "${default_name:-}" ]] || fail "--text_column needs --data_path"
[[ ${#names[@]} -le 1 || -z "${default_name:-}" ]] || fail "--data_path takes one --dataset, which names it"
[[ $rounds -eq 1 || -z "$recorded" ]] || fail "--rounds needs a judge that can be asked again; --recorded_path cannot"
[[ ${#names[@]} -le 1 || -z "$recorded" ]] || fail "--recorded_path takes one --dataset"

bash "$HERE/setup.sh"
# shellcheck source=scripts/common.sh
source "$HERE/common.sh"
STAGE1="$ROOT/perspective/1_predict_triplet/scripts"
STAGE2="$ROOT/perspective/2_finetune/scripts"

# data
if [[ -n "${default_name:-}" ]]; then
    DATASETS="${names[0]:-$default_name}"
else
    [[ ${#names[@]} -eq 0 ]] || DATASETS="${names[*]}"
    [[ " $DATASETS " != *" all "* ]] || DATASETS="banking77 few_nerd_nat mtop_domain stackexchange"
    # shellcheck disable=SC2086  # separate words
    bash "$HERE/fetch_datasets.sh" $DATASETS --or_demo || {
        status=$?
        [[ $status -eq 3 ]] || exit "$status"
        echo "no data set can be reached: going on with the demo texts in datasets/demo" >&2
        DATASETS=demo
    }
fi
export DATASETS

# ${array[@]+"${array[@]}"}: bash 3.2, that of macOS, calls an empty array unset.
step() {
    echo >&2
    echo "== $1" >&2
    shift
    bash "$@"
}

# The six stages; $1 is the round. Returns 3 where a later round would gain nothing.
run_stages() {
    local name="${LLM}" further=()
    [[ "$1" == 1 ]] || further=(--stop_unless_believed)
    step "1 embed and measure" "$STAGE2/get_embedding_gte.sh" ${data[@]+"${data[@]}"} ${labels[@]+"${labels[@]}"} ${overwrite[@]+"${overwrite[@]}"} || return
    if [[ -z "$recorded" ]]; then
        step "2 sample triplets" "$STAGE1/triplet_sampling.sh" ${data[@]+"${data[@]}"} ${labels[@]+"${labels[@]}"} ${overwrite[@]+"${overwrite[@]}"} || return
    fi
    step "3 judge" "$STAGE1/predict_triplet.sh" ${judge_data[@]+"${judge_data[@]}"} ${judge[@]+"${judge[@]}"} ${overwrite[@]+"${overwrite[@]}"} || return
    # The later stages find the run by the judge's name in its files: the LLM's, and how it is asked
    # where that is not its default.
    if [[ -n "$recorded" ]]; then
        name=recorded
    elif [[ -n "$server" ]]; then
        name="$LLM" # a server is asked for choices, however that is said
    elif [[ "$kind" == pair || "$kind" == choice || ("$kind" == reward && "$LLM" != starling-rm) ]]; then
        name="$LLM-$kind"
    fi
    export LLM="$name"
    step "4 convert to training triplets" "$STAGE2/convert_triplet.sh" ${data[@]+"${data[@]}"} ${overwrite[@]+"${overwrite[@]}"} || return
    step "4 convert answer states" "$STAGE2/convert_states.sh" ${further[@]+"${further[@]}"} ${overwrite[@]+"${overwrite[@]}"} || return
    step "5 fine-tune" "$STAGE2/finetune_gte.sh" ${data[@]+"${data[@]}"} ${recipe[@]+"${recipe[@]}"} ${overwrite[@]+"${overwrite[@]}"} || return
    step "6 embed and measure again" "$STAGE2/get_finetuned_embedding_gte.sh" --blend ${data[@]+"${data[@]}"} ${labels[@]+"${labels[@]}"} ${overwrite[@]+"${overwrite[@]}"} || return
    echo >&2
    bash "$HERE/compare.sh"
}

asked="$LLM"
run_stages 1
all_datasets="$DATASETS"
first="$EMBEDDER"
for dataset in $all_datasets; do
    export DATASETS="$dataset" EMBEDDER="$first"
    for ((round = 2; round <= rounds; round++)); do
        # The next round begins with the embedder of the last one.
        EMBEDDER="$("$PYTHON" -m perspective.layout "$dataset" "$SCALE" "$EMBEDDER" "$MAX_QUERY" "$SEED" "$LLM")"
        export EMBEDDER LLM="$asked"
        echo "== round $round of $dataset" >&2
        status=0
        run_stages "$round" || status=$?
        [[ $status -ne 3 ]] || break
        [[ $status -eq 0 ]] || exit "$status"
    done
done
