"""Raw rows to a model in a Python program, by the very steps of the commands.

    from src.fit import FittedModel, fit

    schema = {"label": "clicked", "dense": ["price"], "categorical": ["site", "city"]}
    model = fit(frame, schema, folder="clicks", epochs=3)      # a DataFrame, or the path of raw files
    model.evaluate("test")["auc"], model.evaluate(labelled_frame)
    model.score(new_frame)                                     # probabilities of a click
    model.export("clicks_int8", table_type="int8")
    model = FittedModel("clicks")                              # again, in another process

The folder holds what the commands write, which may go on with it: `dataset/` of src/preprocess_data.py, `checkpoint/`
and logs of train.py, `export/` of export.py, and beside them `schema.yaml`, the columns.
"""

import html
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import mindspore as ms
import numpy as np
import pandas as pd
import yaml
from mindspore.train import Callback

from src.base.errors import InputError
from src.base.files import whole_file
from src.base.locks import hold_folder
from src.base.logs import warn
from src.checkpoints.names import CHECKPOINT, REPORT_PAGE, check_is_file
from src.data.manifest import PARTS, find
from src.export.exported import calibrating_rows, check_export_place, checkpoint_manifest
from src.export.folder import export_checkpoint
from src.model_utils.device_target import as_guest, set_device
from src.model_utils.options import options_of
from src.model_utils.parsing import read_yaml
from src.options import PROGRAMS, EvalOptions, ExportOptions, PreprocessDataOptions, TrainOptions, resolve_values
from src.preprocess_data import make_data_folder
from src.preprocessing.guess import guess_schema
from src.report.content import later_content
from src.report.files import Scored, take_up
from src.rows.cells.frames import write_frame
from src.rows.raw_files import find_raws
from src.rows.schema import load_schema
from src.run import train
from src.scorer import Scorer
from src.training.evaluation import evaluate_checkpoint
from src.training.prepare import start

_ROOT = Path(__file__).resolve().parents[1]
_DATA, _CHECKPOINTS, _EXPORT, _SCHEMA = "dataset", "checkpoint", "export", "schema.yaml"
_MARK = "# The columns of the rows that src/fit.py was given; what it made of them stands beside this file.\n"
_FRAME, _SCRATCH = "rows.parquet", ".rows-"
_LOGS = {"loss_file_name": "loss.log", "eval_file_name": "auc.log", "metrics_file_name": "metrics.jsonl"}
# Options that follow from the arguments, or are for command lines alone.
_TAKEN = {"data_path", "dataset_path", "output_path", "overwrite", "schema", "guess_schema", "ckpt_path", *_LOGS}
_NOT_HERE = ("yaml", "modelarts", "parallel")


