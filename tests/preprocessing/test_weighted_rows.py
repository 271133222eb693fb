"""Weights of rows and sampled negatives, from raw rows of any form to batches."""

import json
import random
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from conftest import files_of, preprocess_lines, raw_lines, write_raw

from src.base.errors import InputError
from src.data.manifest import find
from src.dataset import batches_of, sample
from src.preprocess_data import main
from src.preprocessing.options import PreprocessingSpec
from src.preprocessing.run import preprocess
from src.preprocessing.sampling import SampledSpan
from src.rows.columns import Columns
from src.rows.parsing import parse, parse_rows
from src.rows.schema import load_schema
from src.rows.text_file import TextSpan

SCHEMA = "label: clicked\ndense: [price]\ncategorical: [site, user]\nweight: paid\n"
NAMES = ["clicked", "paid", "price", "site", "user"]
COLUMNS = Columns(("price",), ("site", "user"), "clicked", weight="paid")
SMALL = {"record_rows": 16, "shard_rows": 64}


def frame_of(rows=700, seed=4):
    rng = random.Random(seed)
    return pd.DataFrame({
        "clicked": [int(rng.random() < 0.3) for _ in range(rows)],
        "paid": [round(rng.expovariate(0.5), 3) if rng.random() < 0.9 else 0.0 for _ in range(rows)],
        "price": [row / 8 for row in range(rows)],  # which tells the row
        "site": [f"s{rng.randrange(5)}" for _ in range(rows)],
        "user": [f"u{rng.randrange(40)}" for _ in range(rows)],
    })  # fmt: skip


def write(frame, path, columns=COLUMNS, **options):
    """A data folder of a frame's rows as plain lines."""
    raw = write_raw(path.with_suffix(".txt"), ["\t".join(map(str, row)) for row in frame.itertuples(index=False)])
    return preprocess_lines(raw, path, columns, **SMALL | options)


def rows_of(data, part):
    columns = [np.concatenate(column) for column in zip(*batches_of(data, part, 100))]
    return columns[0], columns[1], *(column[:, 0] for column in columns[2:])


@pytest.mark.parametrize("shuffle", [False, True])
def test_each_row_keeps_its_weight(tmp_path, shuffle):
    frame = frame_of()
    data = write(frame, tmp_path / "data", shuffle_rows=shuffle)
    assert data.manifest.weight == "paid"
    for part, first in (("train", 0), ("valid", 600), ("test", 650)):
        dense, _, labels, weights = rows_of(data, part)
        rows = np.round(np.expm1(dense[:, 0]) * 8).astype(int)
        assert sorted(rows) == list(range(first, first + len(rows)))
        assert weights == pytest.approx(frame.paid.to_numpy()[rows], rel=1e-6)
        assert (labels == frame.clicked.to_numpy()[rows]).all()
        expected = np.average(labels, weights=weights.astype(np.float64))
        assert data.manifest.parts[part].label_mean == pytest.approx(expected, abs=1e-12)
    assert len(sample(next(iter([batches_of(data, "train", 10)])).source, 1000)) == 4


def test_folder_without_weights_is_as_if_there_was_no_such_column(tmp_path):
    """Of the same rows: vocabulary, numbers and ids, and files but for the weights' own bytes."""
    frame = frame_of()
    weighted = write(frame, tmp_path / "weighted")
    other = write(frame, tmp_path / "other", Columns(("price",), ("site", "user"), "clicked", tuple(NAMES)))
    assert weighted.manifest.sha256("vocabulary.npz") == other.manifest.sha256("vocabulary.npz")
    for one, same in zip(rows_of(weighted, "train"), rows_of(other, "train")):
        assert np.array_equal(one, same)
    content = json.loads((other.path / "manifest.json").read_text())
    assert "weight" not in content["source"]["columns"]
    assert "negatives" not in content
    assert "keep_negatives" not in content["options"]
    assert other.manifest.weight == ""


