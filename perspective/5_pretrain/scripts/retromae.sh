#!/usr/bin/env bash
# Pre-trains an encoder by RetroMAE, or with --objective mlm by masked tokens alone.
# Settings: DATASETS EMBEDDER SCALE SEED LAUNCH (environment); other options are passed on, see --help.
set -euo pipefail
EMBEDDER="${EMBEDDER:-google-bert/bert-base-uncased}"
source "$(dirname "${BASH_SOURCE[0]}")/../../../scripts/common.sh"

use_launcher
for_each_dataset perspective.5_pretrain.retromae --embedder "$EMBEDDER" --seed "$SEED" "$@"
