"""A small part of benchmarks/combinations.py."""

from benchmarks import combinations
from src.training.prepare import Runtime


def test_two_random_combinations_have_no_faults(tmp_path):
    data = combinations.make_data(tmp_path)
    alone = (number for number in range(100) if combinations.draw(1, number).mode == "none")
    for number, _ in zip(alone, range(2)):
        assert combinations.check(combinations.draw(1, number), data, tmp_path / str(number), Runtime()) == ""


def test_a_fault_is_told(tmp_path, monkeypatch):
    monkeypatch.setattr(combinations, "twice", lambda *_: None)
    drawn = (combinations.draw(1, number) for number in range(100))
    one = next(one for one in drawn if one.mode == "none")
    assert combinations.check(one, tmp_path, tmp_path, Runtime()).startswith("FileNotFoundError: ")
