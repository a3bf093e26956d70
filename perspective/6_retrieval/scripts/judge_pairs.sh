#!/usr/bin/env bash
# Weights the pairs by a judge and drops false negatives.
# Settings: DATASETS EMBEDDER LLM SEED (environment); other options are passed on, see --help.
set -euo pipefail
DATASETS="${DATASETS:-docstrings}"
source "$(dirname "${BASH_SOURCE[0]}")/../../../scripts/common.sh"

run_for_each_dataset perspective.6_retrieval.judge_pairs --embedder "$EMBEDDER" --llm "$LLM" --seed "$SEED" "$@"
