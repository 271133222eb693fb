"""Checkpoints that no process holds: evaluated by another number of ranks than wrote them, and exported by one."""

import json
import shutil
import subprocess
import sys

import pytest
from conftest import CPU, ROOT, files_of, preprocess_lines, raw_lines, write_raw
from forked import Launcher
from limited import launch_evaluation
from scripted import call_of
from trainings import ENVIRONMENT

import eval as eval_program
import export as export_program
from src.base.errors import InputError
from src.checkpoints import checkpoint
from src.export import calibration
from src.export.table_file import TableFile
from src.launch import Launch, cluster_of
from src.launch import main as launch_main
from src.network.options import NetworkSpec
from src.ranks.rank_logs import RankLogs
from tests.parts import write_checkpoint_folder

NETWORK = NetworkSpec(emb_dim=16, bottom_mlp=(32, 16), top_mlp=(64, 1))
TABLE_ROWS = 200_000  # of each field: 333 MB of tables in all, 83 MB a part
FIGURES = ("rows", "acc", "auc", "logloss", "auc_low", "auc_high", "brier", "average_precision", "ece", "calibration")


@pytest.fixture(scope="module")
def large(made_once):
    """A folder of dataset/ and of checkpoint/, in 4 parts; of damaged.ckpt there the last part is damaged."""

    def make(folder):
        data = preprocess_lines(
            write_raw(folder / "raw.txt", raw_lines(1500)), folder / "dataset", hash_rows=TABLE_ROWS
        )
        path = write_checkpoint_folder(folder / "checkpoint", data, NETWORK, 4, seed=2)
        parts = sorted(path.parent.glob("dlrm*.ckpt"))
        assert len(parts) == 4
        for part in parts[:-1]:
            part.with_name(part.name.replace("dlrm", "damaged")).hardlink_to(part)
        damaged = path.with_name("damaged.rank_3.ckpt")
        shutil.copyfile(path.with_name("dlrm.rank_3.ckpt"), damaged)
        with damaged.open("r+b") as file:
            file.seek(50_000_000)
            file.write(b"other")

    return made_once("large", make)


def scores_asked(large):
    return [CPU, f"--dataset_path={large}/dataset/train", f"--checkpoint_path={large}/checkpoint/dlrm.ckpt",
            "--eval_batch_size=200"]  # fmt: skip


def figures(path):
    (line,) = [json.loads(line) for line in path.read_text().splitlines()]
    return {name: line[name] for name in FIGURES}


def test_two_ranks_evaluate_what_neither_can_hold(large, here, capfd):
    """Figures are those of one process that may have all memory, to the last bit; a damaged part is told by all."""
    launcher = Launcher(here, ["eval", "0.75", *scores_asked(large), "--parallel_mode=hybrid"], launch_evaluation)
    said, error = launcher.communicate()
    assert launcher.returncode == 0, error
    for rank in (0, 1):
        refused = (here / f"refused_{rank}.txt").read_text()
        assert "the memory of this process can't hold 317 MB of the tables" in refused
        assert "evaluate it by several ranks with parallel_mode hybrid" in refused
        damaged = (here / f"damaged_{rank}.txt").read_text()
        assert damaged.startswith("" if rank else "rank 1: ")
        assert "damaged.rank_3.ckpt is not a MindSpore checkpoint, or a damaged one (its checksum differs)" in damaged
    found = figures(here / "metrics.jsonl")
    (here / "metrics.jsonl").unlink()
    eval_program.main(scores_asked(large))
    assert found == figures(here / "metrics.jsonl")
    assert 0.5 < found["logloss"] < 2
    told = [line for line in capfd.readouterr().out.splitlines() if line.startswith("train: ")]
    assert [line.partition("; eval_time")[0] for line in said.splitlines() if line.startswith("train: ")] == [
        line.partition("; eval_time")[0] for line in told
    ]
    assert "train: " not in (here / "log1/eval_output.log").read_text()


def test_one_process_exports_and_calibrates_what_it_can_t_hold(large, here, monkeypatch):
    """To the bytes of an export that may have all memory, and calibrates by the scores of the whole network."""
    options = [CPU, f"--checkpoint_path={large}/checkpoint/dlrm.ckpt", "--calibrate=test",
               f"--dataset_path={large}/dataset", "--table_type=int8", "--eval_batch_size=64"]  # fmt: skip
    command = [sys.executable, ROOT / "tests/ranks/limited.py", "export", "0.4", *options, "--export_path=found"]
    environment = ENVIRONMENT | {"PYTHONPATH": f"{ROOT}:{ROOT}/tests"}
    subprocess.run(command, check=True, stdout=subprocess.PIPE, env=environment)
    assert "can't hold 317 MB" in (here / "refused_0.txt").read_text()
    seen = []
    monkeypatch.setattr(calibration, "open_stored", lambda *given: seen.append(1) or checkpoint.load(*given))
    export_program.main([*options, "--export_path=whole"])
    assert seen
    assert files_of(here, "found") == {
        name.replace("whole", "found"): content for name, content in files_of(here, "whole").items()
    }
    assert TableFile(here / "found/dlrm.tables").table_rows == (TABLE_ROWS,) * 26


