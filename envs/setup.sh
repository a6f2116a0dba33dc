#!/bin/sh
# Create or refresh .venv from the hash-pinned lock. Needs Linux and Python >= 3.11, nothing else.
set -eu
cd "$(dirname "$0")/.."

fail() {
    echo "featurespace: $*" >&2
    exit 1
}

stamp=.venv/installed
digest=$(cat envs/requirements.lock envs/bootstrap.lock envs/setup.sh | sha256sum | cut -d' ' -f1)
[ "$(cat "$stamp" 2>/dev/null || true)" = "$digest" ] && exit 0

# Any Python that is new enough will do; the first named wins.
python=
for candidate in ${PYTHON:-} python3 python3.14 python3.13 python3.12 python3.11; do
    if command -v "$candidate" >/dev/null 2>&1 &&
        "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
        python=$candidate
        break
    fi
done
[ -n "$python" ] || fail "no Python 3.11 or newer was found; install one, or name it: make PYTHON=/path/to/python3 ..."

# PyTorch with its CUDA libraries is most of it.
needed=7
if [ ! -d .venv/lib ]; then
    free=$(($(df -Pk . | awk 'NR == 2 { print $4 }') / 1048576))
    [ "$free" -ge "$needed" ] ||
        fail "the disk is nearly full: .venv needs about $needed GB, and $free GB are free here; make room and try again"
fi

log=.venv-setup.log
trap 'rm -f "$log"' EXIT
quietly() {
    "$@" >"$log" 2>&1
}

explain() {
    if grep -qi 'no space left' "$log"; then
        fail "the disk is full: .venv needs about $needed GB; make room and try again"
    fi
    sed 's/^/    /' "$log" >&2
    fail "$1"
}

if [ ! -x .venv/bin/python ] || ! .venv/bin/python -c '' 2>/dev/null; then
    rm -rf .venv
    quietly "$python" -m venv .venv || {
        rm -rf .venv
        explain "$python cannot create a virtual environment (on Debian and Ubuntu: apt install python3-venv)"
    }
fi
if ! [ -x .venv/bin/uv ]; then
    quietly .venv/bin/python -m pip install --disable-pip-version-check --no-deps --require-hashes \
        -r envs/bootstrap.lock || explain "the installer could not be fetched; is there a network connection?"
fi
echo "featurespace: installing into .venv (several GB the first time) ..."
# Compiled once here, or else in every one of a study's jobs.
quietly env VIRTUAL_ENV="$PWD/.venv" .venv/bin/uv pip sync --require-hashes --compile-bytecode \
    envs/requirements.lock || explain "the packages could not be installed; see above, and try again"
.venv/bin/python envs/link_library.py
echo "$digest" >"$stamp"
