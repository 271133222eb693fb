"""Whether a worker is fit for a run: it has the same program and libraries, and sees the same files."""

import contextlib
import functools
import hashlib
import platform
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import numpy as np

_SOURCES = Path(__file__).parents[1]
_WINGS = ("base", "engines", "rows", "data", "preprocessing")
# Which decide bytes; a worker may lack one that a step needs, and is given other steps then.
LIBRARIES = ("numpy", "pandas", "pyarrow", "mindspore", "distributed")
_NEEDED = ("numpy", "pandas")


@functools.cache
def checksum_of(*wings: str) -> str:
    """A checksum of the sources of some wings, and of NumPy's version."""
    files = [path for wing in wings for path in sorted((_SOURCES / wing).rglob("*"))]
    texts = [path.read_bytes() for path in files if path.suffix in (".py", ".cc", ".h")]
    return hashlib.sha256(b"\0".join([np.__version__.encode(), *texts])).hexdigest()


@dataclass(frozen=True)
class Probe:
    """What a worker must see.

    Attributes:
        file: of the run's folder.
        content: of that file.
        reads: bytes of each file that steps read.
    """

    file: Path
    content: str
    reads: Mapping[Path, int]

    @classmethod
    def made(cls, folder: Path, reads: Sequence[Path]) -> "Probe":
        """One with a new file in a folder, in place of earlier ones."""
        for left in folder.glob("probe-*"):
            left.unlink()
        content = uuid.uuid4().hex  # in the name too: a network's file system may remember one that was there before
        file = folder / f"probe-{content}"
        file.write_text(content)
        return cls(file, content, {path: path.stat().st_size for path in reads})


@dataclass(frozen=True)
class Facts:
    """Of a process.

    Attributes:
        sources: checksum of the program.
        python: its version.
        libraries: versions of those that it has.
        processor: what NumPy makes use of.
        unseen: what it does not see as it should, in words; "" for nothing.
    """

    sources: str
    python: str
    libraries: Mapping[str, str]
    processor: tuple[str, ...]
    unseen: str = ""

    @classmethod
    def here(cls, probe: Probe | None = None) -> "Facts":
        """Of this process."""
        libraries = {}
        for name in LIBRARIES:
            with contextlib.suppress(PackageNotFoundError):
                libraries[name] = version(name)
        features = np.core._multiarray_umath.__cpu_features__
        return cls(
            checksum_of(*_WINGS),
            platform.python_version(),
            libraries,
            tuple(sorted(name for name, there in features.items() if there)),
            _unseen(probe) if probe else "",
        )

    def unfit_for(self, other: "Facts") -> str:
        """Why a worker of these facts can't work for a process of other ones, in words; "" where it can."""
        if self.sources != other.sources:
            return "has another version of this program: start it anew with the same sources"
        if self.python.split(".")[:2] != other.python.split(".")[:2]:
            return f"has Python {self.python}, and this process {other.python}: install the same"
        for name in LIBRARIES:
            own, wanted = self.libraries.get(name), other.libraries.get(name)
            if own != wanted and ((own and wanted) or name in _NEEDED):
                return f"has {name} {own or '(none)'}, and this process {wanted or '(none)'}: install the same"
        return self.unseen


def look(probe: Probe) -> Facts:
    """The facts of this process, and what of a probe it does not see."""
    return Facts.here(probe)


def _unseen(probe: Probe) -> str:
    """What this process does not see of a probe."""
    shared = "give a folder that all machines share"
    beside = probe.file.with_name(f"seen-{uuid.uuid4().hex}")
    try:
        if probe.file.read_text() != probe.content:
            raise OSError("it has other files")
    except OSError as error:
        return f"can't see the output folder {probe.file.parent.parent} ({error.strerror or error}): {shared}"
    try:
        beside.write_text("")
        beside.unlink()
    except OSError as error:
        return f"can't write to the output folder {probe.file.parent.parent} ({error.strerror or error}): {shared}"
    for path, size in probe.reads.items():
        try:
            if path.stat().st_size != size:
                raise OSError("it has another size")
        except OSError as error:
            return f"can't see the input {path} ({error.strerror or error}): {shared}"
    return ""
