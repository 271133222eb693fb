"""src/fit.py: rows to a model in a Python program, in the files of the commands."""

import asyncio
import os
import re
import signal
import threading
from pathlib import Path

import mindspore as ms
import numpy as np
import pandas as pd
import pytest
from conftest import CPU, files_of
from mindspore.train import Callback
from runs import StopAt, bits, rows_of
from sklearn.metrics import roc_auc_score

import eval as eval_program
import train as train_program
from src import preprocess_data
from src.base.errors import InputError
from src.base.locks import hold_folder
from src.fit import _MARK, FittedModel, fit
from src.scorer import Scorer

pytest.importorskip("pyarrow")

SMALL = {"emb_dim": 4, "bottom_mlp": [4], "top_mlp": [8, 1], "batch_size": 64, "eval_batch_size": 64}
SCHEMA = {
    "label": "clicked",
    "dense": ["price", {"name": "seen", "as": "timestamp", "since": "2026-01-01"}],
    "categorical": ["site", "logged_in", "hour", "code", "city", {"name": "tags", "list": "|", "max_values": 3}],
}


def frame_of(rows=1400, seed=1):
    """Columns of all kinds that pandas has; a click follows from whether site is 0 and logged_in."""
    rng = np.random.default_rng(seed)
    site, logged_in = rng.integers(0, 3, rows), rng.random(rows) < 0.5
    clicked = rng.random(rows) < np.where((site == 0) == logged_in, 0.9, 0.1)
    return pd.DataFrame({
        "tags": [[f"t{tag}" for tag in rng.integers(0, 4, rng.integers(0, 4))] for _ in range(rows)],
        "price": np.where(rng.random(rows) < 0.1, np.nan, rng.random(rows) * 1e6),
        "site": site,
        "logged_in": logged_in,
        "hour": np.where(rng.random(rows) < 0.2, np.nan, rng.integers(0, 5, rows)),
        "code": [[None, "NULL", "0042", "a\tb\n\"c\""][code] for code in rng.integers(0, 4, rows)],
        "city": pd.Categorical(rng.choice(["Köln", "北京"], rows)),
        "seen": pd.Timestamp("2026-02-01") + pd.to_timedelta(rng.integers(0, 10**6, rows), unit="s"),
        "unused": np.zeros(rows, complex),  # which no file of columns can hold
        "clicked": clicked,
    }, index=[f"r{row}" for row in range(rows)])  # fmt: skip


class HasHandler(Callback):
    """Of SIGTERM, which MindSpore makes of Ctrl-C while a graph runs, and which would end a notebook's process."""

    def on_train_step_end(self, run_context):
        assert signal.getsignal(signal.SIGTERM) is signal.default_int_handler


@pytest.fixture(scope="module")
def model(made_once):
    """Trained on frame_of(), in two calls, of which the first was stopped behind step 25."""
    options = {"folder": "model", "lr": 0.01, "epochs": 3, "save_steps": 10, "log_steps": 10, **SMALL}

    def make(folder):
        before = signal.signal(signal.SIGTERM, signal.SIG_DFL)
        with pytest.MonkeyPatch.context() as patch:
            patch.chdir(folder)
            with pytest.raises(KeyboardInterrupt):
                fit(frame_of(), SCHEMA, callbacks=[StopAt(25)], **options)
            fit(frame_of(), SCHEMA, callbacks=[HasHandler()], **options)
        assert signal.signal(signal.SIGTERM, before) is signal.SIG_DFL

    return FittedModel(made_once("fitted", make) / "model")


def test_a_model_of_a_dataframe_scores_as_it_was_evaluated(model):
    frame = frame_of()
    test = frame.tail(100)  # of the last 200 rows, half validate
    metrics = model.evaluate("test")
    assert (metrics["rows"], metrics["auc"] > 0.8) == (100, True)
    assert model.evaluate(test) == metrics | {"eval_s": pytest.approx(0, abs=1e9)}
    scores = model.score(test.drop(columns=["clicked", "unused"]))
    assert roc_auc_score(test["clicked"], scores) == pytest.approx(metrics["auc"], abs=1e-6)
    assert model.score(frame.head(0)).shape == (0,)
    by_scorer = Scorer(model.folder / "export")
    np.testing.assert_allclose(by_scorer.score_ids(*coded(model, "test")), scores, atol=1e-6)
    assert "<svg" in model.report.read_text()
    assert model._repr_html_().startswith("<iframe")


