"""Inputs by option: what rows become, and that all programs agree."""

import json
import math
import os
import statistics
from collections import Counter
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from conftest import CPU, ORIGINAL, SMALL, files_of, preprocess_lines, raw_lines, write_raw
from networks import loaded
from program_310 import scored
from sklearn.metrics import log_loss, roc_auc_score
from test_numeric import plain_edges
from test_transforms import PLAIN, log_of

import eval as eval_program
import export as export_program
import preprocess as preprocess_program
import train as train_program
from src.base.errors import InputError
from src.data.encoder import load_encoder
from src.data.manifest import VOCABULARY, find
from src.data.vocabulary import load_vocabulary
from src.dataset import batches_of
from src.export.scored_files import RowFiles
from src.preprocess_data import main, report
from src.rows.columns import Columns
from src.rows.lines import parse
from src.rows.schema import load_schema
from src.scorer import Scorer
from src.training.evaluation import score

ALL = {"missing_indicators": True, "numeric_buckets": 4, "category_counts": True}
EVERY = [{"numeric_transform": transform, **ALL} for transform in ("log", "standard_log", "quantile")]
COLUMNS = Columns.numbered(4, 2)
ROWS = 210
TRAIN = 180


@pytest.fixture(scope="module")
def cells():
    """Rows of cells: I1 with ties, negative and missing ones, I2 constant in training, I3 without missing ones there
    but later, I4 never there; C2 has rare values; the last rows leave the range of the others."""
    rng = np.random.default_rng(4)
    rows = []
    for row in range(ROWS):
        late = row >= TRAIN
        first = "" if rng.random() < 0.3 else str(rng.integers(-3, 900 if late else 9))
        third = f"{rng.normal(0, 50 if late else 5):.3f}"
        second, third = (str(rng.integers(3, 9)), "" if row % 2 else third) if late else ("7", third)
        categories = [f"a{rng.integers(5 + late)}", f"b{int(rng.pareto(0.5)) if rng.random() < 0.9 else ''}"]
        rows.append([str(rng.integers(2)), first, second, third, "", *categories])
    return rows


@pytest.fixture(scope="module")
def raw(cells, tmp_path_factory):
    return write_raw(tmp_path_factory.mktemp("cells") / "train.txt", ["\t".join(row) for row in cells])


def rows_of(data):
    """Dense and ids of all parts, one behind the other."""
    parts = [zip(*batches_of(data, part, 50)) for part in ("train", "valid", "test")]
    dense, ids, _ = ([np.concatenate(column) for column in columns] for columns in zip(*parts))
    return np.concatenate(dense), np.concatenate(ids)


def values_of(cells, column):
    """A column's numbers, None for empty cells, and those of training rows that are there, in order."""
    values = [None if row[column] == "" else np.float32(row[column]).item() for row in cells]
    return values, sorted(value for value in values[:TRAIN] if value is not None)


def plain_counts(cells, column, min_count):
    counts = Counter(row[column] for row in cells[:TRAIN])
    of_rows = [math.log(1 + counts[row[column]] * (counts[row[column]] >= min_count)) for row in cells]
    mean, deviation = statistics.fmean(of_rows[:TRAIN]), statistics.pstdev(of_rows[:TRAIN])
    return [(value - mean) / deviation for value in of_rows]


@pytest.mark.parametrize("shard_rows", [512, 4])
@pytest.mark.parametrize("transform", ["log", "standard_log", "quantile"])
def test_rows_are_what_plain_loops_make_of_them(cells, raw, tmp_path, transform, shard_rows):
    """Shards of 4 rows make more parts than are merged at once."""
    options = {"numeric_transform": transform, "min_count": 3, "shard_rows": shard_rows, "record_rows": 2, **ALL}
    data = preprocess_lines(raw, tmp_path / "dataset", COLUMNS, **options)
    manifest = data.manifest
    assert manifest.inputs == ("I1", "I2", "I3", "I4", "I1 missing", "I4 missing", "C1 count", "C2 count")
    assert manifest.fields == ("C1", "C2", "I1 bucket", "I2 bucket", "I3 bucket", "I4 bucket")
    assert (manifest.dense, manifest.categorical) == (COLUMNS.dense, COLUMNS.categorical)
    dense, ids = rows_of(data)
    expected = [PLAIN[transform](*values_of(cells, 1 + column)) for column in range(4)]
    expected += [[float(row[column] == "") for row in cells] for column in (1, 4)]
    expected += [plain_counts(cells, column, 3) for column in (5, 6)]
    np.testing.assert_allclose(dense, np.transpose(expected), rtol=1e-5, atol=1e-5)
    for column in range(4):
        values, known = values_of(cells, 1 + column)
        edges = plain_edges(known, 4)
        found = [1 if value is None else 2 + sum(edge < value for edge in edges) for value in values]
        assert ids[:, 2 + column].tolist() == found
        assert manifest.table_rows[2 + column] == len(edges) + 3
    for part in manifest.parts.values():
        assert part.unseen_share[2:] == (0, 0, 0, 0)
    assert np.all(ids < manifest.table_rows)
    assert "numeric inputs: 8, I1, I2, I3, I4, I1 missing" in report(data)
    assert " I1 bucket:6 " in report(data)


