#!/usr/bin/env bash
# Fine-tunes the embedder (EMBEDDER; the name is the published one).
# Settings: DATASETS SCALE EMBEDDER LLM MAX_QUERY SEED LAUNCH (environment); other options are passed on, see --help.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/../../../scripts/common.sh"

use_launcher
for_each_dataset perspective.2_finetune.finetune --embedder "$EMBEDDER" --llm "$LLM" --max_query "$MAX_QUERY" --seed "$SEED" "$@"
