"""The encoder: raw rows to what the network takes, the same in training, evaluation, export and scoring.

    numeric inputs   the numeric columns, transformed: I1 ...
                     1 where such a column is empty, else 0: "I1 missing" ...
                     how frequent the row's category was in training: "C1 count" ...
    fields           the categorical columns: C1 ...
                     the numeric columns as buckets: "I1 bucket" ...

Of columns that give no input or no field at all, one stands in for none: see `manifest.NO_NUMBER`.

All of it is learned from the training rows and kept in one file, which is called vocabulary.npz after its largest part.
By default there is nothing but a vocabulary, with some examples of its values, and numbers become log(x + 1). What else
there is has names that begin with /inputs/: the transform's kind, what it learned of each column, how many values cells
hold and whose tables are shared, and so on; other such names are refused.

Legend: B rows, N numeric inputs, F fields, L ids of a row.
"""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from itertools import count, takewhile
from pathlib import Path
from typing import Any

import numpy as np

from src.base.errors import InputError
from src.base.files import MappedFile, whole_file
from src.base.npz import Arrays, mapped_arrays, save_arrays
from src.data import known_values
from src.data.hidden import HiddenVocabulary
from src.data.known_values import Example
from src.data.layout import PADDING, Layout, padded
from src.data.manifest import NO_CATEGORY, NO_NUMBER
from src.data.numeric import Summary, bucket_edges, count_scale, count_scores
from src.data.transforms import TRANSFORMS
from src.data.vocabulary import BESIDE, UNSEEN, AnyVocabulary, Vocabulary, vocabulary_of
from src.engines.kept import InFile, Load
from src.rows.block import Block
from src.rows.columns import Columns

_EMPTY, _FIRST_BUCKET = 1, 2  # ids of a bucket field; 0, the id for unseen values, no row gets
_KIND = "transform"
# Not named in the file, which at first named none: their arrays tell, and log, the last one here, has none.
_UNNAMED = ("standard_log", "quantile", "log")
_OTHERS = ("missing", "edges", "counts")
_EXAMPLES, _LAYOUT = "examples", "layout"


@dataclass(frozen=True)
class Learned:
    """What is learned beside the vocabulary; what no option asks for is empty.

    Attributes:
        transform: name of the numeric transform.
        columns: of each numeric column, the arrays that it learned.
        missing: numbers of the columns that have an empty cell in training, each an array without dimensions.
        edges: of each numeric column, its `bucket_edges`.
        counts: of each categorical column, the `count_scores` of its ids.
    """

    transform: str = "log"
    columns: tuple[tuple[np.ndarray, ...], ...] = ()
    missing: tuple[np.ndarray, ...] = ()
    edges: tuple[np.ndarray, ...] = ()
    counts: tuple[np.ndarray, ...] = ()

    def arrays(self) -> Arrays:
        """What is kept."""
        lists = dict(zip(_names_of(self.transform), zip(*self.columns)))
        lists |= {name: getattr(self, name) for name in _OTHERS}
        kind = {} if self.transform in _UNNAMED else {BESIDE + _KIND: np.array(self.transform)}
        return kind | {
            f"{BESIDE}{name}/{number}": array
            for name, kept in lists.items()
            for number, array in enumerate(kept)
        }  # fmt: skip

    @classmethod
    def load(cls, path: Path, found: Arrays, dense_dim: int) -> "Learned":
        """What an .npz file holds beside the vocabulary, of the arrays found there, for so many numeric columns.

        Raises:
            InputError: the file is of a program that knows more than this one.
        """
        # Copied, so that they are aligned and no one else's.
        left = {name.removeprefix(BESIDE): one.copy() for name, one in found.items() if name.startswith(BESIDE)}
        told = (name for name in _UNNAMED if all(f"{kept}/0" in left for kept in _names_of(name)))
        transform = str(left.pop(_KIND)) if _KIND in left else next(told)
        if transform not in TRANSFORMS:
            raise InputError(
                f"{path} says that numbers are transformed by {transform!r}, and this program knows "
                f"{', '.join(TRANSFORMS)}: use the program that wrote it"
            )

        def taken(name: str) -> tuple[np.ndarray, ...]:
            there = takewhile(lambda number: f"{name}/{number}" in left, count())
            return tuple(left.pop(f"{name}/{number}") for number in there)

        kept = [taken(name) for name in _names_of(transform)]
        others = {name: taken(name) for name in _OTHERS}
        if left:
            raise InputError(
                f"{path} holds {BESIDE}{next(iter(left))}, which this program does not know: use the program that "
                f"wrote it"
            )
        if any(len(of_columns) != dense_dim for of_columns in kept):
            raise InputError(f"{path} does not hold what {transform} learned of {dense_dim} numeric columns")
        return cls(transform, tuple(zip(*kept)), **others)


