"""Sealed text files of facts."""

import json

import pytest

from src.base.errors import InputError
from src.base.sealed import begins_as, check_json, check_text, read_facts, sealed_json, sealed_text, write_facts


@pytest.fixture
def path(tmp_path):
    write_facts(tmp_path / "f", "model", [("graph", "a b.mindir"), ("field", "Ä", 3), ("field", "C2", 5)])
    return tmp_path / "f"


def test_facts_come_back(path):
    assert read_facts(path, "model") == {"graph": [("a b.mindir",)], "field": [("Ä", "3"), ("C2", "5")]}
    assert path.read_text().startswith("dlrm\tmodel\t1\ngraph\ta b.mindir\n")


@pytest.mark.parametrize("sign", ["\u2028", "\u0085", "\x0b", "\x0c", "\x1c", "\x1d"])
def test_a_name_may_hold_what_is_a_line_end_elsewhere(tmp_path, sign):
    name = f"price{sign}in euro"
    write_facts(tmp_path / "f", "model", [("field", name, 3), ("field", sign, 4)])
    assert read_facts(tmp_path / "f", "model") == {"field": [(name, "3"), (sign, "4")]}


def test_what_a_file_begins_as(path):
    assert begins_as(path, "model")
    assert not begins_as(path, "mode")
    assert not begins_as(path, "rows")
    assert not begins_as(path.parent / "nothing", "model")
    path.write_bytes(path.read_bytes()[:20])
    assert begins_as(path, "model")


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


def test_json_and_text_that_changed_are_refused(tmp_path):
    content = {"step": 7, "best": {"auc": 0.5}}
    sealed = json.loads(sealed_json(content))
    assert check_json(sealed, tmp_path, "again") == content
    assert check_json(content, tmp_path, "again") == content  # as it was at first
    with pytest.raises(InputError, match="is damaged .*: again"):
        check_json(sealed | {"step": 8}, tmp_path, "again")
    path = tmp_path / "options.yaml"
    path.write_text(sealed_text("lr: 1\n"))
    check_text(path, "again")
    for damaged in (path.read_text().replace("1\n", "2\n"), path.read_text()[:-1], path.read_text()[:9], ""):
        path.write_text(damaged)
        with pytest.raises(InputError, match="options.yaml is damaged"):
            check_text(path, "again")
    path.write_text("lr: 1\n")
    check_text(path, "again")
