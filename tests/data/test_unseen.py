"""Which fields are told for their unseen values, and in which words."""

import dataclasses

import numpy as np
import pytest
from conftest import preprocess_lines, write_raw

from src.data.lines import Columns, key_of
from src.data.unseen import Unmatched, examples_of, unmatched, usual_shares, warning, worst
from src.data.vocabulary import Vocabulary

KNOWN = Vocabulary(("C1", "C2"), [np.array([key_of("Paris"), key_of("a long one of 22 bytes")], np.uint64)] * 2)
COLUMNS = Columns.numbered(1, 2)


def lines(rows, value, seed=0):
    return [f"{row % 2}\t{row}\t{value(row + seed)}\tv{row % 3}" for row in range(rows)]


def test_worst_fields_come_first():
    assert worst(["a", "b", "c", "d", "e"], [0.1, 0.0, 0.5, 0.2, 0.3]) == "c 50.00%, e 30.00%, d 20.00%"
    assert worst(["a"], [0.0]) == ""


@pytest.mark.parametrize(
    ("share", "usual", "rows", "told"),
    [(1.0, 1.0, 10, True), (1.0, 1.0, 9, False), (0.99, 1.0, 99, False), (0.3, 0.03, 99, True), (0.2, 0.03, 99, False)],
)
def test_a_field_is_told_where_nothing_matches_or_ten_times_less_than_usual(share, usual, rows, told):
    assert unmatched([0.0, share], np.array([0.01, usual]), rows) == [1] * told


def test_rows_after_training_say_what_is_usual(tiny_data):
    usual = usual_shares(tiny_data.manifest)
    assert (usual[2], usual[0]) == (max(part.unseen_share[2] for part in tiny_data.manifest.parts.values()), 0.01)
    train = {"train": tiny_data.manifest.parts["train"]}
    assert usual_shares(dataclasses.replace(tiny_data.manifest, parts=train)).tolist() == [1.0] * 26


def test_examples_are_the_text_of_the_rows_or_of_the_vocabulary():
    text = b'1\t5\tPARIS\ta long one of 22 bytes\nbad\n1\t5\t"Paris"\tanother that is long\n'
    assert examples_of(text, COLUMNS, KNOWN, [0, 1]) == [
        ("PARIS", "Paris"), ("another that is long", "a long one of 22 bytes")
    ]  # fmt: skip


def test_the_warning_is_one_line():
    found = [Unmatched(f"C{number}", 1.0, '"Paris"', "Paris") for number in range(5)]
    line = warning("new.txt", found)
    assert line.startswith("new.txt: values that training did not have: C0 100.0% ('\"Paris\"' is unseen, 'Paris' is")
    assert "and 2 fields more. Are they written as in training" in line
    assert "\n" not in line
    assert warning("new.txt", []) == ""


def test_preprocessing_tells_of_a_field_without_a_match(tmp_path, capfd):
    raw = write_raw(tmp_path / "a", lines(400, lambda row: f"c{row % 5}"))
    preprocess_lines(raw, tmp_path / "model", COLUMNS)
    assert "warning" not in capfd.readouterr().err
    for name, value, told in (
        ("upper", lambda row: f"C{row % 5}", "C1 100.0% ('C0' is unseen, 'c0' is known)"),
        ("some", lambda row: f"{'cC'[row % 3 == 0]}{row % 5}", "C1 33.3% ('C0' is unseen, 'c1' is known)"),
        ("same", lambda row: f"c{row % 5}", ""),
    ):
        new = write_raw(tmp_path / name, lines(300, value))
        preprocess_lines(new, tmp_path / f"d-{name}", COLUMNS, vocab_path=str(tmp_path / "model"))
        assert (f"warning: test part: values that training did not have: {told}" in capfd.readouterr().err) == bool(
            told
        )
