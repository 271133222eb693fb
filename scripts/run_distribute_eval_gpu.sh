#!/usr/bin/env bash
# Evaluate on several GPUs: bash scripts/run_distribute_eval_gpu.sh DEVICE_NUM DATASET_PATH CHECKPOINT_PATH [--OPTION=VALUE ...]
# Each holds its share of the tables, however many parts the checkpoint has; with --parallel_mode=data all of them.
# Writes acc.log, metrics.jsonl, and log0/eval_output.log, log1/eval_output.log ... to the current folder.
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"
expect_arguments 3 "run_distribute_eval_gpu.sh DEVICE_NUM DATASET_PATH CHECKPOINT_PATH" "$@"
python=$(python_command)
distribute_eval "$python" "$1" --device_target=GPU --dataset_path="$2" --checkpoint_path="$3" "${@:4}"
