"""Each line of the public original's interface, as docs/original.md lists them, run on generated rows.

A check stands for one line, whose beginning it names. It has the folder of a user who typed the original's commands for
preprocessing and training, on a CPU.
"""

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from conftest import CPU, ORIGINAL, ROOT, SMALL, raw_lines, write_raw
from program_310 import ENVIRONMENT
from scripted import call_of

import eval as eval_program
import export as export_program
import train as train_program
from mindspore_hub_conf import create_network
from src import launch
from src import preprocess_data as preprocess_data_program
from src.base.errors import AlreadyDone, InputError
from src.data.manifest import find
from src.model_utils.parsing import read_yaml
from src.options import PROGRAMS, EvalOptions, ExportOptions, TrainOptions, resolve
from src.ranks import rank_table

PROGRAMS_OF = {
    "train.py": train_program, "eval.py": eval_program, "export.py": export_program,
    "src/preprocess_data.py": preprocess_data_program, "src/launch.py": launch,
}  # fmt: skip
NO_CARD = "device_target {} with device_id 0: MindSpore finds none on this machine"


def rows_of(section):
    """First column and second one of a section's table."""
    text = (ROOT / "docs/original.md").read_text().split(f"\n## {section}\n")[1].split("\n## ")[0]
    rows = re.findall(r"^\| (.*?) \| (.*) \|$", text, re.MULTILINE)
    return rows[1:] if rows[0][0] in ("the original", "its YAML files") else rows


SECTIONS = ("Commands", "Options and defaults", "Logs and files that are written", "Files of its tree")
LINES = [line for section in SECTIONS for line, _ in rows_of(section) if set(line) != {"-"}]
CHECKS = {}


def line(beginning):
    """Makes a function the check of the line that begins so."""

    def keep(check):
        assert beginning not in CHECKS
        CHECKS[beginning] = check
        return check

    return keep


def command_of(beginning):
    """The program of a command line, and its arguments, as the table has them."""
    (found,) = [text for text in LINES if text.startswith(beginning)]
    words = shlex.split(found.split("`")[1].split(" > ")[0])
    return PROGRAMS_OF[words[1]].main, words[2:]


def on_cpu(argv):
    """The same with the one device that is here, and the recipe that it had."""
    return [word for word in argv if not word.startswith("--device_target")] + [CPU, ORIGINAL]


PREPROCESS, TRAIN, EVAL = (f"`python {name}" for name in ("src/preprocess_data.py", "train.py", "eval.py"))


@pytest.fixture
def work(made_once, here):
    """The folder of a user who has preprocessed 700 rows, and trained on them."""

    def make(folder):
        with pytest.MonkeyPatch.context() as patch:
            patch.chdir(folder)
            write_raw(folder / "data/origin_data/train.txt", raw_lines(700))
            main, argv = command_of(PREPROCESS)
            main([word.replace("45840617", "700") for word in argv])
            main, argv = command_of(TRAIN)
            main(on_cpu(argv))

    shutil.copytree(made_once("original", make), here, dirs_exist_ok=True)
    return here


def refused(message, main, argv):
    with pytest.raises(InputError, match=message) as caught:
        main(argv)
    assert not isinstance(caught.value, AlreadyDone)
    assert "\n" not in str(caught.value)


def through(script, *arguments):
    """What a script's program does in this process."""
    _, program, *argv = call_of(Path.cwd(), ROOT / "scripts" / script, *arguments).words
    PROGRAMS_OF[os.path.relpath(program, ROOT)].main(argv)


def bash(script, *arguments, **surroundings):
    return subprocess.run(["bash", ROOT / "scripts" / script, *arguments], capture_output=True, text=True, check=False,
                          env=ENVIRONMENT | {"PYTHON": sys.executable} | surroundings)  # fmt: skip


@line(PREPROCESS)
def check_preprocessing(work):
    parts = find("data/dataset").manifest.parts
    assert [parts[name].rows for name in ("train", "valid", "test")] == [600, 50, 50]
    main, argv = command_of(PREPROCESS)
    assert argv[:3] == ["--data_path=./data/", "--dense_dim=13", "--slot_dim=26"]
    refused("train_line_count is 45840617, but .* has 700 lines: give at most that", main, [*argv, "--overwrite=True"])
    assert find("data/dataset").manifest.parts == parts
    main(["--data_path=./data", "--overwrite=True"])
    assert find("data/dataset").manifest.parts == parts


@line(TRAIN)
def check_training(work):
    assert find("dataset/train").path == work / "data/dataset"
    assert Path("checkpoint/dlrm.ckpt").is_file()
    assert len(Path("auc.log").read_text().splitlines()) == 4  # an evaluation each of 4 steps
    Path("checkpoint").rename("trained")  # or it would be in the way
    refused(NO_CARD.format("Ascend"), *command_of(TRAIN))


