#!/usr/bin/env bash
# Evaluate on the CPU: bash scripts/run_eval_cpu.sh DATASET_PATH CHECKPOINT_PATH [--OPTION=VALUE ...]
# Writes acc.log, metrics.jsonl and ms_log/eval_output.log to the current folder.
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"
expect_arguments 2 "run_eval_cpu.sh DATASET_PATH CHECKPOINT_PATH" "$@"
python=$(python_command)
run_logged ms_log/eval_output.log "$python" -u "$root/eval.py" --device_target=CPU --dataset_path="$1" \
    --checkpoint_path="$2" --eval_file_name=acc.log "${@:3}"
