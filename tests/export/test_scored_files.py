"""preprocess.py and postprocess.py: the rows and scores in files between them and the C++ program."""

import csv
import gzip
import io
import json
import math
import os
import shutil
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from conftest import CPU, ORIGINAL, preprocess_lines, raw_lines, write_raw
from runs import METRIC_LINE
from sklearn.metrics import log_loss, roc_auc_score

import postprocess as postprocess_program
import preprocess as preprocess_program
from src.base.errors import InputError
from src.base.sealed import write_facts
from src.data.vocabulary import load_vocabulary
from src.dataset import batches_of
from src.export.rows_to_score import of_raw_files
from src.export.scored_files import RowFiles, RowSource, logits_of
from src.rows.schema import load_schema
from src.scorer import Scorer


@pytest.fixture
def preprocessed(exports, here):
    """Call preprocess.py on a data set with more arguments, and return its rows."""

    def call(dataset, *argv):
        preprocess_program.main([f"--dataset_path={dataset}", f"--export_path={exports['fp32']}", *argv])
        return RowFiles.load(here / "preprocess_Result")

    return call


def columns_of(rows):
    """Dense, ids and labels of all rows, read as plain numbers."""
    parts = [
        [np.frombuffer((rows.path / column / name).read_bytes(), kind).reshape(count, -1) for name, count in rows.files]
        for column, kind in (("dense", "<f4"), ("ids", "<i4"), ("labels", "u1"))
    ]
    return [np.concatenate(part) for part in parts]


def write_scores(rows, scores, seconds=1.5):
    """Result files as the C++ program writes them."""
    import zlib

    folder, start, lines = rows.path.with_name("result_Files"), 0, []
    folder.mkdir()
    for name, count in rows.files:
        data = np.asarray(scores[start : start + count], "<f4").tobytes()
        (folder / name).write_bytes(data)
        lines.append(("file", name, count, f"{zlib.crc32(data):08x}"))
        start += count
    index = (rows.path / "index").read_bytes().split()[-1].decode()
    write_facts(folder / "index", "scores", [("rows", index), ("seconds", seconds), *lines])
    return folder


def scores_csv():
    with open("scores.csv", newline="") as file:
        return list(csv.reader(file))


def test_table_is_as_pandas_writes_it(monkeypatch):
    """Whatever files are called; in blocks, of which the last is not full."""
    monkeypatch.setattr(postprocess_program, "_ROWS", 5)
    names = ["a,b", 'a "b"', "a\nb", "a\rb", "", " a", "nan", "a\tb", "é", "a\udcff", "\u2028"]
    for count in (0, 1, 10, 11):
        columns = {
            "file": np.array(names[:count], object), "row": np.arange(1, count + 1),
            "score": np.array([1 / 3, 0, 1, 1e-38, 1e-5, 5e-324, 0.1, 2 / 3, 1e-4, 0.5, 1 - 2**-24])[:count],
            "label": np.arange(count, dtype=np.uint8) % 2, "weight": np.arange(count, dtype="<f4") / 3,
        }  # fmt: skip
        found, expected = io.BytesIO(), io.BytesIO()
        postprocess_program.write_table(found, columns)
        pd.DataFrame(columns).to_csv(expected, index=False, float_format="%.9g", errors="surrogateescape")
        assert found.getvalue() == expected.getvalue()


def test_rows_of_a_part_are_those_that_eval_reads(preprocessed, tiny_data):
    rows = preprocessed(tiny_data.path / "valid")
    assert (rows.rows, rows.has_labels, rows.numbers().tolist()) == (143, True, [*range(1, 144)])
    expected = [np.concatenate(column) for column in zip(*batches_of(tiny_data, "valid", 50))]
    for found, values in zip(columns_of(rows), expected):
        assert np.array_equal(found, values)
    assert preprocessed(tiny_data.path, "--overwrite=True").rows == 142  # test, where none is named