def test_without_options_the_encoder_is_the_vocabulary_and_numbers_are_logs(tiny_data):
    keys = load_vocabulary(tiny_data.path / VOCABULARY)
    with np.load(tiny_data.path / VOCABULARY) as arrays:
        assert tuple(arrays["/names"]) == keys.names == tiny_data.manifest.categorical
        beside = {name.rpartition("/")[0] for name in arrays.files}
        assert beside == {"", "/keys", "/order", "/inputs"}
        assert "/inputs/examples" in arrays.files
    encoder = load_encoder(tiny_data.path / VOCABULARY, tiny_data.manifest.dense)
    text = (tiny_data.path.parent / "train.txt").read_bytes()
    block = parse(text, encoder.keyed(Columns.numbered()))
    assert np.isnan(block.numbers).any()
    dense, ids = encoder.encode(block)
    cells = [line.split("\t")[1:14] for line in text.decode().splitlines()]
    logs = [[log_of(float(cell or 0)) for cell in row] for row in cells]
    np.testing.assert_allclose(dense, logs, rtol=1e-6)
    np.testing.assert_array_equal(ids, keys.encode(block.keys))
    assert (encoder.inputs, encoder.fields) == (tiny_data.manifest.dense, tiny_data.manifest.categorical)
    assert "numeric inputs" not in report(tiny_data)


@pytest.mark.parametrize("options", EVERY)
def test_saved_encoder_encodes_alike(raw, tmp_path, options):
    data = preprocess_lines(raw, tmp_path / "dataset", COLUMNS, **options)
    encoder = load_encoder(data.path / VOCABULARY, COLUMNS.dense)
    dense, ids = encoder.encode(parse(raw.read_bytes(), encoder.keyed(COLUMNS)))
    assert [values.tobytes() for values in rows_of(data)] == [dense.tobytes(), ids.tobytes()]
    encoder.save(tmp_path / "again.npz")
    assert (tmp_path / "again.npz").read_bytes() == (data.path / VOCABULARY).read_bytes()
    assert (encoder.inputs, encoder.fields) == (data.manifest.inputs, data.manifest.fields)
    assert encoder.table_rows == data.manifest.table_rows


def test_scope_all_learns_from_all_rows(raw, cells, tmp_path):
    """The leaky choice, for comparison."""
    data = preprocess_lines(raw, tmp_path / "d", COLUMNS, vocab_scope="all", numeric_transform="standard_log")
    dense, _ = rows_of(data)
    present = np.array([row[1] != "" for row in cells])
    assert dense[present, 0].mean() == pytest.approx(0, abs=1e-5)
    assert dense[present, 0].std() == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize("options", EVERY)
def test_files_depend_on_neither_processes_nor_spans(raw, tmp_path, monkeypatch, options):
    one = preprocess_lines(raw, tmp_path / "one", COLUMNS, shard_rows=32, record_rows=8, **options)
    spans = preprocess_lines(raw, tmp_path / "spans", COLUMNS, shard_rows=8, record_rows=8, **options)
    assert (one.path / VOCABULARY).read_bytes() == (spans.path / VOCABULARY).read_bytes()
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0})
    alone = preprocess_lines(raw, tmp_path / "alone", COLUMNS, shard_rows=32, record_rows=8, **options)
    names = ("", "train", "valid", "test")
    assert files_of(one.path, *names) == files_of(alone.path, *names)


def test_hashed_categories_go_with_inputs_of_numbers(raw, tmp_path):
    data = preprocess_lines(raw, tmp_path / "d", COLUMNS, hash_rows=5, numeric_buckets=4, missing_indicators=True)
    assert data.manifest.table_rows[:2] == (5, 5)
    encoder = load_encoder(data.path / VOCABULARY, COLUMNS.dense)
    dense, ids = encoder.encode(parse(raw.read_bytes(), encoder.keyed(COLUMNS)))
    assert [values.tobytes() for values in rows_of(data)] == [dense.tobytes(), ids.tobytes()]


def test_new_days_get_the_inputs_of_a_known_encoder(raw, cells, tmp_path):
    old = preprocess_lines(raw, tmp_path / "old", COLUMNS, **EVERY[2])
    new_raw = write_raw(tmp_path / "new.txt", ["\t".join(row) for row in cells[100:]])
    new = preprocess_lines(new_raw, tmp_path / "new", COLUMNS, vocab_path=str(old.path))
    assert (new.path / VOCABULARY).read_bytes() == (old.path / VOCABULARY).read_bytes()
    assert (new.manifest.inputs, new.manifest.fields) == (old.manifest.inputs, old.manifest.fields)
    dense, ids, _ = (np.concatenate(column) for column in zip(*batches_of(new, "test", 50)))
    for values, known in zip((dense, ids), rows_of(old)):
        assert values.tobytes() == known[100:].tobytes()


