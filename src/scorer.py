"""Score rows in a Python program.

    from src.scorer import Scorer
    scorer = Scorer("export")
    scorer.score(frame)                            # a DataFrame with columns I1 .. I13, C1 .. C26: probabilities
    scorer.score_lines(open("new_rows.txt"))       # lines of numbers and categories with tabs between, no label
    scorer.score_lines(lines, has_labels=True)     # the same behind a label, as in the training file

Legend: B rows, N numeric inputs, F fields.
"""

from collections.abc import Iterable
from pathlib import Path

import mindspore as ms
import numpy as np
import pandas as pd
from mindspore import Tensor, nn

from src.base.errors import InputError
from src.data.encoder import load_encoder
from src.data.lines import Block
from src.data.manifest import VOCABULARY
from src.data.raw_rows import block_of_frame, block_of_lines
from src.export.folder import ExportFolder
from src.export.table_file import check_ids
from src.model_utils.device_target import set_device

_HOST_SIZES = (1, 64, 1024)


class Scorer:
    """An exported model, ready to score raw rows.

    A graph is loaded for each of a few sizes of a batch, when it is first needed; fewer rows are filled up with zeros
    and cut again.

    Args:
        export_path: folder that export.py wrote, with file_format MINDIR.
        device_target, device_id: what runs it.

    Raises:
        InputError: no exported model, a damaged one, or no such device.
    """

    def __init__(self, export_path: str | Path, device_target: str = "CPU", device_id: int = 0):
        self.model = ExportFolder.load(Path(export_path))
        if self.model.graph.suffix != ".mindir":
            raise InputError(f"{self.model.graph} is no MindIR: export the model with --file_format=MINDIR")
        set_device(device_target, device_id)
        self.columns = self.model.manifest.columns()
        self._encoder = load_encoder(self.model.path / VOCABULARY, self.model.manifest.dense)
        self._graphs: dict[int, nn.GraphCell] = {}
        # Tables in the graph are there anew with each size.
        self._sizes = _HOST_SIZES if self.model.table else (self.model.batch_size,)

    def score(self, frame: pd.DataFrame) -> np.ndarray:
        """Probabilities of a click [B] of a DataFrame's rows; what it must hold says `raw_rows.block_of_frame`."""
        return self._score(block_of_frame(frame, self.columns))

    def score_lines(self, lines: Iterable[str], has_labels: bool = False) -> np.ndarray:
        """Probabilities of a click [B] of lines of raw text.

        Args:
            lines: as in the training files, with or without line ends.
            has_labels: whether they begin with a label, which is not used.

        Raises:
            InputError: a line can't be used; the message has its number, from 1.
        """
        if isinstance(lines, str | bytes):
            raise InputError("lines is one text: give a list of lines, such as text.splitlines()")
        columns = self.columns if has_labels else self.columns.without_label()
        return self._score(block_of_lines(list(lines), columns))

    def score_ids(self, dense: np.ndarray, ids: np.ndarray) -> np.ndarray:
        """Probabilities of a click [B] of coded rows.

        Args:
            dense: [B, N], numbers as the encoder gives them.
            ids: [B, F] of any integer type, each field's own.

        Raises:
            InputError: other shapes or types, or an id that its table has not.
        """
        dense, ids = self._checked(np.asarray(dense), np.asarray(ids))
        scores = []
        done = 0
        while done < len(ids):
            size = next((size for size in self._sizes if size >= len(ids) - done), self._sizes[-1])
            scores.append(self._score_batch(dense[done : done + size], ids[done : done + size], size))
            done += size
        return np.concatenate(scores) if scores else np.zeros(0, np.float32)

    def _checked(self, dense: np.ndarray, ids: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        manifest = self.model.manifest
        for name, array, columns, kinds in (
            ("dense", dense, len(manifest.inputs), "fiu"), ("ids", ids, len(manifest.fields), "iu"),
        ):  # fmt: skip
            if array.ndim != 2 or array.shape[1] != columns or array.dtype.kind not in kinds:
                raise InputError(
                    f"{name} is {array.dtype} of shape {array.shape}: it must be [rows, {columns}] of "
                    f"{'numbers' if 'f' in kinds else 'whole numbers'}"
                )
        if len(dense) != len(ids):
            raise InputError(f"dense has {len(dense)} rows and ids {len(ids)}: they must be of the same rows")
        check_ids(ids, manifest.table_rows)
        return dense.astype(np.float32, copy=False), ids.astype(np.int32, copy=False)

    def _score(self, block: Block) -> np.ndarray:
        return self.score_ids(*self._encoder.encode(block))

    def _score_batch(self, dense: np.ndarray, ids: np.ndarray, size: int) -> np.ndarray:
        rows = len(ids)
        second = self.model.table.lookup(ids) if self.model.table else ids
        filled = (np.pad(array, [(0, size - rows)] + [(0, 0)] * (array.ndim - 1)) for array in (dense, second))
        if size not in self._graphs:
            self._graphs[size] = nn.GraphCell(ms.load(str(self.model.graph)))
        scores: np.ndarray = self._graphs[size](*(Tensor(array) for array in filled)).asnumpy()
        return scores[:rows, 0]
