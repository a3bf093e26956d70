#!/usr/bin/env bash
# Times embedding, choice and answer-state judging and fine-tuning on models of the real shapes with
# random weights (BERT-large as gte-large, Mistral-7B as Starling-LM) and writes measures/benchmark_gpu.{json,md}.
# Nothing is installed or downloaded: it takes .venv where there is one, else the python in the PATH.
# Usage: bash scripts/benchmark_gpu.sh [--size real|tiny] [--parts encode finetune choice states]
set -euo pipefail

HERE="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
source "$HERE/common.sh"
export HF_HUB_OFFLINE=1
"$PYTHON" -m perspective.benchmarks.gpu "$@"
