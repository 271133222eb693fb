"""The Python scorer: rows by every door give the scores of the file's rows, or are refused by column and row."""

import math
import os
import signal
import threading

import numpy as np
import pandas as pd
import pytest
from conftest import CPU, preprocess_lines, raw_lines, write_raw
from stopping import run_program

import eval as eval_program
import export as export_program
import preprocess as preprocess_program
import train as train_program
from src.base.errors import InputError
from src.data.manifest import find
from src.report.content import data_content
from src.rows.schema import load_schema
from src.scorer import Scorer


@pytest.fixture(scope="module")
def scorer(exports):
    return Scorer(exports["fp32"])


def frame_of(lines, scorer):
    cells = [line.split("\t") for line in lines]
    frame = pd.DataFrame(cells, columns=list(scorer.columns.names)).replace("", None)
    return frame.astype({name: float for name in scorer.columns.dense})


def test_frames_and_lines_score_alike(scorer):
    lines = raw_lines(200, seed=5)
    lines[7] = "0" + "\t" * 39
    scores = scorer.score_lines(lines, has_labels=True)
    assert scores.shape == (200,)
    assert np.array_equal(scores, scorer.score_lines([line.split("\t", 1)[1] + "\r\n" for line in lines]))
    assert np.array_equal(scores, scorer.score(frame_of(lines, scorer)))
    one_by_one = [scorer.score_lines([line], has_labels=True)[0] for line in lines[:20]]
    assert one_by_one == pytest.approx(scores[:20].tolist(), abs=1e-6)
    assert np.all((scores > 0) & (scores < 1))


def test_kinds_of_columns_in_a_frame(scorer):
    frame = frame_of(raw_lines(3), scorer)
    missing = frame.assign(C8=[None, float("nan"), pd.NA])
    assert np.array_equal(scorer.score(missing), scorer.score(frame.assign(C8="")))
    categories = frame.assign(C7=pd.Categorical(["12", None, "56"]))
    assert np.array_equal(scorer.score(categories), scorer.score(frame.assign(C7=["12", "", "56"])))
    numbers = frame.assign(I1=pd.array([5, None, -3], "Int64"))
    assert np.array_equal(scorer.score(numbers), scorer.score(frame.assign(I1=[5.0, 0.0, 0.0])))
    assert scorer.score(frame[:0]).shape == (0,)


