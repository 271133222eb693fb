"""Jobs on ModelArts: what is copied in and out, by whom, and what is wrong with it. Nothing is trained but in one."""

import hashlib
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
from conftest import CPU, ORIGINAL, ROOT, SMALL

import eval as eval_program
import export as export_program
from src import launch
from src.base.errors import InputError
from src.model_utils import copying, moxing_adapter, staging
from src.model_utils.copying import CHECKSUMS
from src.model_utils.moxing_adapter import ModelArtsSpec, job
from src.ranks import cluster

FAKES = ROOT / "tests/fakes"


@pytest.fixture
def obs(here, monkeypatch):
    """An object storage with a bucket that holds a data folder of three files."""
    bucket = here / "obs/bucket"
    (bucket / "dataset/train").mkdir(parents=True)
    for name, size in {"manifest.json": 10, "vocabulary.npz": 2000, "train/part-0": 30_000}.items():
        (bucket / "dataset" / name).write_bytes(os.urandom(size))
    monkeypatch.setenv("FAKE_OBS", str(here / "obs"))
    monkeypatch.syspath_prepend(str(FAKES))
    monkeypatch.delitem(sys.modules, "moxing", raising=False)
    monkeypatch.setattr(copying, "WAIT_S", 0.0)
    for name in ("RANK_ID", "MS_NODE_ID", "DLRM_ALIVE_FOLDER"):
        monkeypatch.delenv(name, raising=False)
    yield here / "obs"
    sys.modules.pop("moxing", None)  # of this folder, which no other test is to find


def spec_of(**urls):
    return ModelArtsSpec(True, **urls)


DATA = {"data_url": "obs://bucket/dataset"}
OUT = {"train_url": "obs://bucket/out/V1"}


def run(work=lambda: None, results=("checkpoint", "loss.log"), data="dataset", checkpoint="checkpoint", **urls):
    with job(spec_of(**urls), data, Path(checkpoint), [Path(name) for name in results]):
        return work()


def contents(folder):
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != CHECKSUMS
    }


def calls(obs):
    """Process, source and target of each copy."""
    path = obs / ".calls"
    return [line.split() for line in path.read_text().splitlines()] if path.exists() else []


def train(text="trained"):
    Path("checkpoint/finished").mkdir(parents=True, exist_ok=True)
    Path("checkpoint/dlrm.ckpt").write_text(text)
    Path("checkpoint/finished/state").write_text("state")
    Path("loss.log").write_text("loss\n")


def test_data_comes_in_and_results_go_out(obs, here, capsys):
    seen = run(lambda: (train(), contents(Path("dataset")))[1], **DATA, **OUT)
    assert seen == contents(obs / "bucket/dataset")
    out = obs / "bucket/out/V1"
    assert contents(out / "checkpoint") == contents(here / "checkpoint")
    assert (out / "loss.log").read_text() == "loss\n"
    assert json.loads((out / "checkpoint" / CHECKSUMS).read_text()) == {
        name: hashlib.sha256(data).hexdigest() for name, data in contents(out / "checkpoint").items()
    }
    assert "job default: copied obs://bucket/dataset to dataset: 3 files\n" in capsys.readouterr().out
    before = len(calls(obs))
    run(**DATA)
    assert len(calls(obs)) == before  # it is all there


def test_a_part_of_the_data_folder_brings_all_of_it(obs):
    run(data="dataset/train", **DATA)
    assert contents(Path("dataset")) == contents(obs / "bucket/dataset")


def test_data_that_changed_in_the_storage_comes_anew(obs):
    run(**DATA)
    (obs / "bucket/dataset/train/part-0").write_bytes(b"other rows")
    (obs / "bucket/dataset/vocabulary.npz").unlink()
    run(**DATA)
    assert contents(Path("dataset")) == contents(obs / "bucket/dataset")


def test_data_of_the_same_sizes_that_changed_comes_anew(obs):
    """The manifest has the checksums of all other files."""
    run(**DATA)
    (obs / "bucket/dataset/train/part-0").write_bytes(os.urandom(30_000))
    (obs / "bucket/dataset/manifest.json").write_bytes(os.urandom(10))
    run(**DATA)
    assert contents(Path("dataset")) == contents(obs / "bucket/dataset")


