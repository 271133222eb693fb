"""Sealed text files of facts."""

import pytest

from src.errors import InputError
from src.sealed import read_facts, write_facts


@pytest.fixture
def path(tmp_path):
    write_facts(tmp_path / "f", "model", [("graph", "a b.mindir"), ("field", "Ä", 3), ("field", "C2", 5)])
    return tmp_path / "f"


def test_facts_come_back(path):
    assert read_facts(path, "model") == {"graph": [("a b.mindir",)], "field": [("Ä", "3"), ("C2", "5")]}
    assert path.read_text().startswith("dlrm\tmodel\t1\ngraph\ta b.mindir\n")


def test_every_change_and_cut_is_noticed(path):
    data = path.read_bytes()
    for place in range(len(data)):
        for changed in (data[:place], data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :]):
            path.write_bytes(changed)
            with pytest.raises(InputError, match="is damaged"):
                read_facts(path, "model")


def test_another_kind_is_refused(path):
    with pytest.raises(InputError, match="is no rows of this version"):
        read_facts(path, "rows")


@pytest.mark.parametrize("text", ["a\tb", "a\nb", "a\rb"])
def test_values_that_would_break_lines_are_refused(tmp_path, text):
    with pytest.raises(InputError, match="holds a tab or a line end"):
        write_facts(tmp_path / "f", "model", [("field", text)])
    assert not list(tmp_path.iterdir())
