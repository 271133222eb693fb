"""The files between preprocess.py, the C++ program and postprocess.py.

    preprocess_Result/dense/000000.bin     [B, N] float32, little-endian, as all of them
    preprocess_Result/ids/000000.bin       [B, L] int32, each table's own, or -1 for padding of lists
    preprocess_Result/labels/000000.bin    [B] uint8; absent where labels are not known
    preprocess_Result/lines/000000.bin     [B] int64, number of each row's line in its file, from 1
    preprocess_Result/weights/000000.bin   [B] float32; absent where rows have no weights, or no labels
    preprocess_Result/index                what is there, with checksums; written last
    result_Files/000000.bin                [B] float32, probabilities, a file for each of the rows'
    result_Files/index                     what is there; written last

Legend: B rows of a file, N numeric columns, L ids of a row.
"""

import zlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from src.base.errors import InputError
from src.base.sealed import begins_as, read_facts, seal_of, write_facts
from src.rows.block import BadRow

INDEX = "index"
_ROWS = 1 << 16
_AGAIN = "run preprocess.py again"
_TYPES = {"dense": "<f4", "ids": "<i4", "labels": "u1", "lines": "<i8", "weights": "<f4"}
# dense [B, N], ids [B, L], labels [B]; lines [B] where rows are not all of one input; weights [B] if they have some
Rows = tuple[np.ndarray, ...]


@dataclass
class RowSource:
    """Rows, some thousand at a time, and where they come from.

    Attributes:
        blocks: the rows.
        weight: the column of their weights; "" where they have none.
        skipped: the lines that were left out; complete when blocks has ended.
        inputs: where there are several files, their names and how many rows of each are among the rows; likewise.
    """

    blocks: Iterator[Rows]
    weight: str = ""
    skipped: list[BadRow] = field(default_factory=list)
    inputs: list[tuple[str, int]] = field(default_factory=list)


@dataclass(frozen=True)
class RowFiles:
    """Rows that are to be scored, in files of a folder.

    Attributes:
        path: the folder.
        files: name and rows of each file, in order.
        has_labels: whether the labels are known.
        inputs, weight: as of `RowSource`.
        checksums: of each file's labels, where they are known, lines, and weights, if there are any.
        skipped: numbers of rows that were left out, from 1, of a folder that has no lines, as they were at first.
    """

    path: Path
    files: tuple[tuple[str, int], ...]
    has_labels: bool
    inputs: tuple[tuple[str, int], ...] = ()
    checksums: dict[str, tuple[str, ...]] = field(default_factory=dict)
    skipped: tuple[int, ...] = ()
    weight: str = ""

    @classmethod
    def write(
        cls, path: Path, source: "RowSource", table_rows: Sequence[int], vocabulary: str, has_labels: bool
    ) -> "RowFiles":
        """Write rows to an empty folder.

        Args:
            path: the folder.
            source: the rows.
            table_rows: rows of the table of each of a row's ids, [L], which ids stay below.
            vocabulary: SHA-256 of the vocabulary that coded them.
            has_labels: whether labels are to be kept.

        Raises:
            InputError: no rows.
        """
        left_away = {"labels": not has_labels, "weights": not (has_labels and source.weight)}
        columns = [name for name in _TYPES if not left_away.get(name)]
        for name in columns:
            (path / name).mkdir()
        files: list[tuple[Any, ...]] = []
        for rows in _in_files(_numbered(source.blocks)):
            dense_dim, name = rows[0].shape[1], f"{len(files):06d}.bin"
            crcs = []
            for column in columns:
                values = rows[list(_TYPES).index(column)]
                data = np.ascontiguousarray(values, _TYPES[column]).tobytes()
                (path / column / name).write_bytes(data)
                crcs.append(f"{zlib.crc32(data):08x}")
            files.append(("file", name, len(rows[0]), *crcs))
        if not files:
            raise InputError("there is no row to score: give at least one good row")
        facts = [
            ("dense", dense_dim),
            *(("field", rows) for rows in table_rows),
            ("labels", "known" if has_labels else "unknown"),
            ("vocabulary", vocabulary),
            ("lines", "known"),
            *([("weights", source.weight)] if "weights" in columns else []),
            *(("input", rows, name) for name, rows in source.inputs),
            *files,
        ]
        write_facts(path / INDEX, "rows", facts)
        return cls.load(path)

    @staticmethod
    def are_in(folder: Path) -> bool:
        """Whether a folder holds rows, damaged or not."""
        return begins_as(folder / INDEX, "rows")

    @classmethod
    def load(cls, path: Path) -> "RowFiles":
        """What `write` wrote.

        Raises:
            InputError: there is no such folder, or its index is damaged.
        """
        facts = read_facts(_index(path, "preprocess_path", "preprocess.py"), "rows")
        files = tuple((name, int(rows)) for name, rows, *_ in facts["file"])
        skipped = tuple(int(row) for (row,) in facts.get("skipped", []))
        has_labels = facts["labels"] == [("known",)]
        known = {"labels": has_labels, "lines": "lines" in facts, "weights": "weights" in facts}
        beside = [name for name, is_known in known.items() if is_known]
        weight = facts["weights"][0][0] if "weights" in facts else ""
        columns = zip(*(crcs[2:] for _, _, *crcs in facts["file"]))  # behind those of dense and ids
        inputs = tuple((name, int(rows)) for rows, name in facts.get("input", []))
        return cls(path, files, has_labels, inputs, dict(zip(beside, columns)), skipped, weight)

    @property
    def rows(self) -> int:
        """Rows in all files."""
        return sum(rows for _, rows in self.files)

    def labels(self) -> np.ndarray:
        """The labels of all rows, uint8 [B], 0 or 1.

        Raises:
            InputError: a file of them is missing, damaged, or holds other values.
        """
        labels = self._column("labels")
        if (wrong := labels.max()) > 1:
            raise InputError(f"{self.path / 'labels'} holds the label {wrong}, not 0 or 1: {_AGAIN}")
        return labels

    def weights(self) -> np.ndarray | None:
        """The weights of all rows, float32 [B]; None where they have none.

        Raises:
            InputError: a file of them is missing or damaged.
        """
        return self._column("weights") if self.weight else None

    def numbers(self) -> np.ndarray:
        """The number of each row's line in its file, from 1.

        Raises:
            InputError: a file of them is missing or damaged.
        """
        if "lines" in self.checksums:
            return self._column("lines")
        numbers = np.arange(1, self.rows + len(self.skipped) + 1)
        return np.delete(numbers, np.array(self.skipped, int) - 1)

    def names(self) -> np.ndarray | None:
        """The file of each row, None where there is but one."""
        if not self.inputs:
            return None
        names, rows = zip(*self.inputs)
        return np.repeat(np.array(names, object), rows)

    def _column(self, column: str) -> np.ndarray:
        return np.concatenate([
            _read(self.path / column / name, _TYPES[column], rows, crc, _AGAIN)
            for (name, rows), crc in zip(self.files, self.checksums[column], strict=True)
        ])  # fmt: skip


