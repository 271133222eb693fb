"""What is told before a training begins, and figures of one too short to have them."""

import json
import re
from types import SimpleNamespace

import numpy as np
import pytest
from conftest import CPU, ORIGINAL, SMALL, preprocess_lines, raw_lines, write_raw
from runs import rows_of

import eval as eval_program
import train as train_program
from benchmarks import ascend_graphs, results
from benchmarks.workers import table_rows
from src.base.errors import InputError
from src.metrics.labels import auc_deviation, sorted_by_label
from src.model_utils.config import DeviceSpec
from src.network.options import ComputeSpec
from src.ranks.options import ParallelSpec
from src.ranks.placement import place
from src.report.summary import rows_of_report
from src.training import prepare
from src.training.options import DataSpec, EvaluationSpec, OptimizationSpec
from src.training.prepare import Runtime


def trained(folder, lines, *options):
    """Preprocess lines, and train on them."""
    preprocess_lines(write_raw(folder / "train.txt", lines), folder / "dataset")
    train_program.main([CPU, ORIGINAL, "--dataset_path=dataset", *SMALL, "--batch_size=128", *options])


@pytest.fixture(scope="module")
def by_label():
    """700 lines, those that are no clicks first."""
    return sorted(raw_lines(700), key=lambda line: line[0])


def test_rows_sorted_by_label_are_told_before_training(here, by_label, capsys):
    trained(here, by_label, "--report=False", "--compare_linear=False")
    before, after = capsys.readouterr().out.split("epoch: 1, step", 1)
    assert (
        "warning: training rows look sorted by label, which changes 1 times in 600 rows; in random order it" in before
    )
    assert re.search(r"would some \d+ times; the last rows validate and test; .*shuffle their lines", before)
    assert ("warning: all 50 valid rows have label 1, so they have no AUC, and the last network is kept, as AUC can't "
            "choose; if raw rows are sorted by label, shuffle") in before  # fmt: skip
    assert "'auc': nan" in after
    assert "; no auc: all rows have one label" in after
    assert "no auc: all rows have one label" in (here / "auc.log").read_text()


def test_training_rows_of_one_label_are_told(here, by_label, capsys):
    others = [line for line in by_label if line[0] == "0"][:300]
    trained(here, others, "--report=False", "--compare_linear=False", "--monitor=logloss")
    out = capsys.readouterr().out
    assert "warning: all 258 train rows have label 0, so there is nothing to learn" in out
    assert "warning: all 21 valid rows have label 0, so they have no AUC; if raw rows" in out


def test_rows_in_another_order_are_not_told(here, capsys):
    trained(here, raw_lines(700), "--report=False", "--compare_linear=False")
    assert "warning" not in capsys.readouterr().out


def test_150_rows_have_no_figure_that_is_none(here, by_label, capsys):
    """One step, whose compilation is no throughput; evaluation rows of one label; in logs, report and summary."""
    trained(here, [*raw_lines(128), *(line for line in by_label if line[0] == "0")][:150])
    eval_program.main([CPU, "--dataset_path=dataset"])
    out = capsys.readouterr().out
    assert "1 steps, samples/s not measured, as the first step compiles, peak memory" in out
    assert "test: auc not known, normalised_entropy -, calibration -" in out
    assert re.findall(r"\bnan\b", out.replace("'auc': nan", "")) == []
    assert rows_of("metrics.jsonl", "end")[0]["samples_per_s"] is None
    table = dict(rows_of_report(here, here / "train.txt"))
    assert table["AUC"] == "- on 10 test rows"
    assert table["training"] == "samples/s not measured, as the first step compiles, 1 steps"
    page = (here / "checkpoint/report.html").read_text()
    assert "none, as all rows have one label" in page
    assert not re.search(r"\bnan\b", page, re.I)
    assert json.loads((here / "checkpoint/report.json").read_text())["learned"]["hint"].startswith("all 11 valid rows")


