"""A small part of benchmarks/combinations.py."""

import pytest

from benchmarks import combinations


def first(ranks):
    """Number of the first combination of so many ranks that compiles fast."""
    drawn = ((number, combinations.draw(1, number)) for number in range(1000))
    return next(
        number for number, one in drawn
        if (one.ranks, one.compiled, one.network.towers, one.network.interaction) == (ranks, True, 1, "cat")
        and one.optimization.optimizer != "sgd"
    )  # fmt: skip


def test_random_combinations_of_one_rank_and_two_have_no_faults(tmp_path, capsys):
    """Each is really killed and gone on with; a later start does not check again what was checked."""
    numbers = [first(1), first(2)]
    assert combinations.search(1, numbers, tmp_path) == 0
    said = capsys.readouterr().out
    assert all(f"\n{number}: " in said for number in numbers)
    assert combinations.search(1, numbers, tmp_path) == 0
    assert capsys.readouterr().out == ""


def test_faults_are_told_and_the_search_goes_on(tmp_path, capsys):
    numbers = [number for number in range(40) if combinations.draw(1, number).ranks == 1][:2]
    assert combinations.search(1, numbers, tmp_path, tmp_path / "none") == 2
    said = capsys.readouterr().out.splitlines()
    assert [line.split(": ")[:3] for line in said] == [["fault", str(number), "InputError"] for number in numbers]


def test_what_differs_is_a_fault():
    one, other = combinations.Outcome.__new__(combinations.Outcome), combinations.Outcome.__new__(combinations.Outcome)
    for outcome in (one, other):
        outcome.losses = dict.fromkeys(range(combinations.STEPS), 0.5)
        outcome.evaluations, outcome.parts = {7: 0.6}, {"dlrm.ckpt": b"1"}
    one.check_same(other, "it")
    one.check_close(other, "it")
    other.parts["dlrm.ckpt"] = b"2"
    other.evaluations[7] += 2e-4
    with pytest.raises(AssertionError, match=r"^it has other values in dlrm\.ckpt$"):
        one.check_same(other, "it")
    with pytest.raises(AssertionError, match=r"^it differs in losses by 0\.0002$"):
        one.check_close(other, "it")
    del other.losses[3]
    with pytest.raises(AssertionError, match="^it has other steps: 20 and 19$"):
        one.check_close(other, "it")
