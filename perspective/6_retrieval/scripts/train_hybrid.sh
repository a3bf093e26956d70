#!/usr/bin/env bash
# Trains the embedder with the three heads of M3 on pairs with hard negatives.
# Settings: DATASETS EMBEDDER SEED (environment); other options are passed on, see --help.
set -euo pipefail
DATASETS="${DATASETS:-docstrings}"
source "$(dirname "${BASH_SOURCE[0]}")/../../../scripts/common.sh"

run_for_each_dataset perspective.6_retrieval.train_hybrid --embedder "$EMBEDDER" --seed "$SEED" "$@"
