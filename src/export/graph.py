"""The network as it is exported: rows in, probabilities out; no labels, no optimizer.

Legend: B rows of a batch, N numeric columns, F fields, L ids of a row, D width of a vector.
"""

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import mindspore as ms
import numpy as np
from mindspore import Tensor, nn, ops

from src.base.errors import InputError
from src.data.layout import Layout
from src.dlrm import DLRM
from src.export import mindir
from src.export.options import SUFFIXES, ExportSpec
from src.network.embedding import EmbeddingTables
from src.network.stock import StockOperators


class ExportedOperators(StockOperators):
    """What an exported graph is made of: MindSpore's older operators, known to all versions of MindSpore Lite and ONNX.

    Biases are added by the plain Add, so that one operator less has no aclnn kernel where MindSpore itself runs the
    graph on Ascend; two are left, Gather and, with several towers, Split.
    """

    def stock_linear(self, relu: bool, bias: bool, compute_dtype) -> nn.Cell:
        linear = super().stock_linear(relu, bias, compute_dtype)
        if bias:
            linear.bias_add = ops.Add()
        return linear

    def pooling(self, layout: Layout) -> nn.Cell:
        return ExportedPooling(layout)


class ExportedPooling(nn.Cell):
    """As `Pooling`, of vectors that are zeros for padding, and by operators that all the forms of a graph have.

    Args:
        layout: of the ids; a field holds lists.
    """

    def __init__(self, layout: Layout):
        super().__init__(auto_prefix=False)
        self.pools = layout.pools
        self.places = tuple(
            Tensor(np.arange(start, start + size, dtype=np.int32)) for start, size in zip(layout.starts, layout.sizes)
        )
        self.zero, self.one_id = Tensor(np.zeros(1, np.int32)), Tensor(np.ones(1, np.int32))
        self.one, self.zero_one = Tensor(np.ones(1, np.float32)), Tensor(np.array([0, 1], np.float32))
        self.lowest = Tensor(np.array([np.finfo(np.float32).min], np.float32))
        self.minimum, self.gather, self.joined = ops.Minimum(), ops.Gather(), ops.Concat(1)
        self.total, self.maximum, self.share = ops.ReduceSum(keep_dims=True), ops.Maximum(), ops.RealDiv()
        self.halves = tuple(_halves(size) if pool == "max" else () for size, pool in zip(layout.sizes, layout.pools))
        self.shape = (-1, layout.ids, 1)

    def padding(self, ids):
        """-1 for padding among ids [B, L] and 0 for others, int32 [B, L]."""
        return self.minimum(ids, self.zero)

    def present(self, ids):
        """As of `Pooling`; looked up, for MindSpore Lite 2.0.0 can't read a Cast of version 1."""
        return self.gather(self.zero_one, self.padding(ids) + self.one_id, 0).reshape(self.shape)

    def construct(self, vectors, present):
        found: tuple = ()
        for number in range(len(self.pools)):
            pool, places = self.pools[number], self.places[number]
            part = self.gather(vectors, places, 1)
            if pool != "":
                there = self.gather(present, places, 1)
                if pool == "max":
                    part = self.largest(part + (self.one - there) * self.lowest, self.halves[number])
                    part = part * self.minimum(self.total(there, 1), self.one)
                else:
                    part = self.total(part, 1)
                if pool == "mean":
                    part = self.share(part, self.maximum(self.total(there, 1), self.one))
            found = (*found, part)
        return self.joined(found)

    def largest(self, vectors, halves):
        """The largest numbers of vectors [B, M, D], [B, 1, D]; Lite 2.0.0 gets a ReduceMax of version 1 wrong."""
        for number in range(len(halves)):
            first, second = halves[number]
            vectors = self.maximum(self.gather(vectors, first, 1), self.gather(vectors, second, 1))
        return vectors


