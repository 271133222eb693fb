#!/usr/bin/env bash
# All checks on a fresh machine: bash scripts/run_tests.sh [PYTEST ARGUMENTS]
# Installs what it needs, then lint, format, types, shellcheck and all tests.
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"
show_help "$@"
make_environment requirements.txt tests/requirements.txt
cd "$root"
# The browser that looks at reports; where it can't be had, its tests say so and skip.
command -v chromium chromium-browser google-chrome >/dev/null ||
    "$root/.venv/bin/python" -m playwright install --with-deps chromium ||
    apt-get install -y chromium ||
    echo "no Chromium: the tests that look at reports are skipped"
bin=$root/.venv/bin
"$bin/ruff" check .
"$bin/ruff" format --check .
# These two work while tests wait; what they found is shown behind them.
found=$(mktemp)
ram=
trap 'rm -rf "$found" ${ram:+"$ram"}' EXIT
{ "$bin/mypy" && "$bin/shellcheck" -x scripts/*.sh ascend310_infer/build.sh .ci/run; } >"$found" 2>&1 &
checking=$!
# Compiling a graph takes and gives back many small pieces of memory, a tenth of the time; threads may keep more of them.
export GLIBC_TUNABLES=glibc.malloc.tcache_count=60000
# Tests make some ten thousand files, 3 GB; in memory, where there is plenty of it, that costs nothing.
if [ -z "${TMPDIR:-}" ] && [ "$(df --output=avail -k /dev/shm 2>/dev/null | tail -1)" -gt 8000000 ] 2>/dev/null &&
    [ "$(awk '/^MemAvailable/ { print $2 }' /proc/meminfo)" -gt 12000000 ] && ram=$(mktemp -d /dev/shm/dlrm-tests.XXXXXX); then
    printf '#!/bin/sh\n' >"$ram/runs"
    chmod +x "$ram/runs"
    if "$ram/runs" 2>/dev/null; then export TMPDIR=$ram; fi  # a container's may be one from which nothing may run
fi
# Each of some hundred processes starts, with NumPy, a thread for each core that waits by spinning.
export OPENBLAS_NUM_THREADS=1
# Some hundred processes import the same modules, and need not compile them each.
unset PYTHONDONTWRITEBYTECODE
tested=0 checked=0
# One more process than the two cores that CI has: some tests wait for what they started.
"$bin/python" -m pytest -n 3 --dist=worksteal "$@" || tested=$?
wait "$checking" || checked=$?
cat "$found"
exit "$((tested ? tested : checked))"
