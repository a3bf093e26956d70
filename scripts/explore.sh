#!/usr/bin/env bash
# Opens the texts of a run, with their clusters and their places on the map, in Embedding Atlas: for more texts than the
# page can hold, filters by column and nearest texts. It serves the browser from this machine, until it is stopped.
# Settings: DATASETS SCALE EMBEDDER LLM MAX_QUERY SEED RECIPE (environment); other options go to embedding-atlas.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

command -v embedding-atlas >/dev/null || {
    echo "error: embedding-atlas is not installed; run: $PYTHON -m pip install -r $ROOT/requirements-explore.txt" >&2
    exit 2
}
[[ "$DATASETS" != *[[:space:]]* ]] || {
    echo "error: DATASETS=\"$DATASETS\": explore one data set at a time" >&2
    exit 2
}
table="$("$PYTHON" -m perspective.3_describe.export_map --dataset "$DATASETS" --scale "$SCALE" --embedder "$EMBEDDER" --llm "$LLM" \
    --max_query "$MAX_QUERY" --seed "$SEED" ${RECIPE:+--recipe "$RECIPE"})"
# Its own counts of use stay off: nothing leaves this machine.
exec embedding-atlas "$table" --text text --x x --y y "$@"
