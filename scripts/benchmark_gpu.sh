#!/usr/bin/env bash
# Times embedding, choice judging, reading answer states and fine-tuning with models of real shapes and random
# weights (BERT-large as gte-large, Mistral-7B as Starling-LM); writes measures/benchmark_gpu.{json,md}.
# Installs and downloads nothing: uses .venv if it exists, else the python in the PATH.
# Usage: bash scripts/benchmark_gpu.sh [--size real|tiny] [--parts encode finetune choice states]
set -euo pipefail

HERE="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
source "$HERE/common.sh"
export HF_HUB_OFFLINE=1
"$PYTHON" -m perspective.benchmarks.gpu "$@"
