#!/usr/bin/env bash
# Gets data sets into datasets/, from this machine or the net, checked by sha256.
# Usage: bash scripts/fetch_datasets.sh [NAME...]    (all when none is named)
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

exec "$PYTHON" -m perspective.data.fetching "$@"
