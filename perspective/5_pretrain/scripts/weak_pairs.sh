#!/usr/bin/env bash
# Makes weak training pairs of documents: headings with their passages, or first sentences with what follows.
# Settings: DATASETS (environment); other options are passed on, see --help.
set -euo pipefail
DATASETS="${DATASETS:-notes}"
source "$(dirname "${BASH_SOURCE[0]}")/../../../scripts/common.sh"

run_for_each_dataset perspective.5_pretrain.weak_pairs "$@"
