"""The scripts as their readers call them: from any folder, with paths that have blanks, and again and again."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT
from scripted import call_of

from src.data.manifest import find
from src.launch import Launch, cluster_of

SCRIPTS = sorted([*ROOT.glob("scripts/run_*.sh"), ROOT / "ascend310_infer/build.sh"])


@pytest.fixture
def blank(here):
    """The repository by a path with blanks, called from elsewhere."""
    (here / "a b").mkdir()
    os.symlink(ROOT, here / "a b/the repository")
    return here / "a b/the repository"


@pytest.mark.parametrize("flag", ["-h", "--help"])
@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_each_script_runs_by_itself_and_has_help_without_comments(blank, script, flag):
    assert os.access(script, os.X_OK)
    done = subprocess.run([blank / script.relative_to(ROOT), flag], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    head = script.read_text().split("\nset -euo")[0].splitlines()[1:]
    assert done.stdout.splitlines() == [line.removeprefix("#").removeprefix(" ") for line in head]
    assert script.name in done.stdout
    assert [path.name for path in Path().iterdir()] == ["a b"]


@pytest.mark.parametrize(("script", "paths", "program", "options"), [
    ("run_standalone_train_ascend.sh", ["0", "Ascend", "d d"], "train.py",
     ["--device_id=0", "--device_target=Ascend", "--dataset_path=d d"]),
    ("run_standalone_train_gpu.sh", ["3", "GPU", "d d"], "train.py",
     ["--device_id=3", "--device_target=GPU", "--dataset_path=d d"]),
    ("run_standalone_train_cpu.sh", ["d d"], "train.py", ["--device_target=CPU", "--dataset_path=d d"]),
    ("run_eval.sh", ["0", "Ascend", "d d", "c c"], "eval.py",
     ["--device_id=0", "--device_target=Ascend", "--dataset_path=d d", "--checkpoint_path=c c"]),
    ("run_eval_gpu.sh", ["0", "GPU", "d d", "c c"], "eval.py",
     ["--device_id=0", "--device_target=GPU", "--dataset_path=d d", "--checkpoint_path=c c"]),
    ("run_eval_cpu.sh", ["d d", "c c"], "eval.py",
     ["--device_target=CPU", "--dataset_path=d d", "--checkpoint_path=c c"]),
    *[(name, ["8", "d d", "r t.json"], "src/launch.py",
       ["8", "--rank_table=r t.json", "--device_target=Ascend", "--dataset_path=d d"])
      for name in ("run_distribute_train_ascend.sh", "run_distribute_train.sh")],
    ("run_distribute_train_gpu.sh", ["8", "d d"], "src/launch.py", ["8", "--device_target=GPU", "--dataset_path=d d"]),
    ("run_distribute_train_cpu.sh", ["8", "d d"], "src/launch.py", ["8", "--device_target=CPU", "--dataset_path=d d"]),
])  # fmt: skip
def test_paths_with_blanks_arrive_whole(here, blank, script, paths, program, options):
    _, _, words = call_of(here, blank / "scripts" / script, *paths, "--ckpt_path=x y")
    assert words[:2] == ["-u", f"{blank}/{program}"]
    assert words[2 : 2 + len(options)] == options
    assert "--ckpt_path=x y" in words


@pytest.mark.parametrize(("script", "target"), [
    ("run_standalone_train_gpu.sh", "GPU"), ("run_eval_gpu.sh", "GPU"), ("run_eval.sh", "GPU"),
    ("run_standalone_train_ascend.sh", "Ascend"), ("run_eval.sh", "Ascend"),
])  # fmt: skip
def test_a_list_of_cards_is_what_the_program_sees(here, script, target):
    paths = ["d", "c"] if "eval" in script else ["d"]
    cuda, ascend, words = call_of(here, ROOT / "scripts" / script, "2,3", target, *paths)
    assert (cuda, ascend) == (("2,3", "") if target == "GPU" else ("", "2,3"))
    assert words[2:4] == ["--device_id=0", f"--device_target={target}"]
    cuda, ascend, words = call_of(here, ROOT / "scripts" / script, "3", target, *paths)
    assert (cuda, ascend, words[2]) == ("", "", "--device_id=3")


def test_the_folder_that_readers_send_output_to_is_there():
    assert (ROOT / "ms_log/.gitkeep").is_file()  # or a clone would have no such folder


def test_data_that_is_where_it_was_said_to_be_comes_first(tiny_data, here, capsys):
    os.symlink(tiny_data.path, "dataset")
    (here / "data").mkdir()
    assert find("dataset/train").path.resolve() == tiny_data.path.resolve()
    assert capsys.readouterr().out == ""
    (here / "dataset").rename(here / "data/dataset")
    assert find("dataset/train").path.resolve() == tiny_data.path.resolve()
    assert capsys.readouterr().out == "dataset_path dataset/train is not there: data/dataset/train is, and taken\n"


ELSEWHERE = {"master_addr": "192.0.2.1"}  # where no scheduler starts


def launched(ranks, code):
    return Launch(cluster_of(ELSEWHERE, ranks), [sys.executable, "-c", code]).wait()


def logs():
    return {f"{path}": path.read_text() for path in sorted(Path().glob("log*/*"))}


def test_ranks_of_fewer_cards_leave_no_logs_of_more(here, capfd):
    assert launched(4, "print('first')") == 0
    assert list(logs()) == [f"log{rank}/output.log" for rank in range(4)]
    Path("log3/mine").write_text("a user's own")
    assert launched(2, "print('second')") == 0
    assert logs() == {"log0/output.log": "second\n", "log1/output.log": "second\n", "log3/mine": "a user's own"}
    assert not Path("log2").exists()


def test_a_refused_start_leaves_the_ranks_logs_of_an_earlier_run(here, capfd):
    refused = "import sys; print('error: no'); sys.exit(2)"
    assert launched(1, refused) == 2
    assert logs() == {}  # what it had to say was shown
    assert launched(4, "print('ten hours')") == 0
    capfd.readouterr()
    assert launched(2, refused) == 2
    assert re.search(r"rank (\d) ended with exit code 2 .*; see log\1/refused\.log\n", capfd.readouterr().err)
    assert {name: text for name, text in logs().items() if "refused" not in name} == {
        f"log{rank}/output.log": "ten hours\n" for rank in range(4)
    }
    assert launched(1, "import sys; print('failed'); sys.exit(1)") == 1
    assert logs()["log0/output.log"] == "failed\n"
    assert Path("log0/output.log.earlier").read_text() == "ten hours\n"


def test_a_start_with_nothing_to_do_leaves_the_logs_of_the_run_that_did_it(here, capfd):
    assert launched(2, "print('ten hours')") == 0
    assert launched(2, "print('nothing to do: x')") == 0
    assert {name: text for name, text in logs().items() if "refused" not in name} == {
        f"log{rank}/output.log": "ten hours\n" for rank in range(2)
    }


SIGN = (
    "import os, pathlib; folder = pathlib.Path(os.environ['DLRM_ALIVE_FOLDER']); "
    'sign = \'{"beat": 1, "done": 1, "step": 7, "expects": null}\'; '
    "(folder / 'rank_0.json').write_text(sign); "
)


@pytest.mark.parametrize("code", ["print('my callback: nothing to do: skip')", f"{SIGN}print('nothing to do: x')"])
def test_a_training_that_speaks_of_nothing_to_do_keeps_its_own_logs(here, capfd, code):
    """Within a line of its own, or behind its first step."""
    assert launched(1, "print('earlier')") == 0
    assert launched(1, code) == 0
    assert list(logs()) == ["log0/output.log"]
    assert "nothing to do" in logs()["log0/output.log"]


def test_a_training_that_diverged_keeps_its_own_logs(here, capfd):
    """It ends like a refused start, with exit code 2, but behind its first step."""
    assert launched(1, "print('earlier')") == 0
    assert launched(1, f"{SIGN}import sys; print('error: diverged'); sys.exit(2)") == 2
    assert logs() == {"log0/output.log": "error: diverged\n"}


def test_what_takes_long_in_silence_is_told_and_keeps_its_exit_code(here):
    script = f"set -euo pipefail; . {ROOT}/scripts/common.sh; tell_every=0.1; telling waiting bash -c '{{}}'"
    slow = "until grep -q waiting out; do sleep 0.1; done; exit 3"
    for work, code in (("true", 0), (slow, 3)):
        command = f"touch out; ({script.format(work)}) >out"
        ran = subprocess.run(["bash", "-c", command], check=False, cwd=here, capture_output=True, text=True, timeout=60)
        assert (ran.returncode, ran.stderr) == (code, "")
    assert re.match(r"waiting, for \d+ s so far\n", (here / "out").read_text())
