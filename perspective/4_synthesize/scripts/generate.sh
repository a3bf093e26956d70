#!/usr/bin/env bash
# Asks an LLM for examples: free ones, or with --documents_path queries of your documents.
# Settings: DATASETS LLM SEED (environment); other options are passed on, see --help.
set -euo pipefail
DATASETS="${DATASETS:-free}"
source "$(dirname "${BASH_SOURCE[0]}")/../../../scripts/common.sh"

run_for_each_dataset perspective.4_synthesize.generate --llm "$LLM" --seed "$SEED" "$@"
