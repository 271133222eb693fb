"""Several real processes train as one does, whatever the mode, the options and the number of ranks."""

import json
import os
import random
import re
import signal
from pathlib import Path

import numpy as np
import pytest
from conftest import CPU, preprocess_lines, raw_lines, write_raw
from runs import rows_of
from trainings import (
    EVALUATED,
    RATE,
    SGD,
    TRAINING,
    alone_of,
    apart,
    check_as_one_process,
    evaluation_of,
    evaluations,
    fork,
    merged,
    pid_of,
    processes_in,
    single,
    start,
    step_saved,
    together,
    values,
    wait_for,
)

import eval as eval_program
import export as export_program
from src.base.errors import InputError
from src.base.locks import hold
from src.data.manifest import find
from src.options import TrainOptions, resolve
from src.ranks.options import ucx_folder
from src.scorer import Scorer
from src.training.prepare import Runtime
from tests.lists import SCHEMA, columns_of, table

ROWWISE = ["--optimizer=rowwise_adagrad", "--self_interaction=True"]
MORE = ["--optimizer=adagrad", "--mlp_optimizer=adam", "--lr=0.001", "--table_lr=0.02", "--mlp_weight_decay=0.1",
        "--epochs=2", "--reset_tables_each_epoch=True", "--dropout=0.3", "--lr_schedule=cosine",
        "--decay_share=0.5", "--average_share=0.3", "--early_stopping=30", "--label_smoothing=0.05",
        "--mixed_dims=0.3", "--interaction=cat", "--batch_size=64", "--report=False"]  # fmt: skip
# What GPU and Ascend compute with.
STOCK = ["--cpu_kernels=False", "--optimizer=adam", "--table_weight_decay=0.01", "--mlp_weight_decay=0.1",
         "--lr=0.001", "--average_share=0.3", "--bottom_mlp=[8]", "--top_mlp=[1]", "--batch_size=64",
         "--report=False"]  # fmt: skip
WIDE = [*STOCK, "--towers=2", "--interaction=dcnv2", "--dcn_layers=1", "--dcn_rank=4", "--emb_dim=16"]
# Of lists, weights of 0 to 7, and a part of the negatives, on rows of their own.
LISTS = [*RATE, "--optimizer=adagrad", "--mlp_optimizer=sgd", "--mixed_dims=0.5", "--report=False"]
TOWERS = [*RATE, "--optimizer=adagrad", "--mlp_optimizer=sgd", "--towers=2", "--emb_dim=16", "--report=False"]
SHAPES = {"bottom_mlp": (8,), "top_mlp": (1,)}
# By name: the options, and those of the network that differ from most.
RECIPES = {
    "sgd": ([*SGD, "--compare_linear=True"], {}),
    "plain": ([*SGD, "--transport=mindspore"], {}),
    "rowwise": ([*RATE, *ROWWISE], {"self_interaction": True}),
    "more": (MORE, {"mixed_dims": 0.3, "interaction": "cat"}),
    "lists": (LISTS, {"mixed_dims": 0.5}),
    "towers": (TOWERS, {"towers": 2, "emb_dim": 16}),
    "stock": (STOCK, SHAPES),
    "wide": (WIDE, SHAPES | {"towers": 2, "emb_dim": 16, "interaction": "dcnv2", "dcn_layers": 1, "dcn_rank": 4}),
}
TWO = [("sgd", "data"), ("sgd", "hybrid"), ("rowwise", "hybrid"), ("more", "data"), ("more", "hybrid"),
       ("lists", "data"), ("lists", "hybrid"), ("towers", "data"), ("towers", "hybrid"),
       ("stock", "data"), ("wide", "hybrid"), ("plain", "hybrid")]  # fmt: skip
BY_MINDSPORE = ("stock", "wide", "plain")
HALVES = {
    f"{wire}-{mode}": [*SGD, f"--wire_dtype={wire}", f"--parallel_mode={mode}", "--report=False"]
    for wire, mode in (("bfloat16", "hybrid"), ("float16", "data"))
}
FOUR = [("sgd", "hybrid"), ("rowwise", "data")]
ODD = {"--batch_size=32": "--batch_size=31", "--batch_size=64": "--batch_size=63"}
# What the two ranks do last: trainings in whose folders another run is at work, and a checkpoint stands, and one that
# diverges, which ends them.
FAIL = {"refused-data": [*RATE, "--parallel_mode=data"], "refused-whole": [*RATE, "--parallel_mode=data"],
        "diverging-data": [*SGD, "--lr=1e30", "--parallel_mode=data"]}  # fmt: skip


