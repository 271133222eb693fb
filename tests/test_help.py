"""Every program says how it is used."""

import runpy
import signal
import sys

import pytest
from conftest import ROOT

PROGRAMS = [path for folder in (ROOT, ROOT / "src", ROOT / "src/ranks", ROOT / "src/report", ROOT / "src/doctor",
                                           ROOT / "src/days",
                                           ROOT / "benchmarks")
            for path in sorted(folder.glob("*.py")) if '\nif __name__ == "__main__":' in path.read_text()]  # fmt: skip


@pytest.mark.parametrize("word", ["-h", "--help"])
@pytest.mark.parametrize("path", PROGRAMS, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_each_program_helps(path, word, here, monkeypatch, capsys):
    """Whatever else it is given; nothing is done."""
    monkeypatch.setattr(sys, "argv", [str(path), "2", word])
    monkeypatch.setattr(signal, "signal", lambda *_: None)
    with pytest.raises(SystemExit) as ended:
        runpy.run_path(str(path), run_name="__main__")
    said = capsys.readouterr()
    assert (ended.value.code, said.err) == (0, "")
    assert "usage: " in said.out
    assert not list(here.iterdir())
