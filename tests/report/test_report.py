"""The report of a run: what it says, of runs that end, stop or fail, in a real browser, and runs side by side."""

import json
import math
import os
import shutil
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest
from conftest import CPU, ORIGINAL, ROOT, SMALL, preprocess_lines
from networks import loaded
from runs import StopAt, rows_of, train_small
from sklearn.metrics import roc_auc_score

import train as train_program
from src import synthetic
from src.base.errors import InputError
from src.base.locks import hold
from src.base.logs import MetricsFile, open_logs
from src.checkpoints.names import file_of
from src.dataset import batches_of
from src.ranks.group import ONE_RANK
from src.report import __main__ as report
from src.report import content as report_content
from src.report.compare import failures
from src.report.files import joined, load_report, without_nan
from src.report.plots import Axes, Series, number, plot, ticks
from src.report.summary import main as summary_main
from src.report.summary import reachable_auc
from src.training.evaluation import score


@pytest.fixture(scope="module")
def kept(run_folder, tiny_data):
    """The checkpoint's network, and its labels and logits of the validation rows."""
    model = loaded(run_folder / "checkpoint/dlrm.ckpt", tiny_data)
    return model, *score(model, batches_of(tiny_data, "valid", 64), 64)


def test_report_is_of_the_kept_network_on_validation_rows(run_folder, kept, tiny_data):
    _, labels, logits = kept
    content = load_report(run_folder / "checkpoint")
    best = max(rows_of(run_folder / "metrics.jsonl", "eval"), key=lambda row: row["auc"])
    evaluation = content["evaluation"]
    assert (content["state"], content["training"]["kept_step"]) == ("finished", best["step"])
    assert best["step"] < content["training"]["steps"] == 212  # so that values were really put back
    assert (evaluation["part"], evaluation["rows"]) == ("valid", 143)
    for name in ("acc", "auc", "logloss"):
        assert evaluation["metrics"][name] == pytest.approx(best[name], abs=1e-6)
    with np.load(run_folder / "checkpoint/scores.npz") as arrays:
        np.testing.assert_array_equal(arrays["labels"], labels)
        np.testing.assert_allclose(arrays["logits"], logits, atol=1e-6)
    assert content["data"]["parts"]["train"]["rows"] == 1715
    assert content["data"]["vocabulary_sha256"] == tiny_data.manifest.sha256("vocabulary.npz")
    assert content["options"]["lr"] == 0.3
    assert content["machine"]["cores"] == os.cpu_count()
    steps = [row["step"] for row in rows_of(run_folder / "metrics.jsonl", "loss")]
    assert [point[0] for point in content["curves"]["loss"]] == steps
    assert (run_folder / "checkpoint/report.html").stat().st_size < 1_000_000


def test_importance_is_the_drop_in_auc_of_a_shuffled_column(kept, tiny_data, run_folder):
    model, labels, logits = kept
    dense, ids, _ = (np.concatenate(column) for column in zip(*batches_of(tiny_data, "valid", 64)))
    found = report_content.importance(model, report_content.Sample(dense, ids, labels), 64, ONE_RANK, 10_000, 1)
    assert len(found) == 39
    for column in (0, 12, 13, 14, 38):
        order = np.random.default_rng([1, 1 + column]).permutation(143)
        changed = [dense.copy(), ids.copy()]
        place = column if column < 13 else column - 13
        changed[column >= 13][:, place] = changed[column >= 13][order, place]
        _, shuffled = score(model, [(*(values[low : low + 64] for values in changed), labels[low : low + 64, None])
                                    for low in (0, 64, 128)], 64)  # fmt: skip
        expected = roc_auc_score(labels, logits) - roc_auc_score(labels, shuffled)
        assert found[column] == pytest.approx(expected, abs=1e-6)
    assert max(found[13:15]) > 0.02  # the signal stands in C1 and C2
    drops = load_report(run_folder / "checkpoint")["evaluation"]["importance"]["auc_drop"]
    assert list(drops.values()) == pytest.approx(found, abs=1e-6)
    few = report_content.importance(model, report_content.Sample(dense, ids, labels), 64, ONE_RANK, 50, 1)
    assert few != found


REPORTED = {"report": True, "log_steps": 1, "eval_steps": 5}


