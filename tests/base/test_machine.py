"""Versions that fit, and what is said of those that do not, before anything else is imported."""

import re
import subprocess
import sys
from importlib.metadata import PackageNotFoundError

import pytest
from conftest import ROOT

from src.base import machine


def versions(monkeypatch, python=(3, 11), **found):
    def version(name):
        if name in found:
            return found[name]
        raise PackageNotFoundError(name)

    monkeypatch.setattr(machine, "version", version)
    monkeypatch.setattr(machine.sys, "version_info", (*python, 0))
    return machine.wrong_versions(), machine.untried_versions()


@pytest.mark.parametrize("python", [(3, 10), (3, 11), (3, 12)])
@pytest.mark.parametrize("mindspore", ["2.9.0", "2.10.0", "2.10.1"])
def test_versions_that_were_tried_are_told_nothing(monkeypatch, python, mindspore):
    assert versions(monkeypatch, python, numpy="1.26.4", mindspore=mindspore) == ("", "")
    assert versions(monkeypatch, python, numpy="1.26.4") == ("", "")  # not all programs need MindSpore


@pytest.mark.parametrize(("python", "found", "message"), [
    ((3, 9), {"numpy": "1.26.4"}, "MindSpore has packages for 3.10 to 3.12 alone; make an environment with one"),
    ((3, 13), {"numpy": "1.26.4"}, "MindSpore has packages for 3.10 to 3.12 alone"),
    ((3, 11), {"numpy": "2.1.0"}, r"numpy 2.1.0: MindSpore fails with numpy 2.*; pip install -r \S+requirements.txt$"),
    ((3, 11), {}, r"has no numpy: pip install -r \S+requirements.txt$"),
])  # fmt: skip
def test_versions_that_fail_are_one_line(monkeypatch, python, found, message):
    wrong, _ = versions(monkeypatch, python, **found)
    assert re.search(message, wrong)
    assert "\n" not in wrong


@pytest.mark.parametrize("mindspore", ["2.8.0", "2.11.0", "3.0.0", "2.1.0"])
def test_other_versions_of_mindspore_are_warned_of(monkeypatch, mindspore):
    wrong, untried = versions(monkeypatch, numpy="1.26.4", mindspore=mindspore)
    assert wrong == ""
    assert untried.startswith(f"MindSpore {mindspore} was not tried, 2.9 and 2.10 were; if it fails, pip install")


def test_a_program_ends_before_it_imports_what_would_fail(tmp_path):
    """With a numpy of another version in front of the path, which can't even be imported."""
    (tmp_path / "numpy").mkdir()
    (tmp_path / "numpy/__init__.py").write_text("raise SystemError('compiled for another version')")
    (tmp_path / "numpy-2.3.0.dist-info").mkdir()
    (tmp_path / "numpy-2.3.0.dist-info/METADATA").write_text("Metadata-Version: 2.1\nName: numpy\nVersion: 2.3.0\n")
    done = subprocess.run([sys.executable, str(ROOT / "train.py")], cwd=tmp_path, capture_output=True, text=True,
                          env={"PYTHONPATH": str(tmp_path)}, check=False)  # fmt: skip
    assert (done.returncode, done.stdout) == (2, "")
    assert re.fullmatch(r"error: numpy 2\.3\.0: MindSpore fails with numpy 2, .*\n", done.stderr)