def test_a_stopped_call_goes_on_from_its_last_save(model):
    losses = rows_of(model.folder / "metrics.jsonl", "loss")
    assert [row["step"] for row in losses] == [10, 20, 30, 40, 50, 54]
    assert len({row["run"] for row in losses}) == 1


def test_scores_of_a_model_on_some_negatives_mean_clicks_of_all_rows(here):
    """By every door; the chance of a click among the rows that were kept is far higher."""
    frame = frame_of(4200)
    model = fit(frame, SCHEMA, keep_negatives=0.2, lr=0.01, epochs=6, **SMALL)
    told = model.evaluate("test")
    scores = model.score(frame.tail(300).drop(columns=["clicked", "unused"])).astype(np.float64)
    mean = frame["clicked"].tail(300).mean()
    assert scores.mean() == pytest.approx(mean, rel=0.1)
    assert (scores / (scores + (1 - scores) * 0.2)).mean() > 1.3 * mean  # without the correction
    assert told["calibration"] == pytest.approx(scores.mean() / mean, rel=1e-3)
    eval_program.main([f"--dataset_path={model.data}/test", f"--checkpoint_path={model.checkpoint}", CPU,
                       "--metrics_file_name=eval.jsonl"])  # fmt: skip
    assert rows_of("eval.jsonl", "eval")[0]["calibration"] == pytest.approx(told["calibration"], rel=1e-3)


def coded(model, part):
    from src.data.manifest import find
    from src.dataset import batches_of

    dense, ids, _ = next(iter(batches_of(find(str(model.data)), part, 100)))
    return dense, ids


def test_the_commands_go_on_with_a_models_folder(model, here, capsys):
    eval_program.main([f"--dataset_path={model.data}/test", f"--checkpoint_path={model.checkpoint}", CPU])
    assert f"'auc': {model.evaluate('test')['auc']}" in capsys.readouterr().out
    assert sorted(path.name for path in model.folder.iterdir()) == [
        "auc.log", "checkpoint", "dataset", "export", "loss.log", "metrics.jsonl", "schema.yaml",
    ]  # fmt: skip


def test_it_makes_what_the_commands_make_also_in_the_thread_of_a_running_loop(here, monkeypatch, capsys):
    """The second one in this process; of raw text, with a guessed schema; MindSpore stays in its mode, and the process,
    whose other threads may open files, in its folder.
    """
    monkeypatch.setattr(os, "chdir", lambda path: pytest.fail(f"the process works in {path}"))
    frame_of().drop(columns=["unused", "tags", "code"]).to_csv("rows.csv", index=False)
    found, modes = [], []

    async def cell():
        ms.set_context(mode=ms.PYNATIVE_MODE)
        found.append(fit("rows.csv", label="clicked", recipe={"lr": 0.02}, folder="model", **SMALL))
        modes.append(ms.get_context("mode"))
        ms.set_context(mode=ms.GRAPH_MODE)

    thread = threading.Thread(target=lambda: asyncio.run(cell()))
    thread.start()
    thread.join()
    (model,) = found
    assert modes == [ms.PYNATIVE_MODE]
    assert re.search(
        "schema.yaml: 7 columns of rows.csv, guessed from 1400 rows: look it through", capsys.readouterr().out
    )
    preprocess_data.main(["--data_path=rows.csv", "--schema=model/schema.yaml", "--output_path=dataset"])
    small = [f"--{name}={value}".replace(" ", "") for name, value in SMALL.items()]
    train_program.main([CPU, "--lr=0.02", *small])
    parts = ("", "train", "valid", "test")
    assert files_of(Path("dataset"), *parts) == files_of(model.data, *parts)
    assert bits("checkpoint/dlrm.ckpt") == bits(model.checkpoint)
    rows = pd.read_csv("rows.csv")
    with pytest.raises(InputError, match="column 'logged_in', row 0 is (True|False): give categories as text"):
        model.score(rows)  # as of Scorer, for pandas may have changed what was text
    assert len(model.score("rows.csv", has_labels=True)) == 1400