def test_data_that_is_no_longer_whole_comes_anew(obs):
    run(**DATA)
    Path("dataset/vocabulary.npz").unlink()
    run(**DATA)
    assert contents(Path("dataset")) == contents(obs / "bucket/dataset")


def test_a_later_job_goes_on_with_what_an_earlier_one_left(obs, here):
    run(lambda: train("first"), **OUT)
    shutil.rmtree(here / "checkpoint")
    (here / "loss.log").unlink()

    def go_on():
        assert Path("checkpoint/dlrm.ckpt").read_text() == "first"
        assert Path("loss.log").read_text() == "loss\n"
        shutil.rmtree("checkpoint/finished")
        Path("checkpoint/dlrm.ckpt").write_text("second")

    run(go_on, **OUT)
    assert contents(obs / "bucket/out/V1/checkpoint") == {"dlrm.ckpt": b"second"}  # what is no more has gone there, too
    shutil.rmtree(here / "checkpoint")
    run(checkpoint_url="obs://bucket/out/V1/checkpoint/")
    assert Path("checkpoint/dlrm.ckpt").read_text() == "second"
    Path("checkpoint/dlrm.ckpt").write_text("third")  # by this job, which the machine then starts once more
    run(checkpoint_url="obs://bucket/out/V1/checkpoint/")
    assert Path("checkpoint/dlrm.ckpt").read_text() == "third"


def test_results_that_were_not_copied_out_whole_are_refused(obs):
    run(train, **OUT)
    shutil.rmtree("checkpoint")
    (obs / "bucket/out/V1/checkpoint" / CHECKSUMS).unlink()
    with pytest.raises(InputError, match="/V1/checkpoint has no checksums.json: the job that copied it out was"):
        run(**OUT)
    assert not Path("checkpoint").exists()


def test_a_job_that_fails_or_is_stopped_leaves_what_it_has(obs):
    for error in (InputError("diverged"), KeyboardInterrupt()):

        def fail(error=error):
            train(type(error).__name__)
            raise error

        with pytest.raises(type(error)):
            run(fail, **OUT)
        assert (obs / "bucket/out/V1/checkpoint/dlrm.ckpt").read_text() == type(error).__name__


def test_of_two_errors_the_runs_own_is_raised(obs, capsys):
    def fail():
        train()
        shutil.rmtree(obs / "bucket")
        raise InputError("diverged")

    with pytest.raises(InputError, match="diverged"):
        run(fail, **OUT)
    assert "warning: obs://bucket/out/V1/checkpoint can't be read, tried 3" in capsys.readouterr().err


@pytest.mark.parametrize(("rank", "sent"), [("0", True), ("1", False)])
def test_one_rank_copies_out(obs, monkeypatch, rank, sent):
    monkeypatch.setenv("RANK_ID", rank)
    run(train, **DATA, **OUT)
    assert (obs / "bucket/out/V1/checkpoint/dlrm.ckpt").exists() == sent


def test_a_rank_of_the_launcher_copies_nothing(obs, monkeypatch):
    monkeypatch.setenv("DLRM_ALIVE_FOLDER", "x")
    run(train, **DATA, **OUT)
    assert not calls(obs)


def test_the_launcher_copies_for_its_ranks(obs, tiny_data, monkeypatch):
    """The first host's alone copies out; the ranks themselves are left away here."""
    shutil.rmtree(obs / "bucket/dataset")
    shutil.copytree(tiny_data.path, obs / "bucket/dataset")
    found = []

    class NoRanks:
        def __init__(self, cluster, program):
            found.append(Path("dataset/manifest.json").is_file())

        def wait(self):
            train()
            return 3

    monkeypatch.setattr(launch, "Launch", NoRanks)
    argv = [CPU, "--enable_modelarts=True", *(f"--{name}={url}" for name, url in (DATA | OUT).items())]
    assert launch.main(["2", *argv, "--worker_num=4", "--node_rank=1"]) == 3
    assert contents(obs / "bucket/out") == {}
    shutil.rmtree("checkpoint")  # of the other host, in the same folder here
    assert launch.main(["2", *argv]) == 3
    assert (obs / "bucket/out/V1/checkpoint/dlrm.ckpt").read_text() == "trained"
    assert found == [True, True]