def test_forms_give_the_same_weights(tmp_path):
    pytest.importorskip("pyarrow", reason="pip install -r tests/requirements.txt")
    frame = frame_of()
    (tmp_path / "schema.yaml").write_text(SCHEMA + "header: true\nseparator: ','\n")
    frame.to_csv(tmp_path / "rows.csv", index=False)
    frame.astype({"paid": "float32"}).to_parquet(tmp_path / "rows.parquet")
    folders = {}
    for form in ("csv", "parquet"):
        main([f"--data_path={tmp_path}/rows.{form}", f"--output_path={tmp_path}/{form}", "--record_rows=16",
              f"--schema={tmp_path}/schema.yaml", "--shard_rows=64", "--keep_negatives=0.5"])  # fmt: skip
        folders[form] = files_of(tmp_path / form, "train", "valid", "test")
    tabs = write(frame, tmp_path / "tabs", keep_negatives=0.5)
    assert folders["csv"] == folders["parquet"] == files_of(tabs.path, "train", "valid", "test")
    assert find(str(tmp_path / "csv")).manifest.negatives == tabs.manifest.negatives


@pytest.mark.parametrize(("cell", "columns", "weight"), [
    ("2.5", COLUMNS, 2.5), ("0", COLUMNS, 0), ("1e3", COLUMNS, 1000),
    ("2,5", Columns(("price",), (), "clicked", weight="paid", decimal=","), 2.5),
    ("", COLUMNS, None), ("-1", COLUMNS, None), ("nan", COLUMNS, None), ("inf", COLUMNS, None),
    ("1e31", COLUMNS, None), ("much", COLUMNS, None),
    ("NULL", Columns(("price",), (), "clicked", weight="paid", missing=("NULL",)), None),
])  # fmt: skip
def test_cells_of_weights(cell, columns, weight):
    block = parse("\t".join(["1", cell, "3", "a", "b"][: 3 + len(columns.categorical)]).encode(), columns)
    if weight is not None:
        assert block.weights.tolist() == [weight]
    else:
        assert [str(row) for row in block.bad] == [
            f"line 1: paid is {cell!r}, and a weight must be a number of 0 or more"
        ]


def test_plain_lines_are_read_as_cells_are():
    """Sound blocks by the faster parser."""
    lines = ["\t".join(map(str, row)) for row in frame_of(300).itertuples(index=False)]
    for odd in ({}, {7: "1\t-1\t2\ta\tb"}, {7: "1\t\t2\ta\tb", 9: "x"}):
        text = "".join(odd.get(number, line) + "\n" for number, line in enumerate(lines)).encode()
        columns = replace(COLUMNS, key_seed="00" * 16, checked=True)
        found, expected = parse(text, columns, 5), parse_rows(text, columns, 5)[0]
        for name in ("labels", "numbers", "keys", "weights", "checks", "lines"):
            assert np.array_equal(getattr(found, name), getattr(expected, name)), name
        assert found.bad == expected.bad
        assert len(found.bad) == len(odd)
        assert found.numbers.shape == (300 - len(odd), 1)


def test_part_without_weight_is_refused(tmp_path):
    frame = frame_of()
    frame.loc[600:649, "paid"] = 0.0
    with pytest.raises(InputError, match="all 50 valid rows have a weight of 0 in column paid, so none of them counts"):
        write(frame, tmp_path / "data")
    assert not (tmp_path / "data/manifest.json").exists()


@pytest.mark.parametrize(("more", "message"), [
    ("weight: price\n", "column 'price' must stand once among label, weight, dense and categorical"),
    ("weight: [paid]\n", "weight is ['paid']: it must be a str"),
    ("weight: paid\ncolumns: [clicked, price, site]\n", "column 'paid' must stand once"),
])  # fmt: skip
def test_schema_of_weights_is_checked(tmp_path, more, message):
    (tmp_path / "schema.yaml").write_text("label: clicked\ndense: [price]\ncategorical: [site]\n" + more)
    with pytest.raises(InputError) as raised:
        load_schema(tmp_path / "schema.yaml")
    assert message in str(raised.value)


# Sampled negatives.


