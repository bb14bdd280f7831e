# Sourced by scripts/demo and scripts/test: makes or reuses .venv at the top of the repository and installs what it needs.
# Needs nothing but a Python of 3.11 or newer on PATH (or named by PYTHON).

python_is_new_enough() { "$1" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; }

find_python() {
    for candidate in ${PYTHON:-} python3 python3.13 python3.12 python3.11 python; do
        if command -v "$candidate" >/dev/null && python_is_new_enough "$candidate"; then
            echo "$candidate"
            return
        fi
    done
    echo "scripts: no Python 3.11 or newer on PATH. Install one, or name it: PYTHON=/path/to/python3 $0" >&2
    exit 2
}

# $1: what to install from this repository, as pip names it ("." or ".[dev]").
install_into_venv() {
    local wanted stamp
    wanted="$1 $(cat pyproject.toml constraints.txt | cksum)"
    stamp=.venv/.installed
    if [ ! -x .venv/bin/python ] || ! python_is_new_enough .venv/bin/python; then
        rm -rf .venv
        "$(find_python)" -m venv .venv
    fi
    # The dev set contains the plain one, so a demo after a test run installs nothing.
    if ! grep -qsxF -e "$wanted" -e "${wanted/#. /.[dev] }" "$stamp"; then
        echo "Installing into .venv (about a minute the first time) ..." >&2
        .venv/bin/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable "$1"
        echo "$wanted" >"$stamp"
    fi
}
