#!/usr/bin/env bash
# Names the clusters of a run and the branches of their tree.
# Settings: DATASETS SCALE EMBEDDER LLM MAX_QUERY SEED (environment); other options are passed on, see --help.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/../../../scripts/common.sh"

for_each_dataset perspective.3_describe.name_clusters --embedder "$EMBEDDER" --llm "$LLM" --max_query "$MAX_QUERY" --seed "$SEED" "$@"
