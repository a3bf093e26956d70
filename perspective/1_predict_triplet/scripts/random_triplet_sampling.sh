#!/usr/bin/env bash
# Samples triplets at random: the control.
# Settings: DATASETS SCALE MAX_QUERY SEED (environment); other options are passed on, see --help.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/../../../scripts/common.sh"

for_each_dataset perspective.1_predict_triplet.random_triplet_sampling --max_query "$MAX_QUERY" --seed "$SEED" "$@"
