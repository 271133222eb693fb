"""Raw files that are not Criteo's: other columns, several files, compressed ones; and the choices of vocabulary."""

import gzip
import json
import lzma
import random
from collections import Counter

import numpy as np
import pytest
from conftest import CPU, ORIGINAL, SMALL, preprocess_lines, raw_lines, write_raw

import eval as eval_program
import train as train_program
from src.base.errors import InputError
from src.data import records
from src.data.manifest import VOCABULARY, find
from src.data.vocabulary import load_vocabulary
from src.dataset import RowBatches, Rows
from src.preprocess_data import main
from src.preprocessing.options import PreprocessingSpec
from src.preprocessing.run import preprocess
from src.rows.columns import Columns
from src.rows.schema import load_schema

DENSE = ["price", "age", "hour", "visits", "dwell"]
TEXTS = ["site", "city", "device", "brand", "campaign", "keyword", "language", "referrer"]
SCHEMA = f"label: clicked\ndense: {DENSE}\ncategorical: {TEXTS}\nheader: true\nseparator: ','\n"


def table(rows, seed=1):
    """Lines with a header: columns in another order than training sees, one more among them, texts of any length."""
    rng = random.Random(seed)
    words = ["Zürich", "a considerably longer name", "x", "", "日本", "b-17", "42", "two words"]
    lines = [",".join([*TEXTS[:4], "id", *DENSE, "clicked", *TEXTS[4:]])]
    for row in range(rows):
        picked = [rng.randrange(len(words)) for _ in TEXTS]
        texts = [words[pick] if field else words[pick] or "home" for field, pick in enumerate(picked)]
        numbers = [f"{rng.uniform(-1, 50):.2f}" if rng.random() < 0.9 else "" for _ in DENSE]
        click = rng.random() < (0.8 if picked[0] < 3 else 0.1)
        lines.append(",".join([*texts[:4], f"id{row}", *numbers, str(int(click)), *texts[4:]]))
    return lines


def batch_of(data, part):
    """All rows of a part: dense, ids, labels."""
    shards, rows = data.shards(part)
    sizes = len(data.manifest.dense), len(data.manifest.categorical)
    return tuple(np.concatenate(column) for column in zip(*RowBatches(Rows(shards, sum(rows), *sizes), 64)))


