#!/usr/bin/env bash
# Train on the CPU: bash scripts/run_standalone_train_cpu.sh DATASET_PATH [--OPTION=VALUE ...]
# Writes checkpoint/, loss.log, auc.log, metrics.jsonl and ms_log/output.log to the current folder.
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"
expect_arguments 1 "run_standalone_train_cpu.sh DATASET_PATH" "$@"
python=$(python_command)
run_logged ms_log/output.log "$python" -u "$root/train.py" --device_target=CPU --dataset_path="$1" "${@:2}"
