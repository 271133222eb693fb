"""Every program says how it is used."""

import runpy
import signal
import sys

import pytest
from conftest import ROOT

from src.model_utils.options import options_of
from src.options import TrainOptions, resolve

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


def test_options_are_grouped_by_subject(monkeypatch, capsys):
    """Each below the subject of its spec, with its default; and none stands in a long list above."""
    with pytest.raises(SystemExit):
        resolve(TrainOptions, ["--help"])
    said = " ".join(capsys.readouterr().out.split())
    assert said.startswith("usage: train [--OPTION=VALUE ...] ")
    options = options_of(TrainOptions)
    places = [said.index(f"--{name} ") for name in options]
    assert places == sorted(places)
    for one in options.values():
        subject = said.rindex(f"{one.subject.rstrip('.')}:", 0, said.index(f"--{one.name} "))
        between = said[subject : said.index(f"--{one.name} ")]
        assert {other.subject for other in options.values() if f"--{other.name} " in between} <= {one.subject}
        assert (
            f"(default {'[512,256,64,16]' if one.name == 'bottom_mlp' else ''}" in said[said.index(f"--{one.name} ") :]
        )
