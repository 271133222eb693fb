"""What training's values looked like, and how many of other rows' values are not among them."""

import numpy as np
import pytest

from src.data.known_values import (
    Example,
    Unmatched,
    Unseen,
    from_json,
    learn_examples,
    to_json,
    unmatched,
    unmatched_of,
    usual_shares,
    warning,
)
from src.data.manifest import File, Manifest, Part
from src.data.vocabulary import HashedVocabulary, Vocabulary
from src.rows.block import Block
from src.rows.keys import keys_of


def vocabulary_of(*values):
    return Vocabulary(["C1"], [keys_of(values)])


@pytest.mark.parametrize(("values", "cells", "example"), [
    (["1", "0", "-5", "", "12345678"], [], Example(("1", "0", "-5"))),
    (["1", "007"], [], Example(("1", "007"), "007")),
    (["1", "-0"], [], Example(("1", "-0"), "-0")),
    (["1", "5-"], [], Example(("1", "5-"), "5-")),
    (["1", "NULL", ""], [], Example(("1", "NULL"), "NULL", "NULL")),
    (["123456789"], ["123456789"], Example(("123456789",))),
    (["123456789", "a text of many letters"], ["a text of many letters", "not known", "123456789"],
     Example(("123456789", "a text of many letters"), "a text of many letters")),
    (["a" * 99], ["a" * 99], Example(("a" * 60,), "a" * 60)),
    ([], [], Example()),
])  # fmt: skip
def test_examples_are_of_the_vocabulary(values, cells, example):
    assert learn_examples(vocabulary_of(*values), [cells]) == (example,)
    assert from_json(to_json([example])) == (example,)


def test_examples_of_hashed_categories_are_those_of_the_rows():
    cells = [["b", "a", "b", "", "NULL"]]
    assert learn_examples(HashedVocabulary(["C1"], 5), cells) == (Example(("b", "NULL", "a"), "b", "NULL"),)
    assert learn_examples(HashedVocabulary(["C1"], 5)) == (Example(),)


def test_the_first_unseen_value_is_told_beside_a_known_one():
    unseen = Unseen(("C1", "C2", "C1 bucket"), np.array([0.01, 0.01, 0.01]))
    texts = ["a text of many letters"] * 10
    for text in texts:
        keys = np.stack([keys_of([text]), keys_of(["b"])])
        unseen.add(np.array([[0, 1, 2]]), Block(np.zeros(1, np.uint8), np.empty((1, 0), np.float32), keys))
    found = unseen.unmatched([Example(("A",)), Example()], lambda: [texts, []])
    assert [str(one) for one in found] == ["C1 100.0% ('a text of many letters' is unseen, 'A' is known)"]
    assert warning("rows", found).startswith("rows: values that training did not have: C1 100.0%")
    assert str(unseen.unmatched([])[0]) == "C1 100.0%"


@pytest.mark.parametrize(("share", "usual", "rows", "told"), [
    (1.0, 0.01, 9, False),
    (1.0, 0.01, 10, True),
    (1.0, 0.9, 100, False),  # by chance in 3 of 100,000, and fields are many
    (1.0, 1.0, 100, True),
    (0.1, 0.01, 99, False),
    (0.1, 0.01, 100, True),
    (0.19, 0.02, 1000, False),
    (0.0, 0.01, 1000, False),
])  # fmt: skip
def test_what_is_far_above_the_usual_share_is_told(share, usual, rows, told):
    assert unmatched([share], np.array([usual]), rows) == ([0] if told else [])


@pytest.mark.parametrize("later", [("test",), ("valid", "test")])
def test_a_field_of_which_training_kept_nothing_is_not_told(later):
    """Such as by min_count: its values are not written otherwise than in training."""
    parts = {"train": Part(900, 1, 900, 0.5, (1.0, 0.0), ("train/a",), (900,))}
    parts |= {name: Part(50, 901, 950, 0.5, (1.0, 1.0), (f"{name}/a",), (50,)) for name in later}
    files = tuple(File(f"{name}/a", 1, "") for name in parts)
    manifest = Manifest(("n",), ("dead", "new"), (1, 9), parts, files, 0, {}, {})
    assert [one.field for one in unmatched_of(manifest, "test")] == ["new"]
    assert unmatched([1.0, 1.0], usual_shares(manifest), 5000) == [1]


def test_a_long_value_is_told_by_its_beginning():
    assert str(Unmatched("c", 1.0, "x" * 1000, "y")) == f"c 100.0% ('{'x' * 60}' is unseen, 'y' is known)"
