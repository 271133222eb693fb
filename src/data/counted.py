"""What a data folder keeps to grow from, and what it says of its growths.

    dataset/counts.npz    of each table's rows how often their values occurred, and the values that wait for a row

What the counts mean, `src/data/growth.py` says.
"""

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from src.base.errors import InputError
from src.base.files import MappedFile
from src.base.npz import mapped_arrays, save_arrays
from src.data.growth import OF_ROWS, OF_WAITING, TableCounts
from src.data.manifest import VOCABULARY, Manifest
from src.data.numeric import Scale
from src.engines.kept import InFile, Load

COUNTS = "counts.npz"
_SOURCE = "growth"  # in the manifest's source
_NUMBER, _ROWS, _SCALE = "number", "rows", "scale/"


@dataclass(frozen=True)
class Counted(InFile):
    """What a data folder keeps beside its vocabulary to grow from.

    Attributes:
        number: of the growth.
        rows: all training rows so far.
        tables: of each table.
        scales: of each field's `count_scores`, where the encoder has them.
        path: the file that it was read from, if it was.
    """

    number: int
    rows: int
    tables: Sequence[TableCounts]
    scales: Sequence[Scale] = ()
    path: Path | None = field(default=None, compare=False)

    def place(self) -> tuple[Load, Path, tuple[Any, ...]] | None:
        """See `InFile`."""
        return (Counted.load, self.path, ()) if self.path else None

    def save(self, path: Path) -> None:
        """Write an .npz, whole or not at all; arrays of zeros are left out."""
        save_arrays(path, self._arrays(), sync=True)

    def _arrays(self) -> Iterator[tuple[str, np.ndarray]]:
        yield _NUMBER, np.array(self.number)
        yield _ROWS, np.array(self.rows)
        for table, own in enumerate(self.tables):
            kept = {f"{name}/{table}": getattr(own, name) for name in OF_ROWS}
            kept |= {f"waiting/{name}/{table}": getattr(own.waiting, name) for name in OF_WAITING}
            yield from ((name, _small(array)) for name, array in kept.items() if array.any())
        yield from ((f"rows/{table}", np.array(len(own.counts))) for table, own in enumerate(self.tables))
        yield from ((f"waiting/{table}", np.array(len(own.waiting.keys))) for table, own in enumerate(self.tables))
        yield from ((f"{_SCALE}{place}", np.array(scale)) for place, scale in enumerate(self.scales))

    @classmethod
    def load(cls, path: Path) -> "Counted":
        """What `save` wrote.

        Raises:
            InputError: it says more than this program knows.
        """
        found = {name: np.array(array) for name, array in mapped_arrays(MappedFile(path)).items()}

        def taken(name: str, size: int, kind: Any) -> np.ndarray:
            there = found.pop(name, None)
            return np.zeros(size, kind) if there is None else there.astype(kind)

        tables: list[TableCounts] = []
        kinds = {"keys": np.uint64, "counts": np.int64}
        while f"rows/{len(tables)}" in found:
            table = len(tables)
            rows, waiting = int(found.pop(f"rows/{table}")), int(found.pop(f"waiting/{table}"))
            of_rows = [taken(f"{name}/{table}", rows, kinds.get(name, np.int32)) for name in OF_ROWS]
            of_waiting = [taken(f"waiting/{name}/{table}", waiting, kinds.get(name, np.int32)) for name in OF_WAITING]
            tables.append(TableCounts.of([*of_rows, *of_waiting]))
        scales = [(float(found[name][0]), float(found.pop(name)[1])) for name in list(found) if name.startswith(_SCALE)]
        counted = cls(int(found.pop(_NUMBER)), int(found.pop(_ROWS)), tables, scales, path)
        if found:
            raise InputError(
                f"{path} holds {min(found)}, which this program does not know: use the program that wrote it"
            )
        return counted


def _small(array: np.ndarray) -> np.ndarray:
    """Counts in half the bytes, if they fit."""
    fits = array.dtype == np.int64 and (not len(array) or array.max() < 1 << 32)
    return array.astype(np.uint32) if fits else array


@dataclass(frozen=True)
class Growth:
    """What a grown data folder's manifest says.

    Attributes:
        number: of the growth; 0 of a first fit.
        ancestors: checksums of the encoders that it grew from, by the number of their growths, from 0.
        relearned: the growth in which what numbers become was last learned anew.
        tables: of each table, by name, how many rows it has more, how many free ones were dealt, and became free.
    """

    number: int = 0
    ancestors: tuple[str, ...] = ()
    relearned: int = 0
    tables: dict[str, dict[str, int]] = field(default_factory=dict)

    @classmethod
    def of(cls, manifest: Manifest) -> "Growth":
        """Of a data folder, grown or not."""
        content = manifest.source.get(_SOURCE, {})
        return cls(**content | {"ancestors": tuple(content.get("ancestors", ()))})

    def content(self) -> dict[str, Any]:
        """What is kept in the manifest's source."""
        return {_SOURCE: asdict(self) | {"ancestors": list(self.ancestors)}}

    def born_of(self, own: str, other: str) -> int | None:
        """The number of the growth that an encoder came of, the last one if several did; None if it is no ancestor.

        Args:
            own: the checksum of the encoder that this is about.
            other: of the one that is asked for.
        """
        chain = [*self.ancestors, own]
        return max((number for number, one in enumerate(chain) if one == other), default=None)


def encoder_files(manifest: Manifest) -> list[str]:
    """Names of the files that a checkpoint keeps of its data folder: the encoder, and what it can grow from."""
    return [VOCABULARY, *([COUNTS] if manifest.sha256(COUNTS) else [])]


@dataclass(frozen=True)
class Since:
    """The rows of a table of a data folder, beside those of an earlier encoder.

    Attributes:
        kept: which stand for what they did then, [rows, the unseen one included] bool; none of those that are new.
        free: which are free, [rows] bool.
    """

    kept: np.ndarray
    free: np.ndarray

    def counts(self, before: int) -> dict[str, int]:
        """How many rows are kept, new, dealt to other values, or free, of a table that had so many before."""
        other = ~self.kept & ~self.free
        return {
            "kept": int(self.kept.sum()),
            "new": int(other[before:].sum()),
            "dealt": int(other[:before].sum()),
            "free": int(self.free.sum()),
        }


def rows_since(place: Path, manifest: Manifest, encoder: str) -> list[Since] | None:
    """The rows of a data folder's tables, beside those of an earlier encoder.

    Args:
        place, manifest: the data folder.
        encoder: the checksum of the earlier encoder.

    Returns:
        Of each table; None if the folder has not grown from that encoder.

    Raises:
        InputError: the folder's counts are damaged.
    """
    growth, own = Growth.of(manifest), manifest.sha256(VOCABULARY)
    born = growth.born_of(own or "", encoder)
    if born is None:
        return None
    since = [Since(np.ones(rows, bool), np.zeros(rows, bool)) for rows in manifest.rows_of_tables]
    if manifest.sha256(COUNTS):
        manifest.verify(place, [COUNTS])
        for one, counted in zip(since, Counted.load(place / COUNTS).tables):
            one.free[1:] = counted.counts == 0
            one.kept[1:] = (own == encoder) | (counted.since <= born)
            one.kept[1:] &= ~one.free[1:]
    buckets = len(set(manifest.layout.tables[: len(manifest.categorical)]))  # their tables stand behind the others
    for one in since[buckets:]:
        one.kept[:] = growth.relearned <= born
    return since