@pytest.mark.parametrize(("change", "message"), [
    (lambda frame: frame.drop(columns=["C3"]), "has no column 'C3'"),
    (lambda frame: "rows.txt", r"str is no DataFrame: scorer.read_csv\(path\) reads one"),
    (lambda frame: frame.assign(C3=[1.5, 2.5, 3.5]), "column 'C3', row 0 is 1.5: give categories as text"),
    (lambda frame: frame.assign(C3=[True, False, True]), "column 'C3', row 0 is True"),
    (lambda frame: frame.assign(C3=[12, 3, 4]), r"'C3', row 0 is 12, a number, and training had text such as '0000"),
    (lambda frame: frame.assign(C3=[["a"], ["b"], []]), r"column 'C3', row 0 is \['a'\]: give categories as text"),
    (lambda frame: frame.assign(C3=[b"a", b"b", b"c"]), "column 'C3', row 0 is b'a': give categories as text"),
    (lambda frame: frame.assign(C3=["a", "b", "\ud800"]), r"'C3', row 2 is '\\ud800', which no raw row can hold"),
    (lambda frame: frame.assign(C3=["a", "b\0", "c"]), r"column 'C3', row 1 is 'b\\x00', which no raw row can hold"),
    (lambda frame: frame.assign(C3=["a", "b\tc", "c"]), r"'C3', row 1 is 'b\\tc', which no raw row can hold"),
    (lambda frame: frame.assign(C3=["a", "b", "c\n"]), r"'C3', row 2 is 'c\\n', which no raw row can hold"),
    (lambda frame: frame.assign(C3=pd.to_datetime([None] * 3)), "column 'C3', row 0 is NaT: give categories as text"),
    (lambda frame: frame.assign(C3=["a", pd.NaT, "c"]), "column 'C3', row 1 is NaT: give categories as text"),
    (lambda frame: frame.assign(C3=pd.Timestamp(0)), "column 'C3', row 0 is Timestamp.*: give categories as text"),
    (lambda frame: frame.assign(C3=1.5, C9=2.5, I1=True), "'I1', row 0 is True.* 2 more columns.*: 'C3', 'C9'"),
    (lambda frame: pd.concat([frame, frame[["C3"]]], axis=1), "has column 'C3' more than once"),
    (lambda frame: frame.assign(I2=pd.Timestamp(0)), "column 'I2', row 0 is Timestamp.* which is not a number"),
    (lambda frame: frame.assign(I2=pd.Series([10**400] * 3, dtype=object)), "'I2', row 0 is 10+, which is not a"),
    (lambda frame: frame.assign(I2=pd.to_datetime([None] * 3)), "column 'I2', row 0 is NaT, which is not a number"),
    (lambda frame: frame.assign(I2=pd.Timedelta(5)), "column 'I2', row 0 is Timedelta.* which is not a number"),
    (lambda frame: frame.assign(I2=[True, False, None]), "column 'I2', row 0 is True, which is not a number"),
    (lambda frame: frame.assign(I2=[1j, 2j, 3j]), "column 'I2', row 0 is 1j, which is not a number"),
    (lambda frame: frame.assign(I2=["1_0", "2", "3"]), "column 'I2', row 0 is '1_0', which is not a number"),
    (lambda frame: frame.assign(I2=[[1], [2], [3]]), r"column 'I2', row 0 is \[1\], which is not a number"),
    (lambda frame: frame.assign(I2=["a", "b", "c"]), "column 'I2', row 0 is 'a', which is not a number"),
    (lambda frame: frame.assign(I2=[1.0, math.inf, 2.0]), "column 'I2', row 1 is inf"),
])  # fmt: skip
def test_frames_that_can_not_be_scored(scorer, change, message):
    with pytest.raises(InputError, match=message):
        scorer.score(change(frame_of(raw_lines(3), scorer)))


@pytest.mark.parametrize(("lines", "message"), [
    (["1\t2\t3"], "line 1: 3 columns instead of 39: Rows of the file have 3 columns, and those of the schema are 39"),
    ([raw_lines(1)[0].split("\t", 1)[1], raw_lines(1)[0]], "line 2: 40 columns instead of 39"),
    ([raw_lines(1)[0].split("\t", 1)[1] + "\n\n"], "line 1"),
    (["a\nb"], "line 1 holds a line end within"),
])  # fmt: skip
def test_lines_that_can_not_be_scored(scorer, lines, message):
    with pytest.raises(InputError, match=message):
        scorer.score_lines(lines)


@pytest.mark.parametrize("kind", ["fp32", "graph"])
@pytest.mark.parametrize(("dense", "ids", "message"), [
    (np.zeros((3, 12)), np.zeros((3, 26), int), r"dense is float64 of shape \(3, 12\): it must be \[rows, 13\]"),
    (np.zeros(13), np.zeros((1, 26), int), r"dense is float64 of shape \(13,\)"),
    (np.zeros((3, 13)), np.zeros((3, 25), int), r"ids is int64 of shape \(3, 25\): it must be \[rows, 26\] of whole"),
    (np.zeros((3, 13)), np.zeros((3, 26)), r"ids is float64 of shape \(3, 26\)"),
    (np.zeros((3, 13), str), np.zeros((3, 26), int), r"dense is <U1 of shape"),
    (np.zeros((2, 13)), np.zeros((3, 26), int), "dense has 2 rows and ids 3"),
    (np.zeros((1, 13)), np.full((1, 26), 2**32), "row 1, field 1: id 4294967296 is not among the"),
    (np.zeros((1, 13)), np.full((1, 26), -1, np.int8), "row 1, field 1: id -1 is not among the"),
])  # fmt: skip
def test_coded_rows_that_can_not_be_scored(exports, kind, dense, ids, message):
    with pytest.raises(InputError, match=message):
        Scorer(exports[kind]).score_ids(dense, ids)


