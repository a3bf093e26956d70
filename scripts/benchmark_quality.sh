#!/usr/bin/env bash
# Runs the study of docs/ablations.md: the method, its ablations and control experiments on eight data sets,
# with 3 training seeds x 5 k-means seeds. Finished cells are kept.
# Usage: bash scripts/benchmark_quality.sh [--dataset NAME...] [--arm NAME...] [--seeds N...] [--llm NAME] [--recorded FOLDER]
#        [--output_path FOLDER]
set -euo pipefail

HERE="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
bash "$HERE/setup.sh"
source "$HERE/common.sh"
bash "$HERE/fetch_datasets.sh" all
"$PYTHON" -m perspective.benchmarks.quality "$@"