@line("the same command again")
def check_the_same_command_again(work):
    main, argv = command_of(TRAIN)
    before = {name: Path(name).read_bytes() for name in ("checkpoint/dlrm.ckpt", "loss.log", "auc.log")}
    with pytest.raises(AlreadyDone, match="already holds dlrm.ckpt: the same command has made it"):
        main(on_cpu(argv))
    assert before == {name: Path(name).read_bytes() for name in before}
    main([*on_cpu(argv), "--overwrite=True"])
    assert len(Path("loss.log").read_text().splitlines()) == 2


@line("`bash scripts/run_standalone_train_ascend.sh")
def check_standalone_training_on_ascend(work):
    script = "run_standalone_train_ascend.sh"
    Path("checkpoint").rename("trained")  # or it would be in the way
    for device_id in ("0", "0,1"):
        refused(NO_CARD.format("Ascend"), lambda _, one=device_id: through(script, one, "Ascend", "data/dataset"), [])
    less = ["--do_eval=False", "--report=False", f"--config_path={ROOT}/npu_config.yaml", *SMALL]
    done = bash(script, "0", "CPU", "dataset/train", "--ckpt_path=other", *less)
    assert done.returncode == 0, done.stderr
    assert Path("ms_log/output.log").read_text() == done.stdout
    assert Path("other/dlrm.ckpt").is_file()
    assert bash(script, "0", "CPU", "nowhere").returncode == 2
    assert Path("ms_log/output.log").read_text() == done.stdout


@line("`bash scripts/run_standalone_train_gpu.sh")
def check_standalone_training_on_gpu(work):
    Path("checkpoint").rename("trained")  # or it would be in the way
    refused(NO_CARD.format("GPU"), lambda _: through("run_standalone_train_gpu.sh", "0", "GPU", "data/dataset"), [])


def table_of_8(monkeypatch):
    conf = Path("hccn.conf")
    conf.write_text("".join(f"address_{card}=192.168.100.{101 + card}\n" for card in range(8)))
    monkeypatch.setattr(rank_table, "HCCN_CONF", conf)
    rank_table.main(["--make", "8", "--server_ip=10.0.0.1"])
    return "rank_table_8p.json"


@line("`bash scripts/run_distribute_train_ascend.sh")
def check_distributed_training(work, script="run_distribute_train_ascend.sh"):
    refused("rank table /rank_table_8p.json is not a file", lambda _: through(script, 8, "data/dataset",
                                                                              "/rank_table_8p.json"), [])  # fmt: skip
    with pytest.MonkeyPatch.context() as patch:
        table = table_of_8(patch)
    refused("dataset_path /dataset_path is not a folder", lambda _: through(script, 8, "/dataset_path", table), [])
    refused("has 8 devices, DEVICE_NUM is 4", lambda _: through(script, 4, "data/dataset", table), [])
    assert not Path("log0").exists()


@line("`bash scripts/run_distribute_train.sh")
def check_the_other_name(work):
    check_distributed_training(work, "run_distribute_train.sh")


@line("`python hccl_tools.py`")
def check_rank_table(work):
    with pytest.MonkeyPatch.context() as patch:
        assert rank_table.check_rank_table(Path(table_of_8(patch)), 8) == 8


@line(EVAL)
def check_evaluation(work):
    main, argv = command_of(EVAL)
    main(on_cpu(argv))
    assert len(Path("acc.log").read_text().splitlines()) == 1
    refused(NO_CARD.format("Ascend"), main, argv)


@line("`bash scripts/run_eval.sh 0 Ascend")
def check_evaluation_by_script(work, capsys):
    paths = "data/dataset", "checkpoint/dlrm.ckpt"
    refused(NO_CARD.format("Ascend"), lambda _: through("run_eval.sh", "0", "Ascend", *paths), [])
    assert Path("ms_log/eval_output.log").is_file()
    through("run_eval.sh", "0", "CPU", *paths)
    assert "test: 50 rows, EvalCallBack metric {'acc': " in capsys.readouterr().out
    assert len(Path("acc.log").read_text().splitlines()) == 1
    done = bash("run_eval.sh", "0", "CPU", *paths)  # the script and eval.py themselves
    assert (done.returncode, Path("ms_log/eval_output.log").read_text()) == (0, done.stdout), done.stderr
    assert "test: 50 rows, EvalCallBack metric {'acc': " in done.stdout
    first, second = (text[20:].split(";")[0] for text in Path("acc.log").read_text().splitlines())
    assert first == second


