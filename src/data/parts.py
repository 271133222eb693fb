"""What a manifest says of a data folder's files, and of the rows in them."""

import math
from dataclasses import dataclass
from pathlib import Path

from src.base.files import sha256_of


@dataclass(frozen=True)
class File:
    """A file of the data folder: its name within the folder, size, and SHA-256."""

    name: str
    bytes: int
    sha256: str

    @classmethod
    def of(cls, folder: Path, path: Path) -> "File":
        """Measure a file that lies below the folder."""
        return cls(path.relative_to(folder).as_posix(), path.stat().st_size, sha256_of(path))


@dataclass(frozen=True)
class Part:
    """Rows for one use.

    Attributes:
        rows: how many.
        first_line, last_line: of the raw file, from 1, both included; bad lines between them are not among the rows.
        label_mean: share of clicks, by weight where rows have weights.
        unseen_share: share of each field's values, of lists those that are kept, that have the id for unseen ones.
        shards: the MindRecord files in the order of the rows, and the rows in each; none of rows that are elsewhere, of
            which only these facts are known.
    """

    rows: int
    first_line: int
    last_line: int
    label_mean: float
    unseen_share: tuple[float, ...]
    shards: tuple[str, ...]
    shard_rows: tuple[int, ...]

    def check(self, name: str, listed: set[str]) -> None:
        """Raise TypeError unless the shards are of the folder of this name, listed with checksums, and make up the
        rows."""
        for shard in self.shards:
            if not shard.startswith(name + "/") or ".." in shard.split("/") or shard not in listed:
                raise TypeError(f"{shard!r} is no listed file of {name}/")
        if len(self.shards) != len(self.shard_rows) or (self.shards and sum(self.shard_rows) != self.rows):
            raise TypeError(f"the shards of {name} do not make up its {self.rows} rows")


@dataclass(frozen=True)
class Negatives:
    """The training rows without a click, where only some of them are kept.

    Attributes:
        rows: how many there are in the raw files.
        kept: how many of them are among the training rows.
        share: the kept part, by weight where rows have weights.
    """

    rows: int
    kept: int
    share: float

    @property
    def shift(self) -> float:
        """What a logit of the full data lies above that of the kept rows: the log of the share, below 0.

        Of clicks all are kept, so that the odds of the full data are the share of those of the kept rows.
        """
        return math.log(self.share)

    def mean_of_all(self, label_mean: float) -> float:
        """The label mean of the full data, of that of the kept rows."""
        return label_mean / (label_mean + (1 - label_mean) / self.share)
