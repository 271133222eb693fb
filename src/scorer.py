"""Score rows in a Python program.

    from src.scorer import Scorer
    scorer = Scorer("export")
    scorer.score_lines(Path("new_rows.txt"))       # a file of numbers and categories with tabs between, no label
    scorer.score_lines(lines, has_labels=True)     # lines of text or bytes behind a label, as in the training file
    scorer.score(scorer.read_csv("new_rows.txt"))  # a DataFrame with columns I1 .. I13, C1 .. C26

    scorer.follow("deltas")                        # from now on deltas that come there change the model
    scorer.apply("deltas/2026-11-27")              # or one does at once

A scorer may be used by several threads, and in processes forked after its use: see `Scorer`.

Legend: B rows, N numeric inputs, L ids of a row.
"""

import os
import threading
import warnings
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import pandas as pd

from src.base.errors import InputError
from src.data.known_values import Unseen, usual_shares, warning, warning_of_dropped
from src.export.delta import Delta, Followed
from src.export.exported import ExportFolder
from src.export.live import LiveModel
from src.export.table_file import check_ids
from src.model_utils.device_target import set_device
from src.publishing.network import live_model
from src.publishing.published import is_published
from src.rows.block import Block
from src.rows.columns import Columns
from src.rows.raw_rows import (
    block_of_frame,
    block_of_lines,
    blocks_of_file,
    categories_of_frame,
    categories_of_lines,
    frame_of_file,
    lines_of,
)

_WATCHED_ROWS = 10_000  # over which unseen values are counted
_ONE_AT_A_TIME = threading.Lock()
_scoring_process = 0  # the process that has run a graph; 0 for none


def _begin_scoring() -> None:
    """Refuse to score in a process that was forked from one that has run a graph, where it would hang."""
    global _scoring_process
    if _scoring_process not in (0, os.getpid()):
        raise InputError(
            f"process {os.getpid()} was forked from {_scoring_process} after that had scored, and MindSpore does not "
            f"survive this: fork before the first scoring, or start processes anew (multiprocessing's 'spawn')"
        )
    _scoring_process = os.getpid()


