"""The machine that a result was measured on, and whether what is installed there fits this repository.

The versions are looked up before anything else is imported, for a wrong one may fail at that.
"""

import contextlib
import platform
import re
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

_PYTHON = ((3, 10), (3, 12))
_MINDSPORE = ("2.9", "2.10")  # that the tests were run with
_INSTALL = f"pip install -r {Path(__file__).resolve().parents[2] / 'requirements.txt'}"


def processor() -> str:
    """The processor's name."""
    found = None
    with contextlib.suppress(OSError):
        found = re.search(r"model name\s*:\s*(.+)", Path("/proc/cpuinfo").read_text(encoding="utf-8"))
    return found[1] if found else platform.processor()


def wrong_versions() -> str:
    """What is wrong with Python or its libraries, and what to do, in a line; "" where nothing is."""
    lowest, highest = _PYTHON
    if not lowest <= sys.version_info[:2] <= highest:
        return (
            f"Python {platform.python_version()}: MindSpore has packages for 3.10 to 3.12 alone; make an environment "
            f"with one of these, and in it {_INSTALL}"
        )
    numpy = _version("numpy")
    if not numpy:
        return f"{sys.executable} has no numpy: {_INSTALL}"
    if not numpy.startswith("1."):
        return f"numpy {numpy}: MindSpore fails with numpy 2, though it does not say so; {_INSTALL}"
    return ""


def untried_versions() -> str:
    """Which version was not tried, in a line; "" where all were, or MindSpore is not there, which not all need."""
    found = _version("mindspore")
    if not found or ".".join(found.split(".")[:2]) in _MINDSPORE:
        return ""
    return f"MindSpore {found} was not tried, {' and '.join(_MINDSPORE)} were; if it fails, {_INSTALL}"


def _version(name: str) -> str:
    with contextlib.suppress(PackageNotFoundError):
        return version(name)
    return ""
