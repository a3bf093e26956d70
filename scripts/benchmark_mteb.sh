#!/usr/bin/env bash
# Measures clustering tasks of mteb before and after adapting the embedder to each task's own texts; needs the hub.
# Finished tasks are kept. Writes measures/benchmark_mteb.{json,md}, and results in mteb's format.
# Usage: bash scripts/benchmark_mteb.sh [--tasks NAME...] [--embedder NAME] [--llm NAME] [--perspective WORDS]
#        [--adapt_on N] [--seed N] [--output_path FOLDER]
set -euo pipefail

HERE="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
bash "$HERE/setup.sh" --retrieval
source "$HERE/common.sh"
"$PYTHON" -m perspective.benchmarks.mteb_clustering "$@"