def fit(
    rows: pd.DataFrame | str | Path,
    schema: Mapping[str, Any] | str | Path | None = None,
    recipe: Mapping[str, Any] | str | Path | None = None,
    *,
    label: str = "",
    folder: str | Path = "./fitted",
    overwrite: bool = False,
    callbacks: Sequence[Callback] = (),
    **options: Any,
) -> "FittedModel":
    """Preprocess rows, train on them, and export the best network.

    The last seventh of the rows validates and tests, so they should be in order of time; `split="random:user"` and the
    like say otherwise. Call it again with the same arguments after a stop, and the training goes on.

    Args:
        rows: a DataFrame, whose values are read as those of a Parquet file; or raw files, as --data_path names them.
        schema: the columns, as a file or the content of one (src/rows/schema.py); without it they are guessed from the
            first rows, into schema.yaml in the folder, and label must be given.
        recipe: a YAML file of options, or the name of one here, such as "best_config"; or options that differ from the
            default one's, which is cpu_config.yaml on a CPU.
        label: name of the label's column, without a schema.
        folder: where files go.
        overwrite: whether an earlier model there is replaced.
        callbacks: MindSpore's, or one's own.
        options: of src/preprocess_data.py and train.py by their names, such as epochs, seed, split; they go before the
            recipe. device_target is by default the device that MindSpore is set to.

    Raises:
        InputError: what a command would refuse, or an earlier model in the folder.
    """
    _check_rows(rows, schema, label)
    place = Path(folder).absolute()
    of_all = _options_of(recipe, options)
    of_all |= {
        "dataset_path": str(place / _DATA), "output_path": str(place / _DATA), "ckpt_path": str(place / _CHECKPOINTS),
        **{name: str(place / log) for name, log in _LOGS.items()},
    }  # fmt: skip
    _check_place(place, overwrite)
    chosen = resolve_values(TrainOptions, of_all | {"overwrite": overwrite, **_afresh(overwrite)}, "fit")
    with _rows_in(rows, place) as (data_path, _):
        of_rows = {"data_path": data_path, "schema": str(place / _SCHEMA), "overwrite": True}
        prepares = resolve_values(PreprocessDataOptions, of_all | of_rows, "fit")
        if schema is None:
            if isinstance(rows, pd.DataFrame):
                write_frame(rows, Path(data_path))
            schema = place / _SCHEMA
            print(guess_schema(find_raws(data_path), schema, overwrite=True, label_name=label))
        _keep_schema(schema, place / _SCHEMA)
        _write_rows(rows, prepares)
        data = make_data_folder(prepares)
    with as_guest():
        chosen.check_place(data)
        runtime = start(chosen.device, chosen.compute, chosen.parallel)
        train(chosen.data, chosen.network, chosen.optimization, chosen.schedule, chosen.evaluation, chosen.kept,
              runtime, callbacks)  # fmt: skip
    model = FittedModel(place)
    model.export(overwrite=True)
    return model


