#!/usr/bin/env bash
# Fetches data sets into datasets/, from this machine or the internet, and checks their sha256.
# Usage: bash scripts/fetch_datasets.sh [NAME...]    (default: all)
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

exec "$PYTHON" -m perspective.data.fetching "$@"
