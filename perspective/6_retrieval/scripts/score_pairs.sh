#!/usr/bin/env bash
# Writes a reranker's scores of the mined pairs, for finetune.sh --distill.
# Settings: DATASETS EMBEDDER (environment); other options are passed on, see --help.
set -euo pipefail
DATASETS="${DATASETS:-docstrings}"
source "$(dirname "${BASH_SOURCE[0]}")/../../../scripts/common.sh"

run_for_each_dataset perspective.6_retrieval.score_pairs --embedder "$EMBEDDER" "$@"