def test_raw_rows_are_coded_by_the_saved_encoder(preprocessed, exports, tmp_path):
    lines = [line + "\n" for line in raw_lines(300, seed=7)]
    lines[1] = lines[1].replace("\n", "\r\n")
    lines[2] = "1" + "\t" * 39 + "\n"
    lines[3] = "\t".join([*lines[3].split("\t")[:39], "a category of the far future"])  # and no line end
    raw = tmp_path / "rows.txt"
    raw.write_text("".join(lines[:4]), newline="")
    rows = preprocessed(raw)
    dense, ids, labels = columns_of(rows)
    vocabulary = load_vocabulary(exports["fp32"] / "vocabulary.npz")
    for row, line in enumerate(lines[:4]):
        cells = line.rstrip("\r\n").split("\t")
        numbers = [math.log(max(float(cell or 0), 0) + 1) for cell in cells[1:14]]
        assert labels[row, 0] == int(cells[0])
        assert dense[row].tolist() == pytest.approx(numbers, rel=1e-6)
        for field, cell in enumerate(cells[14:]):
            keys = vocabulary.keys[field].tolist()
            key = int.from_bytes(cell.encode()[:8], "little")
            known = len(cell) <= 8 and key in keys
            assert ids[row, field] == (keys.index(key) + 1 if known else 0)
    assert ids[3, 25] == 0


def test_large_input_goes_to_several_files(preprocessed, tmp_path, monkeypatch):
    monkeypatch.setattr("src.export.scored_files._ROWS", 100)
    rows = preprocessed(write_raw(tmp_path / "rows.txt", raw_lines(250)))
    assert rows.files == (("000000.bin", 100), ("000001.bin", 100), ("000002.bin", 50))
    dense, ids, _ = columns_of(rows)
    monkeypatch.undo()
    monkeypatch.chdir(tmp_path)
    whole = preprocessed(tmp_path / "rows.txt", "--overwrite=True")
    assert whole.files == (("000000.bin", 250),)
    assert [np.array_equal(a, b) for a, b in zip(columns_of(whole), (dense, ids))] == [True, True]


def test_packed_rows_and_several_files(preprocessed, tmp_path):
    lines = raw_lines(30)
    write_raw(tmp_path / "a.txt", lines[:20])
    with gzip.open(tmp_path / "b.txt.gz", "wt") as file:
        file.write("".join(line + "\n" for line in lines[20:]))
    rows = preprocessed(f"{tmp_path}/a.txt,{tmp_path}/b.txt.gz")
    several = columns_of(rows)
    assert sorted(path.name for path in rows.path.iterdir()) == ["dense", "ids", "index", "labels", "lines"]
    whole = preprocessed(write_raw(tmp_path / "whole.txt", lines), "--overwrite=True")
    assert all(np.array_equal(a, b) for a, b in zip(several, columns_of(whole)))


def test_rows_without_labels_are_scored_without_metrics(preprocessed, tmp_path, capsys):
    lines = raw_lines(20)
    labelled = columns_of(preprocessed(write_raw(tmp_path / "rows.txt", lines)))
    write_raw(tmp_path / "new.txt", [line.split("\t", 1)[1] for line in lines])
    rows = preprocessed(tmp_path / "new.txt", "--has_labels=False", "--overwrite=True")
    assert not rows.has_labels
    assert not (rows.path / "labels").exists()
    (rows.path / "labels").mkdir()
    for name, _ in rows.files:
        (rows.path / "labels" / name).write_bytes(b"")
    for name, index in (("dense", 0), ("ids", 1)):
        data = (rows.path / name / "000000.bin").read_bytes()
        assert data == labelled[index].tobytes()
    write_scores(rows, np.linspace(0, 1, 20))
    postprocess_program.main([])
    assert "the labels of these rows are not known, so there are no metrics" in capsys.readouterr().out
    assert not (tmp_path / "acc.log").exists()
    assert scores_csv()[:2] == [["row", "score"], ["1", "0"]]


