#!/usr/bin/env bash
# Lets a decoder attend to both sides and trains it by masked next-token prediction.
# Settings: DATASETS EMBEDDER SCALE SEED LAUNCH (environment); other options are passed on, see --help.
set -euo pipefail
EMBEDDER="${EMBEDDER:-smollm2}"
source "$(dirname "${BASH_SOURCE[0]}")/../../../scripts/common.sh"

use_launcher
for_each_dataset perspective.5_pretrain.mntp --embedder "$EMBEDDER" --seed "$SEED" "$@"
