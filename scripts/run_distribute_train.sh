#!/usr/bin/env bash
# Train on several Ascend cards: bash scripts/run_distribute_train.sh DEVICE_NUM DATASET_PATH RANK_TABLE_FILE [--OPTION=VALUE ...]
# Another name of run_distribute_train_ascend.sh.
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"
show_help "$@"
exec bash "$root/scripts/run_distribute_train_ascend.sh" "$@"
