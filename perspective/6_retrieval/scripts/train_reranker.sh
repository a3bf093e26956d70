#!/usr/bin/env bash
# Trains a reranker on the embedder's own hard negatives.
# Settings: DATASETS EMBEDDER SEED (environment); other options are passed on, see --help.
set -euo pipefail
DATASETS="${DATASETS:-docstrings}"
source "$(dirname "${BASH_SOURCE[0]}")/../../../scripts/common.sh"

run_for_each_dataset perspective.6_retrieval.train_reranker --embedder "$EMBEDDER" --seed "$SEED" "$@"