def test_jobs_of_today_have_folders_for_urls_or_none(obs, here):
    """ModelArts then has copied the data to the machine before, and copies the results afterwards."""
    run(data_url=str(obs / "bucket/dataset"), train_url=str(here / "outputs"), work=train)
    assert Path("dataset").is_symlink()
    assert contents(Path("dataset")) == contents(obs / "bucket/dataset")
    assert (here / "outputs/checkpoint/dlrm.ckpt").read_text() == "trained"
    assert not calls(obs)
    (here / "other").mkdir()
    run(data_url=str(here / "other"))
    assert contents(Path("dataset")) == {}
    run(train)
    with pytest.raises(InputError, match="data_url nowhere is not a folder"):
        run(data_url="nowhere")


@pytest.mark.parametrize("fault", ["refuse", "flip"])
@pytest.mark.parametrize("way", ["in", "out"])
def test_a_copy_that_went_wrong_is_made_again(obs, fault, way):
    """Of folders that an earlier job has copied out, whose checksums are known."""
    run(train, **OUT)
    shutil.rmtree("checkpoint")
    sent = contents(obs / "bucket/out/V1/checkpoint")
    if way == "in":
        (obs / ".fault").write_text(fault)
        run(checkpoint_url="obs://bucket/out/V1/checkpoint")
        assert contents(Path("checkpoint")) == sent
    else:

        def trained():
            train("again")
            (obs / ".fault").write_text(f"{fault} 2")  # of dlrm.ckpt, behind the checksums

        run(trained, train_url="obs://bucket/out/V2")
        assert contents(obs / "bucket/out/V2/checkpoint") == contents(Path("checkpoint"))
    assert not (obs / ".fault").exists()


def test_a_copy_that_is_wrong_each_time_is_refused(obs):
    run(train, **OUT)
    shutil.rmtree("checkpoint")
    (obs / "bucket/out/V1/checkpoint/dlrm.ckpt").write_text("tampere")  # of the same size
    remedy = "the job that copied it out was stopped there; name another place, or remove that one"
    with pytest.raises(InputError, match=rf"\S*dlrm.ckpt is not what obs://\S*dlrm.ckpt is\): {remedy}"):
        run(checkpoint_url="obs://bucket/out/V1/checkpoint")
    (obs / "bucket/out/V1/checkpoint/dlrm.ckpt").unlink()
    with pytest.raises(InputError, match=r"has no dlrm.ckpt, which its checksums.json lists: the job that copied"):
        run(checkpoint_url="obs://bucket/out/V1/checkpoint")
    assert not Path("checkpoint").exists()


@pytest.mark.parametrize(
    ("urls", "message"),
    [
        ({"data_url": "obs://nowhere/dataset"}, r"obs://nowhere/dataset can't be listed, tried 3 times .*NoSuchBucket"),
        ({"data_url": "obs://bucket/nothing"}, "obs://bucket/nothing is not there, or empty: check the name"),
        ({"checkpoint_url": "obs://nowhere/c"}, "obs://nowhere/c can't be listed, tried 3 times .*NoSuchBucket"),
        (
            {"train_url": "obs://nowhere/out"},
            "train_url obs://nowhere/out can't be written to, tried 3 times .*NoSuchB",
        ),
        (
            {"data_url": "gs://bucket/x"},
            r"gs://bucket/x can't be reached .*: pip install -r requirements-storage.txt, or what fsspec needs for gs://",
        ),
    ],
)
def test_a_missing_bucket_or_folder_is_refused_before_the_run(obs, urls, message):
    with pytest.raises(InputError, match=message) as caught:
        run(lambda: pytest.fail("it runs"), **urls)
    assert "\n" not in str(caught.value)


def test_what_is_no_copy_is_not_replaced(obs):
    Path("dataset").mkdir()
    Path("dataset/mine").write_text("dear")
    for url in (DATA["data_url"], str(obs / "bucket/dataset")):
        with pytest.raises(InputError, match="dataset holds something else than a copy of"):
            run(data_url=url)
    assert Path("dataset/mine").read_text() == "dear"