class Scorer:
    """An exported model, ready to score raw rows.

    A graph is loaded for each of a few sizes of a batch, when it is first needed; fewer rows are filled up with zeros
    and cut again.

    Threads may share a scorer: they compute one after the other, since MindSpore's graphs can't be entered twice. Of
    what MindSpore has begun, such as its threads, a forked process has nothing, and would wait for it for ever. So a
    process can only score if it was forked before the first scoring, or started anew (multiprocessing's "spawn").

    A delta changes the model while threads score. Each call keeps to the model that it began with, from the first row's
    category to the last one's score, and never waits for a delta to be read.

    Args:
        export_path: folder that export.py wrote, with file_format MINDIR, or with publish.
        device_target, device_id: what runs it.
        key_path: of a published model whose categories are hashed, the file of their key; unless given, FOLDER.key.

    Raises:
        InputError: no exported model, a damaged one, no such device, or no key where one is needed.
    """

    def __init__(
        self, export_path: str | Path, device_target: str = "CPU", device_id: int = 0, key_path: str | Path = ""
    ):
        folder = Path(export_path)
        self._live = live_model(folder, key_path) if is_published(folder) else LiveModel.load(folder)
        set_device(device_target, device_id)
        self._followed: Followed | None = None
        self._changing = threading.Lock()
        self._unseen: Unseen | None = None
        self._unseen_by: LiveModel | None = None
        self._told: set[str] = set()  # fields that a warning was of
        self._told_dropped: set[str] = set()

    @property
    def model(self) -> ExportFolder:
        """The model that scores now."""
        return self._live.model

    @property
    def columns(self) -> Columns:
        """The columns of raw rows."""
        return self._live.columns

    def apply(self, delta: str | Path) -> None:
        """Let a delta change the model: calls that begin from now on score by the later one.

        Args:
            delta: folder that export.py wrote with --delta_from.

        Raises:
            InputError: it is damaged, or a delta of another export; the model then stays as it is.
        """
        with self._changing:
            self._apply(Path(delta))

    def follow(self, folder: str | Path) -> None:
        """Look for deltas in a folder whenever a call begins, and apply those that change the model.

        The call that finds one applies it, and scores by the later model; others go on meanwhile. One that can't be
        applied is told as a warning, once, and the model stays.

        Args:
            folder: where folders of deltas are put, whole, by renaming; export.py's --export_path may lie in it.
        """
        with self._changing:
            self._followed = Followed(Path(folder))

    def _apply(self, path: Path) -> None:
        before = self._live
        live = before.changed_by(Delta.load(path))
        if not live.shares_graph(before):
            with _ONE_AT_A_TIME:
                live.load_as(before)
        self._live = live

    def _latest(self) -> LiveModel:
        """The model that a call keeps to."""
        if self._followed and self._changing.acquire(blocking=False):
            try:
                while path := self._followed.next_of(self.model.identity):
                    try:
                        self._apply(path)
                    except InputError as error:
                        self._followed.refuse(path)
                        warnings.warn(f"the model stays as it is: {error}", stacklevel=3)
            finally:
                self._changing.release()
        return self._live

    def score(self, frame: pd.DataFrame) -> np.ndarray:
        """Probabilities of a click [B] of a DataFrame's rows; what it must hold says `raw_rows.block_of_frame`."""
        live = self._latest()
        block = block_of_frame(frame, live.columns, live.encoder.examples)
        return self._score(live, block, lambda: categories_of_frame(frame, live.columns))

    def read_csv(self, path: str | Path, has_labels: bool = False) -> pd.DataFrame:
        """The rows of a raw file as a DataFrame whose scores are those of the file.

        Pandas' own read_csv makes other categories of the same text: 54 of 00054, and a missing value of NULL.

        Args:
            path: a file of the training files' form; .gz and .xz are unpacked.
            has_labels: whether its lines begin with a label.

        Raises:
            InputError: there is no such file, or a line can't be used.
        """
        return frame_of_file(Path(path), _labelled(self.columns, has_labels))

    def score_lines(self, lines: Iterable[str | bytes] | Path, has_labels: bool = False) -> np.ndarray:
        """Probabilities of a click [B] of lines of raw text.

        Args:
            lines: as in the training files, with or without line ends, as text or bytes; or the path of a file.
            has_labels: whether they begin with a label, which is not used.

        Raises:
            InputError: a line can't be used; the message has its number, from 1.
        """
        if isinstance(lines, str | bytes):
            raise InputError("lines is one text: give a list of lines, such as text.splitlines(), or pathlib.Path(..)")
        live = self._latest()
        columns = _labelled(live.columns, has_labels)
        if isinstance(lines, Path):
            parts = [self._score(live, block) for block in blocks_of_file(lines, columns)]
            return np.concatenate([np.zeros(0, np.float32), *parts])
        texts = lines_of(lines, columns)
        return self._score(live, block_of_lines(texts, columns), lambda: categories_of_lines(texts, columns))

    def score_ids(self, dense: np.ndarray, ids: np.ndarray) -> np.ndarray:
        """Probabilities of a click [B] of coded rows.

        Args:
            dense: [B, N], numbers as the encoder gives them.
            ids: [B, L] of any integer type, each table's own, or padding of lists, as the encoder gives them.

        Raises:
            InputError: other shapes or types, or an id that its table has not.
        """
        return self._score_ids(self._latest(), np.asarray(dense), np.asarray(ids))

    def _score_ids(self, live: LiveModel, dense: np.ndarray, ids: np.ndarray) -> np.ndarray:
        dense, ids = self._checked(live, dense, ids)
        scores = []
        _begin_scoring()  # before the lock, which a fork may have left locked
        for done in range(0, len(ids), live.most_rows):
            with _ONE_AT_A_TIME:
                scores.append(live.run(dense[done : done + live.most_rows], ids[done : done + live.most_rows]))
        return np.concatenate(scores) if scores else np.zeros(0, np.float32)

    def _checked(self, live: LiveModel, dense: np.ndarray, ids: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        manifest = live.model.manifest
        for name, array, columns, kinds in (
            ("dense", dense, len(manifest.inputs), "fiu"), ("ids", ids, manifest.layout.ids, "iu"),
        ):  # fmt: skip
            if array.ndim != 2 or array.shape[1] != columns or array.dtype.kind not in kinds:
                raise InputError(
                    f"{name} is {array.dtype} of shape {array.shape}: it must be [rows, {columns}] of "
                    f"{'numbers' if 'f' in kinds else 'whole numbers'}"
                )
        if len(dense) != len(ids):
            raise InputError(f"dense has {len(dense)} rows and ids {len(ids)}: they must be of the same rows")
        check_ids(ids, manifest.table_rows, manifest.layout)
        return dense.astype(np.float32, copy=False), ids.astype(np.int32, copy=False)

    def _score(self, live: LiveModel, block: Block, cells: Callable[[], list[list[str]]] | None = None) -> np.ndarray:
        """Probabilities of parsed rows; `cells` gives the text of their categorical columns."""
        _begin_scoring()
        with _ONE_AT_A_TIME:  # the encoder may build a hash table
            dense, ids = live.encoder.encode(block)
            told = self._count_unseen(live, ids, block, cells)
        if told:
            warnings.warn(told, stacklevel=3)
        return self._score_ids(live, dense, ids)

    def _count_unseen(
        self, live: LiveModel, ids: np.ndarray, block: Block, cells: Callable[[], list[list[str]]] | None
    ) -> str:
        """A warning, once a field, of far more values that training did not have than is usual; "" for none."""
        if self._unseen is None or self._unseen.rows > _WATCHED_ROWS or self._unseen_by is not live:
            # A field that has recovered is told again when need be.
            self._told &= (
                {self._unseen.fields[field] for field in self._unseen.fields_above()} if self._unseen else set()
            )
            manifest = live.model.manifest
            self._unseen = Unseen(manifest.fields, usual_shares(manifest), live.columns.key_seed, manifest.layout)
            self._unseen_by = live
        self._unseen.add(ids, block)
        found = self._unseen.unmatched(live.encoder.examples, cells, self._told)
        self._told |= {one.field for one in found}
        return warning("rows to score", found) or self._left_out()

    def _left_out(self) -> str:
        """A warning, once a field, of lists with more values than are kept; "" for none."""
        assert self._unseen is not None
        dropped = {name: count for name, count in self._unseen.dropped.items() if name not in self._told_dropped}
        self._told_dropped |= set(dropped)
        return warning_of_dropped("rows to score", dropped, dict(zip(self._unseen.fields, self._unseen.layout.sizes)))


def _labelled(columns: Columns, has_labels: bool) -> Columns:
    return columns if has_labels else columns.without_label()
