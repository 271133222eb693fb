#!/usr/bin/env bash
# Score rows with the C++ program: bash scripts/run_infer_310.sh MINDIR_PATH DATASET_PATH NEED_PREPROCESS [DEVICE_ID]
#   MINDIR_PATH      graph in the folder that export.py wrote
#   DATASET_PATH     raw text, or a data folder or part of one, whose test rows are scored
#   NEED_PREPROCESS  y: make preprocess_Result/ anew of DATASET_PATH; n: score what an earlier y left there, whatever
#                    DATASET_PATH is
#   DEVICE_ID        number of the Ascend card (default 0)
# Options of preprocess.py, such as --has_labels=False, may follow. DEVICE_TYPE=CPU runs without a card.
# Leaves infer.log, acc.log, metrics.jsonl, scores.csv, preprocess_Result/, result_Files/ and time_Result/ in the folder it
# is called in.
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"

usage="MINDIR_PATH DATASET_PATH NEED_PREPROCESS [DEVICE_ID]"
show_help "$@"
expect_arguments 3 "run_infer_310.sh $usage" "${@:1:3}"
model=$1 dataset=$2 need=$3
shift 3
device_id=0 device_type=${DEVICE_TYPE:-Ascend}
if [[ ${1:-} =~ ^[0-9]+$ ]]; then
    device_id=$1
    shift
fi
[ -f "$model" ] || fail "MINDIR_PATH $model is not a file: name the graph that export.py wrote, such as export/dlrm.mindir"
[[ $model == *.mindir ]] || fail "MINDIR_PATH $model is no MindIR, which alone the program reads: export with --file_format=MINDIR"
[[ $need =~ ^[yn]$ ]] || fail "NEED_PREPROCESS is $need: it must be y or n"
[[ $device_type =~ ^(Ascend|CPU)$ ]] || fail "DEVICE_TYPE is $device_type: it must be Ascend or CPU"
if [ "$device_id" != 0 ] && [ "$device_type" = CPU ]; then
    fail "DEVICE_ID $device_id has no effect with DEVICE_TYPE=CPU: drop it"
fi
for option in "$@"; do
    [[ $option == --* ]] || fail "$option is one argument too many; usage: bash scripts/run_infer_310.sh $usage [--OPTION=VALUE ...]"
    [[ $option != --preprocess_path* && $option != --export_path* && $option != --dataset_path* ]] ||
        fail "$option: the script gives this option itself: call preprocess.py, ascend310_infer/out/main and postprocess.py"
    [ "$need" = y ] || fail "$option has no effect with NEED_PREPROCESS n: drop it"
done

descriptions=("$(dirname "$model")"/*.model)
[ -f "${descriptions[0]}" ] ||
    fail "MINDIR_PATH $model: there is no *.model beside it: name a graph in the folder that export.py wrote"
if [ "$need" = y ]; then
    [ -e "$dataset" ] || [ -e "data/$dataset" ] || [[ $dataset == *,* ]] ||
        fail "DATASET_PATH $dataset is not there: name raw text, or a data folder or part of one"
else
    [ -f preprocess_Result/index ] ||
        fail "preprocess_Result holds no index, so there are no rows to score: give y for NEED_PREPROCESS"
fi

# An earlier run's scores must not be taken for those of a run that fails.
tell_of_earlier_scores() {
    local code=$?
    [ "$code" = 0 ] || [ ! -f scores.csv ] || echo "scores.csv is an earlier run's: this one made none" >&2
}
trap tell_of_earlier_scores EXIT

python=$(python_command)
if [ "$device_type" = Ascend ] && [ -z "${LITE_HOME:-}" ]; then
    fail "LITE_HOME is not set: name the folder of MindSpore Lite for Ascend, or set DEVICE_TYPE=CPU"
fi
if [ "$device_type" = CPU ]; then
    bash "$root/ascend310_infer/build.sh" --cpu
    device=(--device_type=CPU)
else
    bash "$root/ascend310_infer/build.sh"
    device=(--device_type=Ascend --device_id="$device_id")
fi
if [ "$need" = y ]; then
    "$python" "$root/preprocess.py" --dataset_path="$dataset" --export_path="$(dirname "$model")" --overwrite=True "$@"
else
    echo "scoring the rows that are in preprocess_Result; $dataset is not read"
fi
: >infer.log # takes both streams, which stay apart on the terminal
{
    "$root/ascend310_infer/out/main" --model="$model" --input=preprocess_Result "${device[@]}" 2>&1 >&3 3>&- |
        tee -a infer.log >&2 3>&-
} 3>&1 | tee -a infer.log
"$python" "$root/postprocess.py" --preprocess_path=preprocess_Result --result_path=result_Files --scores_path=scores.csv \
    --eval_file_name=acc.log --model="$model"