def test_resumed_run_shows_the_whole_curves(tiny_data, tmp_path):
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    whole.mkdir(), parts.mkdir()
    train_small(tiny_data, whole, **REPORTED, save_steps=5)
    with pytest.raises(KeyboardInterrupt):
        train_small(tiny_data, parts, **REPORTED, save_steps=5, callbacks=[StopAt(18)])
    stopped = load_report(parts / "unfinished")
    assert (stopped["state"], stopped["error"]) == ("stopped", "stopped by the keyboard or a signal")
    assert (stopped["step"], stopped["steps"]) == (18, 26)
    train_small(tiny_data, parts, **REPORTED, save_steps=5)
    first, second = load_report(whole), load_report(parts)
    for name in ("loss", "evaluations"):
        assert len(first["curves"][name]) == len(second["curves"][name])
    assert [one[:2] for one in first["curves"]["loss"]] == [one[:2] for one in second["curves"]["loss"]]
    assert first["evaluation"] == second["evaluation"]
    assert not (parts / "unfinished").exists()


def test_failed_run_leaves_a_report_with_its_error(tiny_data, tmp_path):
    with pytest.raises(InputError, match="training diverged"):
        train_small(tiny_data, tmp_path, **REPORTED | {"lr": 3e38, "log_steps": 2})
    content = load_report(tmp_path / "unfinished")
    assert content["state"] == "failed"
    assert "training diverged; try a smaller --lr" in content["error"]
    assert "training diverged; try a smaller --lr" in (tmp_path / "unfinished/report.html").read_text()


def test_without_evaluation_or_report(tiny_data, tmp_path):
    train_small(tiny_data, tmp_path, **REPORTED, do_eval=False)
    content = load_report(tmp_path)
    assert (content["state"], content["evaluation"]) == ("finished", {})
    assert not (tmp_path / "scores.npz").exists()
    with pytest.raises(InputError, match="finished and was not evaluated at its end"):
        report.main([str(tmp_path), str(tmp_path)])
    train_small(tiny_data, tmp_path, overwrite=True)
    assert not list(tmp_path.glob("report.*")), "an older run's report is no report of this one"


@pytest.mark.parametrize(("argv", "missing"), [(["--report=False"], "report"), (["--do_eval=False"], "do_eval")])
def test_importance_rows_without_effect_are_refused(argv, missing):
    with pytest.raises(InputError, match=f"importance_rows 5 has no effect without {missing}"):
        train_program.main([CPU, "--importance_rows=5", *argv])


@pytest.fixture(scope="module")
def worse(tiny_data, tmp_path_factory):
    """The checkpoint folder of a run that learned little."""
    folder = tmp_path_factory.mktemp("worse")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        train_program.main(
            [f"--dataset_path={tiny_data.path}", CPU, ORIGINAL, *SMALL, "--lr=1e-6", "--importance_rows=0"]
        )
    return folder / "checkpoint"


def test_runs_are_compared(run_folder, worse, tmp_path, capsys):
    good = str(run_folder / "checkpoint")
    page = tmp_path / "new/comparison.html"
    assert report.main([good, str(worse), f"--output={page}"]) == 0
    out = capsys.readouterr().out
    areas = [load_report(folder)["evaluation"]["metrics"]["auc"] for folder in (run_folder / "checkpoint", worse)]
    apart = areas[1] - areas[0]
    assert f"{apart:+.5f}" in out
    assert f"{apart:+.5f}" in page.read_text()
    assert report.main([good, str(worse), "--fail_below=0.01"]) == 1
    assert f"worse: {worse}: AUC" in capsys.readouterr().out
    assert report.main([good, str(worse), f"--fail_below={-apart + 1e-3}"]) == 0
    assert report.main([str(worse), good, "--fail_below=0"]) == 0
    done = subprocess.run([sys.executable, "-m", "src.report", good, str(worse), "--fail_below=0.01"], cwd=ROOT,
                          capture_output=True, text=True, check=False)  # fmt: skip
    assert done.returncode == 1, done.stderr
    assert report.main([f"{good}/report.html", f"{worse}/report.json", "--fail_below=0.01"]) == 1
    with pytest.raises(SystemExit):
        report.main(["--help"])
    assert "RUN_A [RUN_B ...]" in capsys.readouterr().out


