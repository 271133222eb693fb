"""Checkpoints: the values of the network alone, and beside them what is needed to use it.

    checkpoint/dlrm.ckpt         the best network on validation rows, or the last one without such
    checkpoint/dlrm.yaml         the options of the run
    checkpoint/manifest.json     facts of the training data
    checkpoint/vocabulary.npz    the encoder: category -> id, and what else is learned of the columns
    checkpoint/counts.npz        what the vocabulary can grow from

A field's table is an entry of its own, embedding.C1 and so on; one that fields share has the name of the first. Where
tables are split over ranks, dlrm.ckpt is the part of rank 0, dlrm.rank_1.ckpt that of rank 1 and so on, and an entry
may be a piece of a table, embedding.C3@500 for rows from 500 on. Whoever reads a checkpoint takes the rows it needs out
of whatever entries and parts have them.
"""

import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import mindspore as ms
import numpy as np
from mindspore import Tensor

from src.base.errors import InputError
from src.base.events import happens
from src.base.finite import NotFinite, first_not_finite
from src.base.npz import Arrays
from src.checkpoints import protobuf
from src.checkpoints.names import TABLE, check_is_file
from src.checkpoints.parts import PARTS, open_parts, part_of
from src.data.manifest import MANIFEST, VOCABULARY, Coded, DataFolder, Manifest, dense_dim_of, has_fields
from src.dlrm import DLRM
from src.network.embedding import EmbeddingTables, Fill, make_tables
from src.network.mixed_dims import Widths, projection_name, widths_of
from src.network.operators import Operators
from src.network.options import NetworkSpec
from src.network.stock import STOCK
from src.ranks.group import ONE_RANK, Ranks
from src.ranks.placement import Piece, Placement, has_all_to_all, place


def save(model: DLRM, names: Sequence[str], path: Path, ranks: Ranks = ONE_RANK, checked: bool = False) -> None:
    """Write the network's values to a MindSpore checkpoint file, whole or not at all; all ranks call this together.

    It need not be on the disk when this returns: most are soon followed by a better one. Whoever needs that flushes it.

    Args:
        model: the network.
        names: of the tables.
        path: the file.
        ranks: of the run.
        checked: whether all values are known to be finite.

    Raises:
        NotFinite: a value is not; MindSpore's ReLU on CPU makes 0 of nan, so the loss need not show it.
    """
    happens("a network is to be kept")
    common = {parameter.name: parameter.asnumpy() for parameter in model.mlp_parameters()}
    rows = rows_of(model.tables, TABLE, model.tables.table.asnumpy(), names)
    if not checked:
        check_finite(common | rows, ranks)
    write_part(path, common, rows, model.tables, ranks, sync=False)
    happens("a network is kept")


def write_part(
    path: Path, common: Arrays, rows: Arrays, tables: EmbeddingTables, ranks: Ranks, sync: bool = True
) -> None:
    """Write this rank's part of a checkpoint, if it has one; returns when all ranks have written theirs.

    Args:
        path: the checkpoint.
        common: what all ranks have, which stands in part 0.
        rows: what has a row for each row of the tables, as `rows_of` gives it.
        tables: say whether all ranks hold the same rows, and so whether there is a part for each rank, or one.
        ranks: of the run.
        sync: whether it must be on the disk when this returns.
    """

    def write(parts: int) -> None:
        values = (common if ranks.rank == 0 else {}) | rows
        if parts > 1:
            values[PARTS] = np.array([parts], np.int32)
        protobuf.write(part_of(path, ranks.rank), values.items(), sync)

    for_each_part(write, tables, ranks)


def for_each_part(work: Callable[[int], None], tables: EmbeddingTables, ranks: Ranks) -> None:
    """Let each rank that has a part of a checkpoint work, given how many parts there are; returns when all have."""
    parts = 1 if tables.replicated else ranks.size
    ranks.together((lambda: work(parts)) if ranks.rank < parts else lambda: None)


def check_finite(values: Arrays, ranks: Ranks, step: int | None = None) -> None:
    """See that what ranks hold is finite; all of them call this together.

    Raises:
        NotFinite: on all ranks, if any holds a value that is not; it names the first one of this rank, else the rank.
    """
    name = first_not_finite(values)
    found = ranks.gather(np.array([bool(name)], np.int32))[:, 0]
    if found.any():
        who = name or f"a table's part on rank {int(np.argmax(found))}"
        raise NotFinite(f"{who} holds values that are not finite", step)


def rows_of(tables: EmbeddingTables, prefix: str, joint: np.ndarray, names: Sequence[str]) -> Arrays:
    """The entries for what has a row for each row of the tables: one a piece, named after table and first row."""
    return {
        prefix + _entry_name(piece, tables.table_rows[piece.table], names): values
        for piece, values in tables.views(joint)
        if piece.rows
    }