@pytest.mark.parametrize("kind", ["fp32", "graph"])
def test_coded_rows_of_other_types_score_the_same(exports, kind):
    scorer = Scorer(exports[kind])
    dense, ids = np.random.default_rng(1).random((5, 13)), np.ones((5, 26), np.int64)
    expected = scorer.score_ids(dense.astype(np.float32), ids.astype(np.int32))
    assert np.array_equal(scorer.score_ids(dense, ids), expected)
    assert np.array_equal(scorer.score_ids(dense.tolist(), ids.astype(np.uint8).tolist()), expected)


def test_scorer_wants_a_device_that_is_there(exports):
    with pytest.raises(InputError, match="device_target Ascend with device_id 0"):
        Scorer(exports["fp32"], device_target="Ascend")


def test_scorer_takes_no_lines_and_says_what_a_label_needs(exports, tiny_data):
    scorer = Scorer(exports["fp32"])
    assert scorer.score_lines([]).shape == (0,)
    with pytest.raises(InputError, match="line 1: 40 columns instead of 39: it has a label, so give has_labels=True"):
        scorer.score_lines(raw_lines(1))
    with pytest.raises(InputError, match="lines is one text: give a list of lines"):
        scorer.score_lines("\n".join(raw_lines(2)))


def test_numbers_may_stand_as_text(scorer):
    lines = raw_lines(50, seed=3)
    cells = [line.split("\t") for line in lines]
    frame = pd.DataFrame(cells, columns=list(scorer.columns.names))
    assert np.array_equal(scorer.score(frame), scorer.score_lines(lines, has_labels=True))


def test_lines_are_text_bytes_a_file_or_a_frame_of_it(scorer, tmp_path):
    """With a byte order mark, too."""
    lines = [line.split("\t", 1)[1] for line in raw_lines(60, seed=8)]
    lines[4] = "\t".join([*lines[4].split("\t")[:-1], "Zürich 漢字 and more"])
    expected = scorer.score_lines(lines)
    path = write_raw(tmp_path / "rows.txt", lines)
    marked = tmp_path / "marked.txt"
    marked.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    assert np.array_equal(scorer.score_lines([line.encode() for line in lines]), expected)
    assert np.array_equal(scorer.score_lines(["\ufeff" + lines[0], *lines[1:]]), expected)
    for one in (path, marked):
        assert np.array_equal(scorer.score_lines(one), expected)
        with open(one, "rb") as file:
            assert np.array_equal(scorer.score_lines(file), expected)
        assert np.array_equal(scorer.score(scorer.read_csv(one)), expected)
    with open(path, encoding="latin-1") as file, pytest.raises(InputError, match="opened as latin-1.*'rb'"):
        scorer.score_lines(file)
    path.write_bytes(path.read_bytes().replace(b"Z", b"\r"))
    with open(path, encoding="utf-8") as file, pytest.raises(InputError, match="'rb'"):
        scorer.score_lines(file)


@pytest.mark.parametrize(("lines", "message"), [
    (["\udc80"], r"line 1: '\\udc80' holds a lone surrogate"),
    ([5], "line 1 is 5: give lines of text or bytes"),
])  # fmt: skip
def test_what_is_no_line_is_refused(scorer, lines, message):
    with pytest.raises(InputError, match=message):
        scorer.score_lines(lines)


def test_a_file_that_is_not_there_or_not_good_is_named(scorer, tmp_path):
    with pytest.raises(InputError, match="there is no file nothing.txt"):
        scorer.read_csv("nothing.txt")
    path = write_raw(tmp_path / "rows.txt", raw_lines(3))
    with pytest.raises(InputError, match=r"rows.txt line 1: 40 columns instead of 39: it has a label"):
        scorer.score_lines(path)