@pytest.fixture(scope="module")
def data_of(tiny_data, made_once):
    """The data folder of a recipe."""
    lists = find(str(made_once("weighted_lists", weighted_lists) / "dataset"))
    return lambda recipe: lists if recipe == "lists" else tiny_data


def weighted_lists(folder):
    """Rows of lists and of weights."""
    rng, (header, *lines) = random.Random(3), table(1500)
    rows = [f"{header},weight", *(f"{line},{rng.choice([0, 1, 1, 2, 7])}" for line in lines)]
    columns = columns_of(folder, f"{SCHEMA}weight: weight\n")
    preprocess_lines(write_raw(folder / "log.csv", rows), folder / "dataset", columns, keep_negatives=0.5)


@pytest.fixture(scope="module")
def alone(data_of, made_once):
    """The folder of one process's run, by recipe."""

    def folder_of(recipe):
        recipe = "sgd" if recipe == "plain" else recipe  # one process sends nothing
        return alone_of(made_once, data_of(recipe), recipe, RECIPES[recipe][0])

    return folder_of


@pytest.fixture(scope="module")
def two(tiny_data, data_of, made_once):
    """The folder of two ranks' runs, by recipe and mode; with batches that they round up."""
    trainings = {
        f"{recipe}-{mode}": [*(ODD.get(option, option) for option in RECIPES[recipe][0]),
                             f"--parallel_mode={mode}", f"--dataset_path={data_of(recipe).path}"]
        for recipe, mode in TWO
    } | {"perturbed-data": [*RECIPES["rowwise"][0], "--parallel_mode=data", "--report=False"]}  # fmt: skip
    trainings |= (HALVES if ucx_folder() else {}) | FAIL

    def make(folder):
        lock = folder / "refused-data/checkpoint/unfinished/.lock"
        lock.parent.mkdir(parents=True)
        (folder / "refused-whole/checkpoint").mkdir(parents=True)
        (folder / "refused-whole/checkpoint/dlrm.ckpt").write_bytes(b"dear")
        with hold(lock, "checkpoint"):
            together(folder, tiny_data, 2, trainings, code=2)

    return made_once("two", make)


@pytest.fixture(scope="module")
def four(tiny_data, made_once):
    """The same of four ranks, of two of them."""
    trainings = {
        f"{recipe}-{mode}": [*RECIPES[recipe][0], f"--parallel_mode={mode}", "--report=False", "--compare_linear=False"]
        for recipe, mode in FOUR
    }  # fmt: skip
    return made_once("four", lambda folder: together(folder, tiny_data, 4, trainings))


def test_error_of_a_rank_is_shown_with_its_exit_code(two):
    """Which is the launcher's, see `two`."""
    assert re.search(
        r"error: rank \d ended with exit code 2 \(.*try a smaller --lr: the same command with --lr=1e\+29",
        (two / "error.txt").read_text(),
    )


def test_error_of_rank_0_alone_ends_all(two):
    """Before a barrier at which the other one waits."""
    for name, words in (("data", "another run is at work there"), ("whole", "already holds dlrm.ckpt")):
        texts = [(two / f"refused-{name}/refused_{rank}.txt").read_text() for rank in range(2)]
        assert all(words in text for text in texts)
    assert (two / "refused-whole/checkpoint/dlrm.ckpt").read_bytes() == b"dear"


@pytest.mark.parametrize(("recipe", "mode"), TWO)
def test_two_ranks_train_as_one_process(data_of, two, alone, mode, recipe):
    check_as_one_process(two / f"{recipe}-{mode}", data_of(recipe), alone(recipe), **RECIPES[recipe][1])


@pytest.mark.parametrize(("recipe", "mode"), FOUR)
def test_four_ranks_train_as_one_process(tiny_data, four, alone, mode, recipe):
    check_as_one_process(four / f"{recipe}-{mode}", tiny_data, alone(recipe), **RECIPES[recipe][1])


@pytest.mark.parametrize(("recipe", "mode"), TWO)
def test_ranks_send_in_one_order(two, recipe, mode):
    """Each collective operation of a step waits for all those before it, the same ones on every rank."""
    found = [json.loads((two / f"{recipe}-{mode}/collectives_{rank}.json").read_text()) for rank in range(2)]
    assert found[0] == found[1]
    means = 2 if recipe == "lists" else 1
    expected = ["AllReduce"] * means + ["AllGather"] * (2 if mode == "data" else 3)
    if ucx_folder() and recipe not in BY_MINDSPORE:
        own = ["RanksAllGradients"] if mode == "data" else ["RanksLookup", "RanksGradients"]
        expected = ["RanksMean"] * means + own
    assert sorted(name for name, _ in found[0]) == sorted(expected)
    assert all(waits for _, waits in found[0]), found[0]


