#!/usr/bin/env bash
# Embeds the texts with the fine-tuned embedder and measures, into after_measures/.
# Settings: DATASETS SCALE EMBEDDER LLM MAX_QUERY SEED LAUNCH (environment); other options are passed on,
# see --help.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/../../../scripts/common.sh"

use_launcher
for_each_dataset perspective.2_finetune.get_embedding --finetuned --embedder "$EMBEDDER" --llm "$LLM" \
    --max_query "$MAX_QUERY" --seed "$SEED" "$@"
