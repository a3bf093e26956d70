#!/usr/bin/env bash
# Evaluates the embedder on a collection (COLLECTION, default docstrings; EMBEDDER).
# Settings: COLLECTION EMBEDDER (environment); other options are passed on, see --help.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/../../../scripts/common.sh"

"$PYTHON" -m perspective.6_retrieval.evaluate --collection "${COLLECTION:-docstrings}" --embedder "$EMBEDDER" "$@"
