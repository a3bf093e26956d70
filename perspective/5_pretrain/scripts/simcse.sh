#!/usr/bin/env bash
# Trains an embedder by SimCSE, such as one that mntp.sh wrote.
# Settings: DATASETS EMBEDDER SCALE SEED LAUNCH (environment); other options are passed on, see --help.
set -euo pipefail
EMBEDDER="${EMBEDDER:-smollm2}"
source "$(dirname "${BASH_SOURCE[0]}")/../../../scripts/common.sh"

use_launcher
for_each_dataset perspective.5_pretrain.simcse --embedder "$EMBEDDER" --seed "$SEED" "$@"
