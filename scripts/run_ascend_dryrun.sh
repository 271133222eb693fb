#!/usr/bin/env bash
# Every graph compiled for Ascend, without a card: bash scripts/run_ascend_dryrun.sh [OPTIONS]
#   --quick          three small graphs; writes no result file
#   --processes=N    at once, 2 by default
#   --of=FILE        a Python file whose graphs() are compiled instead
#   --only=TEXT      graphs alone whose name has this text
#   --keep_log=FILE  what MindSpore says, in FILE.0, FILE.1 and so on
# The last line is graphs=N compiled=N aclop=N, with the kinds of aclop kernels; docs/ascend.md says what is told.
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"
show_help "$@"
python=$(python_command)
exec "$python" "$root/benchmarks/ascend_dryrun.py" "$@"