def test_sampling_keeps_clicks_and_a_share_of_the_others(tmp_path):
    frame = frame_of(3500)
    whole, some = write(frame, tmp_path / "whole"), write(frame, tmp_path / "some", keep_negatives=0.2)
    train = frame[:3000]
    negatives, found = some.manifest.negatives, rows_of(some, "train")
    assert negatives.rows == (train.clicked == 0).sum()
    assert negatives.kept == (found[2] == 0).sum() == len(found[2]) - train.clicked.sum()
    assert negatives.kept / negatives.rows == pytest.approx(0.2, abs=0.03)
    paid = train.paid[train.clicked == 0].sum()
    assert negatives.share == pytest.approx(found[3][found[2] == 0].sum() / paid, rel=1e-5)
    assert some.manifest.options["keep_negatives"] == 0.2
    for part in ("valid", "test"):
        assert [column.tolist() for column in (rows_of(some, part)[0], *rows_of(some, part)[2:])] == [
            column.tolist() for column in (rows_of(whole, part)[0], *rows_of(whole, part)[2:])
        ]


def test_sampling_follows_from_rows_and_seed_alone(tmp_path):
    """Not from shards; and a bad row, or a header, moves no other row's choice."""
    frame = frame_of()

    def kept(name, **options):
        dense = rows_of(write(frame, tmp_path / name, keep_negatives=0.3, **options), "train")[0][:, 0]
        return np.sort(np.round(np.expm1(dense) * 8).astype(int)).tolist()

    first = kept("first")
    assert kept("other", shard_rows=16) == kept("mixed", shuffle_rows=True) == first
    assert kept("seed", seed=2) != first
    lines = ["\t".join(map(str, row)) for row in frame.itertuples(index=False)]
    bad = next(row for row in range(100) if row not in first)
    lines[bad] = "oops"
    raw = write_raw(tmp_path / "bad.txt", lines)
    data = preprocess_lines(raw, tmp_path / "bad", COLUMNS, **SMALL, keep_negatives=0.3, max_bad_rows=1)
    dense = rows_of(data, "train")[0][:, 0]
    assert np.round(np.expm1(dense) * 8).astype(int).tolist() == first
    assert data.manifest.bad_rows == 1


def test_sampling_with_a_split_by_values(tmp_path):
    raw = write_raw(tmp_path / "rows.txt", raw_lines(600))
    data = preprocess([raw], tmp_path / "data", Columns.numbered(), PreprocessingSpec(split="random:C3", **SMALL))
    some = preprocess([raw], tmp_path / "some", Columns.numbered(), PreprocessingSpec(
        split="random:C3", keep_negatives=0.5, **SMALL))  # fmt: skip
    parts, few = data.manifest.parts, some.manifest.parts
    negatives, train = some.manifest.negatives, parts["train"]
    assert negatives.rows == train.rows - round(train.label_mean * train.rows)
    assert few["train"].rows == train.rows - negatives.rows + negatives.kept
    assert (few["valid"].rows, few["test"].rows) == (parts["valid"].rows, parts["test"].rows)


def test_too_small_a_share_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"keep_negatives 1e-06 leaves none of \d+ training rows without a click"):
        write(frame_of(), tmp_path / "data", keep_negatives=1e-6)
    with pytest.raises(InputError, match="keep_negatives 0.1 has no effect with vocab_path"):
        PreprocessingSpec(vocab_path="x", keep_negatives=0.1)


# Rows of other columns.


def test_file_of_other_columns_is_said_to_be_so(tmp_path):
    """Here behind a thousand good rows; to skip nearly all rows is no advice."""
    lines = raw_lines(1000) + [line + "\tmore\tyet" for line in raw_lines(19_000, seed=2)]
    with pytest.raises(InputError) as raised:
        preprocess_lines(write_raw(tmp_path / "train.txt", lines), tmp_path / "dataset")
    assert "Rows of the file have 42 columns, and those of the schema are 40, label, I1 .. C26" in str(raised.value)
    assert "--max_bad_rows" not in str(raised.value)


def test_sampled_rows_are_best_read_behind_those_before_them():
    """As the rows themselves are: of a Parquet file whole groups would else be read again for each piece."""
    for follows in (False, True):
        span = TextSpan.__new__(TextSpan)
        vars(span).update(first_row=7, rows=9, raw="a.txt", follows=follows)
        one = SampledSpan.of(span, 0.5, 1)
        assert (one.first_row, one.rows, one.raw, one.follows) == (7, 9, "a.txt", follows)
