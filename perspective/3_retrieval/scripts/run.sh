#!/usr/bin/env bash
# The retrieval stage from end to end, on the docstrings of the installed packages: makes the set, evaluates the
# embedder and BM25, mines hard negatives, trains, evaluates again and compares, query by query.
# Settings: EMBEDDER SEED MAX_PAIRS MAX_LENGTH (environment); the last two keep it short on a CPU.
set -euo pipefail
export EMBEDDER="${EMBEDDER:-minilm}" DATASETS=docstrings COLLECTION=docstrings
here="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
bash "$here/../../../scripts/setup.sh" --retrieval
source "$here/../../../scripts/common.sh"
cd "$ROOT"

bash "$here/make_docs_set.sh"
bash "$here/evaluate.sh" --retriever bm25
bash "$here/evaluate.sh"
bash "$here/mine_negatives.sh"
bash "$here/finetune.sh" --max_pairs "${MAX_PAIRS:-1024}" --max_source_length "${MAX_LENGTH:-128}"
before="$("$PYTHON" -m perspective.retrieval.places docstrings "$EMBEDDER")"
EMBEDDER="perspective/3_retrieval/checkpoints/$(basename "$before" .json)" bash "$here/evaluate.sh" --compare "$before"
