# Sourced by scripts/demo and scripts/test: the virtual environment `.venv` with what requirements.lock pins.
# It is made once, and again when the lock changes.

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
cd "$root"

find_python() {
    for candidate in python3.11 python3.12 python3.13 python3 python; do
        if command -v "$candidate" >/dev/null 2>&1 &&
            "$candidate" -c 'import sys, venv, ensurepip; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' \
                >/dev/null 2>&1; then
            printf '%s' "$candidate"
            return
        fi
    done
    echo "error: Python 3.11, 3.12 or 3.13 with venv is needed and was not found; install it and try again" >&2
    return 1
}

stamp=.venv/requirements.lock
if ! cmp -s requirements.lock "$stamp"; then
    python=$(find_python)
    echo "setting up .venv with $("$python" --version)" >&2
    rm -rf .venv
    "$python" -m venv .venv
    .venv/bin/python -m pip install --quiet --disable-pip-version-check -r requirements.lock
    .venv/bin/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
    cp requirements.lock "$stamp"
fi
