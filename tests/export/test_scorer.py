"""The Python scorer: lines, frames and coded rows score alike, and what it refuses."""

import math

import mindspore as ms
import numpy as np
import pandas as pd
import pytest
from conftest import raw_lines

from src.base.errors import InputError
from src.scorer import Scorer

ms.set_context(mode=ms.GRAPH_MODE)
ms.set_device("CPU")


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
    whole = frame.assign(C7=[12, 34, 56])
    assert np.array_equal(scorer.score(whole), scorer.score(frame.assign(C7=["12", "34", "56"])))
    missing = frame.assign(C7=pd.array([12, None, 56], "Int64"), C8=[None, float("nan"), pd.NA])
    assert np.array_equal(scorer.score(missing), scorer.score(frame.assign(C7=["12", "", "56"], C8="")))
    categories = frame.assign(C7=pd.Categorical(["12", None, "56"]))
    assert np.array_equal(scorer.score(categories), scorer.score(frame.assign(C7=["12", "", "56"])))
    numbers = frame.assign(I1=pd.array([5, None, -3], "Int64"))
    assert np.array_equal(scorer.score(numbers), scorer.score(frame.assign(I1=[5.0, 0.0, 0.0])))
    assert scorer.score(frame[:0]).shape == (0,)


@pytest.mark.parametrize(("change", "message"), [
    (lambda frame: frame.drop(columns=["C3"]), "has no column 'C3'"),
    (lambda frame: frame.assign(C3=[1.5, 2.5, 3.5]), "column 'C3', row 0 is 1.5: give categories as text"),
    (lambda frame: frame.assign(C3=[True, False, True]), "column 'C3', row 0 is True"),
    (lambda frame: frame.assign(I2=["a", "b", "c"]), "column 'I2' of the DataFrame holds what is not a number"),
    (lambda frame: frame.assign(I2=[1.0, math.inf, 2.0]), "column 'I2', row 1 is inf"),
])  # fmt: skip
def test_frames_that_can_not_be_scored(scorer, change, message):
    with pytest.raises(InputError, match=message):
        scorer.score(change(frame_of(raw_lines(3), scorer)))


@pytest.mark.parametrize(("lines", "message"), [
    (["1\t2\t3"], "line 1: 3 columns instead of 39"),
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
