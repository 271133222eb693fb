"""All that checks look at: the rows that are scored badly, the model, and the rows that it learned from.

Legend: S rows kept, N numeric inputs, F fields.
"""

import math
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path

import numpy as np

from src.data.known_values import Unmatched, unmatched_of
from src.data.manifest import VOCABULARY, DataFolder, Manifest
from src.doctor.gathering import Gathered
from src.doctor.order import assigned
from src.doctor.raw import RawRows, read
from src.doctor.trained import Trained, resolved, rows_of
from src.metrics.binary import auc
from src.metrics.drift import ColumnRows, Drift, drift
from src.rows.columns import Columns

_UNREAD = "no row could be read"


class Evidence:
    """What is known of some rows and of their model.

    Attributes:
        trained: the model.
        place: what the user named.
        data, part: the data folder that the rows are in, and their part of it; None for raw rows.
        raw: raw rows; None for those of a data folder.
        columns: of the raw rows, or of the data folder's.
        new: the rows; None if none could be read.
        old: rows to compare with, coded alike: the training rows of the same folder, or the model's; None for none.
        schema: the file that says the columns of raw rows; "" for none.
        unmatched: fields with far more unseen values than usual.
        explained: columns in which something was found.
    """

    def __init__(self, trained: Trained, place: str, columns: Columns, data: DataFolder | None = None, part: str = ""):
        self.trained, self.place, self.columns, self.data, self.part = trained, place, columns, data, part
        self.raw: RawRows | None = None
        self.schema = ""
        self.new: Gathered | None = None
        self.unmatched: Sequence[Unmatched] = ()
        self.explained: set[str] = set()

    @property
    def manifest(self) -> Manifest:
        """By which the rows are coded."""
        return self.data.manifest if self.data else self.trained.manifest

    @property
    def is_coded_alike(self) -> bool:
        """Whether the rows are coded as the model's training rows were."""
        return self.data is None or self.data.manifest.sha256(VOCABULARY) == self.trained.vocabulary

    @cached_property
    def old(self) -> Gathered | None:
        """See above."""
        if self.data and "train" in self.data.manifest.parts and not self.is_of_training:
            return rows_of(self.data, "train")
        return self.trained.rows if self.is_coded_alike else None

    @property
    def pair(self) -> tuple[Gathered, Gathered]:
        """The rows, and those to compare with, for who knows that both are there."""
        assert self.new
        assert self.old
        return self.new, self.old

    @property
    def is_of_training(self) -> bool:
        """Whether the rows are of the data folder that the model was trained on."""
        known = self.trained.data
        return bool(self.data and known and resolved(self.data.path) == resolved(known.path))

    @property
    def unread(self) -> str:
        """Why nothing can be said of the rows, not even that a mistake is not there; "" where some could be read."""
        return _UNREAD if self.new is None else ""

    @cached_property
    def lacks(self) -> dict[str, str]:
        """What is not there of all that checks need, and why."""
        found = {}
        if self.raw is None:
            found["raw rows"] = "the rows are coded: name their raw files by --data_path"
        if self.new is None:
            found["rows"] = _UNREAD
        if not self.is_coded_alike:
            found["coding"] = "the rows are coded by another vocabulary than the model's"
        if self.old is None:
            found["training rows"] = self.trained.why_no_data or found.get("coding", "there are none")
        if not self.trained.data:
            found["model's rows"] = self.trained.why_no_data
        if not self.times:
            found["times"] = "no column is a point in time"
        if self.new and self.new.label_mean in (0, 1):
            found["labels"] = "all rows have one label"
        return found

    @property
    def numbers(self) -> dict[str, int]:
        """The numeric columns that are no times, by name: their places among the inputs."""
        times = {name for one in self.columns.timestamps for name in one.numbers}
        return {name: place for place, name in enumerate(self.manifest.dense) if name not in times}

    @property
    def times(self) -> dict[str, int]:
        """The ages of points in time: their places among the inputs."""
        ages = {one.numbers[2] for one in self.columns.timestamps}
        return {name: place for place, name in enumerate(self.manifest.dense) if name in ages}

    @property
    def categories(self) -> dict[str, int]:
        """The categorical columns, by name: their places among the fields.

        But the one by whose values rows were split at random, of which each is in one part alone.
        """
        drawn = str(self.manifest.options.get("split", "")).removeprefix("random:")
        return {name: place for place, name in enumerate(self.manifest.categorical) if name != drawn}

    def leading(self, rows: Gathered) -> np.ndarray:
        """One id for each field, [S, F]."""
        return self.manifest.layout.leading(rows.ids, self.manifest.table_rows)

    def column_rows(self, rows: Gathered) -> ColumnRows:
        """What `drift` compares."""
        ids = self.leading(rows)
        return ColumnRows(
            {name: rows.dense[:, place] for name, place in self.numbers.items()},
            {name: ids[:, place] for name, place in self.categories.items()},
            rows.labels,
            rows.weights,
        )

    @cached_property
    def drift(self) -> Drift:
        """From the training rows to these."""
        new, old = self.pair
        return drift(self.column_rows(old), self.column_rows(new))

    @cached_property
    def assigned(self) -> dict[str, str]:
        """Columns whose values are much nearer another column's, and that other one."""
        return assigned(self)

    def unexplained(self, names: Sequence[str]) -> list[str]:
        """Those columns in which nothing was found."""
        return [name for name in names if name not in self.explained]

    @cached_property
    def logits(self) -> np.ndarray:
        """The model's, of the kept rows [S]."""
        assert self.new
        return self.trained.logits(self.new.dense, self.new.ids)

    @cached_property
    def old_logits(self) -> np.ndarray:
        """The same of the rows that the model learned from."""
        rows = self.trained.rows
        assert rows
        return self.trained.logits(rows.dense, rows.ids)

    @cached_property
    def auc(self) -> float:
        """Of the rows; nan where logits are not finite or labels are all alike."""
        assert self.new
        return auc(self.new.labels, self.logits, self.new.weights) if np.isfinite(self.logits).all() else math.nan

    @cached_property
    def old_auc(self) -> float:
        """Of the rows that the model learned from."""
        rows = self.trained.rows
        assert rows
        return auc(rows.labels, self.old_logits, rows.weights) if np.isfinite(self.old_logits).all() else math.nan

    @property
    def expected_auc(self) -> float:
        """What the model had: on the rows that its report is of, or else on those that it learned from; nan if neither
        is known."""
        _, reported = self.trained.evaluated
        return self.old_auc if math.isnan(reported) and self.trained.rows else reported

    @property
    def code_again(self) -> str:
        """The command that codes raw rows as the model's."""
        numbered = Columns.numbered(len(self.columns.dense), len(self.columns.categorical))
        schema = self.schema or ("" if self.columns == numbered else "SCHEMA.yaml")
        return self._code + (f" --schema={schema}" if schema else "")

    @property
    def code_by_schema(self) -> str:
        """The same, where a schema must be written or mended first."""
        return f"{self._code} --schema={self.schema or 'SCHEMA.yaml'}"

    @property
    def _code(self) -> str:
        raw = self.place if self.raw else "RAW_FILE"
        return f"python src/preprocess_data.py --data_path={raw} --vocab_path={self.trained.folder} --output_path=NEW"


