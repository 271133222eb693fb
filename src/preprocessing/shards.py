"""Coded rows and the MindRecord files of them: what all pieces have in common, and what each comes to."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from src.base.npz import Arrays
from src.data import records
from src.data.encoder import Encoder
from src.data.layout import PADDING
from src.data.parts import File
from src.data.vocabulary import UNSEEN
from src.rows.block import Block
from src.rows.columns import Columns

Coded = tuple[np.ndarray, ...]  # dense [B, N], ids [B, L], labels [B], and weights [B] if rows have some


@dataclass(frozen=True)
class Shard:
    """What encoding some lines gave: the MindRecord file, its index, and sums for the manifest's means."""

    files: tuple[File, File]
    rows: int
    clicks: float  # by weight, as weight, where rows have weights
    weight: float
    unseen: tuple[int, ...]  # of each field's values
    values: tuple[int, ...]

    @classmethod
    def of(cls, shard: np.ndarray, part: str) -> "Shard":
        """What `encode_rows` returned, of a file in the folder of a part."""
        content = to_json(shard)
        one, other = (File(**file | {"name": f"{part}/{file['name']}"}) for file in content["files"])
        files = one, other
        sums = content["rows"], content["clicks"], content.get("weight", content["rows"])
        return cls(files, *sums, tuple(content["unseen"]), tuple(content["values"]))


@dataclass(frozen=True)
class Coding:
    """What all pieces of coded rows have in common.

    Attributes:
        columns: of the raw files.
        encoder: codes the rows.
        record_rows: rows in a MindRecord record.
        seed: of shuffling.
        scattered: where `scatter_rows` leaves the rows of each piece that is shuffled; they make as many buckets.
        bundled: where `bundle_rows` leaves the same rows, where there are many pieces.
        file_rows: about the rows of the largest file.
    """

    columns: Columns
    encoder: Encoder
    record_rows: int
    seed: int = 0
    scattered: tuple[Path, ...] = ()
    bundled: tuple[Path, ...] = ()
    file_rows: int = 262_144

    @property
    def row_bytes(self) -> int:
        """Of a coded row."""
        return records.row_bytes(len(self.encoder.inputs), self.encoder.layout.ids, self.weighted)

    @property
    def weighted(self) -> bool:
        """Whether rows have weights."""
        return bool(self.columns.weight)

    def coded(self, block: Block) -> Coded:
        """A block's rows as they are packed."""
        dense, ids = self.encoder.encode(block)
        return dense, ids, block.labels, *([] if block.weights is None else [block.weights])


def sums_of(arrays: Coded) -> np.ndarray:
    """Rows, and clicks and weights, which are rows where these have none."""
    labels, weights = arrays[2], arrays[3] if len(arrays) > 3 else None
    if weights is None:
        return np.array([len(labels), labels.sum(), len(labels)], np.float64)
    weights = weights.astype(np.float64)
    return np.array([len(labels), np.dot(labels, weights), weights.sum()])


def packed_rows(arrays: Coded, record_rows: int) -> list[bytes]:
    """Records of coded rows."""
    return [
        records.pack(*(array[start : start + record_rows] for array in arrays))
        for start in range(0, len(arrays[0]), record_rows)
    ]


def seen(ids: np.ndarray, coding: Coding) -> tuple[np.ndarray, np.ndarray]:
    """Of ids [B, L], how many of each field's are for unseen values, and how many are there."""
    layout = coding.encoder.layout
    return layout.count(ids == UNSEEN), len(ids) * np.array(layout.sizes) - layout.count(ids == PADDING)


def write_shard(
    path: Path, packed: list[bytes], sums: np.ndarray, found: tuple[np.ndarray, np.ndarray], coding: Coding
) -> Arrays:  # fmt: skip
    """Write records of a coding to a shard; sums as `sums_of`, found as `seen` has them.

    Returns:
        shard: a `Shard`, as JSON, whose files have names without a folder.
    """
    record_bytes = coding.record_rows * coding.row_bytes
    records.write(path, packed, max(coding.file_rows * coding.row_bytes, record_bytes), record_bytes)
    files = File.of(path.parent, path), File.of(path.parent, path.with_name(path.name + ".db"))
    unseen, values = (tuple(counts.tolist()) for counts in found)
    rows, clicks, weight = sums.tolist()
    return {"shard": from_json(asdict(Shard(files, int(rows), clicks, weight, unseen, values)))}


def from_json(value: Any) -> np.ndarray:
    """A value of JSON's types as an array of its text's bytes."""
    return np.frombuffer(json.dumps(value).encode(), np.uint8)


def to_json(array: np.ndarray) -> Any:
    """The value of such an array."""
    return json.loads(array.tobytes())
