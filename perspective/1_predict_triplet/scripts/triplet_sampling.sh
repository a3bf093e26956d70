#!/usr/bin/env bash
# Samples triplets for the texts that the embedder is most uncertain about.
# Settings: DATASETS SCALE EMBEDDER MAX_QUERY SEED (environment); other options are passed on, see --help.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/../../../scripts/common.sh"

for_each_dataset perspective.1_predict_triplet.triplet_sampling --embedder "$EMBEDDER" --max_query "$MAX_QUERY" --seed "$SEED" "$@"
