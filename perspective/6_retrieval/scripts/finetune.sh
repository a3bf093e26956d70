#!/usr/bin/env bash
# Fine-tunes the embedder on pairs with hard negatives.
# Settings: DATASETS EMBEDDER SEED LAUNCH (environment); other options are passed on, see --help.
set -euo pipefail
DATASETS="${DATASETS:-docstrings}"
source "$(dirname "${BASH_SOURCE[0]}")/../../../scripts/common.sh"

use_launcher
run_for_each_dataset perspective.6_retrieval.train --embedder "$EMBEDDER" --seed "$SEED" "$@"