@line("`bash scripts/run_eval.sh DEVICE_ID")
def check_evaluation_on_gpu(work, script="run_eval.sh"):
    paths = "data/dataset", "checkpoint/dlrm.ckpt"
    refused(NO_CARD.format("GPU"), lambda _: through(script, "0", "GPU", *paths), [])


@line("`bash scripts/run_eval_gpu.sh")
def check_the_evaluation_script_of_gpu(work):
    check_evaluation_on_gpu(work, "run_eval_gpu.sh")


def exported(device_target="CPU", file_format="MINDIR"):
    options = {"checkpoint_path": "./checkpoint/dlrm.ckpt", "file_name": "mine", "file_format": file_format}
    Path("npu_config.yaml").write_text(yaml.safe_dump(options | {"device_target": device_target}))
    export_program.main(["--config_path", "npu_config.yaml"])


@line("`python export.py --config_path")
def check_export(work):
    exported()
    assert Path("export/mine.mindir").is_file()
    shutil.rmtree("export")
    refused(NO_CARD.format("Ascend"), lambda _: exported("Ascend"), [])
    assert not Path("export").exists()


@pytest.fixture
def scored_310(work, made_once, program):
    """What run_infer_310.sh leaves, and says, of the test rows."""

    def make(folder):
        shutil.copytree(work, folder / "work", dirs_exist_ok=True)
        with pytest.MonkeyPatch.context() as patch:
            patch.chdir(folder / "work")
            exported()
            done = bash("run_infer_310.sh", "export/mine.mindir", "dataset/test", "y", DEVICE_TYPE="CPU")
            assert done.returncode == 0, done.stderr
            again = bash("run_infer_310.sh", "export/mine.mindir", "dataset/test", "n", "0")
            (folder / "again").write_text(f"{again.returncode} {again.stderr}")

    return made_once("original_310", make)


@line("`bash run_infer_310.sh")
def check_scoring_by_the_c_program(work, scored_310):
    last = (scored_310 / "work/acc.log").read_text().splitlines()[-1]
    main, argv = command_of(EVAL)
    main(on_cpu(argv))
    expected = Path("acc.log").read_text().splitlines()[-1]
    acc = [re.search(r"'acc': ([\d.]+)", text)[1] for text in (last, expected)]
    assert acc[0] == acc[1]
    assert (scored_310 / "again").read_text().startswith("2 error: LITE_HOME is not set: name the folder of MindSpore")


@line("310: folders of `.bin` files")
def check_files_of_310(scored_310):
    left = scored_310 / "work"
    assert (left / "preprocess_Result/ids/000000.bin").stat().st_size == 50 * 26 * 4
    assert (left / "preprocess_Result/dense/000000.bin").stat().st_size == 50 * 13 * 4
    assert any((left / "result_Files").glob("*.bin"))
    assert "rows: 50" in (left / "time_Result/test_perform_static.txt").read_text()
    assert "rows: 50" in (left / "infer.log").read_text()
    assert len((left / "scores.csv").read_text().splitlines()) == 51


@line("ModelArts: `--enable_modelarts=True")
def check_modelarts(work):
    job = ["--enable_modelarts=True", "--train_url=out", f"--data_url={work}/data/dataset"]
    eval_program.main([CPU, *job, "--dataset_path=linked/test", f"--checkpoint_url={work}/checkpoint",
                       "--checkpoint_path=copied/dlrm.ckpt"])  # fmt: skip
    assert Path("out/acc.log").read_text() == Path("acc.log").read_text() != ""
    for program in (train_program, eval_program, export_program):
        refused("obs://bucket/out needs ModelArts' own module moxing", program.main,
                [CPU, "--enable_modelarts=True", "--train_url=obs://bucket/out"])  # fmt: skip


@line("`-h`, `--help`")
def check_help(capsys):
    wanted = {
        train_program: "dataset_path ckpt_path eval_file_name loss_file_name do_eval device_target",
        eval_program: "checkpoint_path dataset_path device_target",
        export_program: "checkpoint_path file_name file_format config_path",
    }
    for program, names in wanted.items():
        for flag in ("-h", "--help"):
            with pytest.raises(SystemExit) as caught:
                program.main([flag])
            assert caught.value.code == 0
            shown = capsys.readouterr().out
            assert all(f"--{name} VALUE" in shown or f"--{name} [VALUE]" in shown for name in names.split())


def default(program, name):
    """An option's value in a program that is started without any."""
    return next(vars(spec)[name] for spec in vars(resolve(program, [])).values() if name in vars(spec))