@pytest.mark.skipif(ucx_folder() is None, reason="UCX is not installed")
@pytest.mark.parametrize("name", HALVES)
def test_values_in_16_bits_change_little_and_keep_replicas_equal(tiny_data, two, alone, name):
    own, one = values(two / name, tiny_data), values(alone("sgd"), tiny_data)
    assert 1e-6 < apart(one, own) < 0.02
    for rank in range(2):
        text = (two / f"log{rank}/output.log").read_text()
        assert text.count("ranks differed in") == 1, "that of the perturbed run"
    assert f"ranks send by UCX, {name.partition('-')[0]}" in (two / "log0/output.log").read_text()


def test_replicas_that_rounding_parted_are_brought_together_at_the_next_save(two, tiny_data, alone):
    """Rank 1's values are changed a little behind step 5; saves come behind steps 10, 20 and so on."""
    for rank in range(2):
        lines = (two / f"log{rank}/output.log").read_text().splitlines()
        (told,) = [line for line in lines if "ranks differed in" in line]
        assert told.startswith("step 10: ")
        assert re.search(r"in \d+ of \d+ parameters, most in \S+, by [1-3]\.\de-07 of its largest value", told)
    one, other = (values(folder, tiny_data, self_interaction=True)
                  for folder in (alone("rowwise"), two / "perturbed-data"))  # fmt: skip
    assert 0 < apart(one, other) < 1e-3


def test_batch_that_does_not_divide_is_rounded_up(two):
    for rank in range(2):
        text = (two / f"log{rank}/output.log").read_text()
        assert all(f"batch_size is rounded up to {size}, a multiple of the 2 ranks" in text for size in (32, 64))


@pytest.mark.parametrize(("recipe", "mode"), TWO[:3])
def test_ranks_report_as_one_process_does(two, alone, mode, recipe):
    """Measured by all ranks together, of tables that are split too."""
    own, one = (
        json.loads((folder / "checkpoint/report.json").read_text())
        for folder in (two / f"{recipe}-{mode}", alone(recipe))
    )
    for name in ("metrics", "importance"):
        found, expected = (content["evaluation"][name] for content in (own, one))
        found, expected = (one.get("auc_drop", one) for one in (found, expected))
        assert found == pytest.approx(expected, abs=1e-3)


@pytest.mark.parametrize(("recipe", "mode"), [("sgd", "data"), ("rowwise", "hybrid")])
def test_one_process_scores_parts_as_the_ranks_did_to_the_last_digit(tiny_data, two, tmp_path, mode, recipe):
    folder = two / f"{recipe}-{mode}"
    eval_program.main([CPU, f"--dataset_path={tiny_data.path}/valid", "--eval_batch_size=50",
                       f"--checkpoint_path={folder}/checkpoint/dlrm.ckpt",
                       f"--metrics_file_name={tmp_path}/eval.jsonl"])  # fmt: skip
    (scored,) = rows_of(tmp_path / "eval.jsonl", "eval")
    best = max(evaluations(folder), key=lambda row: row["auc"])
    assert {key: scored[key] for key in ("acc", "auc", "logloss")} == {
        key: best[key] for key in ("acc", "auc", "logloss")
    }


@pytest.mark.parametrize("name", EVALUATED)
def test_ranks_evaluate_a_checkpoint_as_one_process_does_to_the_last_digit(two, data_of, name, monkeypatch):
    """Of lists, narrow vectors and weighted rows; each rank holds its part alone, or all."""
    recipe, _, _ = name.partition("-")
    monkeypatch.chdir(two / name)
    found = json.loads(Path("evaluated.json").read_text())
    given = merged(CPU, *TRAINING, f"--dataset_path={data_of(recipe).path}", *RECIPES[recipe][0])
    options = resolve(TrainOptions, given)
    alone = evaluation_of(options, Runtime(compute=options.compute))
    expected = alone.metrics | alone.beside
    assert found.pop("eval_s") > 0 < expected.pop("eval_s")
    assert found == expected
    assert 0 < found["auc_low"] < found["auc"] < found["auc_high"]


def test_exports_of_split_tables_score_as_those_of_one_process(two, alone, tmp_path):
    """The export puts a split table of narrow vectors together, at full width."""
    scores = []
    for folder in (alone("more"), two / "more-data", two / "more-hybrid"):
        out = tmp_path / folder.name
        export_program.main([CPU, f"--checkpoint_path={folder}/checkpoint", f"--export_path={out}"])
        scores.append(Scorer(str(out)).score_lines(raw_lines(100, 5), has_labels=True))
    assert max(np.abs(scores[0] - other).max() for other in scores[1:]) < 1e-5
    assert np.ptp(scores[0]) > 0.01


