#!/usr/bin/env bash
# The retrieval stage from end to end, on the docstrings of the installed packages.
set -euo pipefail

usage() {
    cat <<'HELP'
usage: bash perspective/6_retrieval/scripts/run.sh [OPTION...]

Creates a retrieval set from the docstrings of the installed packages, evaluates the embedder and
BM25, mines hard negatives, trains, evaluates again and compares, query by query. Finished stages
are skipped; a killed run resumes.

  --overwrite          overwrite existing output
  --help               show this help

Settings are environment variables: EMBEDDER (default minilm), SEED (100); MAX_PAIRS (1024) and
MAX_LENGTH (128 tokens a text), which keep training short on a CPU; and LAUNCH, to train in several
processes ("torchrun --nproc_per_node 8").
HELP
}

overwrite=()
for option in "$@"; do
    case "$option" in
    --help | -h)
        usage
        exit 0
        ;;
    --overwrite) overwrite=(--overwrite) ;;
    *)
        echo "error: unknown option $option; known: --overwrite --help" >&2
        exit 2
        ;;
    esac
done

export EMBEDDER="${EMBEDDER:-minilm}" DATASETS=docstrings COLLECTION=docstrings
here="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
bash "$here/../../../scripts/setup.sh" --retrieval
source "$here/../../../scripts/common.sh"
cd "$ROOT"

# ${array[@]+"${array[@]}"}: bash 3.2 (macOS) treats an empty array as unset.
step() {
    local script="$1"
    shift
    bash "$here/$script.sh" ${overwrite[@]+"${overwrite[@]}"} "$@"
}

step make_docs_set
step evaluate --retriever bm25
step evaluate
step mine_negatives
step finetune --max_pairs "${MAX_PAIRS:-1024}" --max_source_length "${MAX_LENGTH:-128}"
before="$("$PYTHON" -m perspective.retrieval.layout docstrings "$EMBEDDER")"
EMBEDDER="perspective/6_retrieval/checkpoints/$(basename "$before" .json)" step evaluate --compare "$before"