def test_row_with_39_columns_is_refused_by_line_number(preprocessed, tmp_path):
    lines = raw_lines(50)
    lines[41] = lines[41].split("\t", 1)[1]
    raw = write_raw(tmp_path / "rows.txt", lines)
    with pytest.raises(InputError, match=r"rows.txt line 42: 39 columns instead of 40 \(rows without a label need"):
        preprocessed(raw)
    assert not (tmp_path / "preprocess_Result").exists()
    rows = preprocessed(raw, "--max_bad_rows=1")
    assert (rows.rows, 42 in rows.numbers()) == (49, False)
    assert (rows.path / "rejected_rows.txt").read_text().startswith("42\t39 columns instead of 40\t")
    write_scores(rows, np.full(49, 0.5))
    postprocess_program.main([])
    assert [row[0] for row in scores_csv()[1:]] == [str(number) for number in range(1, 51) if number != 42]


@pytest.mark.parametrize(("more", "width"), [(["--has_labels=True"], 40), (["--has_labels=False"], 39)])
def test_file_of_other_columns_is_said_to_be_so(preprocessed, tmp_path, more, width):
    """To leave out nearly all rows is no advice."""
    raw = write_raw(tmp_path / "rows.txt", [*raw_lines(2), *("\t".join("abcdefgh") for _ in range(60))])
    names = "label, I1 .. C26" if width == 40 else "I1, I2 .. C26"
    with pytest.raises(InputError) as raised:
        preprocessed(raw, *more, *(["--max_bad_rows=3"] if width == 39 else []))
    assert f"Rows of the file have 8 columns, and those of the schema are {width}, {names}" in str(raised.value)
    assert "max_bad_rows" not in str(raised.value)


def test_bad_rows_of_several_files_are_named_with_their_file(preprocessed, tmp_path):
    """Those before the refusal too, and in the file of rejected rows."""
    lines = raw_lines(20)
    write_raw(tmp_path / "a.txt", [*lines[:2], "x", *lines[2:10]])
    write_raw(tmp_path / "b.txt", [*lines[10:], "y\tz"])
    with pytest.raises(InputError, match=r"^a.txt line 3: 1 columns instead of 40; 1 bad rows are allowed"):
        preprocessed("a.txt,b.txt", "--max_bad_rows=1")
    rows = preprocessed("a.txt,b.txt", "--max_bad_rows=2")
    assert rows.numbers().tolist() == [1, 2, *range(4, 12), *range(1, 11)]
    rejects = (rows.path / "rejected_rows.txt").read_text().splitlines()
    assert [line.split("\t")[0] for line in rejects] == ["a.txt:3", "b.txt:11"]
    write_scores(rows, np.full(20, 0.5))
    postprocess_program.main([])
    assert [row[:2] for row in scores_csv()[:4]] == [["file", "row"], ["a.txt", "1"], ["a.txt", "2"], ["a.txt", "4"]]
    assert scores_csv()[-1][:2] == ["b.txt", "10"]


def test_names_of_files_may_be_no_utf8(preprocessed, tmp_path):
    lines = raw_lines(20)
    names = [os.fsdecode(name) for name in (b"\xb1\xb1.txt", b"\xff.txt")]
    write_raw(tmp_path / names[0], [*lines[:10], "x"])
    write_raw(tmp_path / names[1], lines[10:])
    rows = preprocessed(",".join(names), "--max_bad_rows=1")
    assert (rows.path / "rejected_rows.txt").read_bytes().startswith(b"\xb1\xb1.txt:11\t")
    write_scores(rows, np.full(20, 0.5))
    postprocess_program.main([])
    assert Path("scores.csv").read_bytes().splitlines()[-1].startswith(b"\xff.txt,10,")


