#!/usr/bin/env bash
# Fine-tunes the embedder on pairs with hard negatives.
# Settings: DATASETS EMBEDDER SEED (environment); other options are passed on, see --help.
set -euo pipefail
DATASETS="${DATASETS:-docstrings}"
source "$(dirname "${BASH_SOURCE[0]}")/../../../scripts/common.sh"

for dataset in $DATASETS; do
    "$PYTHON" -m perspective.3_retrieval.train --dataset "$dataset" --embedder "$EMBEDDER" --seed "$SEED" "$@"
done
