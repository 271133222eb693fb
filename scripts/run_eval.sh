#!/usr/bin/env bash
# Evaluate on one Ascend card: bash scripts/run_eval.sh DEVICE_ID DEVICE_TARGET DATASET_PATH CHECKPOINT_PATH [--OPTION=VALUE ...]
# Writes acc.log, metrics.jsonl and ms_log/eval_output.log to the current folder.
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"
expect_arguments 4 "run_eval.sh DEVICE_ID DEVICE_TARGET DATASET_PATH CHECKPOINT_PATH" "$@"
python=$(python_command)
use_device "$1" "$2"
run_logged ms_log/eval_output.log "$python" -u "$root/eval.py" "${device_options[@]}" --dataset_path="$3" \
    --checkpoint_path="$4" --eval_file_name=acc.log "${@:5}"
