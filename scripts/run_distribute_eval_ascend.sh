#!/usr/bin/env bash
# Evaluate on several Ascend cards: bash scripts/run_distribute_eval_ascend.sh DEVICE_NUM DATASET_PATH CHECKPOINT_PATH RANK_TABLE_FILE [--OPTION=VALUE ...]
# Each holds its share of the tables, however many parts the checkpoint has; with --parallel_mode=data all of them.
# Writes acc.log, metrics.jsonl, and log0/eval_output.log, log1/eval_output.log ... to the current folder.
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"
expect_arguments 4 "run_distribute_eval_ascend.sh DEVICE_NUM DATASET_PATH CHECKPOINT_PATH RANK_TABLE_FILE" "$@"
python=$(python_command)
distribute_eval "$python" "$1" --rank_table="$4" --device_target=Ascend --dataset_path="$2" --checkpoint_path="$3" "${@:5}"
