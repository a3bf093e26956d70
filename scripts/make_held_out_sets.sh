#!/usr/bin/env bash
# Makes datasets/debian and datasets/modules, labelled texts that no setting was chosen on.
# Usage: bash scripts/make_held_out_sets.sh [NAME...]    (both when none is named)
set -euo pipefail
HERE="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
bash "$HERE/setup.sh"
source "$HERE/common.sh"

exec "$PYTHON" -m perspective.data.held_out ${@:+--names "$@"}