@pytest.fixture(scope="module")
def worded(tmp_path_factory):
    """A model whose one field has words that pandas takes for missing, zeros in front and quotes; its lines."""

    folder = tmp_path_factory.mktemp("worded")
    words = ["NULL", "", "00054", "54", "79.0", "79", 'say "so"', "Paris", "a long site name 00054"]
    lines = ["clicked,price,site,city"]
    lines += [f"{row % 3 == 0:d},{row % 7},{words[row % 9]},{'abcde'[row % 5]}" for row in range(900)]
    schema = folder / "schema.yaml"
    schema.write_text('label: clicked\ndense: [price]\ncategorical: [site, city]\nseparator: ";"\nheader: true\n')
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        lines = [line.replace(",", ";") for line in lines]
        preprocess_lines(write_raw(folder / "train.txt", lines), folder / "dataset", load_schema(schema))
        train_program.main([CPU, "--emb_dim=4", "--bottom_mlp=[4]", "--top_mlp=[1]", "--batch_size=32", "--lr=0.5"])
        export_program.main([CPU])
    return Scorer(folder / "export"), folder / "train.txt"


@pytest.mark.parametrize(("options", "message"), [
    ({}, "column 'site', row 0 is nan, and training had 'NULL', which pandas takes for a missing value.*read_csv"),
    ({"dtype": str}, "column 'site', row 0 is nan, and training had 'NULL'"),
    ({"keep_default_na": False, "skiprows": range(1, 3), "nrows": 2, "usecols": ["price", "site", "city"]},
     "column 'site', row 0 is 54, a number, and training had text such as '"),
])  # fmt: skip
def test_a_frame_that_pandas_read_otherwise_is_refused(worded, options, message):
    scorer, path = worded
    with pytest.raises(InputError, match=message):
        scorer.score(pd.read_csv(path, sep=";", **options))


def test_read_csv_gives_the_rows_of_the_file(worded):
    scorer, path = worded
    frame = scorer.read_csv(path, has_labels=True)
    assert frame["site"][:4].tolist() == ["NULL", "", "00054", "54"]
    assert frame["clicked"][:4].tolist() == [1, 0, 0, 1]
    expected = scorer.score_lines(path, has_labels=True)
    assert len(np.unique(expected.round(5))) > 9
    assert np.array_equal(scorer.score(frame), expected)
    assert np.array_equal(scorer.score_lines(path.read_bytes().splitlines(), has_labels=True), expected)


def score_one_by_one(scorer, cities):
    """As a server does."""
    for city in cities:
        scorer.score_lines(["price;site;city", f"1;NULL;{city}"])


@pytest.mark.filterwarnings("error")
def test_values_that_training_never_had_are_told_once_a_field(worded):
    scorer, _ = worded
    scorer = Scorer(scorer.model.path)
    frame = pd.DataFrame({"price": 1, "site": ['"A Long Site Name 00054"', '"B"'] * 15, "city": "a"})
    with pytest.warns(UserWarning, match=r"did not have: site 100.0% .*A Long Site.* is unseen, '.*' is known"):
        scorer.score(frame)
    scorer.score(frame)  # a second warning would be an error
    cities = [f"city {number}" for number in range(30)]
    for _ in range(4):
        scorer.score(frame)
    with pytest.warns(UserWarning, match=r"^rows to score: values that training did not have: city \d+"):
        scorer.score(pd.concat([frame.assign(city=cities)] * 4))
    scorer = Scorer(scorer.model.path)
    score_one_by_one(scorer, "A" * 30)  # one city
    with pytest.warns(UserWarning, match=r"did not have: city 100.0% \('A' is unseen, 'a' is known\)"):
        score_one_by_one(scorer, "BCDE")