def test_table_with_header_runs_through_all_programs_by_schema_alone(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_raw(tmp_path / "log.csv", table(3000))
    (tmp_path / "schema.yaml").write_text(SCHEMA)
    main(["--data_path=log.csv", "--schema=schema.yaml", "--output_path=dataset"])
    manifest = find("dataset").manifest
    assert (list(manifest.dense), list(manifest.categorical)) == (DENSE, TEXTS)
    assert sum(part.rows for part in manifest.parts.values()) == 3000
    assert manifest.table_rows == (9, *[9] * 7)  # 8 values and the unseen one; empty is a value
    train_program.main(["--dataset_path=dataset", CPU, ORIGINAL, *SMALL, "--batch_size=32", "--epochs=3", "--lr=0.3"])
    eval_program.main(["--dataset_path=dataset", "--device_target=CPU"])
    last = json.loads((tmp_path / "metrics.jsonl").read_text().splitlines()[-1])
    assert (last["part"], last["auc"] > 0.75) == ("test", True)


def test_columns_in_any_order_equal_the_same_columns_in_training_s_order(tmp_path):
    lines = table(50)
    schema = tmp_path / "schema.yaml"
    schema.write_text(SCHEMA)
    data = preprocess_lines(write_raw(tmp_path / "a.csv", lines), tmp_path / "a", load_schema(schema))
    names = lines[0].split(",")
    plain = []
    for line in lines[1:]:
        cells = dict(zip(names, line.split(",")))
        plain.append("\t".join(cells[name] for name in ["clicked", *DENSE, *TEXTS]))
    same = preprocess_lines(write_raw(tmp_path / "b.txt", plain), tmp_path / "b", Columns.numbered(5, 8))
    for part in ("train", "valid", "test"):
        for a, b in zip(batch_of(data, part), batch_of(same, part)):
            np.testing.assert_array_equal(a, b)


def test_columns_key_gives_the_order_where_there_is_no_header(tmp_path):
    schema = tmp_path / "schema.yaml"
    schema.write_text("label: y\ndense: [n]\ncategorical: [c]\ncolumns: [c, skipped, n, y]\n")
    data = preprocess_lines(write_raw(tmp_path / "raw.txt", ["red\t?\t3\t1"] * 7), tmp_path / "d", load_schema(schema))
    dense, ids, labels = batch_of(data, "train")
    assert dense == pytest.approx(np.full((6, 1), np.log(4)))
    assert (ids == 1).all()
    assert (labels == 1).all()


def test_a_bad_row_below_a_header_has_its_number_in_the_file(tmp_path):
    (tmp_path / "schema.yaml").write_text(SCHEMA)
    lines = table(20)
    lines[4] = "half,a,row"
    with pytest.raises(InputError, match=r"1 bad rows, 0 are allowed: line 5: 3 columns instead of 15"):
        preprocess_lines(write_raw(tmp_path / "a.csv", lines), tmp_path / "d", load_schema(tmp_path / "schema.yaml"))


WRONG_SCHEMA = [
    ("label: [y]", "label is \\['y'\\]: it must be a str"),
    ("label: y", "has neither dense nor categorical"),
    (SCHEMA + "colour: red", "unknown key 'colour'"),
    (SCHEMA + "columns: [a]", "column 'clicked' must stand once"),
    (SCHEMA.replace("','", "'x'"), "separator is 'x'"),
    (SCHEMA.replace("price", "age"), "column 'age' must stand once"),
    ("label: y\ndense: [1]\ncategorical: [c]", "names must be text"),
    ("- a", "must hold lines of the form"),
    ("a: {", "is not valid YAML"),
]


@pytest.mark.parametrize(("text", "message"), WRONG_SCHEMA)
def test_wrong_schema_is_refused(tmp_path, text, message):
    (tmp_path / "schema.yaml").write_text(text)
    with pytest.raises(InputError, match=message):
        load_schema(tmp_path / "schema.yaml")


def test_header_without_a_column_is_refused(tmp_path):
    (tmp_path / "schema.yaml").write_text(SCHEMA)
    lines = table(10)
    lines[0] = lines[0].replace("brand", "Brand")
    with pytest.raises(InputError, match=r"its header has column 'brand' 0 times.*did you mean 'Brand'"):
        preprocess_lines(write_raw(tmp_path / "a.csv", lines), tmp_path / "d", load_schema(tmp_path / "schema.yaml"))
    with pytest.raises(InputError, match=r"b.csv is empty: it must hold a header and rows"):
        preprocess_lines(write_raw(tmp_path / "b.csv", [""]), tmp_path / "d", load_schema(tmp_path / "schema.yaml"))
    assert not (tmp_path / "d").exists()


@pytest.mark.parametrize(("change", "message"), [
    (lambda text: text.replace(",", ";").encode(), "has no ',' to separate columns: a schema may name another sep"),
    (lambda text: text.encode("utf-16"), "a.csv is UTF-16 text, as Windows' programs write it: say encoding: utf-16"),
    (lambda text: text.replace("brand", "城市").encode("gb18030"), "is not utf-8 text: a schema may name another enc"),
])  # fmt: skip
def test_a_header_that_another_schema_would_read_says_so(tmp_path, change, message):
    (tmp_path / "schema.yaml").write_text(SCHEMA)
    (tmp_path / "a.csv").write_bytes(change("\n".join(table(10))))
    with pytest.raises(InputError, match=message):
        preprocess_lines(tmp_path / "a.csv", tmp_path / "d", load_schema(tmp_path / "schema.yaml"))


def test_a_schema_without_all_columns_is_told_what_may_be_missing(tmp_path):
    (tmp_path / "schema.yaml").write_text(SCHEMA.replace("header: true", "header: false"))
    with pytest.raises(InputError, match=r"instead of \d+. Does the --schema name all columns \(by header: true"):
        preprocess_lines(
            write_raw(tmp_path / "a.csv", table(10)), tmp_path / "d", load_schema(tmp_path / "schema.yaml")
        )


def test_days_in_several_files_equal_one_file(tmp_path):
    """Split and vocabulary run over all files; one of them lacks its last line end, one is compressed."""
    lines = raw_lines(700)
    one = preprocess_lines(write_raw(tmp_path / "all.txt", lines), tmp_path / "one")
    (tmp_path / "day_0.txt").write_text("\n".join(lines[:100]))
    with gzip.open(tmp_path / "day_1.gz", "wt") as file:
        file.write("\n".join(lines[100:450]) + "\n")
    with lzma.open(tmp_path / "day_2.xz", "wt") as file:
        file.write("\r\n".join(lines[450:]) + "\r\n")
    days = [str(tmp_path / name) for name in ("day_0.txt", "day_1.gz", "day_2.xz")]
    main(
        [f"--data_path={','.join(days)}", f"--output_path={tmp_path / 'days'}", "--record_rows=64", "--shard_rows=512"]
    )
    several = find(str(tmp_path / "days"))
    assert several.manifest.source["names"] == ["day_0.txt", "day_1.gz", "day_2.xz"]
    assert not (tmp_path / "days" / ".work").exists()
    assert (tmp_path / "days" / VOCABULARY).read_bytes() == (one.path / VOCABULARY).read_bytes()
    for part in ("train", "valid", "test"):
        for a, b in zip(batch_of(one, part), batch_of(several, part)):
            np.testing.assert_array_equal(a, b)


def test_a_bad_row_of_several_files_is_named_with_its_file(tmp_path):
    write_raw(tmp_path / "day_0.txt", raw_lines(20))
    write_raw(tmp_path / "day_1.txt", [*raw_lines(5), "bad"])
    with pytest.raises(InputError, match=r"day_1.txt line 6: 1 columns instead of 40"):
        preprocess(
            [tmp_path / "day_0.txt", tmp_path / "day_1.txt"], tmp_path / "d", Columns.numbered(), PreprocessingSpec()
        )


def test_damaged_archive_is_refused(tmp_path):
    (tmp_path / "train.txt.gz").write_bytes(gzip.compress(b"0\t1\ta\n" * 1000)[:-10])
    with pytest.raises(InputError, match=r"train.txt.gz can't be unpacked"):
        preprocess_lines(tmp_path / "train.txt.gz", tmp_path / "d", Columns.numbered(1, 1))


def small(tmp_path, values, name="raw.txt", **options):
    """A data folder of one number and one category."""
    lines = [f"{row % 2}\t{row}\t{value}" for row, value in enumerate(values)]
    return preprocess_lines(
        write_raw(tmp_path / name, lines), tmp_path / f"d-{name}", Columns.numbered(1, 1), **options
    )


VALUES = ["a"] * 30 + ["b"] * 20 + ["c"] * 10 + ["d"] * 3 + ["e"] + ["a", "z"] * 5  # 74, of which 64 train


def test_most_frequent_values_keep_their_rows_where_a_table_is_bounded(tmp_path):
    data = small(tmp_path, VALUES, max_rows_per_field=4)
    assert data.manifest.table_rows == (4,)
    assert Counter(batch_of(data, "train")[1][:, 0].tolist()) == {1: 30, 2: 20, 3: 10, 0: 4}


def test_a_field_may_have_a_least_count_of_its_own(tmp_path):
    data = small(tmp_path, VALUES, field_min_count="C1:11")
    assert data.manifest.table_rows == (3,)
    with pytest.raises(InputError, match=r"there is no field 'C9': the fields are C1"):
        small(tmp_path, VALUES, "other.txt", field_min_count="C9:2")


def test_hashing_gives_every_value_a_row_and_keeps_none(tmp_path):
    values = [f"value {number}" for number in range(700)]
    data = small(tmp_path, values, hash_rows=11)
    ids = np.concatenate([batch_of(data, part)[1][:, 0] for part in ("train", "valid", "test")])
    assert data.manifest.table_rows == (11,)
    assert set(ids.tolist()) == set(range(1, 11))
    assert np.bincount(ids)[1:].min() > 40  # 70 expected
    assert (data.path / VOCABULARY).stat().st_size < 2000
    loaded = load_vocabulary(data.path / VOCABULARY)
    assert loaded.table_rows == (11,)


def test_new_days_are_coded_with_a_known_vocabulary(tmp_path):
    old = small(tmp_path, VALUES)
    new = small(tmp_path, ["b", "new", "a", "new"], "new.txt", vocab_path=str(old.path))
    assert list(new.manifest.parts) == ["test"]
    assert batch_of(new, "test")[1][:, 0].tolist() == [2, 0, 1, 0]
    assert new.manifest.parts["test"].unseen_share == (0.5,)
    assert new.manifest.table_rows == old.manifest.table_rows
    assert (new.path / VOCABULARY).read_bytes() == (old.path / VOCABULARY).read_bytes()
    with pytest.raises(InputError, match="dataset_path .* has no training rows, only test: rows that were coded with"):
        train_program.main([f"--dataset_path={new.path}", "--device_target=CPU"])


def test_the_manifest_tells_by_which_options_a_known_encoder_was_learned(tmp_path):
    """Over two folders too, each coded with the encoder of the one before."""
    learned = {"numeric_transform": "quantile", "min_count": 2, "missing_indicators": True}
    first = small(tmp_path, VALUES, **learned)
    second = small(tmp_path, VALUES, "b.txt", vocab_path=str(first.path))
    third = small(tmp_path, VALUES, "c.txt", vocab_path=str(second.path), record_rows=32)
    expected = learned | {"vocab_path": second.path.name, "record_rows": 32}
    assert expected.items() <= third.manifest.options.items()


def test_vocabulary_of_other_columns_or_none_is_refused(tmp_path):
    old = small(tmp_path, VALUES)
    with pytest.raises(InputError, match=r"is for columns \('I1', 'C1'\)"):
        preprocess_lines(write_raw(tmp_path / "r.txt", raw_lines(9)), tmp_path / "x", vocab_path=str(old.path))
    with pytest.raises(InputError, match=r"vocab_path \S+ has no manifest.json and vocabulary.npz"):
        small(tmp_path, VALUES, "y.txt", vocab_path=str(tmp_path))


def test_shuffled_training_rows_are_the_same_rows_in_another_order(tmp_path):
    plain = small(tmp_path, VALUES * 20, shard_rows=128, record_rows=16)
    mixed, again, other = (
        small(tmp_path, VALUES * 20, f"{name}.txt", shard_rows=128, record_rows=16, shuffle_rows=True, seed=seed)
        for name, seed in (("mixed", 1), ("again", 1), ("other", 2))
    )
    numbers = {data.path.name: batch_of(data, "train")[0][:, 0] for data in (plain, mixed, again, other)}
    first, second, same, third = numbers.values()
    np.testing.assert_array_equal(np.sort(first), np.sort(second))
    np.testing.assert_array_equal(second, same)
    assert (second != third).any()
    places = np.argsort(np.argsort(second, kind="stable"))
    assert abs(np.corrcoef(places, np.arange(len(places)))[0, 1]) < 0.1  # 1269 rows: 0.03 expected
    assert len(plain.manifest.parts["train"].shards) == len(mixed.manifest.parts["train"].shards)
    for part in ("valid", "test"):
        np.testing.assert_array_equal(batch_of(plain, part)[0], batch_of(mixed, part)[0])
    assert mixed.manifest.parts["train"].label_mean == plain.manifest.parts["train"].label_mean
    assert not list(mixed.path.rglob("scatter*"))


def test_a_record_takes_no_more_than_its_rows_need():
    assert records.row_bytes(13, 26) == 157


@pytest.mark.parametrize("rule", ["positive", "negative"])
def test_labels_that_are_spelt_otherwise_than_the_schema_says_are_refused(tmp_path, rule):
    raw = write_raw(tmp_path / "rows.txt", [f"{'yes' if row % 3 else 'no'}\t{row}\ta" for row in range(50)])
    columns = Columns(("n",), ("c",), "bought", **{rule: ("Yes",)})
    with pytest.raises(InputError, match=rf"no row's label bought is one of {rule}: \['Yes'\], so that all are alike"):
        preprocess_lines(raw, tmp_path / "dataset", columns)
    assert not (tmp_path / "dataset/manifest.json").exists()
