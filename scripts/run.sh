#!/usr/bin/env bash
# Runs the whole pipeline: set-up, data, all steps, the comparison before and after, the page about the clusters.
set -euo pipefail

HERE="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"

usage() {
    cat <<'HELP'
usage: bash scripts/run.sh [OPTION...]

Adapts a small text embedder to a perspective with the judgments of a small LLM, and measures the
clustering before and after. Finished stages are recognised and skipped; a killed run resumes.

  --dataset NAME       banking77 (default), few_nerd_nat, mtop_domain, stackexchange, or all of these;
                       clinc, clinc_domain, massive_scenario, go_emotion, reddit, demo; may be repeated.
                       EMBWITHLLM_DATASETS names a folder to take them from
  --data_path FILE     your own texts (.jsonl, .csv, .parquet); --dataset then only names them
  --text_column NAME   field that holds the text (default: input)
  --label_column NAME  field that holds the label, if there is one (default: label)
  --perspective WORDS  what texts of one cluster should share, such as "intent" (default for your
                       own texts: topic)
  --embedder NAME      minilm (default, no download), gte, e5, a sentence-transformers id, a folder
  --llm NAME           smollm2 (default, no download), starling, starling-rm, a hub id, a folder,
                       a .gguf file, or with --base_url a model name on the server
  --max_text_tokens N  tokens of each text that the judge "answer" reads (default: 256); a warning says
                       how many texts are longer
  --load_in FORM       4bit or 8bit: a larger LLM on a smaller CUDA card
  --base_url URL       an OpenAI-compatible server judges; its key from LLM_SERVER_KEY, OpenAI's from
                       OPENAI_API_KEY
  --budget MONEY       the most that the server may cost, over all runs of one file: a request is sent
                       only if its estimated cost is still covered. Needs --price_in MONEY and
                       --price_out MONEY, for a million tokens read and written. A higher budget
                       later asks only what is left
  --recorded_path FILE use earlier predictions, ours or published, instead of an LLM
  --judge NAME         answer (default for a local LLM: reads each text once and needs no triplets),
                       pair, choice, reward
  --states_llm NAME    LLM whose answer states are used beside judged triplets (default: smollm2);
                       none leaves them out
  --recipe NAME        distill (default: learn from a teacher made of all evidence), standard (learn
                       from triplets), published (triplets; batch 2, learning rate 5e-7, 8 epochs)
  --n_clusters N       number of clusters that the page shows (default: estimated without labels)
  --no_describe        leave out step 7: clusters, their names, the map and the page
  --rounds N           adapt the adapted embedder again, N rounds in total (default: 1)
  --adapt_on N         adapt the embedder on a random sample of N texts (20000 suits a million), then embed
                       all texts with it, into after_measures/
  --scale NAME         small (default) or large
  --max_query N        number of triplets to judge, if any are (default: 1024)
  --seed N             random seed of sampling and training (default: 100)
  --overwrite          replace existing output
  --help               show this

Also read from the environment: DATASETS, EMBEDDER, LLM, MAX_QUERY, SEED, SCALE; and LAUNCH, which
starts embedding and fine-tuning in several processes ("torchrun --nproc_per_node 8").
HELP
}

fail() {
    echo "error: $*" >&2
    exit 2
}

names=()
# Options of the stages that ...
data=()   # ... read texts
labels=() # ... read labels
reader=() # ... read answer states or judge
states=() # ... read answer states
load_in=() # of the judge's LLM
judge=()  # ... judge
recipe=()
overwrite=()
data_path=""
recorded=""
rounds=1
adapt_on=""
states_llm=""
describe=1
n_clusters=()
server=() # of judge: those that name_clusters.sh takes too
OPTIONS=(--dataset --data_path --text_column --label_column --perspective --embedder --llm --max_text_tokens --load_in
    --judge --base_url --budget --price_in --price_out --recorded_path --states_llm --recipe --rounds --adapt_on --scale
    --max_query --seed --n_clusters --no_describe --overwrite --help)

