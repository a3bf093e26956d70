# Sourced by every script: root folder, Python environment, settings with their defaults.
# shellcheck shell=bash

ROOT="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
export PYTHONPATH="$ROOT${PYTHONPATH:+:$PYTHONPATH}"
export PYTHONSAFEPATH=1 # modules in the working directory are none of ours

if [[ -f "$ROOT/.venv/bin/activate" ]]; then
    # shellcheck disable=SC1091
    source "$ROOT/.venv/bin/activate"
fi
PYTHON="$(command -v python || command -v python3)"
if [[ ! -d "$ROOT/.venv" ]] && ! "$PYTHON" -c "import importlib.util as u; assert u.find_spec('sentence_transformers')" &>/dev/null; then
    echo "error: the packages are not installed; run: bash scripts/setup.sh" >&2
    exit 2
fi

# Settings; each can be set in the environment.
DATASETS="${DATASETS:-banking77}" # names, separated by spaces
SCALE="${SCALE:-small}"
EMBEDDER="${EMBEDDER:-minilm}" EMBEDDER="${EMBEDDER%/}"
LLM="${LLM:-smollm2}" LLM="${LLM%/}"
MAX_QUERY="${MAX_QUERY:-1024}"
SEED="${SEED:-100}"
LAUNCH="${LAUNCH:-}" # starts embedding and fine-tuning in several processes: "torchrun --nproc_per_node 8"

RUN=("$PYTHON")

# Runs one entry script for each data set.
# Usage: run_for_each_dataset MODULE [OPTION...]
run_for_each_dataset() {
    local module="$1" dataset
    shift
    for dataset in $DATASETS; do
        "${RUN[@]}" -m "$module" --dataset "$dataset" "$@"
    done
}

# The same for the clustering stages, which also take --scale.
for_each_dataset() {
    local module="$1"
    shift
    run_for_each_dataset "$module" --scale "$SCALE" "$@"
}

# For stages that can run in several processes: start them with LAUNCH, if it is set.
use_launcher() {
    [[ -z "$LAUNCH" ]] || read -ra RUN <<<"$LAUNCH"
}
