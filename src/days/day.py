"""A day: its rows prepared, scored by the earlier model, trained on, scored again, exported, and the models compared.

Each step leaves something in the day's folder that is there whole or not at all, and is passed over where that is
there: so a day that was killed goes on with the step that it was in, and that step, if it is long, where it was.
"""

import json
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from src.base.errors import AlreadyDone, InputError
from src.base.events import happens
from src.base.files import whole_file
from src.base.logs import warn
from src.base.npz import save_arrays
from src.base.sealed import check_json, sealed_json
from src.data.manifest import DataFolder, find, is_data_folder
from src.days.model_folder import ModelFolder, RawFile
from src.days.recipe import Recipe
from src.export.exported import calibrating_rows, checkpoint_manifest, is_delta, is_export
from src.export.folder import export_checkpoint
from src.model_utils.device_target import as_guest, set_device
from src.preprocess_data import make_data_folder
from src.run import train
from src.training.evaluation import Scores, score_checkpoint
from src.training.prepare import start

_PLAN, VERDICT = "day.json", "verdict.json"
_REMEDY = "throw the stopped day away with --resume=False"
HELD_OUT = "test"  # what neither model has learned from, nor was chosen by


@dataclass(frozen=True)
class Day:
    """A day of a model.

    Attributes:
        model: the model.
        number: of the day, from 1.
        recipe: its options.
        data_path: where its raw files are.
        files: these.
        earlier: folder of the day whose model it goes on from; None on the first one.
    """

    model: ModelFolder
    number: int
    recipe: Recipe
    data_path: str
    files: tuple[RawFile, ...]
    earlier: Path | None

    @property
    def folder(self) -> Path:
        """Where all of it is."""
        return self.model.folder_of(self.number)

    @property
    def checkpoint(self) -> Path:
        """The checkpoint folder."""
        return self.folder / "checkpoint"

    @property
    def earlier_checkpoint(self) -> Path | None:
        """That of the model it goes on from."""
        return self.earlier / "checkpoint" if self.earlier else None

    @property
    def data(self) -> DataFolder:
        """Its rows, coded by its own encoder."""
        return find(str(self.folder / "dataset"))

    @property
    def known(self) -> DataFolder:
        """Its rows, coded by the earlier model's encoder."""
        return find(str(self.folder / "known"))

    def begin(self, resume: bool) -> None:
        """Make the folder, or go on in that of this very day where it was stopped.

        Raises:
            InputError: a day was stopped that had other files or options.
        """
        own = json.loads(json.dumps({
            "files": [asdict(file) for file in self.files], "kept": self.recipe.kept,
            "given": _lasting(self.recipe.given), "earlier": self.earlier.name if self.earlier else None,
        }))  # fmt: skip
        before = plan_in(self.folder)
        # A mistake that was found before can be mended as if nothing had been begun.
        is_prepared = any(is_data_folder(self.folder / name) for name in ("known", "dataset"))
        if before and is_prepared and (resume or (self.folder / VERDICT).is_file()):
            if not self.recipe.first:
                before["kept"] = own["kept"]  # which may be edited between days
            if before["files"] != own["files"]:
                names = ", ".join(file["name"] for file in before["files"])
                raise InputError(
                    f"day {self.number} was stopped, of other files, {names}: let that go on, or {_REMEDY}"
                )
            if before == own:
                print(f"going on with day {self.number}, which was stopped", flush=True)
                return
            raise InputError(
                f"day {self.number} was stopped, with other options: give it those of then, "
                f"{before['given'] or before['kept']}, or {_REMEDY}"
            )
        if not (before and resume and before["files"] == own["files"]):
            (self.folder / _PLAN).unlink(missing_ok=True)  # first, so that what is left is never gone on with
            shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.mkdir(parents=True, exist_ok=True)
        self.recipe.keep()
        self.recipe.check(self.folder, self.earlier_checkpoint)
        with whole_file(self.folder / _PLAN, sync=True) as file:
            file.write(sealed_json(own).encode())
        happens("the day is begun")

    def prepare_rows(self) -> None:
        """Code the rows by the earlier encoder, and by that one grown by them."""
        known, dataset, earlier = self.folder / "known", self.folder / "dataset", self.earlier_checkpoint
        if earlier and not is_data_folder(known):
            make_data_folder(self.recipe.codes(self.data_path, known, earlier))
            happens("the rows are coded by the earlier encoder")
        if not is_data_folder(dataset):
            make_data_folder(self.recipe.prepares(self.data_path, dataset, earlier))
            happens("the rows are prepared")
        if HELD_OUT not in self.data.manifest.parts:
            raise InputError(
                f"day {self.number} holds out no rows on which models could be compared: give more rows, or a smaller "
                f"--valid_fraction; {_REMEDY}"
            )

    def score_before(self) -> None:
        """Score all rows by the earlier model, which has seen none of them."""
        path = self.folder / "before.npz"
        if self.earlier_checkpoint and not path.is_file():
            _save_scores(path, self._scored(self.earlier_checkpoint, self.known, "test"))
            happens("the earlier model has scored")

    def train(self) -> None:
        """Train on the rows of the day that are for it."""
        options = self.recipe.trains(self.folder / "dataset", self.folder, self.earlier_checkpoint)
        try:
            options.check_place(self.data)
        except AlreadyDone:
            return
        with as_guest():
            runtime = start(options.device, options.compute, options.parallel)
            train(options.data, options.network, options.optimization, options.schedule, options.evaluation,
                  options.kept, runtime)  # fmt: skip
        happens("the day is trained on")

    def score_after(self) -> None:
        """Score the held-out rows by the new model."""
        path = self.folder / "after.npz"
        if not path.is_file():
            _save_scores(path, self._scored(self.checkpoint, self.data, HELD_OUT))
            happens("the new model has scored")

    def export(self) -> None:
        """Export the new model, and what it changed since the earlier one, if that is asked for."""
        place, delta = self.folder / "export", self.folder / "delta"
        if not is_export(place):
            self._export(place, None)
            happens("the new model is exported")
        if self.earlier and self.recipe.spec.delta and not is_delta(delta):
            if not is_export(self.earlier / "export"):
                warn(f"no delta is written, as {self.earlier / 'export'} is gone")
                return
            self._export(delta, self.earlier / "export")

    def _export(self, place: Path, earlier: Path | None) -> None:
        options = self.recipe.exports(self.checkpoint, self.folder / "dataset", place, earlier)
        path = self.checkpoint / "dlrm.ckpt"
        with as_guest():
            set_device(options.device.device_target, options.device.device_id)
            export_checkpoint(
                path, checkpoint_manifest(path), options.network, options.export, calibrating_rows(options.export)
            )

    def _scored(self, checkpoint: Path, data: DataFolder, part: str) -> Scores:
        options = self.recipe.evaluates(checkpoint)
        with as_guest():
            return score_checkpoint(
                checkpoint / "dlrm.ckpt", data, part, options.network, start(options.device, options.compute),
                options.score.eval_batch_size,
            )  # fmt: skip

    def scores(self, when: str) -> Scores:
        """Labels, logits, and weights if there are some: all rows "before", the held-out ones "after"."""
        with np.load(self.folder / f"{when}.npz") as arrays:
            return tuple(arrays[name] for name in ("labels", "logits", "weights") if name in arrays)

    def held_out_before(self) -> Scores:
        """Those of the earlier model on the rows that the new one is compared on, the last ones of the day.

        Raises:
            InputError: they are others, as the raw files changed meanwhile.
        """
        after = self.scores("after")
        rows = len(after[0])
        before = tuple(column[-rows:] for column in self.scores("before"))
        if not np.array_equal(before[0], after[0]):
            raise InputError(f"the raw files of day {self.number} changed while it was at work: {_REMEDY}")
        return before


def plan_in(folder: Path) -> dict[str, Any]:
    """What a day's folder says of a day that was begun there; nothing if none was.

    Raises:
        InputError: it is damaged.
    """
    path = folder / _PLAN
    if not path.is_file():
        return {}
    try:
        return check_json(dict(json.loads(path.read_text(encoding="utf-8"))), path, _REMEDY)
    except ValueError as error:
        raise error if isinstance(error, InputError) else InputError(f"{path} is no JSON: {_REMEDY}") from None


def _lasting(given: dict[str, Any]) -> dict[str, Any]:
    """The options that a stopped day must have again."""
    free = ("fail_below", "keep_days", "retry", "resume")
    return {name: value for name, value in given.items() if name not in free}


def _save_scores(path: Path, scores: Scores) -> None:
    save_arrays(path, dict(zip(("labels", "logits", "weights"), scores)))