def test_a_copy_of_the_wrong_folder_makes_room_for_the_right_one(obs):
    """But not what was changed, or written beside it, since it was copied."""
    for name, files in (("wrong", ["notes.txt"]), ("right", ["dlrm.ckpt", "manifest.json"])):
        (obs / "bucket" / name).mkdir()
        for file in files:
            (obs / "bucket" / name / file).write_text(name)
    run(checkpoint_url="obs://bucket/wrong")
    run(checkpoint_url="obs://bucket/right")
    assert contents(Path("checkpoint")) == {"dlrm.ckpt": b"right", "manifest.json": b"right"}
    later = time.time() + 1
    Path("checkpoint/dlrm.ckpt").write_text("tuned")  # of the same size
    os.utime("checkpoint/dlrm.ckpt", (later, later))
    with pytest.raises(InputError, match="checkpoint holds something else than a copy of obs://bucket/wrong"):
        run(checkpoint_url="obs://bucket/wrong")
    assert Path("checkpoint/dlrm.ckpt").read_text() == "tuned"


def test_urls_without_a_job_and_results_of_one_name_are_refused(obs):
    with pytest.raises(InputError, match="data_url has no effect without enable_modelarts"):
        ModelArtsSpec(data_url="obs://bucket/dataset")
    with pytest.raises(InputError, match="two results are named auc.log"):
        run(results=["a/auc.log", "b/auc.log"], **OUT)


@pytest.mark.parametrize("found", ["", "def nothing(): pass\n"])
def test_another_package_named_moxing_is_told_apart(obs, here, monkeypatch, found):
    """PyPI's, or none at all."""
    monkeypatch.setattr(sys, "path", [path for path in sys.path if path != str(FAKES)])
    if found:
        (here / "moxing.py").write_text(found)
        monkeypatch.syspath_prepend(str(here))
    with pytest.raises(InputError, match=r"needs ModelArts' own module moxing .*PyPI's package of that name"):
        run(**DATA)
    assert not (here / ".modelarts").exists()


def test_a_disk_without_room_is_refused_before_the_copy(obs, monkeypatch):
    usage = shutil.disk_usage(".")
    monkeypatch.setattr(copying.shutil, "disk_usage", lambda _: usage._replace(free=20_000))
    with pytest.raises(InputError, match="has 0 MB, and the disk of dataset 0 MB left: free some space"):
        run(**DATA)
    assert not calls(obs)


def test_a_disk_that_fills_up_meanwhile_is_told_at_once(obs):
    (obs / ".fault").write_text("full")
    with pytest.raises(InputError, match="can't be copied: the disk is full .*: free some space") as caught:
        run(**DATA)
    assert "tried" not in str(caught.value)
    assert not Path("dataset").exists()
    assert not Path(".modelarts/dataset/new").exists()


def test_a_full_disk_is_one_line(obs, here):
    """A real one; needs the right to mount."""
    (here / "small").mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=16k", "tmpfs", "small"]
    if os.geteuid() or subprocess.run(mount, check=False, stderr=subprocess.DEVNULL).returncode:
        pytest.skip("mounting a small tmpfs needs root")
    try:
        (obs / "bucket/checkpoint").mkdir()
        (obs / "bucket/checkpoint/dlrm.ckpt").write_bytes(bytes(40_000))
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(moxing_adapter, "check_space", lambda *_: None)  # as if another program had just filled it
            with pytest.raises(InputError, match="can't be copied: the disk is full"):
                run(checkpoint="small/checkpoint", checkpoint_url="obs://bucket/checkpoint")
        assert [path.name for path in (here / "small").iterdir()] == [".modelarts"]

        def fill():
            train()
            Path("checkpoint/dlrm.ckpt").write_bytes(bytes(40_000))

        with pytest.raises(InputError, match=r"checkpoint can't be copied to small/out/checkpoint: the disk is full"):
            run(fill, train_url="small/out")
    finally:
        subprocess.run(["umount", "small"], check=True)