def test_names_that_meet_are_refused(tmp_path):
    (tmp_path / "schema.yaml").write_text("label: y\ndense: [n]\ncategorical: [c, n bucket]\n")
    raw = write_raw(tmp_path / "train.txt", ["1\t2\ta\tb", "0\t3\ta\tb"] * 9)
    columns = load_schema(tmp_path / "schema.yaml")
    with pytest.raises(InputError, match="column 'n bucket' has the name of an input made of another: rename it"):
        preprocess_lines(raw, tmp_path / "d", columns, numeric_buckets=2)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """A model with all inputs, from text to export: folders dataset, checkpoint, graph and host."""
    folder = tmp_path_factory.mktemp("model")
    write_raw(folder / "train.txt", raw_lines(1400))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        main(["--data_path=train.txt", "--numeric_transform=quantile", "--missing_indicators", "--numeric_buckets=5",
              "--category_counts", "--min_count=2"])  # fmt: skip
        train_program.main(
            [CPU, ORIGINAL, "--dataset_path=dataset", *SMALL, "--batch_size=32", "--epochs=2", "--lr=0.1"]
        )
        for placement in ("graph", "host"):
            export_program.main([CPU, f"--export_path={placement}", f"--table_placement={placement}",
                                 "--export_batch_size=8"])  # fmt: skip
    return folder


@pytest.fixture
def late_lines(model):
    """The lines of the test part."""
    part = find(str(model / "dataset")).manifest.parts["test"]
    return (model / "train.txt").read_text().splitlines()[part.first_line - 1 : part.last_line]


def evaluated(folder):
    """What eval.py's network gives for the test rows."""
    data = find(str(folder / "dataset"))
    model = loaded(folder / "checkpoint/dlrm.ckpt", data)
    _, logits = score(model, batches_of(data, "test", 64), 64)
    return 1 / (1 + np.exp(-logits.astype(np.float64)))


def test_all_programs_give_the_same_scores(model, late_lines, tmp_path, monkeypatch):
    """eval.py's network, the scorer on lines and on a DataFrame, and the graph on preprocess.py's rows."""
    monkeypatch.chdir(tmp_path)
    assert len(find(str(model / "dataset")).manifest.inputs) == 13 + 13 + 26
    expected = evaluated(model)
    assert len(np.unique(expected)) > 50
    write_raw(tmp_path / "rows.txt", late_lines)
    for placement in ("graph", "host"):
        scorer = Scorer(model / placement)
        assert scorer.score_lines(late_lines, has_labels=True) == pytest.approx(expected, abs=1e-5)
        frame = pd.DataFrame([line.split("\t") for line in late_lines], columns=list(Columns.numbered().names))
        frame = frame.replace("", None).astype({name: float for name in scorer.columns.dense})
        assert scorer.score(frame) == pytest.approx(expected, abs=1e-5)
        preprocess_program.main(["--dataset_path=rows.txt", f"--export_path={model / placement}", "--overwrite=True"])
        rows = RowFiles.load(Path("preprocess_Result"))
        dense = np.fromfile("preprocess_Result/dense/000000.bin", "<f4").reshape(rows.rows, -1)
        ids = np.fromfile("preprocess_Result/ids/000000.bin", "<i4").reshape(rows.rows, -1)
        assert scorer.score_ids(dense, ids) == pytest.approx(expected, abs=1e-5)
    eval_program.main([CPU, f"--dataset_path={model / 'dataset'}", f"--checkpoint_path={model / 'checkpoint'}"])
    found = json.loads(Path("metrics.jsonl").read_text().splitlines()[-1])
    labels = [int(line[0]) for line in late_lines]
    assert (found["part"], found["rows"]) == ("test", len(labels))
    assert found["auc"] == pytest.approx(roc_auc_score(labels, expected), abs=1e-6)
    assert found["logloss"] == pytest.approx(log_loss(labels, expected), abs=1e-6)


@pytest.mark.parametrize("placement", ["graph", "host"])
def test_the_cpp_program_gives_the_same_scores(program, model, late_lines, tmp_path, monkeypatch, placement):
    monkeypatch.chdir(tmp_path)
    write_raw(tmp_path / "rows.txt", late_lines)
    preprocess_program.main(["--dataset_path=rows.txt", f"--export_path={model / placement}"])
    found = scored(program, model / placement / "dlrm.mindir", tmp_path / "preprocess_Result")
    assert found == pytest.approx(evaluated(model), abs=1e-5)