@line("`--dataset_path`")
def check_dataset_path(work):
    assert default(TrainOptions, "dataset_path") == default(EvalOptions, "dataset_path") == "./dataset"
    assert find("dataset").named_part is None
    assert find("dataset/train").named_part == "train"


@line("`--ckpt_path`")
def check_ckpt_path(work):
    assert default(TrainOptions, "ckpt_path") == "./checkpoint"
    assert {"dlrm.ckpt", "dlrm.yaml", "manifest.json", "vocabulary.npz"} <= set(os.listdir("checkpoint"))


@line("`--eval_file_name`")
def check_eval_file_name():
    assert [default(program, "eval_file_name") for program in (TrainOptions, EvalOptions)] == ["./auc.log", "./acc.log"]


@line("`--loss_file_name`")
def check_loss_file_name():
    assert default(TrainOptions, "loss_file_name") == "./loss.log"


@line("`--do_eval`")
def check_do_eval():
    assert default(TrainOptions, "do_eval") is True
    assert resolve(TrainOptions, ["--do_eval=False"]).evaluation.do_eval is False


@line("`--device_target`")
def check_device_target():
    assert [default(one, "device_target") for one in (TrainOptions, EvalOptions, ExportOptions)] == ["Ascend"] * 3
    refused("must be one of Ascend, GPU, CPU", lambda argv: resolve(TrainOptions, argv), ["--device_target=TPU"])


@line("`--checkpoint_path`")
def check_checkpoint_path(work):
    assert default(EvalOptions, "checkpoint_path") == "./checkpoint/dlrm.ckpt"
    for path in ("checkpoint", "checkpoint/dlrm.ckpt"):
        eval_program.main(["--dataset_path=dataset/test", f"--checkpoint_path={path}", CPU])
    first, second = (text[20:] for text in Path("acc.log").read_text().splitlines())
    assert first.split(";")[0] == second.split(";")[0]


@line("`file_format` AIR or MINDIR")
def check_file_format(work):
    assert default(ExportOptions, "file_format") == "MINDIR"
    refused("file_format AIR", lambda _: exported(file_format="AIR"), [])
    refused("must be one of MINDIR, ", lambda _: exported(file_format="GEIR"), [])


@line("SGD, learning rate 0.15, one epoch")
def check_optimization():
    assert [default(TrainOptions, name) for name in ("optimizer", "lr", "epochs")] == ["sgd", 0.15, 1]


@line("batch 128 on Ascend")
def check_batches():
    found = [resolve(TrainOptions, [f"--device_target={device}"]).data.batch_size for device in ("Ascend", "GPU")]
    assert (found, default(TrainOptions, "eval_batch_size")) == ([128, 1280], 16384)


@line("width 16, bottom 512-256-64-16")
def check_network():
    names = "emb_dim", "bottom_mlp", "top_mlp", "interaction", "self_interaction"
    assert [default(TrainOptions, name) for name in names] == [16, (512, 256, 64, 16), (512, 256, 1), "dot", False]


@line("keys of its YAML files")
def check_keys(work):
    known = PROGRAMS.all_options()
    for here, there in rows_of("Names of options")[1:]:
        for name in re.findall(r"`(\w+)`", there):
            assert name in known
        for name in set(re.findall(r"`(\w+)`", here)) - set(known):
            Path("old.yaml").write_text(f"{name}: 1\n")
            refused(f"unknown option '{name}'", lambda path: read_yaml(path, known), Path("old.yaml"))
    assert resolve(TrainOptions, ["--interaction_op=cat"]).network.interaction == "cat"


def pattern_of(beginning):
    """The original's line in a log, as the table shows it, whatever its numbers are."""
    (found,) = [text for text in LINES if text.startswith(beginning)]
    shown = re.findall(r"`([^`]+)`", found)[-1]
    pattern = re.sub(r"\d+(\\\.\d+)?", r"\\d+(\\.\\d+)?", re.escape(shown).replace("\\-", "-"))
    assert re.fullmatch(pattern, shown)
    return pattern


@line("`loss.log`: ")
def check_loss_log(work):
    lines = Path("loss.log").read_text().splitlines()
    assert lines
    assert all(re.fullmatch(pattern_of("`loss.log`: "), one) for one in lines)


@line("`auc.log`, `acc.log`: ")
def check_metric_logs(work):
    main, argv = command_of(EVAL)
    main(on_cpu(argv))
    pattern = pattern_of("`auc.log`, `acc.log`: ").replace(r"\}", r"(, 'auc': [\d.]+, 'logloss': [\d.]+)?\}")
    for name in ("auc.log", "acc.log"):
        assert all(re.fullmatch(pattern, one) for one in Path(name).read_text().splitlines()), pattern


