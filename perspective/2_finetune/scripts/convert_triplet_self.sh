#!/usr/bin/env bash
# Makes training triplets from the embedder's own distances: the control.
# Settings: DATASETS SCALE EMBEDDER LLM MAX_QUERY SEED (environment); other options are passed on, see --help.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/../../../scripts/common.sh"

for_each_dataset perspective.2_finetune.convert_triplet_self --embedder "$EMBEDDER" --llm "$LLM" --max_query "$MAX_QUERY" --seed "$SEED" "$@"