class FittedModel:
    """What `fit` made, from the files in its folder.

    Args:
        folder: of `fit`.

    Attributes:
        folder, data, checkpoint: it, its data folder and its checkpoint.

    Raises:
        InputError: there is no trained model.
    """

    def __init__(self, folder: str | Path):
        self.folder = Path(folder).absolute()
        self.data, self.checkpoint = self.folder / _DATA, self.folder / _CHECKPOINTS / CHECKPOINT
        check_is_file(self.checkpoint)
        self._scorer: Scorer | None = None

    def __repr__(self) -> str:
        return f"FittedModel({str(self.folder)!r})"

    @property
    def report(self) -> Path:
        """The report of the training, a page."""
        return self.checkpoint.with_name(REPORT_PAGE)

    def _repr_html_(self) -> str | None:
        """The report within a notebook."""
        if not self.report.is_file():
            return None
        page = html.escape(self.report.read_text(encoding="utf-8"))
        return f'<iframe srcdoc="{page}" style="width:100%;height:40em;border:0"></iframe>'

    def score(self, rows: pd.DataFrame | str | Path, has_labels: bool = False) -> np.ndarray:
        """Probabilities of a click [B] of raw rows.

        Args:
            rows: a DataFrame with the columns of the training rows but for the label, read as these were: as
                `Scorer.score` does where the model learned from text; or the path of raw files of their form.
            has_labels: whether the lines of a file without a header begin with a label, which is not used.

        Raises:
            InputError: a row can't be used, or a column is missing.
        """
        with as_guest():
            if self._scorer is None:
                if not (self.folder / _EXPORT).is_dir():
                    self.export()
                self._scorer = Scorer(self.folder / _EXPORT, ms.get_context("device_target"))
            if not isinstance(rows, pd.DataFrame):
                return self._scorer.score_lines(Path(rows), has_labels)
            manifest = self._scorer.model.manifest
            if not all(name.endswith(".parquet") for name in manifest.source["names"]):
                return self._scorer.score(rows)
            if not len(rows):
                return np.zeros(0, np.float32)
            with TemporaryDirectory() as scratch:
                write_frame(rows, Path(scratch) / _FRAME, manifest.columns().without_label().names)
                return self._scorer.score_lines(Path(scratch) / _FRAME)

    def evaluate(self, rows: pd.DataFrame | str | Path = "test", **options: Any) -> dict[str, float]:
        """Metrics of rows by name: acc, auc, logloss, and what eval.py logs beside these.

        Args:
            rows: a part of the data folder, train, valid or test; or labelled rows, as of `fit`.
            options: of eval.py, such as eval_batch_size.

        Raises:
            InputError: there are no such rows, or one can't be used.
        """
        if isinstance(rows, str) and rows in PARTS:
            return self._evaluate(self.data / rows, options)
        with _rows_in(rows, self.folder) as (data_path, scratch):
            given = {
                "data_path": data_path, "schema": str(self.folder / _SCHEMA), "vocab_path": str(self.data),
                "output_path": str(scratch / _DATA),
            }  # fmt: skip
            prepares = resolve_values(PreprocessDataOptions, given, "evaluate")
            _write_rows(rows, prepares)
            make_data_folder(prepares)
            return self._evaluate(scratch / _DATA, options)

    def _evaluate(self, data_path: Path, options: Mapping[str, Any]) -> dict[str, float]:
        chosen = self._resolved(EvalOptions, options, "evaluate", dataset_path=str(data_path))
        data = find(str(data_path))
        with as_guest():
            found = evaluate_checkpoint(
                self.checkpoint, data, data.part_to_score(), chosen.network, start(chosen.device, chosen.compute),
                chosen.score.eval_batch_size,
            )  # fmt: skip
        assert found  # of one process
        part = data.part_to_score()
        take_up(self.checkpoint, later_content(data, part, Scored(*found.scores), found.intervals))
        if found.warning:
            warn(found.warning)
        return {"rows": found.rows, **found.metrics, **found.beside}

    def export(self, folder: str | Path = "", **options: Any) -> Path:
        """Write an export folder, with which the C++ program and `Scorer` score, and return its place.

        Args:
            folder: where; by default export/ in the model's folder, which `score` uses.
            options: of export.py, such as file_format, table_type, overwrite, calibrate.

        Raises:
            InputError: as of export.py.
        """
        place = Path(folder).absolute() if folder else self.folder / _EXPORT
        own = {"export_path": str(place), "dataset_path": str(self.data), "apply_delta": "", "publish": ""}
        chosen = self._resolved(ExportOptions, options, "export", **own)
        spec = chosen.export
        check_export_place(spec)
        data = calibrating_rows(spec)
        with as_guest():
            set_device(chosen.device.device_target, chosen.device.device_id)
            export_checkpoint(self.checkpoint, checkpoint_manifest(self.checkpoint), chosen.network, spec, data)
        if not folder:
            self._scorer = None
        return place

    def _resolved(self, program: type[Any], options: Mapping[str, Any], where: str, **own: str) -> Any:
        """The options of a program for this model; those that follow from it can't be given."""
        own["checkpoint_path"] = str(self.checkpoint)
        _check_known(options, {name for name in options_of(program) if name not in own}, where)
        return resolve_values(program, {"device_target": ms.get_context("device_target"), **options, **own}, where)


def _check_rows(rows: Any, schema: Any, label: str) -> None:
    if not isinstance(rows, pd.DataFrame | str | Path):
        raise InputError(f"rows is of type {type(rows).__name__}: give a pandas DataFrame, or the path of raw files")
    if schema is None and not label:
        raise InputError("give a schema, or label, the name of the label's column, to let the others be guessed")
    if schema is not None and label:
        raise InputError(f"label {label!r} has no effect with a schema, which names it: drop one of them")


def _check_known(options: Mapping[str, Any], known: set[str], where: str) -> None:
    """Refuse options of other programs, and those that follow from the arguments."""
    for name in options:
        if name in PROGRAMS.all_options() and name not in known:
            raise InputError(f"{where}: {name} is none of its options, or follows from its arguments: drop it")


