#!/usr/bin/env bash
# Reads an LLM's answer state of each text.
# Settings: DATASETS SCALE LLM (environment); other options are passed on, see --help.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/../../../scripts/common.sh"

for_each_dataset perspective.1_predict_triplet.read_states --llm "$LLM" "$@"
