"""Several real processes train as one does, whatever the mode; what happens when one of them fails; who holds what."""

import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from conftest import CPU, ORIGINAL, ROOT, raw_lines
from hypothesis import example, given
from hypothesis import strategies as st
from mindspore import Tensor
from networks import loaded
from runs import rows_of

import export as export_program
from src.base import events
from src.base.errors import InputError
from src.checkpoints import protobuf, run_folder
from src.checkpoints.checkpoint import Parts, part_of
from src.checkpoints.checkpoint import rows_of as entries_of
from src.launch import main as launch_main
from src.network.embedding import EmbeddingTables, initial_rows, initial_values, joint_rows, slots_of
from src.ranks import exchange as exchange_module
from src.ranks.placement import Piece, place, plan
from src.ranks.rank_table import check_rank_table
from src.scorer import Scorer

SMALL = ["--emb_dim=8", "--bottom_mlp=[32,8]", "--top_mlp=[32,1]"]
# 53 steps of 32; 143 validation rows in batches of 50, so that the last turn of two ranks has one batch, not full.
TRAINING = [ORIGINAL, *SMALL, "--eval_batch_size=50", "--eval_steps=20", "--save_steps=10", "--log_steps=1"]
RATE = ["--batch_size=32", "--lr=0.05"]
MORE = ["--optimizer=adagrad", "--mlp_optimizer=adam", "--lr=0.001", "--table_lr=0.02", "--mlp_weight_decay=0.1",
        "--epochs=2", "--reset_tables_each_epoch=True", "--dropout=0.3", "--lr_schedule=cosine",
        "--decay_share=0.5", "--average_share=0.3", "--early_stopping=30", "--label_smoothing=0.05",
        "--mixed_dims=0.3"]  # fmt: skip
ENVIRONMENT = os.environ | {"PYTHON": sys.executable}