def of_folder(trained: Trained, data: DataFolder, place: str) -> Evidence:
    """Of a part of a data folder.

    Raises:
        InputError: it has no rows.
    """
    part = data.part_to_score()
    trained.take(data)
    found = Evidence(trained, place, data.manifest.columns(), data, part)
    found.new = rows_of(data, part)
    if part != "train":
        found.unmatched = unmatched_of(data.manifest, part, trained.manifest if found.is_coded_alike else None)
    return found


def of_raw(trained: Trained, raws: Sequence[Path], columns: Columns, place: str, schema: str = "") -> Evidence:
    """Of raw files, read only if their columns are the model's; place and schema are as the user named them."""
    found = Evidence(trained, place, columns)
    found.schema = schema
    found.raw = RawRows(raws, columns)
    if not columns_differ(columns, trained.manifest):
        found.raw = read(raws, columns, trained.encoder, trained.manifest)
        found.new, found.unmatched = found.raw.gathered, found.raw.unmatched
    return found


def columns_differ(columns: Columns, manifest: Manifest) -> bool:
    """Whether columns are others than a model's, or in another order."""
    known = manifest.columns()
    same = (known.dense, known.categorical, known.lists, known.shared)
    return (columns.dense, columns.categorical, columns.lists, columns.shared) != same