def test_a_row_has_one_number_with_a_header_too(tmp_path, monkeypatch):
    """That of its line in the file, in messages, in the file of rejected rows, and in the table of scores."""
    monkeypatch.chdir(tmp_path)
    lines = ["y;n;c", *(f"{row % 2};{row};{'ab'[row % 2]}" for row in range(28))]
    (tmp_path / "schema.yaml").write_text('label: y\ndense: [n]\ncategorical: [c]\nseparator: ";"\nheader: true\n')
    data = preprocess_lines(write_raw(tmp_path / "train.txt", lines), tmp_path / "d", load_schema(Path("schema.yaml")))
    manifest = data.manifest
    model = SimpleNamespace(manifest=manifest, path=data.path, vocabulary="v")
    lines[5] = "odd"
    write_raw(tmp_path / "rows.txt", lines)
    with pytest.raises(InputError, match=r"rows.txt line 6: 1 columns instead of 3"):
        RowFiles.write(tmp_path, of_raw_files("rows.txt", manifest.columns(), 0, model, tmp_path), (3,), "v", True)
    (tmp_path / "rows").mkdir()
    rows = RowFiles.write(
        tmp_path / "rows", of_raw_files("rows.txt", manifest.columns(), 1, model, tmp_path / "rows"), (3,), "v", True
    )
    assert rows.numbers().tolist() == [2, 3, 4, 5, *range(7, 30)]
    assert (tmp_path / "rows/rejected_rows.txt").read_text().startswith("6\t")


@pytest.mark.parametrize(("change", "message"), [
    (lambda lines: [*lines[:3], "1\tx" + lines[3][3:], *lines[4:]], "line 4: I1 is 'x"),
    (lambda lines: [*lines[:3], "2" + lines[3][1:]], "line 4: label is '2', which is not 0 or 1"),
    (lambda lines: [lines[0] + "\tmore"], "line 1: 41 columns instead of 40"),
    (lambda lines: [], "there is no row to score"),
])  # fmt: skip
def test_bad_rows_are_refused(preprocessed, tmp_path, change, message):
    lines = raw_lines(10)
    lines[3] = "1\t5" + lines[3][lines[3].index("\t", 2) :]
    with pytest.raises(InputError, match=message):
        preprocessed(write_raw(tmp_path / "rows.txt", change(lines)))
    assert not (tmp_path / "preprocess_Result").exists()


@pytest.mark.parametrize(("argv", "message"), [
    (["--has_labels=False"], "has_labels False has no effect on the data folder"),
    (["--max_bad_rows=3"], "max_bad_rows 3 has no effect on the data folder"),
])  # fmt: skip
def test_options_of_raw_rows_have_no_effect_on_a_data_folder(preprocessed, tiny_data, argv, message):
    with pytest.raises(InputError, match=message):
        preprocessed(tiny_data.path, *argv)


def test_a_data_folder_of_another_vocabulary_is_refused(preprocessed, tmp_path):
    other = preprocess_lines(write_raw(tmp_path / "o.txt", raw_lines(300, seed=9)), tmp_path / "other")
    with pytest.raises(InputError, match="was coded with another vocabulary than that of"):
        preprocessed(other.path)
    with pytest.raises(InputError, match=r"dataset_path .*/nothing: there is no file"):
        preprocessed(tmp_path / "nothing")


def test_earlier_rows_stay_unless_they_may_be_replaced(preprocessed, tiny_data, tmp_path):
    preprocessed(tiny_data.path)
    with pytest.raises(InputError, match="preprocess_path preprocess_Result already holds an earlier result"):
        preprocessed(tiny_data.path)
    shutil.rmtree("preprocess_Result")
    write_raw(tmp_path / "preprocess_Result/mine.txt", ["x"])
    with pytest.raises(InputError, match="holds something else"):
        preprocessed(tiny_data.path, "--overwrite=True")
    (tmp_path / "preprocess_Result/index").write_text("of my books\n")
    with pytest.raises(InputError, match="holds something else"):
        preprocessed(tiny_data.path, "--overwrite=True")
    assert (tmp_path / "preprocess_Result/mine.txt").read_text() == "x\n"


