#!/usr/bin/env bash
# From nothing to a trained and evaluated DLRM on a CPU: bash scripts/run_quickstart.sh
#   --data FILE      a raw text file in Criteo's format instead of generated rows
#   --rows N         rows to generate (default 300000)
#   --output FOLDER  where data, checkpoint and logs go (default quickstart)
#   --overwrite      replace what an earlier run left in that folder
# The same command goes on with one that was stopped.
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"

show_help "$@"
data="" rows=300000 output=quickstart overwrite=False
while [ "$#" -gt 0 ]; do
    case $1 in
        --data | --rows | --output)
            [ "$#" -ge 2 ] || fail "$1 needs a value: -h shows how"
            declare "${1#--}=$2"
            shift 2
            ;;
        --data=* | --rows=* | --output=*)
            word=${1#--}
            declare "${word%%=*}=${word#*=}"
            shift
            ;;
        --overwrite) overwrite=True && shift ;;
        *) fail "unknown option $1; run_quickstart.sh takes --data FILE, --rows N, --output FOLDER and --overwrite" ;;
    esac
done
[ -z "$data" ] || [ -f "$data" ] || fail "--data $data is not a file: name a raw text file in Criteo's format"
[[ $rows =~ ^[0-9]+$ ]] && [ "$rows" -ge 2000 ] || fail "--rows $rows: give a whole number of at least 2000"
if [ -e "$output" ] && [ ! -f "$output/.quickstart" ] && [ -n "$(ls -A "$output" 2>/dev/null || echo file)" ]; then
    fail "$output holds something else than an earlier run: name another place with --output FOLDER"
fi
# Until all is there, .quickstart says what is being made, and below that the steps that are done.
making="rows $rows, data ${data:-generated}" going_on=False
if [ -f "$output/.quickstart" ] && [ "$overwrite" = False ]; then
    [ "$(head -1 "$output/.quickstart")" = "$making" ] ||
        fail "$output already holds an earlier run: give --overwrite to replace it, or another place with --output FOLDER"
    echo "going on with the run that was stopped in $output"
    going_on=True overwrite=True # also what a step left that ended just before the stop
fi

make_environment requirements.txt
python=$root/.venv/bin/python
begin=$SECONDS
run() {
    echo "+ python ${*#"$root/"}"
    "$python" "$@"
}
# A step, unless the run that was stopped had done it.
step() {
    grep -qxF "$1" "$output/.quickstart" || run "$@"
    echo "$1" >>"$output/.quickstart"
}
make_folder "$output"
[ "$going_on" = True ] || echo "$making" >"$output/.quickstart" # this folder may be replaced by --overwrite
if [ -z "$data" ]; then
    data=$output/train.txt
    step "$root/src/synthetic.py" --data_path="$output" --rows="$rows" --overwrite="$overwrite"
else
    rm -f "$output/train.truth.npy" # of generated rows that an earlier run left
fi
[ "$going_on" = True ] || rm -f "$output"/{loss,auc,acc}.log "$output/metrics.jsonl"
step "$root/src/preprocess_data.py" --data_path="$data" --output_path="$output/dataset" --overwrite="$overwrite"
step "$root/train.py" --device_target=CPU --dataset_path="$output/dataset" --ckpt_path="$output/checkpoint" \
    --loss_file_name="$output/loss.log" --eval_file_name="$output/auc.log" \
    --metrics_file_name="$output/metrics.jsonl" --overwrite="$overwrite"
run "$root/eval.py" --device_target=CPU --dataset_path="$output/dataset/test" \
    --checkpoint_path="$output/checkpoint/dlrm.ckpt" --eval_file_name="$output/acc.log" \
    --metrics_file_name="$output/metrics.jsonl"
"$python" "$root/src/report/summary.py" "$output" "$data"
echo finished >"$output/.quickstart"
echo "$((SECONDS - begin)) s after installation; the report is $output/checkpoint/report.html"
cat <<END
What may come next:
  export it        $python $root/export.py --device_target=CPU --checkpoint_path=$output/checkpoint --export_path=$output/export
  score rows       DEVICE_TYPE=CPU bash $root/scripts/run_infer_310.sh $output/export/dlrm.mindir $data y
  rows of yours    $python $root/src/preprocess_data.py --data_path=ROWS.csv --guess_schema=schema.yaml
END
