# shellcheck shell=bash
# What the scripts share; sourced, not run. Sets root, the repository's folder.
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)

# fail LINE: one line on stderr, exit code 2.
fail() {
    echo "error: $1" >&2
    exit 2
}

# telling WHAT COMMAND...: run a command that may take long in silence, and say so every tell_every seconds. Who says it
# reads a pipe that ends with this script, however that ends.
tell_every=10
telling() {
    local what=$1 code=0 pipe
    shift
    exec {pipe}> >(
        begin=$SECONDS
        while read -r -t "$tell_every" || [ $? -gt 128 ]; do echo "$what, for $((SECONDS - begin)) s so far"; done
    )
    "$@" {pipe}>&- || code=$?
    exec {pipe}>&-
    return "$code"
}

# show_help GIVEN...: where -h or --help is given, print what stands at the script's head, and end.
show_help() {
    local word
    for word in "$@"; do
        [[ $word == -h || $word == --help ]] || continue
        sed -n '2,${/^#/!q;s/^# \{0,1\}//p;}' "$0"
        exit 0
    done
}

# expect_arguments COUNT USAGE GIVEN...: answer -h, and refuse fewer arguments; more must be options of the program.
expect_arguments() {
    local count=$1 usage="bash scripts/$2 [--OPTION=VALUE ...]"
    shift 2
    show_help "$@"
    [ "$#" -ge "$count" ] || fail "$# arguments instead of $count; usage: $usage"
    for argument in "${@:1:count}"; do
        [[ $argument != --* ]] || fail "$argument stands where one of $count arguments should; usage: $usage"
    done
    for argument in "${@:count+1}"; do
        [[ $argument == --* ]] || fail "$argument is one argument too many; usage: $usage"
    done
}

# first_python CHECK CANDIDATE...: print the first candidate for which the Python code CHECK exits with 0; with PYTHON
# set, that is the only candidate.
first_python() {
    local check=$1 candidate
    shift
    [ -z "${PYTHON:-}" ] || set -- "$PYTHON"
    for candidate in "$@"; do
        if "$candidate" -c "$check" 2>/dev/null; then
            command -v "$candidate"
            return
        fi
    done
    return 1
}

# python_command: print the interpreter that has MindSpore.
python_command() {
    first_python 'import importlib.util, sys; sys.exit(importlib.util.find_spec("mindspore") is None)' \
        python python3 "$root/.venv/bin/python" ||
        fail "${PYTHON:-no Python found} has no MindSpore: pip install -r $root/requirements.txt, or set PYTHON to one that has it"
}

# supported_python: print a Python 3.10 to 3.12.
supported_python() {
    first_python 'import sys; sys.exit(not (3, 10) <= sys.version_info[:2] <= (3, 12))' \
        python3 python3.12 python3.11 python3.10 python ||
        fail "${PYTHON:-no Python found} is not Python 3.10, 3.11 or 3.12, which MindSpore 2.10 needs: set PYTHON to one"
}

# make_environment REQUIREMENTS...: a virtual environment in .venv with the pinned packages, made once, then reused.
make_environment() {
    local venv=$root/.venv python file wanting=""
    local pip_arguments=()
    for file in "$@"; do
        pip_arguments+=(-r "$root/$file")
        cmp -s "$root/$file" "$venv/installed-${file//\//-}" || wanting=$file # each by itself: others may be there too
    done
    if [ -z "${PYTHON:-}" ] && [ -z "$wanting" ]; then
        echo "using the environment in $venv"
        return
    fi
    python=$(supported_python)
    echo "installing into $venv (MindSpore and what it needs take 3 GB)"
    "$venv/bin/python" -m pip --version >/dev/null 2>&1 || "$python" -m venv --clear "$venv" ||
        fail "$python can't make virtual environments: install its venv package (Debian: python3-venv)"
    telling "installing" "$venv/bin/python" -m pip install --quiet --disable-pip-version-check "${pip_arguments[@]}" ||
        fail "installing $* failed: see above; check the connection, and the space below $venv"
    for file in "$@"; do cp "$root/$file" "$venv/installed-${file//\//-}"; done
}

# make_folder FOLDER: make it, or fail with one line.
make_folder() {
    mkdir -p "$1" 2>/dev/null || fail "folder $1 can't be made: work in a folder that you may write to, or name another"
}

# use_device DEVICE_ID DEVICE_TARGET: set device_options to those that name the device. A list of cards, as in
# CUDA_VISIBLE_DEVICES, is what the program gets to see; one process runs on the first of them.
use_device() {
    local id=$1
    if [[ $id =~ ^[0-9]+(,[0-9]+)+$ && $2 =~ ^(GPU|Ascend)$ ]]; then
        if [ "$2" = GPU ]; then export CUDA_VISIBLE_DEVICES=$id; else export ASCEND_RT_VISIBLE_DEVICES=$id; fi
        echo "of the cards $id one process uses the first: run_distribute_train_${2,,}.sh uses several"
        id=0
    fi
    # shellcheck disable=SC2034 # the scripts read it
    device_options=(--device_id="$id" --device_target="$2")
}

# run_logged LOG COMMAND...: run a command, its output shown and kept in the file LOG. The log of an earlier run
# stays if this one is refused, or has nothing to do.
run_logged() {
    local log=$1 code=0
    shift
    make_folder "$(dirname "$log")"
    [ ! -s "$log" ] || mv "$log" "$log.earlier" # of a run that was killed too
    set +e
    "$@" 2>&1 | tee "$log"
    code=${PIPESTATUS[0]}
    set -e
    if [ -f "$log.earlier" ] && { [ "$code" = 2 ] || grep -q '^nothing to do: ' "$log"; }; then mv "$log.earlier" "$log"; else rm -f "$log.earlier"; fi
    return "$code"
}

# distribute PYTHON DEVICE_NUM OPTION...: train on several devices, data parallel unless the options say otherwise.
distribute() {
    local python=$1
    shift
    [[ " $* " == *" --parallel_mode="* ]] || set -- "$@" --parallel_mode=data
    exec "$python" -u "$root/src/launch.py" "$@"
}

# distribute_eval PYTHON DEVICE_NUM OPTION...: evaluate on several devices, of which each holds its share of the tables
# unless the options say otherwise.
distribute_eval() {
    local python=$1
    shift
    [[ " $* " == *" --parallel_mode="* ]] || set -- "$@" --parallel_mode=hybrid
    exec "$python" -u "$root/src/launch.py" "$@" --program=eval --eval_file_name=acc.log
}