absolute() { # prints an absolute path, since the working directory changes
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
    --no_describe)
        describe=""
        shift
        continue
        ;;
    --*=*)
        # Split --name=value.
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
        data_path="$(absolute "$value")"
        data+=(--data_path "$data_path")
        ;;
    --text_column) data+=("$option" "$value") ;;
    --label_column) labels+=("$option" "$value") ;;
    --judge)
        [[ "$value" != oracle ]] || fail "--judge oracle uses the labels: for analysis only, with predict_triplet.sh"
        judge+=("$option" "$value")
        ;;
    --perspective) reader+=("$option" "$value") ;;
    --load_in) load_in=("$option" "$value") ;;
    --max_text_tokens) states+=("$option" "$value") ;;
    --base_url | --budget | --price_in | --price_out)
        judge+=("$option" "$value")
        server+=("$option" "$value")
        ;;
    --n_clusters)
        [[ "$value" =~ ^[1-9][0-9]*$ ]] || fail "--n_clusters $value: must be a whole number of at least 1"
        n_clusters=("$option" "$value")
        ;;
    --recorded_path)
        [[ -f "$value" ]] || fail "$value: no such file"
        recorded="$(absolute "$value")"
        judge+=("$option" "$recorded")
        ;;
    --states_llm) states_llm="${value%/}" ;;
    --adapt_on)
        [[ "$value" =~ ^[1-9][0-9]*$ ]] || fail "--adapt_on $value: must be a whole number of at least 1"
        adapt_on="$value"
        ;;
    --recipe)
        [[ "$value" =~ ^(distill|standard|published)$ ]] || fail "--recipe $value: choose distill, standard or published"
        recipe=("$option" "$value")
        ;;
    --rounds)
        [[ "$value" =~ ^[1-9][0-9]*$ ]] || fail "--rounds $value: must be a whole number of at least 1"
        rounds="$value"
        ;;
    --embedder) export EMBEDDER="$value" ;;
    --llm) export LLM="$value" ;;
    --scale) export SCALE="$value" ;;
    --max_query) export MAX_QUERY="$value" ;;
    --seed)
        [[ "$value" =~ ^[0-9]+$ ]] || fail "--seed $value: must be a whole number of at least 0"
        export SEED="$value"
        ;;
    esac
