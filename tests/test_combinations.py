"""A small part of benchmarks/combinations.py."""

import numpy as np
import pytest
import stopping  # noqa: F401  # its forkserver has imported what the lives need
from runs import StopAt

from benchmarks import combinations
from src import run
from src.training.prepare import Runtime


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


def test_a_run_that_begins_anew_is_a_fault(tmp_path, monkeypatch):
    """One that loses its state computes the same values again, so that only its log tells."""
    one, data, stopped_state = combinations.draw(1, first(1)), combinations.make_data(tmp_path), run.stopped_state

    def lose_state(prepared, own):
        own._progress.unlink()
        return stopped_state(prepared, own)

    with combinations.one_graph():
        for name in ("whole", "lost"):
            with pytest.raises(KeyboardInterrupt):
                combinations.train(one, data, tmp_path / name, Runtime(), [StopAt(8)])
        combinations.go_on_from_state(one, data, tmp_path / "whole", Runtime())
        monkeypatch.setattr(run, "stopped_state", lose_state)
        with pytest.raises(AssertionError, match="^going on began behind step 0, the last state is that of step 6$"):
            combinations.go_on_from_state(one, data, tmp_path / "lost", Runtime())


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
    other.parts.clear()
    for some, none in ((one, other), (other, one)):
        with pytest.raises(AssertionError, match=r"^it has (other values in|left no) dlrm\.ckpt$"):
            some.check_same(none, "it")
    with pytest.raises(AssertionError, match=r"^it has left no dlrm\.ckpt$"):
        other.check_same(other, "it")
    other.evaluations[7] = np.nan
    with pytest.raises(AssertionError, match="^it differs in losses by nan$"):
        one.check_close(other, "it")
    one.evaluations.clear()
    with pytest.raises(AssertionError, match="^it has other evaluations: 0 and 1$"):
        one.check_close(other, "it")
    del other.losses[3]
    with pytest.raises(AssertionError, match="^it has other steps: 20 and 19$"):
        one.check_close(other, "it")
