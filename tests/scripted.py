"""Scripts with an interpreter that does nothing but tell what they have it do."""

import os
import shlex
import subprocess
import sys
from typing import NamedTuple

CARDS = ("CUDA_VISIBLE_DEVICES", "ASCEND_RT_VISIBLE_DEVICES")


class Call(NamedTuple):
    """What a script calls: the cards that it lets be seen, on GPU and Ascend, and the words behind the interpreter."""

    cuda: str
    ascend: str
    words: list[str]


def call_of(folder, script, *arguments):
    """What a script calls that is started in the working folder, with arguments that it does not refuse."""
    fake = folder / "python that tells"
    fake.write_text(
        f'#!/usr/bin/env bash\n[ "$1" != -c ] || exec {shlex.quote(sys.executable)} "$@"\n'
        f'printf "%s\\n" "${{{CARDS[0]}-}}" "${{{CARDS[1]}-}}" "$@" >{shlex.quote(str(folder))}/told\n'
    )
    fake.chmod(0o755)
    surroundings = {name: value for name, value in os.environ.items() if name not in CARDS} | {"PYTHON": str(fake)}
    done = subprocess.run(["bash", script, *map(str, arguments)], capture_output=True, text=True, check=False,
                          env=surroundings)  # fmt: skip
    assert done.returncode == 0, done.stderr
    cuda, ascend, *words = (folder / "told").read_text().splitlines()
    return Call(cuda, ascend, words)