@pytest.mark.filterwarnings("error")
def test_a_field_that_recovers_is_told_again(worded, monkeypatch):
    scorer, _ = worded
    scorer = Scorer(scorer.model.path)
    monkeypatch.setattr("src.scorer._WATCHED_ROWS", 50)
    odd = pd.DataFrame({"price": 1, "site": "NULL", "city": ["A", "B", "C"] * 20})
    for _ in range(2):
        with pytest.warns(UserWarning, match="did not have: city 100.0%"):
            scorer.score(odd)
        scorer.score(odd)
        scorer.score(odd)
        scorer.score(odd.assign(city="a"))
        scorer.score(odd.assign(city="a"))


def test_eight_threads_get_the_scores_of_one(exports):
    """Without the lock, MindSpore ends the process."""
    scorer = Scorer(exports["fp32"])
    lines = [raw_lines(40, seed=seed) for seed in range(8)]
    expected = [scorer.score_lines(one, has_labels=True) for one in lines]
    found = [[] for _ in lines]

    def score(number):
        for _ in range(20):
            found[number].append(scorer.score_lines(lines[number], has_labels=True))

    threads = [threading.Thread(target=score, args=[number]) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for one, scores in zip(expected, found):
        assert len(scores) == 20
        assert all(np.array_equal(one, again) for again in scores)


def test_a_process_forked_after_scoring_refuses_to_score(exports):
    scorer = Scorer(exports["fp32"])
    scorer.score_lines(raw_lines(1), has_labels=True)
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        signal.alarm(60)
        try:
            scorer.score_lines(raw_lines(1), has_labels=True)
        except InputError as error:
            os.write(writer, str(error).encode())
        finally:
            os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
    os.close(writer)
    with os.fdopen(reader) as told:
        assert f"was forked from {os.getpid()} after that had scored" in told.read()


def test_a_process_forked_before_scoring_scores(exports, tmp_path):
    """MindSpore has run in this process, so the process and its fork are others."""
    (tmp_path / "forks.py").write_text(
        "import os, sys, numpy as np\n"
        "from src.scorer import Scorer\n"
        f"scorer = Scorer({str(exports['fp32'])!r})\n"
        "score = lambda: scorer.score_ids(np.zeros((1, 13)), np.ones((1, 26), int)).tobytes()\n"
        "child = os.fork()\n"
        "found = score()\n"
        "if child == 0:\n"
        "    os._exit(0 if len(found) == 4 else 1)\n"
        "sys.exit(os.waitpid(child, 0)[1])\n"
    )
    code, output = run_program("python_file", tmp_path, "forks.py")
    assert code == 0, output


def test_rows_that_do_not_match_are_told_by_preprocess_and_eval(worded, tmp_path, monkeypatch, capsys):
    """A scoring input, new days, and the report of a run."""
    scorer, raw = worded
    monkeypatch.chdir(tmp_path)
    lines = raw.read_text().splitlines()[:31]
    odd = [f"{line.rpartition(';')[0]};{'AB'[number % 2]}" for number, line in enumerate(lines[1:])]
    write_raw(tmp_path / "odd.txt", [lines[0], *odd])
    preprocess_program.main(["--dataset_path=odd.txt", f"--export_path={scorer.model.path}"])
    expected = "warning: rows to score: values that training did not have: city 100.0% ('A' is unseen, 'a' is known)"
    assert expected in capsys.readouterr().err
    checkpoint = raw.parent / "checkpoint"
    preprocess_lines(tmp_path / "odd.txt", tmp_path / "new", scorer.columns, vocab_path=str(checkpoint))
    eval_program.main([CPU, "--dataset_path=new", f"--checkpoint_path={checkpoint}/dlrm.ckpt"])
    assert "warning: test rows: values that training did not have: city 100.0%. Are they" in capsys.readouterr().err
    assert data_content(find(str(tmp_path / "new")))["warnings"][0].startswith("test rows: values that training did")
    eval_program.main([CPU, f"--dataset_path={raw.parent / 'dataset'}", f"--checkpoint_path={checkpoint}/dlrm.ckpt"])
    assert "warning" not in capsys.readouterr().err
