#!/usr/bin/env bash
# Train on several CPUs: bash scripts/run_distribute_train_cpu.sh DEVICE_NUM DATASET_PATH [--OPTION=VALUE ...]
# docs/several_ranks.md has the options for several hosts, such as --master_addr. Writes checkpoint/, loss.log, auc.log,
# metrics.jsonl, and log0/output.log, log1/output.log ... to the current folder.
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"
expect_arguments 2 "run_distribute_train_cpu.sh DEVICE_NUM DATASET_PATH" "$@"
python=$(python_command)
distribute "$python" "$1" --device_target=CPU --dataset_path="$2" "${@:3}"