@pytest.mark.parametrize("name", [".", "../", "sub/.."])
def test_the_working_folder_is_not_replaced(preprocessed, tiny_data, here, name):
    (here / "sub").mkdir()
    with pytest.raises(InputError, match="is the working folder, or one around it: name a folder in it"):
        preprocessed(tiny_data.path, f"--preprocess_path={name}")
    assert [path.name for path in here.iterdir()] == ["sub"]


def test_own_columns_need_no_schema_again(tmp_path, monkeypatch, capsys):
    """Other names, order and separator: what the export folder says of them is enough."""
    import export
    import train

    monkeypatch.chdir(tmp_path)
    (tmp_path / "schema.yaml").write_text(
        "label: click\ndense: [price]\ncategorical: [site, device]\nheader: true\nseparator: ','\n"
    )
    rows = [f"{i % 7},s{i % 3},{int(i % 3 == 0)},d{i % 5},extra" for i in range(210)]
    raw = write_raw(tmp_path / "raw.csv", ["price,site,click,device,note", *rows])
    from src.rows.schema import load_schema

    data = preprocess_lines(raw, tmp_path / "dataset", load_schema(tmp_path / "schema.yaml"))
    sizes = ["--emb_dim=4", "--bottom_mlp=[4]", "--top_mlp=[8,1]", "--batch_size=30"]
    train.main([CPU, ORIGINAL, f"--dataset_path={data.path}", *sizes, "--do_eval=False"])
    export.main([CPU, "--table_placement=host"])
    write_raw(tmp_path / "new.csv", ["device,price,site,note", "d1,3,s1,x", "d2,,new,x"])
    preprocess_program.main(["--dataset_path=new.csv", "--has_labels=False"])
    found = RowFiles.load(tmp_path / "preprocess_Result")
    dense = np.fromfile(found.path / "dense/000000.bin", "<f4")
    assert dense.tolist() == pytest.approx([math.log(4), 0], rel=1e-6)
    scorer = Scorer("export")
    frame = pd.DataFrame({"site": ["s1", "new"], "device": ["d1", "d2"], "price": [3, None], "other": [1, 2]})
    scores = scorer.score(frame)
    ids = np.fromfile(found.path / "ids/000000.bin", "<i4").reshape(2, 2)
    assert np.array_equal(scorer.score_ids(dense[:, None], ids), scores)
    assert np.array_equal(scorer.score_lines(["site,price,device", "s1,3,d1\n", "new,,d2\r\n"]), scores)
    with pytest.raises(InputError, match="line 1 is no header with column 'price'"):
        scorer.score_lines(["s1,3,d1"])
    write_raw(tmp_path / "bad.csv", ["device,site,note", "d1,s1,x"])
    with pytest.raises(InputError, match="header has column 'price' 0 times"):
        preprocess_program.main(["--dataset_path=bad.csv", "--has_labels=False", "--overwrite=True"])


def test_metrics_are_those_of_scikit_learn(preprocessed, tiny_data, here, capsys):
    rows = preprocessed(tiny_data.path)
    labels = rows.labels()
    scores = np.random.default_rng(3).random(142).astype(np.float32) * 0.8 + labels * 0.1
    write_scores(rows, scores)
    postprocess_program.main([])
    line = METRIC_LINE.fullmatch((here / "acc.log").read_text().splitlines()[0])
    found = {name: float(value) for name, value in line.groupdict().items()}
    scores = scores.astype(np.float32).astype(np.float64)
    assert found["auc"] == pytest.approx(roc_auc_score(labels, scores), abs=1e-12)
    assert found["logloss"] == pytest.approx(log_loss(labels, scores), abs=1e-7)
    assert found["acc"] == np.mean((scores > 0.5) == labels)
    table = scores_csv()
    assert table[0] == ["row", "score", "label"]
    assert [float(row[1]) for row in table[1:]] == pytest.approx(scores.tolist(), rel=1e-8)
    assert [int(row[2]) for row in table[1:]] == labels.tolist()
    (row,) = [json.loads(line) for line in (here / "metrics.jsonl").read_text().splitlines()]
    assert (row["kind"], row["rows"], row["auc"], row["eval_s"]) == ("infer", 142, found["auc"], 1.5)
    assert "scores.csv: 142 scores, mean 0." in capsys.readouterr().out