def _names_of(transform: str) -> list[str]:
    """The names under which a transform's arrays are kept."""
    begin = "" if transform in _UNNAMED else f"{_KIND}/"
    return [begin + name for name in TRANSFORMS[transform].keeps]


def learn(
    transform: str, missing: bool, buckets: int, summaries: Sequence[Summary], counts: Sequence[np.ndarray], rows: int
) -> Learned:
    """What the options ask for.

    Args:
        transform, missing, buckets: the options numeric_transform, missing_indicators, numeric_buckets.
        summaries: of each numeric column; needed for any of these options but a transform that learns nothing.
        counts: of the ids of each categorical column, from 1 on; none without the option category_counts.
        rows: that all this is about.
    """
    with_empty = [number for number, (_, counts_of_values) in enumerate(summaries) if counts_of_values.sum() < rows]
    kind = TRANSFORMS[transform]
    return Learned(
        transform,
        tuple(kind.learn(summary) for summary in summaries if kind.learns),
        missing=tuple(np.array(number) for number in with_empty if missing),
        edges=tuple(bucket_edges(summary, buckets) for summary in summaries if buckets),
        counts=tuple(count_scores(of_field, count_scale(of_field, rows)) for of_field in counts),
    )


class Encoder(InFile):
    """Raw rows to numeric inputs and ids.

    Args:
        dense: names of the numeric columns.
        vocabulary: of the categorical columns.
        learned: what else the inputs need.
        examples: of each categorical column; without them, what the vocabulary tells.
        layout: of the categorical columns; unless given, these have one value and a table each.

    Attributes:
        dense: names of the numeric columns.
        inputs, fields: names of the numeric inputs [N] and of the fields [F].
        table_rows: rows of each field's table.
        layout: of the ids of all fields.

    Raises:
        InputError: two inputs or fields would have one name.
    """

    def __init__(
        self,
        dense: Sequence[str],
        vocabulary: AnyVocabulary,
        learned: Learned | None = None,
        examples: Sequence[Example] | None = None,
        layout: Layout | None = None,
    ):
        self.vocabulary, self.learned, self.dense = vocabulary, learned or Learned(), tuple(dense)
        self._of_columns = layout or Layout.plain(len(vocabulary.names))
        self._examples = None if examples is None else tuple(examples)
        self._file: MappedFile | None = None
        self._coded: dict[int, tuple[np.ndarray, np.ndarray]] = {}  # of fields the last distinct keys, and their ids
        self._transform = TRANSFORMS[self.learned.transform]
        self._with_indicator = [int(number) for number in self.learned.missing]
        buckets = len(dense) if self.learned.edges else 0
        counted = vocabulary.names if self.learned.counts else ()
        self.inputs = (
            *dense,
            *(f"{dense[number]} missing" for number in self._with_indicator),
            *(f"{name} count" for name in counted),
        )
        self.fields = (*vocabulary.names, *(f"{name} bucket" for name in dense[:buckets]))
        self.table_rows = (
            *vocabulary.table_rows,
            *(_FIRST_BUCKET + len(edges) + 1 for edges in self.learned.edges),
        )
        self.inputs, self.fields = self.inputs or (NO_NUMBER,), self.fields or (NO_CATEGORY,)
        self.table_rows = self.table_rows or (UNSEEN + 2,)
        self.layout = self._of_columns + Layout.plain(len(self.fields) - self._of_columns.fields)
        for names in (self.inputs, self.fields):
            if repeated := [name for name in names if names.count(name) > 1]:
                raise InputError(f"column {repeated[0]!r} has the name of an input made of another: rename it")

    def place(self) -> tuple[Load, Path, tuple[Any, ...]] | None:
        """See `InFile`."""
        if not self._file:
            return None
        self._file.check()
        return load_encoder, self._file.path, (self.dense,)

    def prepare(self) -> None:
        """Build the hash tables now that the first `encode` would build, so that forked processes share them."""
        self.vocabulary.prepare()

    def keyed(self, columns: Columns) -> Columns:
        """The columns of rows that `encode` is to take: their categories get the keys of this vocabulary."""
        return replace(columns, key_seed=self.vocabulary.key_seed)

    def encode(self, block: Block) -> tuple[np.ndarray, np.ndarray]:
        """Numeric inputs [B, N] float32 and ids [B, L] int32 of rows."""
        assert block.key_seed == self.vocabulary.key_seed, "rows must be read with the columns that `keyed` gives"
        plain = not (self._of_columns.has_lists or block.coded)
        ids = self.vocabulary.encode(block.keys) if plain else self._ids(block)
        inputs, all_ids = [], [ids]
        if block.numbers.shape[1]:
            inputs.append(self._transform(block.numbers, self.learned.columns))
        if self._with_indicator:
            inputs.append(np.isnan(block.numbers[:, self._with_indicator]).astype(np.float32))
        if self.learned.counts:
            inputs.append(self._category_counts(ids))
        if self.learned.edges:
            all_ids.append(self._bucket_ids(block.numbers))
        if self.inputs == (NO_NUMBER,):
            inputs.append(np.zeros((len(ids), 1), np.float32))
        if self.fields == (NO_CATEGORY,):
            all_ids = [np.full((len(ids), 1), UNSEEN + 1, np.int32)]
        return _joined(inputs), _joined(all_ids)

    def _ids(self, block: Block) -> np.ndarray:
        """Ids of categorical columns, some of which hold lists, or have numbers of distinct keys."""
        layout = self._of_columns
        ids = np.empty((len(block.labels), layout.ids), np.int32)
        for field, (start, size) in enumerate(zip(layout.starts, layout.sizes)):
            if (coded := block.coded.get(field)) is not None:
                coded.put(self._ids_of_distinct(field, coded.distinct), ids[:, start])
            elif (lists := block.lists.get(field)) is None:
                ids[:, start] = self.vocabulary.ids_of(field, block.keys_of(field)[0])
            else:
                own = self.vocabulary.ids_of(field, lists.keys)
                rarity = self.vocabulary.rarity_of(own, lists.places()[1])
                ids[:, start : start + size] = padded(lists, own, rarity, size)
        return ids

    def _ids_of_distinct(self, field: int, keys: np.ndarray) -> np.ndarray:
        """Ids of a field's keys, which the rows that follow may have, too."""
        known, ids = self._coded.get(field, (None, keys))
        if known is not keys:
            ids = self.vocabulary.ids_of(field, keys).astype(np.int32)
            self._coded[field] = keys, ids
        return ids

    def _category_counts(self, ids: np.ndarray) -> np.ndarray:
        """How frequent the rows' categories were, [B, categorical columns]; of a list the mean, 0 of an empty one."""
        columns = []
        layout = self._of_columns
        for scores, start, size, pool in zip(self.learned.counts, layout.starts, layout.sizes, layout.pools):
            own = ids[:, start : start + size]
            if not pool:
                columns.append(scores[own[:, 0]])
                continue
            there = own != PADDING
            total = np.where(there, scores[own], np.float32(0)).sum(axis=1)
            columns.append(total / np.maximum(there.sum(axis=1), 1).astype(np.float32))
        return np.stack(columns, axis=1)

    def _bucket_ids(self, numbers: np.ndarray) -> np.ndarray:
        """Ids [B, columns] int32: 1 for an empty cell, then the buckets; the end ones have no outer bound."""
        buckets = [np.searchsorted(edges, column) for edges, column in zip(self.learned.edges, numbers.T)]
        ids: np.ndarray = np.where(np.isnan(numbers), _EMPTY, np.stack(buckets, axis=1) + _FIRST_BUCKET)
        return ids.astype(np.int32)

    def hidden(self, secret: str) -> "Encoder":
        """An encoder that gives the same, and keeps no category that one could read.

        Args:
            secret: by which categories are hashed; where they are hashed to ids, none are kept anyway.
        """
        known = self.vocabulary
        vocabulary = HiddenVocabulary.of(known, secret) if isinstance(known, Vocabulary) else known
        return Encoder(self.dense, vocabulary, self.learned, known_values.untold(self.examples), self._of_columns)

    @property
    def examples(self) -> tuple[Example, ...]:
        """What the values of each categorical column looked like in training."""
        if self._examples is None:
            self._examples = known_values.learn_examples(self.vocabulary)
        return self._examples

    def save(self, path: Path) -> None:
        """Write an uncompressed .npz, whole or not at all; an encoder that was read is written as it was."""
        if self._file:
            self._file.check()
            with whole_file(path, sync=True) as file:
                file.write(self._file.data)
            return
        beside = {f"{BESIDE}{_EXAMPLES}": known_values.to_json(self.examples)}
        if not self._of_columns.is_plain:
            beside[f"{BESIDE}{_LAYOUT}"] = np.frombuffer(json.dumps(asdict(self._of_columns)).encode(), np.uint8)
        save_arrays(path, self.vocabulary.arrays() | self.learned.arrays() | beside, sync=True)


