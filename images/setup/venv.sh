#!/bin/bash
# The Python virtual environment .venv with what development and the tests need,
# renewed when pyproject.toml changes.
STEP="virtual environment"
# shellcheck source=images/setup/debian.sh
. "$(dirname "$0")/debian.sh"

VENV=$TOP/.venv
STAMP=$VENV/.installed

is_new_enough() { "$1" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; }

find_python() {
    local name
    for name in "${PYTHON:-python3}" python3.13 python3.12 python3.11 /usr/bin/python3; do
        if is_new_enough "$name"; then
            command -v "$name"
            return
        fi
    done
    return 1
}

make_venv() {
    local python
    if ! python=$(find_python); then
        apt_install python3 python3-venv
        python=$(find_python) || fail "no Python 3.11 or newer; name one with PYTHON="
    fi
    if ! "$python" -c 'import ensurepip, venv' 2>/dev/null; then
        apt_install python3-venv
        python=/usr/bin/python3
    fi
    say "making .venv with $python"
    quietly "python -m venv" "$python" -m venv --clear "$VENV"
}

# What the installed packages depend on: the project file and the place they are in.
inputs() { { cat "$TOP/pyproject.toml" && "$VENV/bin/python" -VV && echo "$VENV"; } | sha256sum; }

"$VENV/bin/python" -m pip --version >/dev/null 2>&1 || make_venv
if [ "$(inputs)" = "$(cat "$STAMP" 2>/dev/null)" ]; then
    say "up to date"
else
    say "installing the packages that pyproject.toml names"
    quietly "pip install" "$VENV/bin/python" -m pip install --disable-pip-version-check \
        -e "${TOP}[dev]"
    inputs >"$STAMP"
fi