def _halves(size: int) -> tuple[tuple[Tensor, Tensor], ...]:
    """Places of what is compared, from so many values down to one; of an odd number, the middle one twice."""
    found: list[tuple[Tensor, Tensor]] = []
    while size > 1:
        half = -(-size // 2)
        first, second = (Tensor(np.arange(low, low + half, dtype=np.int32)) for low in (0, size - half))
        found.append((first, second))
        size = half
    return tuple(found)


EXPORTED = ExportedOperators()
_PLAIN = re.compile(r"[A-Za-z0-9_./-]+")  # paths that ms.export takes


class _Score(nn.Cell):
    def __init__(self, model: DLRM):
        super().__init__(auto_prefix=False)
        self.model, self.sigmoid = model, ops.Sigmoid()
        # An input that nothing takes would not be in the exported graph; what stands in for fields is taken times 0.
        self.width = model.tables.table.shape[1]
        self.nothing = None if model.has_fields else Tensor(np.zeros((self.width, 1), np.float32))
        self.product = ops.MatMul()

    def probabilities(self, dense, vectors, present=()):
        """[B, 1] of dense [B, N] and looked-up vectors [B, F, D]."""
        logits = self.model.score(dense, vectors, present)
        if self.nothing is not None:
            logits = logits + self.product(vectors.reshape(-1, self.width), self.nothing)
        return self.sigmoid(logits)


class ScoreIds(_Score):
    """Probabilities of a click, with the tables in the graph.

    Inputs: dense [B, N] float32, ids [B, L] int32, each table's own, or padding in lists. Outputs: [B, 1] float32.
    """

    def __init__(self, model: DLRM):
        super().__init__(model)
        tables = model.tables
        self.lists = isinstance(model.pooling, ExportedPooling)
        if isinstance(model.pooling, ExportedPooling):
            self.padding = model.pooling.padding
            # Behind the last row of each table stands one of zeros.
            self.to_zeros = Tensor(tables.paddings.asnumpy() + np.int32(1))

    def construct(self, dense, ids):
        if not self.lists:
            return self.probabilities(dense, self.model.look_up(ids)[1])
        tables = self.model.tables
        rows = ids - self.padding(ids) * self.to_zeros
        vectors = tables.joint_lookup(tables.table, rows, tables.starts)[1]
        return self.probabilities(dense, vectors, self.model.present(ids))


def tables_of_widths(fields: int, width: int) -> EmbeddingTables:
    """Tables of a network whose vectors are looked up outside of its graph, which needs no more than their widths."""
    return EmbeddingTables([1] * fields, np.zeros((fields, width), np.float32), EXPORTED)


class ScoreVectors(_Score):
    """Probabilities of a click, of vectors that were looked up before.

    Inputs: dense [B, N] float32, vectors [B, F, D] float32. Outputs: [B, 1] float32.
    """

    def construct(self, dense, vectors):
        return self.probabilities(dense, vectors)


def export_graph(model: DLRM, folder: Path, spec: ExportSpec, dense_dim: int, placement: str) -> list[Path]:
    """Write the graph of a network to files of a folder.

    Args:
        model: the network, by the operators EXPORTED.
        folder: where they go; a MindIR above 1 GiB becomes NAME_graph.mindir and the folder NAME_variables.
        spec: name, form and batch size.
        dense_dim: N.
        placement: "graph" or "host".

    Returns:
        The files, the graph first.
    """
    name, file_format, batch_size = spec.file_name, spec.file_format, spec.export_batch_size
    model.set_train(False)
    layout, width = model.tables.layout, model.tables.table.shape[1]
    dense = Tensor(np.zeros((batch_size, dense_dim), np.float32))
    if placement == "graph":
        network, second = ScoreIds(model), Tensor(np.zeros((batch_size, layout.ids), np.int32))
    else:
        network, second = ScoreVectors(model), Tensor(np.zeros((batch_size, layout.fields, width), np.float32))
    options = {"custom_func": mindir.written_as(spec.mindir_version)} if file_format == "MINDIR" else {}
    mode = folder.stat().st_mode
    try:
        with _place_of(folder) as place:
            ms.export(network, dense, second, file_name=str(place / name), file_format=file_format, **options)
    except (RuntimeError, ValueError) as error:
        reason = str(error).strip().splitlines()[0]
        raise InputError(f"MindSpore can't export the network as {file_format}: {reason}") from None
    folder.chmod(mode)  # MindSpore leaves what it writes to its owner alone, without the right to replace the files
    files = sorted(path for path in folder.rglob(f"{name}*") if path.is_file() and path.suffix == SUFFIXES[file_format])
    files += sorted((folder / f"{name}_variables").glob("*"))
    for path in files:
        path.chmod(0o644)
    return files


@contextmanager
def _place_of(folder: Path) -> Iterator[Path]:
    """A folder by a path that MindSpore takes: not one with blanks or accents, for which it becomes the working folder
    meanwhile, though that is the whole process's.
    """
    if _PLAIN.fullmatch(str(folder.resolve())):
        yield folder.resolve()
        return
    before = Path.cwd()
    os.chdir(folder)
    try:
        yield Path()
    finally:
        os.chdir(before)
