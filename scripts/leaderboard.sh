#!/usr/bin/env bash
# Shows retrieval and clustering results in the browser; new results appear automatically.
# Usage: bash scripts/leaderboard.sh [--port N] [--address HOST] [--root FOLDER]
# The page is served on 127.0.0.1, to this machine only, unless --address is given.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

port=8501 address=127.0.0.1 root="$ROOT"
fail() {
    echo "error: $*" >&2
    exit 2
}

while (($#)); do
    case "$1" in
    --help | -h)
        sed -n '2,4s/^# //p' "${BASH_SOURCE[0]}"
        exit 0
        ;;
    --*=*) set -- "${1%%=*}" "${1#*=}" "${@:2}" ;;
    --port | --address | --root)
        (($# > 1)) || fail "$1 needs a value"
        printf -v "${1#--}" "%s" "$2"
        shift 2
        ;;
    *) fail "unknown option $1; known: --port, --address, --root" ;;
    esac
done
[[ "$port" =~ ^[1-9][0-9]{0,4}$ ]] || fail "--port $port: must be a number from 1 to 65535"
((port <= 65535)) || fail "--port $port: must be a number from 1 to 65535"
[[ -d "$root" ]] || fail "--root $root: no such folder"
"$PYTHON" -c "import streamlit" 2>/dev/null ||
    fail "streamlit is not installed; run: $PYTHON -m pip install -r $ROOT/requirements-retrieval.txt"

exec "$PYTHON" -m streamlit run "$ROOT/perspective/leaderboard/page.py" \
    --server.port "$port" --server.address "$address" --server.headless true --server.fileWatcherType none \
    --browser.gatherUsageStats false --client.toolbarMode minimal --client.showErrorLinks false \
    --theme.base light --theme.primaryColor "#2f6db3" \
    -- --root "$root"