def single(folder, data, *options, rate=RATE):
    folder.mkdir(exist_ok=True)
    command = [sys.executable, "-u", str(ROOT / "train.py"), "--device_target=CPU", f"--dataset_path={data.path}"]
    done = subprocess.run(
        [*command, *TRAINING, *rate, *options], cwd=folder, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def start(folder, data, ranks, *options, rate=RATE):
    folder.mkdir(exist_ok=True)
    command = ["bash", str(ROOT / "scripts/run_distribute_train_cpu.sh"), str(ranks), str(data.path)]
    return subprocess.Popen([*command, *TRAINING, *rate, *options], cwd=folder, env=ENVIRONMENT, stdout=subprocess.PIPE,
                            stderr=subprocess.PIPE, text=True)  # fmt: skip


def several(folder, data, ranks, *options, rate=RATE):
    child = start(folder, data, ranks, *options, rate=rate)
    out, err = child.communicate()
    assert child.returncode == 0, err + out
    return out


def values(folder, data, mixed_dims=0.0):
    """The parameters of a run's checkpoint; the tables are one."""
    model = loaded(folder / "checkpoint/dlrm.ckpt", data, bottom_mlp=(32, 8), mixed_dims=mixed_dims)
    return {"tables": model.tables.table.asnumpy()} | {v.name: v.asnumpy() for v in model.mlp_parameters()}


def apart(one, other):
    """The largest difference of two sets of parameters, relative to the largest value of each."""
    return max(np.abs(one[name] - other[name]).max() / np.abs(one[name]).max() for name in one)


def evaluations(folder):
    return [
        {key: row[key] for key in ("step", "acc", "auc", "logloss")}
        for row in rows_of(folder / "metrics.jsonl", "eval")
    ]


@pytest.fixture(scope="module")
def alone(tiny_data, tmp_path_factory):
    """The folder of one process's run, by optimizer."""
    folders = {}

    def folder_of(optimizer):
        if optimizer not in folders:
            folders[optimizer] = tmp_path_factory.mktemp("alone")
            single(folders[optimizer], tiny_data, f"--optimizer={optimizer}")
        return folders[optimizer]

    return folder_of


def check_as_one_process(folder, data, one, mixed_dims=0.0):
    assert apart(values(one, data, mixed_dims), values(folder, data, mixed_dims)) < 1e-5
    for mine, expected in zip(evaluations(folder), evaluations(one), strict=True):
        assert mine == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("optimizer", ["sgd", "rowwise_adagrad"])
@pytest.mark.parametrize("mode", ["data", "hybrid"])
def test_two_ranks_train_as_one_process(tiny_data, tmp_path, alone, mode, optimizer):
    out = several(tmp_path, tiny_data, 2, f"--parallel_mode={mode}", f"--optimizer={optimizer}")
    check_as_one_process(tmp_path, tiny_data, alone(optimizer))
    assert "best evaluation" in out
    assert all("rank" in (tmp_path / f"log{rank}/output.log").read_text() for rank in range(2))
    parts = ["dlrm.rank_1.ckpt"] if mode == "hybrid" else []
    assert sorted(os.listdir(tmp_path / "checkpoint")) == [
        "dlrm.ckpt", *parts, "dlrm.yaml", "manifest.json", "report.html", "report.json", "scores.npz", "vocabulary.npz",
    ]  # fmt: skip
    own, single = (
        json.loads((folder / "checkpoint/report.json").read_text()) for folder in (tmp_path, alone(optimizer))
    )
    for name in ("metrics", "importance"):  # measured by all ranks together, of tables that are split too
        found, expected = (content["evaluation"][name] for content in (own, single))
        found, expected = (one.get("auc_drop", one) for one in (found, expected))
        assert found == pytest.approx(expected, abs=1e-3)
    assert len(rows_of(tmp_path / "metrics.jsonl", "end")) == 1

    # One process scores the parts as the ranks together did, to the last digit.
    command = [sys.executable, str(ROOT / "eval.py"), f"--dataset_path={tiny_data.path}/valid", "--device_target=CPU",
               "--checkpoint_path=checkpoint/dlrm.ckpt", "--eval_batch_size=50",
               "--metrics_file_name=eval.jsonl"]  # fmt: skip
    subprocess.run(command, cwd=tmp_path, check=True, capture_output=True)
    (scored,) = rows_of(tmp_path / "eval.jsonl", "eval")
    best = max(evaluations(tmp_path), key=lambda row: row["auc"])
    assert {key: scored[key] for key in ("acc", "auc", "logloss")} == {
        key: best[key] for key in ("acc", "auc", "logloss")
    }


@pytest.fixture(scope="module")
def alone_with_more(tiny_data, tmp_path_factory):
    """The folder of one process's run with what depends on ranks, samples, epochs or steps in other ways."""
    folder = tmp_path_factory.mktemp("more")
    single(folder, tiny_data, *MORE, rate=["--batch_size=32"])
    return folder


@pytest.mark.parametrize("mode", ["data", "hybrid"])
def test_two_ranks_train_as_one_process_with_more_options(tiny_data, tmp_path, alone_with_more, mode):
    several(tmp_path, tiny_data, 2, f"--parallel_mode={mode}", *MORE, rate=["--batch_size=32"])
    check_as_one_process(tmp_path, tiny_data, alone_with_more, 0.3)
    scores = []  # the export puts a split table of narrow vectors together, at full width
    for name, folder in (("one", alone_with_more), ("two", tmp_path)):
        out = tmp_path / name
        export_program.main([CPU, f"--checkpoint_path={folder}/checkpoint", f"--export_path={out}"])
        scores.append(Scorer(str(out)).score_lines(raw_lines(100, 5), has_labels=True))
    assert np.abs(scores[0] - scores[1]).max() < 1e-5
    assert np.ptp(scores[0]) > 0.01


def test_batch_that_does_not_divide_is_rounded_up(tiny_data, tmp_path, alone):
    out = several(tmp_path, tiny_data, 2, rate=["--batch_size=31", "--lr=0.05"])
    assert "batch_size is rounded up to 32, a multiple of the 2 ranks" in out
    check_as_one_process(tmp_path, tiny_data, alone("sgd"))


@pytest.fixture(scope="module")
def four(tiny_data, tmp_path_factory):
    """The folder of an undisturbed hybrid run of 4 ranks."""
    folder = tmp_path_factory.mktemp("four")
    several(folder, tiny_data, 4, "--parallel_mode=hybrid", "--optimizer=rowwise_adagrad")
    return folder


def test_four_ranks_train_as_one_process(tiny_data, four, alone):
    check_as_one_process(four, tiny_data, alone("rowwise_adagrad"))


@pytest.mark.parametrize(("mode", "optimizer"), [("data", "sgd"), ("data", "rowwise_adagrad"), ("hybrid", "sgd")])
def test_four_ranks_train_as_one_process_in_other_ways(tiny_data, tmp_path, alone, mode, optimizer):
    several(tmp_path, tiny_data, 4, f"--parallel_mode={mode}", f"--optimizer={optimizer}")
    check_as_one_process(tmp_path, tiny_data, alone(optimizer))


def wait_for(condition, child):
    deadline = time.monotonic() + 120
    while not condition():
        assert child.poll() is None, child.stderr.read()
        assert time.monotonic() < deadline
        time.sleep(0.02)


def step_saved(folder):
    try:
        return json.loads((folder / "checkpoint/unfinished/progress.json").read_text())["step"]
    except FileNotFoundError:
        return 0


def processes_in(folder):
    """Processes whose working folder this is."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            found += [process.name] if (process / "cwd").readlink() == folder else []
    return found


def test_killed_rank_ends_the_run_by_name_and_the_next_one_goes_on(tiny_data, tmp_path, four):
    options = ["--parallel_mode=hybrid", "--optimizer=rowwise_adagrad"]
    child = start(tmp_path, tiny_data, 4, *options)
    wait_for(lambda: step_saved(tmp_path) >= 20, child)
    assert len(processes_in(tmp_path)) >= 6  # four ranks, the scheduler, msrun
    os.kill(json.loads((tmp_path / "msrun_log/node_0/alive/rank_2.json").read_text())["pid"], signal.SIGKILL)
    begin = time.monotonic()
    out, err = child.communicate(timeout=60)
    assert time.monotonic() - begin < 60
    assert child.returncode == 128 + signal.SIGKILL
    assert re.search(r"error: rank 2 was killed by signal 9; .* see log2/output\.log", err)
    assert not (tmp_path / "checkpoint/dlrm.ckpt").exists()
    assert not processes_in(tmp_path), "ranks or their scheduler are left"
    out = several(tmp_path, tiny_data, 4, *options)
    assert int(re.search(r"going on from step (\d+) of 53", out)[1]) >= 20
    mine, expected = values(tmp_path, tiny_data), values(four, tiny_data)
    assert all(mine[name].tobytes() == expected[name].tobytes() for name in expected)
    assert {row["step"]: row for row in evaluations(tmp_path)} == {row["step"]: row for row in evaluations(four)}


def test_other_number_of_ranks_that_changes_the_batch_is_refused(tiny_data, tmp_path):
    child = start(tmp_path, tiny_data, 2, rate=["--batch_size=31", "--lr=0.05"])
    wait_for(lambda: step_saved(tmp_path) >= 10, child)
    os.kill(json.loads((tmp_path / "msrun_log/node_0/alive/rank_1.json").read_text())["pid"], signal.SIGKILL)
    child.communicate(timeout=60)
    command = [sys.executable, str(ROOT / "train.py"), "--device_target=CPU", f"--dataset_path={tiny_data.path}"]
    done = subprocess.run([*command, *TRAINING, "--batch_size=31", "--lr=0.05"], cwd=tmp_path, capture_output=True,
                          text=True, check=False)  # fmt: skip
    assert done.returncode == 2
    assert "with 32 samples a step over its ranks, and 1 ranks make that 31" in done.stderr


def test_rank_that_hangs_ends_the_run_by_name_and_one_process_goes_on(tiny_data, tmp_path, alone):
    """From the two ranks' parts; the optimizer's states are among them."""
    child = start(tmp_path, tiny_data, 2, "--parallel_mode=hybrid", "--optimizer=rowwise_adagrad", "--rank_timeout=4")
    wait_for(lambda: step_saved(tmp_path) >= 10, child)
    os.kill(json.loads((tmp_path / "msrun_log/node_0/alive/rank_1.json").read_text())["pid"], signal.SIGSTOP)
    _, err = child.communicate(timeout=60)
    assert child.returncode == 1
    assert "error: rank 1 has given no sign of life for 4 s" in err
    out = single(tmp_path, tiny_data, "--optimizer=rowwise_adagrad")
    assert int(re.search(r"going on from step (\d+) of 53", out)[1]) >= 10
    assert apart(values(alone("rowwise_adagrad"), tiny_data), values(tmp_path, tiny_data)) < 1e-5


def test_error_of_a_rank_is_shown_with_its_exit_code(tiny_data, tmp_path):
    child = start(tmp_path, tiny_data, 2, rate=["--lr=1e30"])
    _, err = child.communicate()
    assert child.returncode == 2
    assert re.search(r"error: rank \d ended with exit code 2 \(.*try a smaller --lr\)", err)


def test_error_of_rank_0_alone_ends_all(tiny_data, tmp_path):
    """Before a barrier at which the other one waits."""
    (tmp_path / "checkpoint").mkdir()
    (tmp_path / "checkpoint/dlrm.ckpt").write_bytes(b"dear")
    child = start(tmp_path, tiny_data, 2)
    _, err = child.communicate(timeout=60)
    assert child.returncode == 2
    assert "already holds dlrm.ckpt" in err
    texts = [(tmp_path / f"log{rank}/output.log").read_text() for rank in range(2)]
    assert all("already holds dlrm.ckpt" in text for text in texts)
    assert (tmp_path / "checkpoint/dlrm.ckpt").read_bytes() == b"dear"


def test_ranks_end_with_a_launcher_that_is_killed(tiny_data, tmp_path):
    child = start(tmp_path, tiny_data, 2)
    wait_for((tmp_path / "msrun_log/node_0/alive/rank_0.json").exists, child)
    child.send_signal(signal.SIGKILL)
    deadline = time.monotonic() + 30
    while processes_in(tmp_path):
        assert time.monotonic() < deadline
        time.sleep(0.1)
    assert not (tmp_path / "checkpoint/dlrm.ckpt").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--paralel_mode=data"], "knows no option '--paralel_mode=data'; did you mean"),
        (["--batch_size=0"], "batch_size"),
    ],
)
def test_launcher_finds_mistakes_before_it_starts_anything(tiny_data, tmp_path, options, message):
    child = start(tmp_path, tiny_data, 2, *options, rate=["--lr=0.05"])
    _, err = child.communicate(timeout=60)
    assert child.returncode == 2
    assert message in err
    assert len(err.splitlines()) == 1
    assert not list(tmp_path.iterdir())


def test_second_launch_in_a_folder_is_refused_and_the_first_goes_on(tiny_data, tmp_path):
    child = start(tmp_path, tiny_data, 2)
    wait_for((tmp_path / "msrun_log/node_0/alive/rank_0.json").exists, child)
    second = start(tmp_path, tiny_data, 2)
    _, err = second.communicate(timeout=60)
    assert (second.returncode, "another run is at work there" in err) == (2, True)
    _, err = child.communicate(timeout=120)
    assert child.returncode == 0, err


def test_two_hosts(tiny_data, tmp_path, alone):
    """One rank each in a network namespace of its own, joined by a virtual cable, which also counts what is sent."""
    names = [f"dlrm{os.getpid()}{side}" for side in "ab"]

    def ip(*words):
        return subprocess.run(["ip", *words], capture_output=True, text=True, check=False)

    if os.geteuid() or ip("netns", "add", names[0]).returncode:
        pytest.skip("network namespaces need root")
    try:
        ip("netns", "add", names[1])
        made = ip("link", "add", "one", "netns", names[0], "type", "veth", "peer", "name", "two", "netns", names[1])
        if made.returncode:
            pytest.skip(f"no virtual network: {made.stderr}")
        for name, link, address in zip(names, ("one", "two"), ("10.77.0.1/24", "10.77.0.2/24")):
            ip("-n", name, "addr", "add", address, "dev", link)
            ip("-n", name, "link", "set", link, "up")
            ip("-n", name, "link", "set", "lo", "up")
        children = []
        for rank, name in enumerate(names):
            (tmp_path / f"host{rank}").mkdir()
            command = ["ip", "netns", "exec", name, "bash", str(ROOT / "scripts/run_distribute_train_cpu.sh"), "1",
                       str(tiny_data.path), "--worker_num=2", "--local_worker_num=1", "--master_addr=10.77.0.1",
                       "--master_port=8118", f"--node_rank={rank}", f"--ckpt_path={tmp_path}/checkpoint",
                       "--parallel_mode=hybrid"]  # fmt: skip
            command += [*TRAINING, *RATE, "--importance_rows=0"]  # whose scoring is no part of the plan
            children.append(subprocess.Popen(command, cwd=tmp_path / f"host{rank}", env=ENVIRONMENT,
                                             stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True))  # fmt: skip
        texts = [child.communicate(timeout=300)[0] for child in children]
        assert [child.returncode for child in children] == [0, 0], texts
        statistics = json.loads(ip("-n", names[1], "-s", "-j", "link", "show", "two").stdout)
    finally:
        for name in names:
            ip("netns", "delete", name)
    shutil.copy(tmp_path / "host0/metrics.jsonl", tmp_path)
    check_as_one_process(tmp_path, tiny_data, alone("sgd"))
    assert (tmp_path / "host1/log1/output.log").exists()
    sent = statistics[0]["stats64"]["tx"]["bytes"]
    mlp = sum(v.size for name, v in values(tmp_path, tiny_data).items() if name != "tables")
    rows = tiny_data.manifest.table_rows
    planned = 53 * plan(place(rows, "hybrid", 2), 32, 8, mlp, 0, "CPU").bytes_per_step[1]
    assert sent == pytest.approx(planned, rel=0.5)  # with evaluations, checks at saves and headers


TABLES = st.lists(st.integers(1, 300), min_size=1, max_size=9)


@given(TABLES, st.integers(1, 9))
def test_every_row_lies_on_one_rank(table_rows, ranks):
    placement = place(table_rows, "hybrid", ranks)
    held = sorted((p.field, row) for pieces in placement.pieces for p in pieces for row in range(p.low, p.high))
    assert held == [(field, row) for field, rows in enumerate(table_rows) for row in range(rows)]
    most = max(placement.rows(rank) for rank in range(ranks))
    assert most <= -(-sum(table_rows) // ranks) * 1.06 + 2


def test_criteo_s_tables_are_spread_evenly_in_few_pieces():
    rows = (1460, 583, 10131227, 2202608, 305, 24, 12517, 633, 3, 93145, 5683, 8351593, 3194, 27, 14992, 5461306, 10,
            5652, 2173, 4, 7046547, 18, 15, 286181, 105, 142572)  # fmt: skip
    for ranks in (2, 4, 8):
        placement = place(rows, "hybrid", ranks)
        held = [placement.rows(rank) for rank in range(ranks)]
        assert max(held) < 1.01 * sum(rows) / ranks
        assert sum(map(len, placement.pieces)) <= 26 + ranks
        assert placement.slots <= 26 / ranks + 4


def held_by(placement, rank):
    """What stands for a rank's tables where no process is started."""
    held = SimpleNamespace(table_rows=placement.table_rows, pieces=slots_of(placement, rank), spare=1)
    held.views = lambda joint: EmbeddingTables.views(held, joint)
    return held


@given(TABLES, st.permutations([1, 2, 3, 4, 8]))
@example([3, 300, 20, 7], [1, 2, 4])
def test_layouts_in_any_order_give_the_same_bits(tmp_path_factory, table_rows, order):
    """A rank never reads more than its own rows."""
    fields, folder = [f"C{field}" for field in range(len(table_rows))], tmp_path_factory.mktemp("layouts")
    fill = initial_values(table_rows, 3)
    for turn, ranks in enumerate([*order, 1]):
        placement, path = place(table_rows, "hybrid", ranks), folder / f"{turn}.ckpt"
        for rank in range(ranks):
            joint = joint_rows(slots_of(placement, rank), 5, fill, 1)
            assert len(joint) == placement.rows(rank) + placement.slots
            entries = entries_of(held_by(placement, rank), "embedding.", joint, fields)
            extra = {"parts": np.array([ranks], np.int32)} if ranks > 1 or not entries else {}
            protobuf.write(part_of(path, rank), (entries | extra).items())
        fill = Parts(path, fields, table_rows).fill("embedding.")
    whole = joint_rows(place(table_rows, "none", 1).pieces[0], 5, fill)
    assert whole.tobytes() == initial_rows(table_rows, 5, 3).tobytes()


class Wire:
    """Stands for AlltoAll among ranks that are simulated one after the other: keeps what is sent, gives what is due."""

    def __init__(self):
        self.sent, self.due = [], None

    def __call__(self, values):
        self.sent.append(values.asnumpy())
        return values if self.due is None else Tensor(self.due)


def exchanged(exchanges, call, inputs):
    """The result of a method of each rank's exchange, the blocks going from rank to rank as AlltoAll moves them."""
    ranks, results = len(exchanges), []
    for exchange, values in zip(exchanges, inputs):
        exchange.all_to_all = Wire()
        getattr(exchange, call)(Tensor(values))
    blocks = [np.split(exchange.all_to_all.sent[0], ranks) for exchange in exchanges]
    for rank, (exchange, values) in enumerate(zip(exchanges, inputs)):
        exchange.all_to_all.due = np.concatenate([sender[rank] for sender in blocks])
        results.append(getattr(exchange, call)(Tensor(values)).asnumpy())
    return results


@pytest.mark.parametrize("ranks", [2, 3])
def test_all_to_all_moves_what_all_gather_does(monkeypatch, ranks):
    """Which only Ascend has: the blocks' order, by simulated ranks."""
    for name in ("AllGather", "AllReduce", "AlltoAll"):
        monkeypatch.setattr(exchange_module.ops, name, lambda **_: Wire())
    rows = (9, 30, 2, 40, 5)
    placement = place(rows, "hybrid", ranks)
    slots = [slot.field for rank in range(ranks) for slot in slots_of(placement, rank)]
    exchanges = [exchange_module.Exchange(rank, ranks, True) for rank in range(ranks)]
    for exchange in exchanges:
        exchange.set_slots(slots)
    rng = np.random.default_rng(1)
    for shape in ((4, len(rows)), (4, len(rows), 3)):
        samples = [rng.integers(0, 99, shape).astype(np.int32) for _ in range(ranks)]
        for rank, got in enumerate(exchanged(exchanges, "to_owners", samples)):
            own = slots[rank * placement.slots : (rank + 1) * placement.slots]
            np.testing.assert_array_equal(got, np.concatenate(samples)[:, own])
    vectors = [rng.random((4 * ranks, placement.slots, 3), dtype=np.float32) for _ in range(ranks)]
    for rank, got in enumerate(exchanged(exchanges, "to_samples", vectors)):
        np.testing.assert_array_equal(got, np.concatenate([one[4 * rank : 4 * rank + 4] for one in vectors], 1))


def test_killed_while_the_parts_are_put_in_place_loses_none(tiny_data, tmp_path, monkeypatch):
    """Part 1 is there, part 0 is not yet: going on from an earlier state, the best network must still be whole."""

    def kill_before_the_checkpoint(moment):
        if moment == "dlrm.rank_1.ckpt is in its place":
            raise KeyboardInterrupt

    def run_at(step, fail):
        with run_folder.Run(tmp_path, tiny_data, run_folder.RunOptions("dlrm.yaml", "lr: 1\n")) as run:
            if fail:
                for rank in range(2):
                    content = [("parts", np.array([2], np.int32)), (f"value{rank}", np.zeros(3, np.float32))]
                    protobuf.write(part_of(run.best(step), rank), content)
                run.commit({"step": step}, step, step)
            run.finish(step)

    with monkeypatch.context() as patch:
        patch.setattr(events, "listeners", [kill_before_the_checkpoint])
        with pytest.raises(KeyboardInterrupt):
            run_at(20, True)
    assert not (tmp_path / "dlrm.ckpt").exists()
    run_at(20, False)
    assert sorted(os.listdir(tmp_path)) == [
        "dlrm.ckpt",
        "dlrm.rank_1.ckpt",
        "dlrm.yaml",
        "manifest.json",
        "vocabulary.npz",
    ]
    assert Parts(tmp_path / "dlrm.ckpt", [], []).ranks == 2


def test_missing_part_is_refused(tmp_path):
    path = tmp_path / "dlrm.ckpt"
    protobuf.write(path, [("parts", np.array([2], np.int32))])
    with pytest.raises(InputError, match=r"rank_1\.ckpt is not a file"):
        Parts(part_of(path, 1), ["C1"], [4])
    with pytest.raises(InputError, match=r"has 2 parts, and .*dlrm\.rank_1\.ckpt is missing"):
        Parts(path, ["C1"], [4])
    protobuf.write(part_of(path, 1), [("embedding.C1@2", np.zeros((2, 3), np.float32))])
    with pytest.raises(InputError, match=r"rank_1\.ckpt is one part of a checkpoint: name dlrm\.ckpt"):
        Parts(part_of(path, 1), ["C1"], [4])
    parts, rows = Parts(path, ["C1"], [4]), np.empty((2, 3), np.float32)
    parts.fill("embedding.")(Piece(0, 2, 4), rows)
    with pytest.raises(InputError, match=r"has no such entry for embedding\.C1"):
        parts.fill("embedding.")(Piece(0, 1, 3), rows)


def test_plan_says_what_each_rank_holds_and_refuses_too_little_memory(tiny_data, tmp_path):
    def planned(*options):
        command = ["bash", str(ROOT / "scripts/run_distribute_train_cpu.sh"), "4", str(tiny_data.path)]
        command += [*SMALL, "--plan_only=True", "--parallel_mode=hybrid", *options]
        return subprocess.run(command, cwd=tmp_path, env=ENVIRONMENT, capture_output=True, text=True, check=False)

    done = planned()
    assert done.returncode == 0, done.stderr
    line = r"^rank \d: \d+ pieces, [\d,]+ rows, .* MB in all as computed, sends .* MB a step$"
    assert len(re.findall(line, done.stdout, re.M)) == 4
    assert not list(tmp_path.iterdir()), "nothing is made"
    done = planned("--device_memory_mb=10")
    assert done.returncode == 2
    assert "a device's 10 MB can't hold" in done.stderr


def table_of(ranks, devices):
    return {"version": "1.0", "server_count": "1", "status": "completed", "server_list": [
        {"server_id": "10.0.0.1", "device": [
            {"device_id": str(device), "device_ip": f"192.1.27.{device}", "rank_id": str(rank)}
            for rank, device in zip(ranks, devices)]}]}  # fmt: skip


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (table_of([0, 1, 2], [0, 1, 2]), "has 3 devices, DEVICE_NUM is 4"),
        (table_of([0, 1, 1, 3], [0, 1, 2, 3]), "has rank_id 1 twice"),
        (table_of([0, 1, 2, 3], [0, 1, 2, 2]), r"has device \('10.0.0.1', 2\) twice"),
        (table_of([0, 1, 2, 4], [0, 1, 2, 3]), "has no rank_id 3"),
        ({"server_list": [{"device": [{}]}]}, "not of the form server_list"),
        ([], "not of the form server_list"),
        (None, "is not a file"),
    ],
)
def test_rank_table_is_checked(tmp_path, content, message):
    path = tmp_path / "table.json"
    if content is not None:
        path.write_text(json.dumps(content))
    with pytest.raises(InputError, match=message):
        check_rank_table(path, 4)


