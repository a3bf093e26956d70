#!/usr/bin/env bash
# Embeds the texts and measures (EMBEDDER; the name is the published one).
# Settings: DATASETS SCALE EMBEDDER LAUNCH (environment); other options are passed on, see --help.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/../../../scripts/common.sh"

use_launcher
for_each_dataset perspective.2_finetune.get_embedding --embedder "$EMBEDDER" "$@"