def _entry_name(piece: Piece, rows: int, names: Sequence[str]) -> str:
    """Its table, and behind it the first row if it is not the whole one; zeros tell C3@05 from a table C3@5."""
    name, first = names[piece.table], str(piece.low)
    if piece.rows == rows:
        return name
    while f"{name}@{first}" in names:
        first = f"0{first}"
    return f"{name}@{first}"


class Parts:
    """A checkpoint that is there, in one part or several: values are read when they are asked for.

    Args:
        path: the checkpoint, which is its first part.
        names, table_rows: of the tables.
        check: which of the parts get their checksums compared, by number; all unless given.

    Raises:
        InputError: a part is missing, or is no checkpoint.
    """

    def __init__(self, path: Path, names: Sequence[str], table_rows: Sequence[int], check: Sequence[int] | None = None):
        self.path, self._names, self._table_rows = path, names, table_rows
        check_is_file(path)
        if first_part := re.fullmatch(r"(.+)\.rank_\d+(\.ckpt)", path.name):
            raise InputError(f"checkpoint_path {path} is one part of a checkpoint: name {first_part[1]}{first_part[2]}")
        self._files = open_parts(path, check)
        self.ranks = len(self._files)
        self._unread = {name for file in self._files for name in file.shapes} - {PARTS}

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Of the entries of the first part."""
        return dict(self._files[0].shapes)

    def value(self, name: str, shape: Sequence[int]) -> np.ndarray:
        """An entry of this shape.

        Raises:
            InputError: there is none, or it has another shape.
        """
        file = next((file for file in self._files if name in file.shapes), None)
        if file is None or file.shapes[name] != tuple(shape):
            raise self._refusal(name, None if file is None else file.shapes[name], shape)
        self._unread.discard(name)
        return file.read(name)

    def fill(self, prefix: str) -> Fill:
        """What fills pieces with the rows that stand in entries of this prefix, whatever pieces these are of.

        Raises, when it is called:
            InputError: rows are missing, or have another width.
        """
        return lambda piece, values: self._fill(prefix, piece, values)

    def _fill(self, prefix: str, piece: Piece, values: np.ndarray) -> None:
        found = 0
        for file, entry, own in self.pieces(prefix, piece.table, values.shape[1]):
            begin, end = max(own.low, piece.low), min(own.high, piece.high)
            if begin < end:
                found += end - begin
                file.read(entry, begin - own.low, end - own.low, values[begin - piece.low : end - piece.low])
        if found != piece.rows:
            raise self.lacking(prefix, piece.table, values.shape[1])

    def pieces(self, prefix: str, table: int, width: int) -> Iterator[tuple[protobuf.CheckpointFile, str, Piece]]:
        """The entries of a prefix that hold rows of a table, of this width: file, name, and which rows.

        Raises:
            InputError: one has another width, or is of other rows than the table's.
        """
        name, rows = prefix + self._names[table], self._table_rows[table]
        for file in self._files:
            for entry, shape in file.shapes.items():
                whole, _, first = entry.rpartition("@")
                if entry != name and (whole != name or not first.isdigit() or entry[len(prefix) :] in self._names):
                    continue
                first = "" if entry == name else first
                low = int(first or 0)
                if shape[1:] != (width,) or (not first and shape[0] != rows) or low + shape[0] > rows:
                    raise self._refusal(name, shape, (rows, width))
                self._unread.discard(entry)
                yield file, entry, Piece(table, low, low + shape[0])

    def lacking(self, prefix: str, table: int, width: int) -> InputError:
        """What is to be said where no entry holds rows of a table."""
        return self._refusal(prefix + self._names[table], None, (self._table_rows[table], width))

    def check_all_read(self) -> None:
        """Refuse a checkpoint that has more than what was asked for; rows count, whichever were."""
        if self._unread:
            raise InputError(
                f"checkpoint {self.path} holds {sorted(self._unread)[0]}, which this model has not: give the "
                f"options and the data folder that it was trained with"
            )

    def _refusal(self, name: str, found: Sequence[int] | None, shape: Sequence[int]) -> InputError:
        has = "has no such entry" if found is None else f"has {list(found)}"
        return InputError(
            f"checkpoint {self.path} {has} for {name}, the model needs {list(shape)}: give the options and the "
            f"data folder that it was trained with"
        )


def manifest_beside(path: Path) -> Manifest | None:
    """The manifest of the data that a checkpoint was trained with, if it lies beside."""
    beside = path.parent / MANIFEST
    return Manifest.load(beside) if beside.is_file() else None


def check_encoder(path: Path, data: DataFolder) -> None:
    """Refuse a data folder whose vocabulary is not the one that the checkpoint at `path` was trained with.

    A checkpoint without a manifest beside it can't be compared, which one line says.
    """
    check_is_file(path)
    trained = manifest_beside(path)
    if trained is None:
        print(f"{path} has no {MANIFEST} beside it: whether its ids are those of {data.path} is not known", flush=True)
        return
    digests = [manifest.sha256(VOCABULARY) for manifest in (trained, data.manifest)]
    if None in digests or digests[0] != digests[1]:
        raise InputError(
            f"checkpoint {path} was trained with another vocabulary than that of {data.path}, so its rows "
            f"stand for other categories: evaluate it on the data folder it was trained from, or preprocess the raw "
            f"rows with --vocab_path={path.parent}"
        )


def load(
    path: Path, coded: Coded, network: NetworkSpec, operators: Operators = STOCK, compute_dtype=ms.float32,
    ranks: Ranks = ONE_RANK, mode: str = "none",
) -> DLRM:  # fmt: skip
    """The network of a checkpoint; of several ranks each calls this for itself, and reads the rows that it holds.

    Args:
        path: a file that `save` wrote; if it is one of several parts, the first one.
        coded: names of the inputs and fields, rows of the fields' tables, and the ids; a manifest has them.
        network: its shape.
        operators: what is to compute it.
        compute_dtype: type of the MLPs' matrix products.
        ranks: that compute it together, however many wrote the checkpoint; each compares the checksums of some parts.
        mode: of placement.MODES, how they share the tables.

    Raises:
        InputError: no such file, not a checkpoint, values of other names or sizes, or more than the memory holds.
    """
    widths = widths_of(coded.layout.of_tables(coded.table_rows), network)
    parts = open_network(path, coded, widths, range(ranks.rank, 1 << 16, ranks.size))
    placement = place(widths.packed_rows, mode, ranks.size, coded.layout.uses)
    try:
        tables, _ = make_tables(
            placement, ranks.rank, network.emb_dim, parts.fill(TABLE), operators,
            has_all_to_all(ms.get_context("device_target")), coded.layout,
        )  # fmt: skip
    except MemoryError:
        raise _too_large(path, placement, ranks.rank, network.emb_dim) from None
    model = DLRM(
        dense_dim_of(coded), tables, network, compute_dtype, widths=widths, has_fields=has_fields(coded)
    )  # fmt: skip
    fill_mlps(model, parts)
    parts.check_all_read()
    return model


def open_network(path: Path, coded: Coded, widths: Widths, check: Sequence[int] | None = None) -> Parts:
    """A checkpoint whose tables are seen to have the sizes of a network's, of which no row is read yet.

    Args:
        path, coded: as for `load`.
        widths: of the tables.
        check: as for `Parts`.

    Raises:
        InputError: as of `load`.
    """
    parts = Parts(path, coded.layout.of_tables(coded.fields), widths.packed_rows, check)
    for table in range(len(widths.table_rows)):
        if not list(parts.pieces(TABLE, table, widths.emb_dim)):
            raise parts.lacking(TABLE, table, widths.emb_dim)
    return parts


def _too_large(path: Path, placement: Placement, rank: int, width: int) -> InputError:
    table_mb = 4 * width * placement.rows(rank) / 2**20
    more = "more ranks" if placement.mode == "hybrid" else "several ranks with parallel_mode hybrid"
    return InputError(
        f"the memory of this process can't hold {table_mb:,.0f} MB of the tables of {path}: evaluate it by {more}, as "
        f"scripts/run_distribute_eval_cpu.sh starts them"
    )


def full_width(path: Path, coded: Coded, network: NetworkSpec) -> tuple[Parts, Fill]:
    """A checkpoint, and what fills pieces with its vectors, all of full width; arguments as for `load`."""
    widths = widths_of(coded.layout.of_tables(coded.table_rows), network)
    parts = open_network(path, coded, widths)
    return parts, widths.full_width(parts.fill(TABLE), lambda width: projections(parts, widths, width))


def projections(parts: Parts, widths: Widths, width: int) -> np.ndarray:
    """The matrices of the tables of a width below D, [., width, D]."""
    return parts.value(projection_name(width), (len(widths.projections[width]), width, widths.emb_dim))


def fill_mlps(model: DLRM, parts: Parts) -> None:
    """Give a network the values of a checkpoint but the tables'."""
    for parameter in model.mlp_parameters():
        parameter.set_data(Tensor.from_numpy(parts.value(parameter.name, parameter.shape)))


def restore(model: DLRM, path: Path, names: Sequence[str]) -> None:
    """Give a network, on this rank's device, the values of a checkpoint that the same ranks wrote, in their place."""
    parts = Parts(path, names, model.tables.table_rows, check=())
    model.tables.refill(model.tables.table, parts.fill(TABLE))
    fill_mlps(model, parts)
