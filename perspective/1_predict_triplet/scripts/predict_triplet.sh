#!/usr/bin/env bash
# Judges which choice of each sampled triplet is closer to its query.
# Settings: DATASETS SCALE EMBEDDER LLM MAX_QUERY SEED (environment); other options are passed on, see --help.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/../../../scripts/common.sh"

for_each_dataset perspective.1_predict_triplet.predict_triplet --embedder "$EMBEDDER" --llm "$LLM" --max_query "$MAX_QUERY" --seed "$SEED" "$@"
