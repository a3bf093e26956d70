#!/usr/bin/env bash
# Indexes a collection for the three ways of an embedder with heads (COLLECTION, default docstrings; EMBEDDER).
# Settings: COLLECTION EMBEDDER (environment); other options are passed on, see --help.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/../../../scripts/common.sh"

"$PYTHON" -m perspective.6_retrieval.index --collection "${COLLECTION:-docstrings}" --embedder "$EMBEDDER" "$@"