def test_good_rank_table_passes(tmp_path):
    path = tmp_path / "table.json"
    path.write_text(json.dumps(table_of([1, 0, 3, 2], [0, 1, 2, 3])))
    check_rank_table(path, 4)


@pytest.mark.parametrize("number", ["0", "two", "-1"])
def test_number_of_devices_is_checked(number):
    with pytest.raises(InputError, match=f"DEVICE_NUM is {number}"):
        launch_main([number])


def test_several_processes_need_a_launcher(tiny_data, tmp_path):
    command = [sys.executable, str(ROOT / "train.py"), f"--dataset_path={tiny_data.path}", "--device_target=CPU"]
    done = subprocess.run([*command, "--parallel_mode=data"], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "run_distribute_train_cpu.sh" in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_ascend_launcher_checks_its_rank_table(tmp_path):
    script = ROOT / "scripts/run_distribute_train_ascend.sh"
    done = subprocess.run(["bash", str(script), "8", "data", "no-such.json"], cwd=tmp_path, env=ENVIRONMENT,
                          capture_output=True, text=True, check=False)  # fmt: skip
    assert done.returncode == 2
    assert (
        done.stderr
        == "error: rank table no-such.json is not a file: name the JSON file that says which rank has which device\n"
    )
    assert not list(Path(tmp_path).iterdir())