done
[[ ${#data[@]} -eq 0 || -n "$data_path" ]] || fail "--text_column needs --data_path"
[[ ${#names[@]} -le 1 || -z "$data_path" ]] || fail "--data_path takes one --dataset, which names it"
[[ $rounds -eq 1 || -z "$recorded" ]] || fail "--rounds needs a judge that can be asked again; --recorded_path cannot"
[[ -z "$adapt_on" || -z "$recorded" ]] || fail "--adapt_on takes triplets of its sample; --recorded_path has others"
[[ ${#names[@]} -le 1 || -z "$recorded" ]] || fail "--recorded_path takes one --dataset"

bash "$HERE/setup.sh"
# shellcheck source=scripts/common.sh
source "$HERE/common.sh"
STAGE1="$ROOT/perspective/1_predict_triplet/scripts"
STAGE2="$ROOT/perspective/2_finetune/scripts"
STAGE3="$ROOT/perspective/3_describe/scripts"

# data
if [[ -n "$data_path" ]]; then
    DATASETS="${names[0]:-$("$PYTHON" -m perspective.layout "$data_path")}"
    # A file that happens to be called as a data set of ours has its own perspective.
    if [[ ${#names[@]} -eq 0 && " ${reader[*]-} " != *" --perspective "* ]]; then
        echo 'perspective: topic; set another with --perspective "..."' >&2
        reader+=(--perspective topic)
    fi
else
    [[ ${#names[@]} -eq 0 ]] || DATASETS="${names[*]}"
    if [[ " $DATASETS " == *" all "* ]]; then
        chosen="banking77 few_nerd_nat mtop_domain stackexchange"
        for one in $DATASETS; do [[ "$one" == all || " $chosen " == *" $one "* ]] || chosen+=" $one"; done
        DATASETS="$chosen"
    fi
    # shellcheck disable=SC2086  # separate words
    bash "$HERE/fetch_datasets.sh" $DATASETS --or_demo || {
        status=$?
        [[ $status -eq 3 ]] || exit "$status"
        echo "no data set can be fetched: continuing with the demo texts in datasets/demo" >&2
        DATASETS=demo
    }
fi
whole=(${data[@]+"${data[@]}"} ${overwrite[@]+"${overwrite[@]}"}) # options that read all texts
read -ra sources <<<"$DATASETS"
if [[ -n "$adapt_on" ]]; then
    # The sample is a data set of its own: the stages run on it as on any other.
    samples=()
    for source in "${sources[@]}"; do
        samples+=("$("$PYTHON" -m perspective.data.sample --dataset "$source" --scale "$SCALE" --adapt_on "$adapt_on" \
            ${whole[@]+"${whole[@]}"} ${labels[@]+"${labels[@]}"})")
    done
    DATASETS="${samples[*]}"
    data=()
    labels=()
fi
export DATASETS

# ${array[@]+"${array[@]}"}: an empty array counts as unset in bash 3.2, the version of macOS.
texts=(${data[@]+"${data[@]}"} ${overwrite[@]+"${overwrite[@]}"})

step() {
    echo >&2
    echo "== $1" >&2
    shift
    bash "$@"
}

# The kind of judge and its name in file names, from Python.
description="$("$PYTHON" -m perspective.judging.settings --llm "$LLM" ${judge[@]+"${judge[@]}"})"
read -r kind name <<<"$description"
llm="$LLM"
# --judge server without a URL asks OpenAI; clusters are named by the same.
[[ "$kind" != server || " ${server[*]-} " == *" --base_url "* ]] || server+=(--base_url https://api.openai.com/v1)

# A teacher is made of answer states, judged triplets or both; the other recipes learn from triplets alone.
teach=1
[[ "${recipe[1]:-distill}" == distill ]] || teach=""
triplets=1
if [[ "$kind" == answer ]]; then
    [[ "${states_llm:-$llm}" == "$llm" ]] || fail "--states_llm $states_llm: is for judged triplets only; here answer states are read from --llm"
    states_llm="$llm"
    [[ -z "$teach" ]] || triplets=""
elif [[ -z "$teach" ]]; then
    [[ "${states_llm:-none}" == none ]] || fail "--states_llm $states_llm: recipe ${recipe[1]} learns from triplets alone"
    states_llm=none
fi
states_llm="${states_llm:-smollm2}"
[[ "$states_llm" != "$llm" ]] || states+=(${load_in[@]+"${load_in[@]}"})
reread=(${overwrite[@]+"${overwrite[@]}"})

run_stages() {
    local judged=()
    export LLM="$llm"
    step "1 embed and measure" "$STAGE2/get_embedding_gte.sh" ${texts[@]+"${texts[@]}"} ${labels[@]+"${labels[@]}"}
    if [[ -n "$triplets" && -z "$recorded" ]]; then
        step "3 sample triplets" "$STAGE1/triplet_sampling.sh" ${texts[@]+"${texts[@]}"} ${labels[@]+"${labels[@]}"}
    fi
    if [[ "$states_llm" != none ]]; then
        LLM="$states_llm" step "2 read answer states" "$STAGE1/read_states.sh" ${states[@]+"${states[@]}"} ${reader[@]+"${reader[@]}"} ${data[@]+"${data[@]}"} ${reread[@]+"${reread[@]}"}
        reread=() # later rounds read the same
    fi
    if [[ -n "$triplets" ]]; then
        step "3 judge triplets" "$STAGE1/predict_triplet.sh" ${reader[@]+"${reader[@]}"} ${load_in[@]+"${load_in[@]}"} ${judge[@]+"${judge[@]}"} ${texts[@]+"${texts[@]}"}
    fi
    export LLM="$name" # the later stages find the judge's files by its name
    if [[ -n "$triplets" ]]; then
        step "4 convert to training triplets" "$STAGE2/convert_triplet.sh" ${texts[@]+"${texts[@]}"}
        if [[ -n "$teach" ]]; then
            # The teacher is made of the vectors of an embedder that has learned the triplets.
            step "5 fine-tune on triplets" "$STAGE2/finetune_gte.sh" --recipe standard ${texts[@]+"${texts[@]}"}
            step "6 embed and measure" "$STAGE2/get_finetuned_embedding_gte.sh" --recipe standard ${texts[@]+"${texts[@]}"} ${labels[@]+"${labels[@]}"}
            judged=(--judged)
        fi
    fi
    if [[ -n "$teach" ]]; then
        step "4 make the teacher" "$STAGE2/convert_states.sh" --states_llm "$states_llm" ${judged[@]+"${judged[@]}"} ${overwrite[@]+"${overwrite[@]}"}
    fi
    step "5 fine-tune" "$STAGE2/finetune_gte.sh" ${recipe[@]+"${recipe[@]}"} ${texts[@]+"${texts[@]}"}
    step "6 embed and measure again" "$STAGE2/get_finetuned_embedding_gte.sh" ${recipe[@]+"${recipe[@]}"} ${texts[@]+"${texts[@]}"} ${labels[@]+"${labels[@]}"}
    echo >&2
    bash "$HERE/compare.sh" ${recipe[@]+"${recipe[@]}"}
}

# Prints the path of file $1 (checkpoint, embeds) of data set $2 and embedder $3.
find_file() {
    "$PYTHON" -m perspective.layout "$1" "$2" "$SCALE" "$3" "$MAX_QUERY" "$SEED" "$name" "${recipe[1]:-}"
}

# Describes the clusters of the run that the settings name; its last line says what to open.
describe_clusters() {
    local namer="$llm" before=()
    [[ "$kind" != reward ]] || namer=none # it scores texts and writes none: keywords are the names
    # "Before" is what the first round began with; later rounds begin with what has learned from the LLM.
    [[ "$EMBEDDER" == "$first" ]] || before=(--feat_path "$(find_file embeds "$dataset" "$first")")
    step "7 describe: count clusters" "$STAGE3/count_clusters.sh" --states_llm "$states_llm" ${before[@]+"${before[@]}"} ${recipe[@]+"${recipe[@]}"} ${n_clusters[@]+"${n_clusters[@]}"} ${texts[@]+"${texts[@]}"}
    step "7 describe: cluster" "$STAGE3/cluster.sh" ${recipe[@]+"${recipe[@]}"} ${texts[@]+"${texts[@]}"}
    step "7 describe: name clusters" "$STAGE3/name_clusters.sh" --naming_llm "$namer" --or_keywords ${recipe[@]+"${recipe[@]}"} ${reader[@]+"${reader[@]}"} ${load_in[@]+"${load_in[@]}"} ${server[@]+"${server[@]}"} ${texts[@]+"${texts[@]}"}
    step "7 describe: draw the map" "$STAGE3/draw_map.sh" ${before[@]+"${before[@]}"} ${recipe[@]+"${recipe[@]}"} ${overwrite[@]+"${overwrite[@]}"}
}

run_stages
read -ra all_datasets <<<"$DATASETS"
first="$EMBEDDER"
for i in "${!all_datasets[@]}"; do
    dataset="${all_datasets[i]}"
    export DATASETS="$dataset" EMBEDDER="$first"
    adapted="$first" # the embedder that the last round adapted
    for ((round = 2; round <= rounds; round++)); do
        # Each round starts from the embedder of the previous one.
        EMBEDDER="$(find_file checkpoint "$dataset" "$EMBEDDER")"
        export EMBEDDER
        echo "== round $round of $dataset" >&2
        run_stages
        adapted="$EMBEDDER"
    done
    [[ -z "$describe" ]] || EMBEDDER="$adapted" LLM="$name" describe_clusters
    if [[ -n "$adapt_on" ]]; then
        checkpoint="$(find_file checkpoint "$dataset" "$EMBEDDER")"
        DATASETS="${sources[i]}" step "8 embed all texts" "$STAGE2/get_embedding_gte.sh" --checkpoint "$checkpoint" --no_measure ${whole[@]+"${whole[@]}"}
    fi
done