def test_a_summary_passes_over_lines_that_were_cut(tmp_path, capfd):
    path = tmp_path / "metrics.jsonl"
    arguments = [str(tmp_path), str(tmp_path / "raw.txt")]
    path.write_text('{"kind": "end", "samples_per_s": 5, "steps": 7, "peak_memory_mb": 9}\n{"kind": "eval", "auc": 0.5')
    with pytest.raises(InputError, match=r"metrics.jsonl tells of no evaluation of a checkpoint \(eval.py\): run it"):
        summary_main(arguments)
    assert "metrics.jsonl: 1 lines are cut and passed over, such as line 2" in capfd.readouterr().err
    open_logs(str(path))  # as whoever appends to it does first
    MetricsFile(str(path), "run").write("eval", part="test", rows=3, auc=0.75, acc=0.5, logloss=1.0)
    summary_main(arguments)
    assert "AUC                 0.7500 on 3 test rows" in capfd.readouterr().out
    path.write_text("5\n" + path.read_text().splitlines()[-1][:-1])
    with pytest.raises(InputError, match=r"metrics.jsonl tells of no training that ended \(train.py\)"):
        summary_main(arguments)


@pytest.mark.parametrize("module", ["src.report.__main__", "src.report.summary"])
def test_reports_of_runs_need_no_mindspore(module):
    command = [sys.executable, "-c", f"import sys, {module}; sys.exit('mindspore' in sys.modules)"]
    assert subprocess.run(command, cwd=ROOT, check=False).returncode == 0


def test_the_reachable_auc_is_of_the_test_rows(tmp_path):
    synthetic.main([f"--data_path={tmp_path}", "--rows=2000"])
    data = preprocess_lines(tmp_path / "train.txt", tmp_path / "dataset")
    labels = np.concatenate([batch[2][:, 0] for batch in batches_of(data, "test", 64)])
    part = data.manifest.parts["test"]
    truth = tmp_path / "train.truth.npy"
    expected = roc_auc_score(labels, np.load(truth)[part.first_line - 1 : part.last_line])
    assert reachable_auc(tmp_path, tmp_path / "train.txt", truth) == pytest.approx(expected)


def test_other_rows_have_no_paired_interval(run_folder, worse, tmp_path, capsys):
    shutil.copytree(worse, tmp_path / "other")
    content = json.loads((tmp_path / "other/report.json").read_text())
    content["evaluation"]["rows_identity"] = "other"
    (tmp_path / "other/report.json").write_text(json.dumps(content))
    with pytest.raises(InputError, match=r"scores\.npz is of another run than its report"):
        report.main([str(run_folder / "checkpoint"), str(tmp_path / "other")])
    with np.load(worse / "scores.npz") as arrays:
        np.savez(tmp_path / "other/scores.npz", **{**arrays, "rows_identity": np.array("other")})
    assert report.main([str(run_folder / "checkpoint"), str(tmp_path / "other")]) == 0
    assert "other rows" in capsys.readouterr().out
    with pytest.raises(InputError, match=r"compares runs on the same rows, and .*other was measured on others"):
        report.main([str(run_folder / "checkpoint"), str(tmp_path / "other"), "--fail_below=0.5"])


@pytest.mark.parametrize(("name", "content", "message"), [
    ("scores.npz", b"", "scores.npz is missing or damaged"),
    ("scores.npz", b"PK\3\4 cut", "scores.npz is missing or damaged"),
    ("report.json", b"[1]", "report.json is no report of a run"),
])  # fmt: skip
def test_damaged_files_of_a_run_are_one_line(run_folder, worse, tmp_path, name, content, message):
    shutil.copytree(worse, tmp_path / "other")
    (tmp_path / "other" / name).write_bytes(content)
    with pytest.raises(InputError, match=message):
        report.main([str(run_folder / "checkpoint"), str(tmp_path / "other")])


@pytest.mark.parametrize(("argv", "message"), [
    ([], "no run given: python -m src.report RUN_A RUN_B"),
    (["one"], "one holds no report.json: name a folder that train.py"),
    (["none", "none"], "none holds no report.json: name a folder that train.py"),
    (["a", "b", "--fail_below=2"], "fail_below is 2.0: it must lie between 0 and 1, or be -1"),
])  # fmt: skip
def test_comparisons_that_cannot_be_are_refused(argv, message):
    with pytest.raises(InputError, match=message):
        report.main(argv)