PROGRAM = """
import sys
from pathlib import Path
from src.base.errors import run
from src.model_utils.moxing_adapter import ModelArtsSpec, job

def main(argv):
    results = [Path(name) for name in argv]
    train_url = "obs://bucket/out" if results else ""
    with job(ModelArtsSpec(True, "obs://bucket/dataset", "", train_url), "dataset", Path("checkpoint"), results):
        print(sum(path.is_file() for path in Path("dataset").rglob("*")))
        for path in results:
            path.mkdir(exist_ok=True)
            (path / "a").write_text("first")
            (path / "b").write_text("second")

run(main)
"""


# Of the same program: what kills it in a moment of a copy's way to its place.
KILLED_AS_IT_REMOVES = """
import os, shutil, signal
from pathlib import Path

def killed(folder):
    min(path for path in Path(folder).rglob("*") if path.is_file()).unlink()
    os.kill(os.getpid(), signal.SIGKILL)

shutil.rmtree = killed
"""
KILLED_BEFORE_RENAMING = """
import os, signal
from pathlib import Path

left, rename = [None] * {}, Path.rename

def killed(path, target):
    if not left:
        os.kill(os.getpid(), signal.SIGKILL)
    left.pop()
    return rename(path, target)

Path.rename = killed
"""


def start(*results, before="", **environment):
    surroundings = os.environ | {"PYTHONPATH": f"{ROOT}:{FAKES}"} | environment
    command = [sys.executable, "-c", before + PROGRAM, *results]
    pipe = subprocess.PIPE
    return subprocess.Popen(command, env=surroundings, text=True, stdout=pipe, stderr=pipe)


def test_of_two_processes_one_copies_and_the_other_waits(obs):
    (obs / ".fault").write_text("wait")
    processes = [start(RANK_ID=str(rank)) for rank in range(2)]
    while not calls(obs):  # one of them copies; the other one can't be far
        assert all(process.poll() is None for process in processes)
        time.sleep(0.01)
    (obs / ".fault").unlink()
    ends = [process.communicate() for process in processes]
    assert [out.splitlines()[-1] for out, _ in ends] == ["3", "3"], ends
    assert len({process for process, *_ in calls(obs)}) == 1
    assert len(calls(obs)) == 3


def test_when_the_copying_process_is_killed_the_waiting_one_copies(obs):
    (obs / ".fault").write_text("kill")
    processes = [start(RANK_ID=str(rank)) for rank in range(2)]
    ends = [process.communicate() for process in processes]
    assert sorted(process.returncode for process in processes) == [-9, 0], ends
    assert [out.splitlines()[-1] for out, _ in ends if out] == ["3"]
    assert contents(Path("dataset")) == contents(obs / "bucket/dataset")


def test_the_same_command_goes_on_after_a_kill_in_the_copy(obs):
    (obs / ".fault").write_text("kill")
    process = start()
    process.communicate()
    assert (process.returncode, Path("dataset").exists()) == (-9, False)
    again = start()
    assert again.communicate()[0].splitlines()[-1] == "3"
    assert contents(Path("dataset")) == contents(obs / "bucket/dataset")


@pytest.mark.parametrize("before", [KILLED_AS_IT_REMOVES, *map(KILLED_BEFORE_RENAMING.format, range(3))])
def test_a_kill_while_a_copy_takes_the_place_of_an_older_one_leaves_no_mixture(obs, before):
    run(**DATA)
    (obs / "bucket/dataset/vocabulary.npz").write_bytes(os.urandom(3000))
    process = start(before=before)
    process.communicate()
    assert process.returncode == -9
    run(**DATA)
    assert contents(Path("dataset")) == contents(obs / "bucket/dataset")
    assert [path.name for path in Path(".modelarts/dataset").iterdir()] == ["copied.json"]


def test_after_a_kill_in_the_copy_out_the_same_command_copies_out(obs, here):
    start().communicate()
    (obs / ".fault").write_text("kill 2")
    process = start("checkpoint")
    process.communicate()
    assert (process.returncode, contents(obs / "bucket/out")) == (-9, {"checkpoint/a": b"first"})
    (here / "checkpoint").rename(here / "kept")  # as on another machine
    again = start("checkpoint")
    assert "bucket/out/checkpoint has no b, which its checksums.json lists: the job that" in again.communicate()[1]
    assert again.returncode == 2
    (here / "kept").rename(here / "checkpoint")
    again = start("checkpoint")
    assert again.communicate()[1] == ""
    assert contents(obs / "bucket/out/checkpoint") == {"a": b"first", "b": b"second"}


