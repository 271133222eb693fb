# shellcheck shell=bash
# What the scripts share; sourced, not run. Sets root, the repository's folder.
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)

# fail LINE: one line on stderr, exit code 2.
fail() {
    echo "error: $1" >&2
    exit 2
}

# expect_arguments COUNT USAGE GIVEN...: refuse any other number of arguments.
expect_arguments() {
    local count=$1 usage=$2
    shift 2
    [ "$#" -eq "$count" ] || fail "$# arguments instead of $count; usage: bash scripts/$usage"
}

# python_command: print the interpreter to use: PYTHON, or the first of python and python3 that has MindSpore.
python_command() {
    local candidate
    for candidate in ${PYTHON:+"$PYTHON"} python python3 "$root/.venv/bin/python"; do
        if "$candidate" -c 'import importlib.util, sys; sys.exit(importlib.util.find_spec("mindspore") is None)' 2>/dev/null; then
            command -v "$candidate"
            return
        fi
    done
    fail "no Python with MindSpore found: pip install -r $root/requirements.txt, or set PYTHON to the one that has it"
}

# supported_python: print a Python 3.10 to 3.12: PYTHON, or the first on the path.
supported_python() {
    local candidate
    for candidate in ${PYTHON:+"$PYTHON"} python3 python3.12 python3.11 python3.10 python; do
        if "$candidate" -c 'import sys; sys.exit(not (3, 10) <= sys.version_info[:2] <= (3, 12))' 2>/dev/null; then
            command -v "$candidate"
            return
        fi
    done
    fail "no Python 3.10, 3.11 or 3.12 found, which MindSpore 2.10 needs: install one, or set PYTHON to it"
}

# make_environment REQUIREMENTS...: a virtual environment in .venv with the pinned packages, made once, then reused.
make_environment() {
    local venv=$root/.venv stamp wanted python file
    local pip_arguments=()
    for file in "$@"; do pip_arguments+=(-r "$root/$file"); done
    stamp=$venv/installed-$(echo "$*" | tr -c 'a-z\n' '-').txt
    wanted=$(cd "$root" && cat "$@")
    if [ -f "$stamp" ] && [ "$(cat "$stamp")" = "$wanted" ]; then
        echo "using the environment in $venv"
        return
    fi
    python=$(supported_python)
    echo "installing into $venv (MindSpore alone has more than 1 GB)"
    [ -x "$venv/bin/python" ] || "$python" -m venv "$venv" ||
        fail "$python can't make virtual environments: install its venv package (Debian: python3-venv)"
    "$venv/bin/python" -m pip install --quiet --disable-pip-version-check "${pip_arguments[@]}" ||
        fail "installing $* failed: see above; check the connection, and the space below $venv"
    echo "$wanted" >"$stamp"
}

# run_logged FOLDER COMMAND...: run a command, its output shown and kept in FOLDER/output.log.
run_logged() {
    local folder=$1
    shift
    mkdir -p "$folder"
    "$@" 2>&1 | tee "$folder/output.log"
}
