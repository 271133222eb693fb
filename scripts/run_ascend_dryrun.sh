#!/usr/bin/env bash
# Every graph compiled for Ascend, without a card: bash scripts/run_ascend_dryrun.sh [OPTIONS], -h for them
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"
python=$(python_command)
exec "$python" "$root/benchmarks/ascend_dryrun.py" "$@"