def test_ranks_are_refused_where_one_process_needs_no_such_memory(monkeypatch, here):
    needs_none = "export.py was started as one of several ranks, and needs none: one process takes"
    with pytest.raises(InputError, match=needs_none):
        launch_main(["2", "--program=export", CPU])
    monkeypatch.setenv("MS_ROLE", "MS_WORKER")
    with pytest.raises(InputError, match=needs_none):
        export_program.main([CPU])
    assert not list(here.iterdir())


def test_a_program_that_ranks_do_not_run_is_refused():
    with pytest.raises(InputError, match="program is 'fit': it must be one of train, eval"):
        launch_main(["2", "--program=fit"])


@pytest.mark.parametrize(("options", "message"), [
    (["--dataset_path=none", "--checkpoint_path=none"], "none"),
    (["--paralel_mode=data"], "knows no option '--paralel_mode=data'; did you mean"),
    (["--batch_size=64"], "it is an option of train"),
])  # fmt: skip
def test_mistakes_are_found_before_ranks_start(here, options, message):
    with pytest.raises(InputError, match=message):
        launch_main(["2", "--program=eval", CPU, *options])
    assert not list(here.iterdir())


def test_several_ranks_need_a_launcher_but_a_training_s_file_of_options_does_not(run_folder, tiny_data, here):
    options = [CPU, f"--dataset_path={tiny_data.path}", f"--checkpoint_path={run_folder}/checkpoint"]
    with pytest.raises(InputError, match=r"run_distribute_eval_cpu\.sh"):
        eval_program.main([*options, "--parallel_mode=hybrid"])
    (here / "training.yaml").write_text("parallel_mode: hybrid\neval_batch_size: 64\n")
    eval_program.main([*options, "--config_path=training.yaml"])
    assert (here / "acc.log").is_file()


def test_a_card_s_number_has_no_effect_on_ranks(run_folder, tiny_data, here):
    options = [f"--dataset_path={tiny_data.path}", f"--checkpoint_path={run_folder}/checkpoint", "--device_id=2"]
    with pytest.raises(InputError, match="device_id 2 has no effect with several ranks"):
        eval_program.main([*options, "--device_target=GPU", "--parallel_mode=data"])


def test_tables_that_a_graph_is_too_large_with_are_refused_with_a_remedy(run_folder, here, monkeypatch):
    def no_memory(*_):
        raise MemoryError

    monkeypatch.setattr("src.network.embedding.joint_rows", no_memory)
    with pytest.raises(InputError, match="can't hold the 0 MB of tables: give --table_placement=host, which needs no"):
        export_program.main([CPU, f"--checkpoint_path={run_folder}/checkpoint", "--table_placement=graph"])
    assert not list(here.iterdir())


@pytest.mark.parametrize(("device", "given", "options"), [
    ("cpu", ["4", "d d", "c c"], ["--device_target=CPU"]),
    ("gpu", ["4", "d d", "c c"], ["--device_target=GPU"]),
    ("ascend", ["4", "d d", "c c", "r t.json"], ["--rank_table=r t.json", "--device_target=Ascend"]),
])  # fmt: skip
def test_scripts_share_the_tables_unless_told_otherwise(here, device, given, options):
    for more, mode in ([], "--parallel_mode=hybrid"), (["--parallel_mode=data"], "--parallel_mode=data"):
        words = call_of(here, ROOT / f"scripts/run_distribute_eval_{device}.sh", *given, *more).words
        assert words[:2] == ["-u", f"{ROOT}/src/launch.py"]
        assert words[2:] == ["4", *options, "--dataset_path=d d", "--checkpoint_path=c c", mode, "--program=eval",
                             "--eval_file_name=acc.log"]  # fmt: skip


def test_an_evaluation_leaves_a_training_its_logs(here):
    program = [sys.executable, "-c", "print('{}')"]
    cluster = cluster_of({}, 1)

    def launched(word, logs=None):
        launch = Launch(cluster, [*program[:2], f"print('{word}')"], logs)
        assert launch.wait() == 0

    launched("trained")
    launched("evaluated", RankLogs("eval_"))
    assert (here / "log0/output.log").read_text() == "trained\n"
    assert (here / "log0/eval_output.log").read_text() == "evaluated\n"
    launched("trained again")
    assert (here / "log0/output.log").read_text() == "trained again\n"
    assert (here / "log0/eval_output.log").read_text() == "evaluated\n"
