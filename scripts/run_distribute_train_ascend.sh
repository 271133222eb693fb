#!/usr/bin/env bash
# Train on several Ascend cards: bash scripts/run_distribute_train_ascend.sh DEVICE_NUM DATASET_PATH RANK_TABLE_FILE [--OPTION=VALUE ...]
# Writes checkpoint/, loss.log, auc.log, metrics.jsonl, and log0/output.log, log1/output.log ... to the current folder.
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"
expect_arguments 3 "run_distribute_train_ascend.sh DEVICE_NUM DATASET_PATH RANK_TABLE_FILE" "$@"
python=$(python_command)
distribute "$python" "$1" --rank_table="$3" --device_target=Ascend --dataset_path="$2" "${@:4}"
