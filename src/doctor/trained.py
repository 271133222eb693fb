"""A model as it was trained: its folder, the rows that it learned from, and its scores."""

from collections.abc import Iterable, Iterator
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from src.base.errors import InputError
from src.checkpoints.names import file_of
from src.data.encoder import load_encoder
from src.data.manifest import MANIFEST, VOCABULARY, DataFolder, Manifest, find
from src.doctor.gathering import Gathered, gathered
from src.network.options import NetworkSpec
from src.report.files import load_report

BATCH = 1 << 16
_SCORED_AT_ONCE = 2048


class Trained:
    """A checkpoint that train.py wrote, with what lies beside it.

    The network is read when it first scores, and the rows that it learned from when they are first asked for.

    Args:
        checkpoint_path: the checkpoint or its folder.
        network: its shape.
        trained_path: the data folder that it was trained on; "" for the place that its report names.

    Attributes:
        path, folder: of the checkpoint.
        manifest, encoder: that it was trained with.
        report: of its training; empty if there is none.
        data: the folder that it was trained on, None if it is no longer to be had, and why_no_data then says why.

    Raises:
        InputError: no such checkpoint, nothing that tells its columns, or the named folder is not what it was trained
            on.
    """

    def __init__(self, checkpoint_path: str, network: NetworkSpec, trained_path: str = ""):
        self.path, self._network = file_of(checkpoint_path), network
        self.folder = self.path.parent
        if not (self.folder / MANIFEST).is_file():
            raise InputError(
                f"checkpoint_path {self.path} has no {MANIFEST} beside it, so what it was trained on is not known: "
                f"name a checkpoint in the folder that train.py wrote"
            )
        self.manifest = Manifest.load(self.folder / MANIFEST)
        self.manifest.verify(self.folder, [VOCABULARY], "copy it anew from where train.py wrote it")
        self.encoder = load_encoder(self.folder / VOCABULARY, self.manifest.dense)
        try:
            self.report: dict[str, Any] = load_report(self.folder)
        except InputError:  # of a run without one, or of another version
            self.report = {}
        self.why_no_data = ""
        self.data = self._data(trained_path)

    @property
    def vocabulary(self) -> str | None:
        """The checksum of the encoder's file."""
        return self.manifest.sha256(VOCABULARY)

    @property
    def reported(self) -> str:
        """Where the report says that the data folder is; "" if it does not."""
        return str(self.report.get("data", {}).get("folder", ""))

    def _data(self, named: str) -> DataFolder | None:
        if named:
            data = find(named)
            if data.manifest.sha256(VOCABULARY) != self.vocabulary or "train" not in data.manifest.parts:
                raise InputError(
                    f"trained_path {named} has another vocabulary than {self.folder}, or no training rows: name the "
                    f"data folder that the model was trained on"
                )
            return data
        try:
            found = find(self.reported) if self.reported else None
        except (InputError, OSError):
            found = None
        place = self.reported or "a place that no report tells"
        if found is None or found.manifest.sha256(VOCABULARY) != self.vocabulary:
            self.why_no_data = (
                f"the data folder that the model was trained on is {'no longer' if self.reported else 'in'} "
                f"{'at ' if self.reported else ''}{place}: name it with --trained_path"
            )
            return None
        return found

    def take(self, data: DataFolder) -> None:
        """Take a folder for the one that it was trained on if that is not known where, and this is a copy of it."""
        if self.data is None and data.manifest == self.manifest:
            self.data, self.why_no_data = data, ""

    @cached_property
    def rows(self) -> Gathered | None:
        """The rows that it learned from."""
        return rows_of(self.data, "train") if self.data else None

    @cached_property
    def evaluated(self) -> tuple[str, float]:
        """Name of the rows that its report has an AUC of, and the AUC; "" and nan if there is none."""
        evaluation = self.report.get("evaluation") or {}
        area = evaluation.get("metrics", {}).get("auc")
        return (evaluation["part"], area) if area is not None else ("", float("nan"))

    @cached_property
    def model(self):
        """The network, on the CPU; it reads no more of the tables than the rows that it looks up."""
        from src.checkpoints.stored import open_stored
        from src.model_utils.device_target import set_device
        from src.network.compiled import operators_for

        set_device("CPU")
        return open_stored(self.path, self.manifest, self._network, operators_for("CPU", True))

    def logits(self, dense: np.ndarray, ids: np.ndarray) -> np.ndarray:
        """Logits [B] of coded rows; some may not be finite."""
        from src.training.evaluation import score

        rows = range(0, len(ids), _SCORED_AT_ONCE)
        labels = np.zeros((len(ids), 1), np.float32)
        batches = (tuple(column[row : row + _SCORED_AT_ONCE] for column in (dense, ids, labels)) for row in rows)
        return score(self.model, batches, _SCORED_AT_ONCE)[1]


def rows_of(data: DataFolder, part: str) -> Gathered | None:
    """The rows of a part of a data folder; None if it has none.

    Where training rows without a click were sampled, each that was kept counts for those that were not, so that label
    mean and columns are those of all rows.
    """
    from src.dataset import batches_of

    if part not in data.manifest.parts:
        return None
    batches: Iterable[tuple[np.ndarray, ...]] = batches_of(data, part, BATCH)
    sampled = data.manifest.negatives if part == "train" else None
    return gathered(_for_all(batches, sampled.share) if sampled else batches)


def _for_all(batches: Iterable[tuple[np.ndarray, ...]], share: float) -> Iterator[tuple[np.ndarray, ...]]:
    for dense, ids, labels, *weights in batches:
        each = np.where(labels > 0, 1.0, 1 / share)
        yield dense, ids, labels, each * weights[0] if weights else each


def resolved(path: str | Path) -> Path:
    """A path that names a place in one way alone."""
    return Path(path).resolve()