def _joined(parts: Sequence[np.ndarray]) -> np.ndarray:
    return parts[0] if len(parts) == 1 else np.concatenate(parts, axis=1)


def load_encoder(path: Path, dense: Sequence[str], secret: str = "") -> Encoder:
    """What `save` wrote; the names of the numeric columns stand in the manifest beside it.

    Args:
        path: the file.
        dense: these names.
        secret: of a vocabulary that is hidden.
    """
    file = MappedFile(path)
    encoder = encoder_of(path, mapped_arrays(file), dense, file=file, secret=secret)
    encoder._file = file
    return encoder


def encoder_of(
    path: Path,
    arrays: Arrays,
    dense: Sequence[str],
    vocabulary: AnyVocabulary | None = None,
    file: MappedFile | None = None,
    secret: str = "",
) -> Encoder:
    """The same of the arrays of a file.

    Args:
        path: names the file in errors.
        arrays: the file's.
        dense: names of the numeric columns.
        vocabulary: unless given, what the arrays hold.
        file: which the arrays lie in, if they do.
        secret: of a vocabulary that is hidden.
    """
    arrays = dict(arrays)
    kept = arrays.pop(f"{BESIDE}{_EXAMPLES}", None)
    examples = None if kept is None else known_values.from_json(kept)
    given = arrays.pop(f"{BESIDE}{_LAYOUT}", None)
    layout = None if given is None else Layout.from_json(json.loads(given.tobytes()))
    vocabulary = vocabulary or vocabulary_of(path, arrays, file, layout.tables if layout else (), secret)
    return Encoder(dense, vocabulary, Learned.load(path, arrays, len(dense)), examples, layout)
