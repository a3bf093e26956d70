#!/usr/bin/env bash
# Keeps the examples that survive the checks, and makes training pairs for stage 6.
# Settings: DATASETS EMBEDDER LLM SEED (environment); other options are passed on, see --help.
set -euo pipefail
DATASETS="${DATASETS:-free}"
source "$(dirname "${BASH_SOURCE[0]}")/../../../scripts/common.sh"

run_for_each_dataset perspective.4_synthesize.filter --embedder "$EMBEDDER" --llm "$LLM" --seed "$SEED" "$@"