def _options_of(recipe: Mapping[str, Any] | str | Path | None, options: Mapping[str, Any]) -> dict[str, Any]:
    """The options that were given, and the recipe's file among them."""
    takes = options_of(PreprocessDataOptions) | options_of(TrainOptions)
    known = {name for name, one in takes.items() if one.spec not in _NOT_HERE} - _TAKEN
    of_recipe = dict(recipe) if isinstance(recipe, Mapping) else {}
    _check_known({**of_recipe, **options}, known, "fit")
    found = {**of_recipe, **options}
    named: Mapping[str, Any] = {}
    if recipe is not None and not isinstance(recipe, Mapping):
        path = _recipe_file(recipe)
        found["config_path"], named = str(path), read_yaml(path, PROGRAMS.all_options())
    if "device_target" not in named:
        found.setdefault("device_target", ms.get_context("device_target"))
    return found


def _recipe_file(recipe: str | Path) -> Path:
    """The YAML file of a recipe, by its path or by its name in the repository."""
    places = [Path(recipe), _ROOT / recipe, _ROOT / f"{recipe}.yaml"]
    for place in places:
        if place.is_file():
            return place.absolute()
    known = ", ".join(sorted(path.name for path in _ROOT.glob("*_config.yaml")))
    raise InputError(f"recipe {str(recipe)!r} is no file: name a YAML file of options, or one of {known}")


def _check_place(folder: Path, overwrite: bool) -> None:
    schema = folder / _SCHEMA
    is_ours = schema.is_file() and schema.read_text(encoding="utf-8", errors="replace").startswith(_MARK)
    if folder.exists() and not is_ours and not (folder.is_dir() and not any(folder.iterdir())):
        raise InputError(f"folder {folder} is not empty, and no model that fit has made: name another folder")
    if (folder / _CHECKPOINTS / CHECKPOINT).exists() and not overwrite:
        raise InputError(
            f"folder {folder} holds an earlier model, which FittedModel({str(folder)!r}) of "
            f"src.fit opens: to train anew, name another folder, or give overwrite=True"
        )


def _afresh(overwrite: bool) -> dict[str, bool]:
    return {"resume": False} if overwrite else {}


@contextmanager
def _rows_in(rows: pd.DataFrame | str | Path, folder: Path) -> Iterator[tuple[str, Path]]:
    """Where raw rows are read, or a DataFrame is to be written to be read, and a folder for what is made meanwhile."""
    folder.mkdir(parents=True, exist_ok=True)
    for left in folder.glob(f"{_SCRATCH}*"):  # by a process that was killed
        with suppress(InputError), hold_folder(left, str(left)):
            shutil.rmtree(left)
    with TemporaryDirectory(dir=folder, prefix=_SCRATCH) as scratch, hold_folder(Path(scratch), scratch):
        yield str(Path(scratch) / _FRAME if isinstance(rows, pd.DataFrame) else rows), Path(scratch)


def _keep_schema(schema: Mapping[str, Any] | str | Path, target: Path) -> None:
    """Write a schema, if it is one, beside what is made with it."""
    if isinstance(schema, Mapping):
        text = yaml.safe_dump(dict(schema), allow_unicode=True, sort_keys=False)
    else:
        if not Path(schema).is_file():
            raise InputError(f"schema {schema} is not a file: name a YAML file, or give its content")
        text = Path(schema).read_text(encoding="utf-8", errors="surrogateescape")
    target.parent.mkdir(parents=True, exist_ok=True)
    with whole_file(target) as file:
        file.write((_MARK + text.removeprefix(_MARK)).encode(errors="surrogateescape"))


def _write_rows(rows: pd.DataFrame | str | Path, prepares: PreprocessDataOptions) -> None:
    """Write a DataFrame, of its columns those that are read, where options say that the rows are."""
    if isinstance(rows, pd.DataFrame):
        columns = replace(load_schema(Path(prepares.raw.schema)), split=prepares.preprocessing.part_rule)
        write_frame(rows, Path(prepares.raw.data_path), columns.read_names)