def test_an_order_is_told_by_the_changes_of_label():
    labels = np.random.default_rng(1).random(5000) < 0.25
    assert sorted_by_label(labels) == ""
    assert "changes 1 times in 5,000 rows; in random order it would some 18" in sorted_by_label(np.sort(labels))
    assert "changes 9 times" in sorted_by_label(np.concatenate([np.sort(part) for part in np.split(labels, 5)]))
    assert sorted_by_label(np.arange(30) > 15) == ""  # too few rows to tell
    assert sorted_by_label(np.zeros(5000)) == ""


def test_the_deviation_of_a_chance_auc_is_that_of_random_scores():
    from src.metrics.binary import auc

    rng = np.random.default_rng(1)
    labels = np.arange(100) < 30
    found = [auc(labels.astype(float), rng.random(100)) for _ in range(2000)]
    assert auc_deviation(30, 70) == pytest.approx(np.std(found), rel=0.05)
    assert np.isnan(auc_deviation(0, 70))


def planned(tiny_data, capsys, *options):
    """The MB of a rank in all, and those of network and batch, as printed."""
    train_program.main([f"--dataset_path={tiny_data.path}", ORIGINAL, *SMALL[:3], "--plan_only=True", *options])
    out = capsys.readouterr().out
    in_all = re.search(r"([\d,.]+) MB in all as computed", out)[1].replace(",", "")
    line = re.search(r"on each rank ([\d.]+) MB of MLPs.*", out)
    return float(in_all), float(line[1]), line[0]


def test_the_plan_counts_mlps_their_optimizer_and_batches(tiny_data, capsys):
    """By hand: SMALL's network has 13 + 26 * 9 inputs and vectors, 24 + 359 + 33 values of layers for a sample."""
    sample, weights = 13 + 26 * 9 + 24 + 359 + 33, 13 * 16 + 16 + 16 * 8 + 8 + 359 * 32 + 32 + 32 + 1
    gpu, wide = "--device_target=GPU", ["--batch_size=4096", "--eval_batch_size=64"]
    _, of_step, line = planned(tiny_data, capsys, gpu, *wide)
    assert of_step == pytest.approx(4 * (2 * weights + 2 * 4096 * sample) / 2**20, abs=0.06)
    assert "those of a training step" in line
    _, of_adam, _ = planned(tiny_data, capsys, gpu, *wide, "--optimizer=adam", "--average_share=0.5")
    update = 4096 * 26 * (4 + 2) * 8  # sums of gradients and the like, and two states, of looked-up rows
    assert of_adam - of_step == pytest.approx(4 * (3 * weights + update) / 2**20, abs=0.11)
    _, of_evaluation, line = planned(tiny_data, capsys, gpu, "--eval_batch_size=65536")
    assert of_evaluation == pytest.approx(4 * (2 * weights + 65536 * sample) / 2**20, abs=0.06)
    assert "those of an evaluation, by --eval_batch_size" in line
    _, without, _ = planned(tiny_data, capsys, gpu, "--eval_batch_size=65536", "--do_eval=False")
    assert without < 1
    _, crossed, _ = planned(tiny_data, capsys, gpu, *wide, "--interaction=dcnv2", "--dcn_layers=2", "--dcn_rank=10")
    assert crossed > of_step


def test_a_device_that_holds_the_tables_but_not_the_batch_is_refused(tiny_data, capsys):
    in_all, of_batch, _ = planned(tiny_data, capsys, "--device_target=GPU", "--eval_batch_size=65536")
    enough = f"--device_memory_mb={int(in_all) + 1}"
    assert planned(tiny_data, capsys, "--device_target=GPU", "--eval_batch_size=65536", enough)[0] == in_all
    with pytest.raises(InputError, match="or smaller batches"):
        planned(tiny_data, capsys, "--device_target=GPU", "--eval_batch_size=65536",
                f"--device_memory_mb={int(in_all - of_batch) + 1}")  # fmt: skip


