"""What training's values looked like, and how many of other rows' values are not among them."""

import itertools

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
from src.data.manifest import Manifest
from src.data.parts import File, Part
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


def block_of(keys):
    rows = keys.shape[1]
    return Block(np.zeros(rows, np.uint8), np.empty((rows, 0), np.float32), keys)


def test_the_first_unseen_value_is_told_beside_a_known_one():
    unseen = Unseen(("C1", "C2", "C1 bucket"), np.array([0.01, 0.01, 0.01]))
    texts = ["a text of many letters", *(f"text number {number}" for number in range(9))]
    for text in texts:
        keys = np.stack([keys_of([text]), keys_of(["b"])])
        unseen.add(np.array([[0, 1, 2]]), block_of(keys))
    found = unseen.unmatched([Example(("A",)), Example()], lambda: [texts, []])
    assert [str(one) for one in found] == ["C1 100.0% ('a text of many letters' is unseen, 'A' is known)"]
    assert warning("rows", found).startswith("rows: values that training did not have: C1 100.0%")
    assert str(unseen.unmatched([])[0]) == "C1 100.0%"


@pytest.mark.parametrize(("share", "usual", "rows", "told"), [
    (1.0, 0.01, 3, False),
    (1.0, 0.01, 4, True),
    (1.0, 1.0, 9, False),
    (1.0, 0.9, 100, False),  # by chance in 3 of 100,000, and fields are many
    (1.0, 1.0, 100, True),
    (0.1, 0.01, 99, False),
    (0.1, 0.01, 100, True),
    (0.19, 0.02, 1000, False),
    (0.0, 0.01, 1000, False),
    (0.9999, 0.12, 10**6, True),  # though it can't be ten times as much as is usual
    (0.92, 0.12, 114, True),  # 9 of 114 match, where 100 usually do
    (0.92, 0.12, 113, False),
    (0.91, 0.12, 10**6, False),
    (0.9999, 1.0, 10**6, False),
    (0.9999, np.inf, 10**6, False),
])  # fmt: skip
def test_what_is_far_above_the_usual_share_is_told(share, usual, rows, told):
    assert unmatched([share], np.array([usual]), [rows]) == ([0] if told else [])


def test_rows_of_one_value_behind_each_other_are_not_taken_as_independent():
    """Against a plain loop, of rows that come in parts; ten ads for one new user tell of one user."""
    rng = np.random.default_rng(1)
    runs = [np.repeat(rng.integers(0, 3, 300), rng.integers(1, 140, 300))[:9000] for _ in range(2)]
    ids = np.stack(runs, axis=1)
    unseen = Unseen(("C1", "C2"), np.array([0.01, 0.01]))
    for part in np.split(ids, [1, 2, 60, 60, 5000]):
        unseen.add(part, block_of(part.T.astype(np.uint64)))
    for field, values in enumerate(runs):
        draws = [value for value, run in itertools.groupby(values.tolist()) for _ in itertools.islice(run, 0, None, 50)]
        assert unseen._draws[field] == len(draws)
        assert unseen._unseen_draws[field] == draws.count(0)


@pytest.mark.parametrize(("users", "rows", "told"), [(1, 10, False), (1, 150, False), (1, 151, True), (12, 12, True)])
@pytest.mark.parametrize("at_once", [True, False])
def test_ads_for_one_new_user_are_not_told(users, rows, told, at_once):
    unseen = Unseen(("user", "ad"), np.array([0.01, 0.01]))
    keys = np.stack([np.arange(rows) * users // rows, np.arange(rows)]).astype(np.uint64)
    ids = np.stack([np.zeros(rows, np.int32), np.ones(rows, np.int32)], axis=1)
    for part in [slice(None)] if at_once else [slice(row, row + 1) for row in range(rows)]:
        unseen.add(ids[part], block_of(keys[:, part]))
    assert [one.field for one in unseen.unmatched([])] == (["user"] if told else [])


@pytest.mark.parametrize("later", [("test",), ("valid", "test")])
def test_a_field_of_which_training_kept_nothing_is_not_told(later):
    """Such as by min_count: its values are not written otherwise than in training."""
    parts = {"train": Part(900, 1, 900, 0.5, (1.0, 0.0), ("train/a",), (900,))}
    parts |= {name: Part(50, 901, 950, 0.5, (1.0, 1.0), (f"{name}/a",), (50,)) for name in later}
    files = tuple(File(f"{name}/a", 1, "") for name in parts)
    manifest = Manifest(("n",), ("dead", "new"), (1, 9), parts, files, 0, {}, {})
    assert [one.field for one in unmatched_of(manifest, "test")] == ["new"]
    assert unmatched([1.0, 1.0], usual_shares(manifest), [5000] * 2) == [1]


@pytest.mark.parametrize(("split", "told"), [("random:user", ["site"]), ("", ["user", "site"])])
def test_values_of_a_split_at_random_are_not_told(split, told):
    """Each of them is in one part alone."""
    shares = {"train": (0.0, 0.0), "valid": (1.0, 0.1), "test": (1.0, 1.0)}
    parts = {name: Part(500, 1, 500, 0.5, share, (f"{name}/a",), (500,)) for name, share in shares.items()}
    files = tuple(File(f"{name}/a", 1, "") for name in parts)
    manifest = Manifest((), ("user", "site"), (9, 9), parts, files, 0, {}, {"split": split})
    assert [one.field for one in unmatched_of(manifest, "test")] == told


def test_a_long_value_is_told_by_its_beginning():
    assert str(Unmatched("c", 1.0, "x" * 1000, "y")) == f"c 100.0% ('{'x' * 60}' is unseen, 'y' is known)"