def test_logits_of_scores():
    logits = np.linspace(-30, 12, 200)
    scores = (1 / (1 + np.exp(-logits))).astype(np.float32)
    assert logits_of(scores) == pytest.approx(logits, abs=0.01)
    assert np.all(np.isfinite(logits_of(np.array([0, 1], np.float32))))
    assert logits_of(np.array([1.0]))[0] == pytest.approx(17.3, abs=0.1)


@pytest.mark.parametrize(("change", "message"), [
    (lambda folder: (folder / "000000.bin").write_bytes(b"abcd"), "is missing or does not hold 142 rows"),
    (lambda folder: (folder / "000000.bin").write_bytes(bytes(568)), "is damaged"),
    (lambda folder: (folder / "index").unlink(), "result_path result_Files holds no index"),
    (lambda folder: (folder / "index").write_bytes((folder / "index").read_bytes()[1:]), "is damaged"),
])  # fmt: skip
def test_damaged_scores_are_refused(preprocessed, tiny_data, here, change, message):
    change(write_scores(preprocessed(tiny_data.path), np.full(142, 0.25)))
    with pytest.raises(InputError, match=message):
        postprocess_program.main([])
    assert not (here / "scores.csv").exists()


@pytest.mark.parametrize("value", [1.5, -0.1, math.nan])
def test_what_is_no_probability_is_refused(preprocessed, tiny_data, value):
    write_scores(preprocessed(tiny_data.path), [0.5, value, *[0.5] * 140])
    with pytest.raises(InputError, match="the score of row 2 is .*, no probability"):
        postprocess_program.main([])


@pytest.mark.parametrize(("change", "message"), [
    (lambda path: path.write_bytes(bytes([path.read_bytes()[0] ^ 1]) + path.read_bytes()[1:]),
     "labels/000000.bin is damaged .*: run preprocess.py again"),
    (lambda path: path.write_bytes(bytes(141)), "labels/000000.bin is missing or does not hold 142 rows"),
    (lambda path: path.unlink(), "labels/000000.bin is missing or does not hold 142 rows: run preprocess.py again"),
])  # fmt: skip
def test_damaged_labels_are_refused(preprocessed, tiny_data, here, change, message):
    rows = preprocessed(tiny_data.path)
    write_scores(rows, np.full(142, 0.5))
    change(rows.path / "labels/000000.bin")
    with pytest.raises(InputError, match=message):
        postprocess_program.main([])
    assert not (here / "scores.csv").exists()


def test_labels_other_than_0_and_1_are_refused(tmp_path):
    columns = np.zeros((3, 2), np.float32), np.zeros((3, 1), np.int32), np.array([0, 2, 1], np.uint8)
    rows = RowFiles.write(tmp_path, RowSource(iter([columns])), [1], "v", True)
    with pytest.raises(InputError, match="labels holds the label 2, not 0 or 1"):
        rows.labels()


def test_scores_of_other_rows_are_refused(preprocessed, tiny_data):
    write_scores(preprocessed(tiny_data.path), np.full(142, 0.5))
    preprocessed(tiny_data.path / "valid", "--overwrite=True")
    with pytest.raises(InputError, match="holds the scores of other rows than preprocess_Result"):
        postprocess_program.main([])
