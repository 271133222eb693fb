"""The machine that a result was measured on."""

import contextlib
import platform
import re
from pathlib import Path


def processor() -> str:
    """The processor's name."""
    found = None
    with contextlib.suppress(OSError):
        found = re.search(r"model name\s*:\s*(.+)", Path("/proc/cpuinfo").read_text(encoding="utf-8"))
    return found[1] if found else platform.processor()
