#!/usr/bin/env bash
# Measures adapted embedders on texts that they were not adapted on; after benchmark_quality.sh, whose vectors and
# answer states it uses. Finished cells are kept.
# Usage: bash scripts/benchmark_unseen.sh [--dataset NAME...] [--seeds N...] [--llm NAME] [--output_path FOLDER]
set -euo pipefail

HERE="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
bash "$HERE/setup.sh"
source "$HERE/common.sh"
bash "$HERE/fetch_datasets.sh" all
"$PYTHON" -m perspective.benchmarks.unseen "$@"
