#!/usr/bin/env bash
# Filters weak pairs by the embedder's ranking, and mines hard negatives.
# Settings: DATASETS EMBEDDER SEED (environment); other options are passed on, see --help.
set -euo pipefail
DATASETS="${DATASETS:-docstrings}"
source "$(dirname "${BASH_SOURCE[0]}")/../../../scripts/common.sh"

run_for_each_dataset perspective.6_retrieval.mine_negatives --embedder "$EMBEDDER" --seed "$SEED" "$@"
