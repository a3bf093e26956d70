#!/usr/bin/env bash
# Makes datasets/debian and datasets/modules, labelled texts that were not used to choose any setting.
# Usage: bash scripts/make_held_out_sets.sh [NAME...]    (default: both)
set -euo pipefail
HERE="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
bash "$HERE/setup.sh"
source "$HERE/common.sh"

exec "$PYTHON" -m perspective.data.held_out ${@:+--names "$@"}
