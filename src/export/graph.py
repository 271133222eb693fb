"""The network as it is exported: rows in, probabilities out; no labels, no optimizer.

Legend: B rows of a batch, N numeric columns, F fields, D width of a vector.
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
from src.dlrm import DLRM
from src.export import mindir
from src.export.options import SUFFIXES, ExportSpec
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

    def probabilities(self, dense, vectors):
        """[B, 1] of dense [B, N] and looked-up vectors [B, F, D]."""
        logits = self.model.score(dense, vectors)
        if self.nothing is not None:
            logits = logits + self.product(vectors.reshape(-1, self.width), self.nothing)
        return self.sigmoid(logits)


class ScoreIds(_Score):
    """Probabilities of a click, with the tables in the graph.

    Inputs: dense [B, N] float32, ids [B, F] int32, each table's own. Outputs: [B, 1] float32.
    """

    def construct(self, dense, ids):
        return self.probabilities(dense, self.model.look_up(ids)[1])


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