@pytest.mark.parametrize("fault", [f"kill {number}" for number in range(1, 9)])
def test_a_kill_in_a_copy_out_leaves_an_earlier_jobs_result_or_its_own(obs, fault):
    """Behind each file of the copy beside, and of the copy in the place."""

    def write():
        Path("checkpoint").mkdir()
        Path("checkpoint/a").write_text("older")
        Path("checkpoint/gone").write_text("older")

    out = obs / "bucket/out"
    run(write, results=["checkpoint"], train_url="obs://bucket/out")
    older = contents(Path("checkpoint"))
    Path("checkpoint/gone").unlink()
    start().communicate()
    (obs / ".fault").write_text(fault)
    process = start("checkpoint")
    process.communicate()
    assert process.returncode == -9
    newer = contents(Path("checkpoint"))
    for urls in ({"checkpoint_url": "obs://bucket/out/checkpoint"}, {"train_url": "obs://bucket/out"}):
        shutil.rmtree("checkpoint")  # as on another machine
        run(results=["checkpoint"], **urls)
        assert contents(Path("checkpoint")) in (older, newer)
    assert contents(out / "checkpoint") == contents(Path("checkpoint"))
    assert [path.name for path in out.iterdir()] == ["checkpoint"]


def test_two_processes_train_and_one_checkpoint_goes_out(obs, tiny_data, here):
    """By msrun, as jobs of today start, with train.py itself."""
    shutil.rmtree(obs / "bucket/dataset")
    shutil.copytree(tiny_data.path, obs / "bucket/dataset")
    (here / "cache").mkdir()
    command = [Path(sys.executable).with_name("msrun"), "--worker_num=2", "--local_worker_num=2", "--join=True",
               f"--master_port={cluster.free_port()}", ROOT / "train.py", CPU, ORIGINAL, *SMALL, "--batch_size=200",
               "--parallel_mode=data", "--enable_modelarts=True", "--data_url=obs://bucket/dataset",
               "--train_url=obs://bucket/out", "--report=False", "--compare_linear=False"]  # fmt: skip
    environment = os.environ | {
        "PYTHONPATH": str(FAKES), "OMP_NUM_THREADS": "1",
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
    }  # fmt: skip
    done = subprocess.run(command, cwd=here / "cache", env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    out = obs / "bucket/out"
    assert contents(out / "checkpoint") == contents(here / "cache/checkpoint")
    assert {path.name for path in out.iterdir()} == {"auc.log", "checkpoint", "loss.log", "metrics.jsonl"}
    assert len((out / "loss.log").read_text().splitlines()) == 1
    assert len([1 for _, source, _ in calls(obs) if source.endswith("manifest.json") and "dataset" in source]) == 1
    # Evaluation and export take the checkpoint from there, with the options beside it.
    checkpoint = ["--enable_modelarts=True", "--checkpoint_url=obs://bucket/out/checkpoint", CPU]
    eval_program.main([*checkpoint, "--data_url=obs://bucket/dataset", "--train_url=obs://bucket/scores"])
    assert (obs / "bucket/scores/acc.log").read_text() == (here / "acc.log").read_text() != ""
    export_program.main([*checkpoint, "--train_url=obs://bucket/scores"])
    assert "dlrm.model" in contents(obs / "bucket/scores/export")


def test_raw_files_that_were_replaced_by_others_of_their_size_are_copied_anew(obs, capsys):
    (obs / "bucket/rows.txt").write_text("one")
    for text, copies in (("one", 1), ("two", 1), ("two", 0)):
        if (obs / "bucket/rows.txt").read_text() != text:
            (obs / "bucket/rows.txt").write_text(text)
            os.utime(obs / "bucket/rows.txt", ns=(1, 1))
        assert Path(staging.staged("obs://bucket/rows.txt", Path("stage"))).read_text() == text
        assert capsys.readouterr().out.count("copied obs://bucket/rows.txt") == copies
