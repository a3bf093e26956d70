#!/usr/bin/env bash
# Creates datasets/docstrings, a retrieval set from the docstrings of installed packages.
# Options are passed on, see --help.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/../../../scripts/common.sh"

"$PYTHON" -m perspective.6_retrieval.make_docs_set "$@"
