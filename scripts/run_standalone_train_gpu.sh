#!/usr/bin/env bash
# Train on one GPU: bash scripts/run_standalone_train_gpu.sh DEVICE_ID DEVICE_TARGET DATASET_PATH [--OPTION=VALUE ...]
# Writes checkpoint/, loss.log, auc.log, metrics.jsonl and ms_log/output.log to the current folder.
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"
expect_arguments 3 "run_standalone_train_gpu.sh DEVICE_ID DEVICE_TARGET DATASET_PATH" "$@"
python=$(python_command)
use_device "$1" "$2"
run_logged ms_log/output.log "$python" -u "$root/train.py" "${device_options[@]}" --dataset_path="$3" "${@:4}"
