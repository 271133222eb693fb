"""A small part of benchmarks/combinations.py."""

from benchmarks import combinations
from src.training.prepare import Runtime


def test_a_random_combination_has_no_faults(tmp_path):
    """One whose longer trainings are by compiled operators, whose graphs are made sooner."""
    data = combinations.make_data(tmp_path)
    drawn = ((number, combinations.draw(1, number)) for number in range(100))
    number, one = next((number, one) for number, one in drawn if one.mode == "none" and one.compiled)
    assert one.network.towers > 1
    assert combinations.check(one, data, tmp_path / str(number), Runtime()) == ""


def test_a_fault_is_told(tmp_path, monkeypatch):
    monkeypatch.setattr(combinations, "twice", lambda *_: None)
    drawn = (combinations.draw(1, number) for number in range(100))
    one = next(one for one in drawn if one.mode == "none")
    assert combinations.check(one, tmp_path, tmp_path, Runtime()).startswith("FileNotFoundError: ")
