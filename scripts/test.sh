#!/usr/bin/env bash
# Sets up, then checks style, types, imports and scripts, and runs the tests.
# Usage: bash scripts/test.sh [PYTEST OPTION...]    e.g. -m "not slow and not real" for the fast ones
set -euo pipefail

bash "$(dirname "${BASH_SOURCE[0]}")/setup.sh" --dev
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"
cd "$ROOT"

echo "== ruff" >&2
ruff check .
ruff format --check .
echo "== mypy" >&2
mypy
echo "== import-linter" >&2
lint-imports
echo "== shellcheck" >&2
shellcheck -x -P SCRIPTDIR scripts/*.sh perspective/*/scripts/*.sh .ci/run
echo "== pytest" >&2
# Two processes of one thread: most tests run tiny models, which a second thread makes no faster. Tests of one file share
# fixtures; the files keep their order, for those with few tests, which xdist would run last, run longest. Tests start
# Python as users do, who have no PYTHONSAFEPATH.
OMP_NUM_THREADS=${OMP_NUM_THREADS:-1} env -u PYTHONSAFEPATH python -m pytest -q -n 2 --dist loadfile --no-loadscope-reorder "$@"
