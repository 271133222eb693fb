"""Libraries compiled from this repository's C++ sources on first use, and kept in build/."""

import ctypes
import functools
import hashlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from src.base.locks import turn
from src.base.logs import phase

BUILD = Path(__file__).resolve().parents[2] / "build"
_INCLUDED = re.compile(r'^\s*#\s*include\s*"([^"]+)"', re.MULTILINE)


def build(source: Path, flags: Sequence[str], what: str, without: str) -> Path | None:
    """A source's library, compiled if it has not been for this source and processor yet.

    Args:
        source: a C++ file; what it includes by "..." stands beside it.
        flags: of the compiler; libraries to link among them.
        what: names the library in the line that says that it is compiled.
        without: says what is done without it.

    Returns:
        The library; None, after a line that says why, where it can't be had.
    """
    compiler = shutil.which(os.environ.get("CXX", "g++"))
    if not compiler:
        _tell(without, "there is no C++ compiler; install g++ (or name one in CXX)")
        return None
    library = BUILD / f"{source.stem}-{_fingerprint(source, flags, compiler)}.so"
    if not library.exists():
        try:
            BUILD.mkdir(exist_ok=True)
            with turn(BUILD):  # ranks that begin together compile once
                if not library.exists():
                    _compile(compiler, [str(source), *flags], library, what)
        except OSError as error:
            _tell(without, f"{BUILD} can't be written ({error.strerror})")
            return None
        except subprocess.CalledProcessError as error:
            _tell(without, f"{compiler} can't compile {source}: {(error.stderr.strip() or '?').splitlines()[0]}")
            return None
    return library


def pointer(array: np.ndarray | None) -> ctypes.c_void_p:
    """An array's place in memory, as an argument of a library's function; that of none is null."""
    return ctypes.c_void_p(None if array is None else array.ctypes.data)


def _compile(compiler: str, arguments: Sequence[str], library: Path, what: str) -> None:
    with tempfile.TemporaryDirectory(dir=BUILD) as folder:
        beside = Path(folder) / library.name
        print(f"compiling {what}, once for this machine", file=sys.stderr, flush=True)
        with phase(f"compiling {what}"):
            subprocess.run([compiler, "-o", str(beside), *arguments], check=True, capture_output=True, text=True)
        beside.rename(library)


def _tell(without: str, reason: str) -> None:
    print(f"{without}: {reason}", file=sys.stderr, flush=True)


def _fingerprint(source: Path, flags: Sequence[str], compiler: str) -> str:
    """Of all that the library depends on: its files, flags, compiler and the processor's instructions."""
    about = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines() if Path("/proc/cpuinfo").exists() else []
    processor = [line for line in about if line.startswith(("flags", "Features"))]  # x86 and Arm
    parts = (*_texts(source), " ".join(flags).encode(), _version(compiler), "".join(processor[:1]).encode())
    return hashlib.sha256(b"\0".join(parts)).hexdigest()[:16]


@functools.cache
def _version(compiler: str) -> bytes:
    return subprocess.run([compiler, "--version"], capture_output=True, check=False).stdout


def _texts(source: Path) -> list[bytes]:
    """Of a C++ file and all that it includes, each once; a name without a file is left to the compiler."""
    found: dict[Path, bytes] = {}
    waiting = [source.resolve()]
    while waiting:
        path = waiting.pop()
        if path not in found and path.is_file():
            found[path] = path.read_bytes()
            names = _INCLUDED.findall(found[path].decode(errors="replace"))
            waiting += [(path.parent / name).resolve() for name in names]
    return list(found.values())
