#!/usr/bin/env bash
# A model's next day: bash scripts/run_next_day.sh MODEL NEW_FILES [--fail_below=0.01] [--OPTION=VALUE ...]
#   MODEL      a folder, which the first day makes; MODEL/current is the model in use
#   NEW_FILES  the day's raw files, as --data_path of src/preprocess_data.py; commas between several
#   --OPTION   of src/preprocess_data.py, train.py or export.py; what the first day is given holds for all
# The same command goes on with a day that was stopped. Exit code 1: the new model was worse, and the earlier one stays.
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"

expect_arguments 2 "run_next_day.sh MODEL NEW_FILES" "$@"
exec "$(python_command)" "$root/src/days/__main__.py" "$@"