def test_ranks_that_split_tables_hold_what_others_samples_need(tiny_data, capsys):
    hybrid = ["--device_target=GPU", "--parallel_mode=hybrid", "--batch_size=4096", "--eval_batch_size=64"]
    _, one, _ = planned(tiny_data, capsys, *hybrid, "--ranks=1")
    _, four, _ = planned(tiny_data, capsys, *hybrid, "--ranks=4")
    slots = place(tiny_data.manifest.table_rows, "hybrid", 4).slots
    own, received = 2 * 1024 * (13 + 26 * 9 + 24 + 359 + 33), 4096 * (26 * 9 + slots * 8 * 5)
    assert four - one == pytest.approx(4 * (received + own - 4 * own) / 2**20, abs=0.11)


def planned_mb(graph, monkeypatch, capsys):
    """What the plan says of a training step that the dry run compiled, for its rank."""
    fields = [f"C{field}" for field in range(ascend_graphs.FIELDS)]
    rows = table_rows(graph.total_rows)
    manifest = SimpleNamespace(
        inputs=["I"] * ascend_graphs.DENSE, fields=fields, parts={}, table_rows=rows,
        rows_of_tables=graph.layout.of_tables(rows), layout=graph.layout,
    )  # fmt: skip
    monkeypatch.setattr(prepare, "training_folder", lambda data: SimpleNamespace(manifest=manifest))
    prepare.print_plan(
        DataSpec(batch_size=graph.batch), graph.network, graph.optimization, graph.schedule, EvaluationSpec(),
        Runtime(DeviceSpec(ascend_graphs.DEVICE), ComputeSpec(graph.compute_dtype),
                ParallelSpec(graph.mode, True, graph.ranks)),
    )  # fmt: skip
    found = re.search(rf"^rank {graph.rank}: .* optimizer, ([\d,.]+) MB in all", capsys.readouterr().out, re.M)
    return float(found[1].replace(",", ""))


def compiled_training_steps():
    """Those of the dry run's result file, each with the memory that its tensors took, in MB."""
    lines = json.loads((results.FOLDER / "ascend_dryrun.json").read_text())["lines"]
    took = {name: re.search(r"memory ([\d,.]+) MB", told)[1] for name, told in (one.split(": ", 1) for one in lines)}
    graphs = [graph for graph in ascend_graphs.all_graphs() if graph.kind == "train" and graph.name in took]
    return [(graph, float(took[graph.name].replace(",", ""))) for graph in graphs]


def test_plan_for_ascend_holds_what_the_dry_run_lays_out(monkeypatch, capsys):
    """For Criteo's tables whole as docs/ascend.md says, and for no other less by as much as 1 MB."""
    steps = compiled_training_steps()
    for graph, took in steps:
        planned = planned_mb(graph, monkeypatch, capsys)
        if graph.total_rows == ascend_graphs.SMALL_ROWS:
            assert planned > took - 1, graph.name
        else:
            assert took <= planned <= 1.1 * took, graph.name
    assert sum(graph.total_rows > ascend_graphs.SMALL_ROWS for graph, _ in steps) == 5


@pytest.mark.parametrize(("optimizer", "decay", "more"), [("sgd", 0.0, 0), ("sgd", 0.01, 4), ("rowwise_adagrad", 0, 4)])
def test_plan_counts_the_index_of_rows_on_ascend_alone(optimizer, decay, more, monkeypatch, capsys):
    """4 bytes for each row of the tables, where gradients of a row are brought together."""
    rule = OptimizationSpec(optimizer, table_weight_decay=decay)
    graph = ascend_graphs.Graph(optimization=rule, total_rows=10 * 2**20)
    told = []
    for device in ("GPU", "Ascend"):
        monkeypatch.setattr(ascend_graphs, "DEVICE", device)
        told.append(planned_mb(graph, monkeypatch, capsys))
    assert told[1] - told[0] == 10 * more