@line("`ms_log/output.log`, `ms_log/eval_output.log`")
def check_places_of_output(here):
    assert (ROOT / "ms_log/.gitkeep").is_file()
    for script, log, paths in (("run_standalone_train_gpu.sh", "output.log", ["d"]),
                               ("run_eval_gpu.sh", "eval_output.log", ["d", "c"])):  # fmt: skip
        call_of(here, ROOT / "scripts" / script, "0", "GPU", *paths)
        assert (here / "ms_log" / log).is_file()


@line("`log[X]/output.log`")
def check_logs_of_ranks(here, capfd):
    for ranks in (3, 2):
        cluster = launch.cluster_of({"master_addr": "192.0.2.1"}, ranks)  # elsewhere, so that no scheduler starts
        assert launch.Launch(cluster, [sys.executable, "-c", f"print({ranks})"]).wait() == 0
    assert {path.as_posix(): path.read_text() for path in Path().glob("log*/*")} == {
        f"log{rank}/output.log": "2\n" for rank in range(2)
    }


def is_there(beginning):
    """The files and folders that a line names are there; a name alone stands beside the one before it."""
    (found,) = [text for text in LINES if text.startswith(beginning)]
    folder = Path()
    for name in re.findall(r"`([^`]+)`", found):
        folder = Path(name).parent if "/" in name.rstrip("/") else folder
        assert (ROOT / folder / Path(name).name).exists(), name


@line("`train.py`, `eval.py`")
def check_programs():
    is_there("`train.py`, `eval.py`")


@line("`npu_config.yaml`, `gpu_config.yaml`")
def check_yaml_files():
    is_there("`npu_config.yaml`")
    for device in ("npu", "gpu"):
        assert resolve(TrainOptions, ["--config_path", f"{ROOT}/{device}_config.yaml"]).optimization.lr == 0.15


@line("`README.md`, `mindspore_hub_conf.md`")
def check_hub(work):
    is_there("`README.md`")
    assert create_network("dlrm", checkpoint_path="checkpoint").count == 1


@line("`scripts/run_standalone_train_ascend.sh`, `run_standalone_train_gpu.sh`")
def check_scripts(here):
    beginning = "`scripts/run_standalone_train_ascend.sh`, `run"
    is_there(beginning)
    (found,) = [text for text in LINES if text.startswith(beginning)]
    for name in re.findall(r"`([^`]+)`", found):
        done = subprocess.run([ROOT / "scripts" / Path(name).name, "-h"], capture_output=True, text=True, check=False)
        assert (done.returncode, done.stderr) == (0, "")
        assert Path(name).name in done.stdout


@line("`ascend310_infer/`")
def check_the_c_program(program):
    is_there("`ascend310_infer/`")
    assert "--model=PATH" in subprocess.run([program, "--help"], capture_output=True, text=True, check=True).stdout


@line("`src/callback.py`, `src/dlrm.py`")
def check_doors():
    is_there("`src/callback.py`")
    from src.callback import EvalCallBack, LossCallBack
    from src.dataset import batches_of
    from src.dlrm import DLRM

    assert all(map(callable, (EvalCallBack, LossCallBack, batches_of, DLRM)))


@line("`src/model_utils/config.py`")
def check_model_utils():
    is_there("`src/model_utils/config.py`")
    from src.model_utils.local_adapter import get_device_id, get_device_num, get_job_id, get_rank_id

    with pytest.MonkeyPatch.context() as patch:
        for name, value in {"DEVICE_ID": "3", "RANK_ID": "11", "RANK_SIZE": "16", "JOB_ID": "j"}.items():
            patch.setenv(name, value)
        assert (get_device_id(), get_rank_id(), get_device_num(), get_job_id()) == (3, 11, 16, "j")
        for name in ("DEVICE_ID", "RANK_ID", "RANK_SIZE", "JOB_ID"):
            patch.setenv(name, "")
        assert (get_device_id(), get_rank_id(), get_device_num(), get_job_id()) == (0, 0, 1, "default")


def test_each_line_of_the_table_has_a_check():
    assert len(LINES) == len(set(LINES))
    found = {text: [one for one in CHECKS if text.startswith(one)] for text in LINES}
    assert {text: ones for text, ones in found.items() if len(ones) != 1} == {}
    assert len(CHECKS) == len(LINES)


@pytest.mark.parametrize("beginning", CHECKS)
def test_line(beginning, request):
    check = CHECKS[beginning]
    names = check.__code__.co_varnames[: check.__code__.co_argcount]
    check(**{name: request.getfixturevalue(name) for name in names if name != "script"})
