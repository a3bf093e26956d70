#!/usr/bin/env bash
# Creates datasets/gnome-help-* and datasets/libreoffice-help-* from help pages in Korean and English.
# Options are passed on, see --help.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/../../../scripts/common.sh"

"$PYTHON" -m perspective.6_retrieval.make_help_set "$@"
