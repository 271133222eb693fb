"""An exported model in use, and what a delta makes of it while others score with it.

Legend: B rows, N numeric inputs, L ids of a row.
"""

from collections.abc import Callable, Sequence
from pathlib import Path

import mindspore as ms
import numpy as np
from mindspore import Tensor, nn

from src.base.errors import InputError
from src.base.files import MappedFile
from src.base.npz import Arrays, mapped_arrays
from src.data.encoder import Encoder, load_encoder
from src.data.manifest import VOCABULARY
from src.export.changed_encoder import changed_encoder
from src.export.delta import Delta
from src.export.exported import ExportFolder
from src.export.mindir import Weights, weights_of

HOST_SIZES = (1, 64, 1024)


def mindir_graph(path: Path) -> nn.Cell:
    """The graph of a MindIR."""
    return nn.GraphCell(ms.load(str(path)))


class Graphs:
    """A graph for each of a few sizes of a batch, loaded when it is first needed, with the weights of who runs it.

    To load one takes MindSpore a second; to give it other weights, a millisecond. One thread at a time may use it.

    Args:
        sizes: rising.
        read: makes the graph of a file.
    """

    def __init__(self, sizes: Sequence[int], read: Callable[[Path], nn.Cell] = mindir_graph):
        self.sizes, self._read = tuple(sizes), read
        self._cells: dict[int, nn.Cell] = {}
        self._held: dict[int, Weights | None] = {}

    def load(self, size: int, graph: Path, weights: Weights | None) -> nn.Cell:
        """The graph for batches of a size, with some weights; None for those of its file, where all share these."""
        if size not in self._cells:
            self._cells[size] = self._read(graph)
        elif weights is not self._held[size] and weights is not None:
            for name, parameter in self._cells[size].parameters_dict().items():
                if (own := name.rpartition(":")[2]) in weights:  # else it is the same in all
                    parameter.set_data(Tensor(weights[own]))
        self._held[size] = weights
        return self._cells[size]

    def loaded(self) -> tuple[int, ...]:
        """The sizes for which it was loaded."""
        return tuple(self._cells)


class LiveModel:
    """An exported model that scores: encoder, tables and graph, which belong together.

    Args:
        model: the export, or what deltas made of it.
        encoder, arrays: its encoder, and what the file of that holds.
        graphs: its graph, or one that differs in the weights alone.
        weights: its own, and what else its graph is, where that is known.

    Attributes:
        model, encoder: as given.
        columns: of raw rows, as the encoder takes them.
    """

    def __init__(
        self,
        model: ExportFolder,
        encoder: Encoder,
        arrays: Arrays,
        graphs: Graphs,
        weights: tuple[bytes, Weights] | None = None,
    ):
        self.model, self.encoder, self._arrays = model, encoder, arrays
        self._graphs, self._weights = graphs, weights
        self.columns = encoder.keyed(model.manifest.columns())

    @classmethod
    def load(cls, path: Path) -> "LiveModel":
        """Of an export folder.

        Raises:
            InputError: no exported model, a damaged one, or no MindIR.
        """
        model = ExportFolder.load(path)
        if model.graph.suffix != ".mindir":
            raise InputError(f"{model.graph} is no MindIR: export the model with --file_format=MINDIR")
        vocabulary = model.path / VOCABULARY
        encoder, arrays = load_encoder(vocabulary, model.manifest.dense), mapped_arrays(MappedFile(vocabulary))
        # Tables in the graph are there anew with each size.
        return cls(model, encoder, arrays, Graphs(HOST_SIZES if model.table else (model.batch_size,)))

    def changed_by(self, delta: Delta) -> "LiveModel":
        """The later model, which shares with this one what both have; this one goes on as it was.

        Raises:
            InputError: the delta is of another export.
        """
        if self.model.table is None:
            raise InputError(f"{self.model.path} has its tables in the graph, and a delta changes those of a file")
        later = delta.applied(self.model)
        encoder, arrays = self.encoder, self._arrays
        if delta.encoder:
            encoder, arrays = changed_encoder(encoder, arrays, delta.encoder, later.manifest.dense)
        if encoder.table_rows != later.manifest.table_rows:
            raise InputError(f"{delta.path}: its vocabulary is not that of its tables: make the delta again")
        self._weights = self._weights or weights_of(self.model.graph)
        weights = weights_of(later.graph)
        is_same = weights[0] and weights[0] == self._weights[0]
        graphs = self._graphs if is_same else Graphs(self._graphs.sizes)
        return LiveModel(later, encoder, arrays, graphs, weights)

    def shares_graph(self, other: "LiveModel") -> bool:
        """Whether both run one graph, which nobody has to load."""
        return self._graphs is other._graphs

    def load_as(self, other: "LiveModel") -> None:
        """Load the graph for all sizes for which another model has it, so that no one waits for that later."""
        for size in other._graphs.loaded():
            dense = np.zeros((size, len(self.model.manifest.inputs)), np.float32)
            self.run(dense, np.zeros((size, self.model.manifest.layout.ids), np.int32))

    def run(self, dense: np.ndarray, ids: np.ndarray) -> np.ndarray:
        """Probabilities [B] of coded rows, dense [B, N] float32 and ids [B, L] int32; at most the largest size's."""
        rows = len(ids)
        size = next(size for size in self._graphs.sizes if size >= rows)
        second = self.model.table.lookup(ids, self.model.manifest.layout) if self.model.table else ids
        filled = (np.pad(array, [(0, size - rows)] + [(0, 0)] * (array.ndim - 1)) for array in (dense, second))
        graph = self._graphs.load(size, self.model.graph, self._weights[1] if self._weights else None)
        scores: np.ndarray = graph(*(Tensor(array) for array in filled)).asnumpy()
        return scores[:rows, 0]

    @property
    def most_rows(self) -> int:
        """Rows that `run` takes at most."""
        return self._graphs.sizes[-1]