def test_a_stopped_run_is_refused_by_what_it_left(run_folder, tmp_path):
    content = json.loads((run_folder / "checkpoint/report.json").read_text())
    content["state"], content["evaluation"] = "stopped", None
    (tmp_path / "unfinished").mkdir()
    (tmp_path / "unfinished/report.json").write_text(json.dumps(content))
    with pytest.raises(InputError, match="unfinished holds a run that is stopped and was not evaluated at its end"):
        report.main([str(run_folder / "checkpoint"), str(tmp_path)])
    lock = hold(tmp_path / "unfinished/.lock", "x")
    with pytest.raises(InputError, match="unfinished holds a run that is at work and was not evaluated at its end"):
        report.main([str(run_folder / "checkpoint"), str(tmp_path)])
    with pytest.raises(InputError, match="is not there yet: its training is at work; wait for its end"):
        file_of(str(tmp_path))
    lock.close()
    with pytest.raises(InputError, match=r"dlrm\.ckpt is not a file"):
        file_of(str(tmp_path))


def test_a_run_without_the_metric_is_told_in_words():
    one, other = (SimpleNamespace(name=name, monitor="auc", metrics={"auc": auc}, rows_identity="r")
                  for name, auc in (("one", 0.5), ("other", None)))  # fmt: skip
    assert failures([one, other], 0.1) == ["other: it has no AUC, and one has 0.500000"]
    with pytest.raises(InputError, match="fail_below: other has no AUC to compare with"):
        failures([other, one], 0.1)


def test_plots_and_numbers():
    assert "no values" in plot("x", "X", [Series("x", [(1, None)])], Axes("x", "y"))
    assert "<circle" in plot("x", "X", [Series("x", [(1, 2.0)])], Axes("x", "y"))
    assert "&lt;b&gt;" in plot("x", "<b>", [Series("x", [(1, 2.0)])], Axes("x", "y"))
    assert ticks(0, 1) == [0, 0.25, 0.5, 0.75, 1]
    assert [number(value) for value in (None, float("nan"), 1234567, 0.77349, 0.0)] == [
        "-", "-", "1\u202f234\u202f567", "0.7735", "0.0000"]  # fmt: skip
    assert without_nan({"a": [np.nan, 1.5, (float("inf"),)]}) == {"a": [None, 1.5, [None]]}


@pytest.fixture(scope="module")
def browser():
    """A headless Chromium: the system's, or playwright's."""
    sync_api = pytest.importorskip("playwright.sync_api")
    found = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    with sync_api.sync_playwright() as playwright:
        try:
            running = playwright.chromium.launch(executable_path=found, args=["--no-sandbox"])
        except sync_api.Error as error:
            pytest.skip(f"no Chromium can be started: {str(error).splitlines()[0]}")
        yield running
        running.close()


PLOTS = ["loss", "auc-steps", "logloss-steps", "rate", "throughput", "roc", "precision-recall", "reliability",
         "histogram", "importance-fields", "importance-numeric"]  # fmt: skip


@pytest.mark.parametrize("width", [390, 1280])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_report_in_chromium(browser, run_folder, width, scheme):
    context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme, offline=True)
    page, messages = context.new_page(), []
    page.on("console", lambda message: messages.append(message.text))
    page.on("pageerror", lambda error: messages.append(str(error)))
    page.on("request", lambda request: request.url.startswith("file:") or messages.append(request.url[:40]))
    page.goto((run_folder / "checkpoint/report.html").as_uri())
    drawn = dict(page.evaluate(
        "[...document.querySelectorAll('svg[data-plot]')].map(s => [s.dataset.plot, [...s.querySelectorAll("
        "'path,circle,rect')].filter(e => e.getBBox().width + e.getBBox().height > 1).length])"
    ))  # fmt: skip
    assert sorted(name for name in drawn if not name.startswith("later-")) == sorted(PLOTS)  # eval.py may have run
    assert all(drawn.values()), drawn
    page.evaluate("document.querySelectorAll('details').forEach(d => d.open = true)")
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    back = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (sum(map(int, back[4:-1].split(","))) < 200) == (scheme == "dark")
    assert [text for text in messages if not text.startswith("data:")] == []
    context.close()


def test_points_of_a_curve_that_are_joined_tell_of_all_their_steps():
    points = [[10 * number, float(number), 50.0 if number % 2 else 100.0] for number in range(1, 8)]
    assert joined(points, 7) == points
    assert joined(points, 4) == [points[0], *([20 * k + 10, 2 * k + 0.5, pytest.approx(200 / 3)] for k in (1, 2, 3))]
    points[1][0] = 15  # 5 steps behind the first point, 15 before the next one
    assert joined(points[:3], 2)[1] == [30, (5 * 2 + 15 * 3) / 20, pytest.approx(20 / (5 / 100 + 15 / 50))]
    assert math.isnan(joined([[1, 0.5, math.nan], [2, 0.7, math.nan]], 1)[0][2])