def check_same(one, other, data):
    """To the bit."""
    mine, expected = (values(folder, data, self_interaction=True) for folder in (one, other))
    assert all(mine[name].tobytes() == expected[name].tobytes() for name in expected)
    assert {row["step"]: row for row in evaluations(one)} == {row["step"]: row for row in evaluations(other)}


def test_killed_rank_ends_the_run_by_name_and_the_next_one_goes_on(tiny_data, tmp_path, two):
    """While a second run in the folder is refused."""
    options, rate = [*ROWWISE, "--parallel_mode=hybrid"], [RATE[0].replace("32", "31"), RATE[1]]
    child = start(tmp_path, tiny_data, 2, *options, rate=rate)
    wait_for((tmp_path / "launch_log/from_rank_0/alive/rank_1.pid").exists, child)
    _, err = start(tmp_path, tiny_data, 2, *options, rate=rate).communicate(timeout=60)
    assert "another run is at work there" in err
    wait_for(lambda: step_saved(tmp_path) >= 20, child)
    assert len(processes_in(tmp_path)) >= 4  # two ranks, the scheduler, the launcher
    os.kill(pid_of(tmp_path, 1), signal.SIGKILL)
    _, err = child.communicate(timeout=60)
    assert child.returncode == 128 + signal.SIGKILL, "not only when MindSpore misses the rank"
    assert re.search(r"error: rank 1 was killed by signal 9; .* see log1/output\.log", err)
    assert not (tmp_path / "checkpoint/dlrm.ckpt").exists()
    assert not processes_in(tmp_path), "ranks or their scheduler are left"
    with pytest.raises(InputError, match="with 32 samples a step over its ranks, and 1 ranks make that 31"):
        single(tmp_path, tiny_data, *ROWWISE, rate=rate)
    child = fork(tmp_path, tiny_data, 2, *options, rate=rate)
    out, err = child.communicate()
    assert child.returncode == 0, err + out
    assert int(re.search(r"going on from step (\d+) of 53", out)[1]) >= 20
    assert "best evaluation" in out
    assert all(f"rank {rank} of 2" in (tmp_path / f"log{rank}/output.log").read_text() for rank in range(2))
    assert sorted(os.listdir(tmp_path / "checkpoint")) == [
        "counts.npz", "dlrm.ckpt", "dlrm.rank_1.ckpt", "dlrm.yaml", "finished", "manifest.json", "report.html",
        "report.json", "scores.npz", "vocabulary.npz",
    ]  # fmt: skip
    assert len(rows_of(tmp_path / "metrics.jsonl", "end")) == 1
    check_same(tmp_path, two / "rowwise-hybrid", tiny_data)


def test_rank_that_hangs_while_it_compiles_ends_the_run_by_name(tiny_data, tmp_path):
    child = fork(tmp_path, tiny_data, 2, *ROWWISE, "--parallel_mode=hybrid", "--rank_timeout=4", "--report=False")
    sign = tmp_path / "launch_log/from_rank_0/alive/rank_1.json"
    wait_for(lambda: sign.exists() and json.loads(sign.read_text())["expects"] == "processor time", child)
    os.kill(pid_of(tmp_path, 1), signal.SIGSTOP)
    _, err = child.communicate(timeout=120)
    assert child.returncode == 1
    assert "error: rank 1 has given no sign of life for 4 s" in err


def test_rank_that_hangs_ends_the_run_by_name_and_one_process_goes_on(tiny_data, tmp_path, capsys, alone):
    """From the two ranks' parts; the optimizer's states are among them."""
    child = fork(tmp_path, tiny_data, 2, *ROWWISE, "--parallel_mode=hybrid", "--rank_timeout=4", "--report=False")
    wait_for(lambda: step_saved(tmp_path) >= 10, child)
    os.kill(pid_of(tmp_path, 1), signal.SIGSTOP)
    _, err = child.communicate(timeout=120)
    assert child.returncode == 1
    assert "error: rank 1 has given no sign of life for 4 s" in err
    single(tmp_path, tiny_data, *ROWWISE, "--report=False")
    changed = ", with parallel_mode none instead of hybrid, 1 ranks instead of 2"
    assert int(re.search(rf"going on from step (\d+) of 53, .*{changed}", capsys.readouterr().out)[1]) >= 10
    check_as_one_process(tmp_path, tiny_data, alone("rowwise"), self_interaction=True)
