#!/usr/bin/env bash
# Writes the tables, figures and the picture of README and docs from the committed JSON in measures/.
# Usage: bash scripts/make_docs.sh
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

exec "$PYTHON" -m perspective.leaderboard.pages.docs "$@"
