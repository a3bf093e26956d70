#!/usr/bin/env bash
# Compares the measures before and after: table (text, Markdown, CSV) and bar chart (PNG).
# Settings: DATASETS SCALE EMBEDDER LLM MAX_QUERY SEED (environment); other options are passed on. SEEDS="100 13 21"
# compares runs with these training seeds together; a verdict needs three.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

SEEDS="${SEEDS:-$SEED}"
# shellcheck disable=SC2086  # the names in DATASETS and the numbers in SEEDS are separate words
exec "$PYTHON" -m perspective.2_finetune.compare --datasets $DATASETS --scale "$SCALE" --embedder "$EMBEDDER" --llm "$LLM" \
    --max_query "$MAX_QUERY" --seed "$SEED" --seeds $SEEDS "$@"
