"""Libraries are compiled once, also for processes that begin together."""

import subprocess
import sys

from conftest import ROOT

BUILDING = """
import pathlib, sys
from src.base import native
native.BUILD = pathlib.Path("build")
print(native.build(pathlib.Path("source.cc"), [], "a library", "without it"))
"""
COMPILER = """#!/bin/sh
[ "$1" = --version ] && exit 0
echo >>compiled
sleep 0.3
touch "$2"
"""


def test_processes_that_begin_together_compile_once(tmp_path):
    (tmp_path / "source.cc").touch()
    (tmp_path / "compiler").write_text(COMPILER)
    (tmp_path / "compiler").chmod(0o755)
    environment = {"CXX": str(tmp_path / "compiler"), "PATH": "/usr/bin:/bin", "PYTHONPATH": str(ROOT)}
    children = [
        subprocess.Popen(
            [sys.executable, "-c", BUILDING],
            cwd=tmp_path,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for _ in range(4)
    ]
    said = [child.communicate()[0].splitlines() for child in children]
    assert len((tmp_path / "compiled").read_text()) == 1
    assert sorted(len(lines) for lines in said) == [1, 1, 1, 2]  # one says that it compiles
    assert len({lines[-1] for lines in said}) == 1
    assert said[0][-1].endswith(".so")
