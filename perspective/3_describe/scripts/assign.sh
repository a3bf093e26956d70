#!/usr/bin/env bash
# Assigns new texts to the clusters of a run: assign.sh --data_path new.csv
# Settings: DATASETS SCALE EMBEDDER LLM MAX_QUERY SEED (environment); other options are passed on, see --help.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/../../../scripts/common.sh"

for_each_dataset perspective.3_describe.assign --embedder "$EMBEDDER" --llm "$LLM" --max_query "$MAX_QUERY" --seed "$SEED" "$@"