@pytest.mark.parametrize(
    ("rows", "arguments", "message"),
    [
        ([1], {"label": "clicked"}, "rows is of type list: give a pandas DataFrame, or the path of raw files"),
        (None, {}, "give a schema, or label"),
        (None, {"schema": SCHEMA, "label": "clicked"}, "label 'clicked' has no effect with a schema"),
        (None, {"label": "cicked"}, "label is 'cicked', which is no column: the columns are tags, price"),
        (None, {"label": "site"}, "label 'site' has 3 values in the first 1400 rows"),
        (None, {"schema": SCHEMA, "epoch": 3}, "fit: unknown option 'epoch'; did you mean epochs?"),
        (None, {"schema": SCHEMA, "epochs": 0}, "fit: epochs is 0: it must be a finite number above 0"),
        (None, {"schema": SCHEMA, "ckpt_path": "x"}, "fit: ckpt_path is none of its options, or follows from"),
        (None, {"schema": SCHEMA, "parallel_mode": "data"}, "fit: parallel_mode is none of its options"),
        (None, {"schema": SCHEMA, "recipe": "bets"}, "recipe 'bets' is no file: .*best_config.yaml"),
        (None, {"schema": "s.yaml"}, "schema s.yaml is not a file: name a YAML file"),
        (
            None,
            {"schema": {"label": "clicked", "dense": ["prize"]}},
            "the DataFrame has no column 'prize': its columns",
        ),
        (None, {"schema": SCHEMA | {"lable": "x"}}, "unknown key 'lable'"),
        (None, {"schema": {"label": "clicked", "categorical": ["unused"]}}, "column 'unused' of the DataFrame holds"),
        ("nowhere.csv", {"schema": SCHEMA}, "there is no file nowhere.csv"),
        (frame_of(0), {"schema": SCHEMA}, "the DataFrame has no rows"),
        (frame_of(3).rename(columns={"price": 7}), {"schema": SCHEMA}, "has a column 7, whose name is no text"),
        (
            frame_of(9).assign(price=pd.cut(range(9), 3)),
            {"schema": SCHEMA},
            r"column 'price' .* \(extension<panda",
        ),
        (frame_of(9), {"schema": SCHEMA, "split": "price:9e9"}, "test"),
    ],
)
def test_what_can_t_be_fitted_is_refused(here, rows, arguments, message):
    rows = frame_of().drop(columns=[] if "schema" in arguments else ["unused"]) if rows is None else rows
    with pytest.raises(InputError, match=message):
        fit(rows, **arguments)
    assert not list(Path().glob("fitted/checkpoint*"))
    assert not list(Path().glob("fitted/.rows*"))


def test_what_a_killed_process_left_is_removed_and_what_another_one_works_in_is_not(here):
    for name in ("fitted/.rows-killed", "fitted/.rows-works"):
        Path(name).mkdir(parents=True)
        Path(name, "rows.parquet").touch()
    Path("fitted/schema.yaml").write_text(_MARK)
    with hold_folder(Path("fitted/.rows-works"), ""), pytest.raises(InputError, match="the DataFrame has no rows"):
        fit(frame_of(0), SCHEMA)
    assert [path.name for path in Path("fitted").glob(".rows-*")] == [".rows-works"]


def test_an_earlier_model_and_other_folders_stay(model, here):
    with pytest.raises(
        InputError, match=r"holds an earlier model, which FittedModel\('.*'\) of src.fit opens: to train anew, name"
    ):
        fit(frame_of(), SCHEMA, folder=model.folder)
    Path("mine").mkdir()
    Path("mine/schema.yaml").write_text("label: clicked\n")
    with pytest.raises(InputError, match="is not empty, and no model that fit has made"):
        fit(frame_of(), SCHEMA, folder="mine", overwrite=True)
    with pytest.raises(InputError, match=r"checkpoint_path .* is not a file"):
        FittedModel("mine")
    with pytest.raises(InputError, match="already holds an earlier result"):
        model.export()
    with pytest.raises(InputError, match="evaluate: lr is none of its options"):
        model.evaluate("test", lr=3)