@dataclass(frozen=True)
class Scores:
    """What the C++ program wrote for `RowFiles`.

    Attributes:
        values: probabilities of all rows, [B] float64.
        seconds: that scoring took.
    """

    values: np.ndarray
    seconds: float

    @classmethod
    def load(cls, path: Path, rows: RowFiles) -> "Scores":
        """The scores of a folder.

        Raises:
            InputError: there are none, or not those of these rows, or they are no probabilities.
        """
        facts = read_facts(_index(path, "result_path", "scripts/run_infer_310.sh"), "scores")
        remedy = "score these rows again"
        if facts["rows"] != [(f"{seal_of(rows.path / INDEX)}",)]:
            raise InputError(f"{path} holds the scores of other rows than {rows.path}: {remedy}")
        parts = []
        for (name, count), (scored, _, crc) in zip(rows.files, facts["file"], strict=True):
            if scored != name:
                raise InputError(f"{path} holds scores of {scored} in place of {name}: {remedy}")
            parts.append(_read(path / name, "<f4", count, crc, remedy))
        values = np.concatenate(parts).astype(np.float64)
        if wrong := np.flatnonzero(~((values >= 0) & (values <= 1))).tolist():
            raise InputError(f"{path}: the score of row {wrong[0] + 1} is {values[wrong[0]]}, no probability: {remedy}")
        return cls(values, float(facts["seconds"][0][0]))


def logits_of(scores: np.ndarray) -> np.ndarray:
    """The logits of probabilities [B].

    Float32 rounds a probability next to 1 to it, from a logit of 17.3 on; such a one is taken for half a step below 1,
    as one of 0 for half the least above it.
    """
    scores = np.clip(scores.astype(np.float64), 2.0**-150, 1 - 2.0**-25)
    return np.log(scores) - np.log1p(-scores)


def _numbered(blocks: Iterable[Rows]) -> Iterator[Rows]:
    """The rows with lines, which are all of one input where they have none."""
    done = 0
    for block in blocks:
        yield block if len(block) > 3 else (*block, np.arange(done + 1, done + len(block[0]) + 1))
        done += len(block[0])


def _in_files(blocks: Iterable[Rows]) -> Iterator[Rows]:
    """The rows in blocks of _ROWS, the last one of what is left."""
    waiting: list[Rows] = []
    count = 0
    for block in blocks:
        waiting.append(block)
        count += len(block[0])
        if count >= _ROWS:
            joined = _join(waiting)
            for start in range(0, count - count % _ROWS, _ROWS):
                yield tuple(column[start : start + _ROWS] for column in joined)
            waiting = [tuple(column[count - count % _ROWS :] for column in joined)]
            count %= _ROWS
    if count:
        yield _join(waiting)


def _join(blocks: list[Rows]) -> Rows:
    return tuple(np.concatenate(column) for column in zip(*blocks))


def _index(path: Path, option: str, program: str) -> Path:
    if not (path / INDEX).is_file():
        raise InputError(
            f"{option} {path} holds no {INDEX}, so nothing whole is there: let {program} write it, or name its folder"
        )
    return path / INDEX


def _read(path: Path, kind: str, rows: int, crc: str, remedy: str) -> np.ndarray:
    if not path.is_file() or path.stat().st_size != rows * np.dtype(kind).itemsize:
        raise InputError(f"{path} is missing or does not hold {rows} rows: {remedy}")
    values = np.fromfile(path, kind)
    if f"{zlib.crc32(values.data):08x}" != crc:
        raise InputError(f"{path} is damaged (its checksum differs): {remedy}")
    return values
