#!/usr/bin/env bash
# Times our stages against common alternatives; run it on an idle machine.
# Usage: bash scripts/benchmark_speed.sh [STAGE ...] [-- OPTION ...]    stages: loss training embedding sampling
#        kmeans judging states memory teacher describing naming mapping assigning writing decoders hybrid;
#        e.g. bash scripts/benchmark_speed.sh loss kmeans -- --n_pairs 5
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"
cd "$ROOT"

stages=()
while [[ $# -gt 0 && "$1" != -* ]]; do
    stages+=("$1")
    shift
done
[[ "${1:-}" == "--" ]] && shift
exec "$PYTHON" -m perspective.benchmarks.speed_table ${stages[@]+--stages "${stages[@]}"} "$@"
