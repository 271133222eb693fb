"""Checkpoints: the values of the network alone, and beside them what is needed to use it.

    checkpoint/dlrm.ckpt         the best network by validation AUC, or the last one without validation rows
    checkpoint/dlrm.yaml         the options of the run
    checkpoint/manifest.json     facts of the training data
    checkpoint/vocabulary.npz    category -> id
    checkpoint/unfinished/       the same of a run that has not ended, or was stopped, and what it needs to go on

A field's table is an entry of its own, embedding.C1 and so on, so a checkpoint does not depend on how the tables lie
in memory or over devices.
"""

import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import mindspore as ms
import numpy as np
from mindspore import Tensor

from src.cpu_kernels import Kernels
from src.dlrm import DLRM
from src.embedding import EmbeddingTables
from src.errors import InputError, check_space, naming
from src.locks import hold
from src.manifest import MANIFEST, VOCABULARY, DataFolder, Manifest
from src.model_utils.config import differing_option

CHECKPOINT, UNFINISHED = "dlrm.ckpt", "unfinished"
_LOCK = ".lock"
_TABLE = "embedding."


class Run:
    """The files of a training run, in a subfolder until it ends well, so that no unfinished one looks whole.

    A run that was stopped leaves the subfolder, and the next one goes on there. A context, which holds a lock on it.

    Args:
        folder: the checkpoint folder.
        data: the data, whose manifest and vocabulary are kept with the checkpoint.
        options_name, options: name and text of the file of options.
        overwrite: whether the folder's checkpoint may be replaced when the run ends.
        resume: whether to go on with a run that was stopped; otherwise its files are thrown away.

    Attributes:
        path: the subfolder.
        state: what src/resume.py keeps.

    Raises:
        InputError: the folder already holds a checkpoint, which overwrite does not allow to be replaced; another run
            is at work there, or one was stopped that had other options or data.
    """

    def __init__(
        self, folder: Path, data: DataFolder, options_name: str, options: str, *, overwrite: bool = False,
        resume: bool = True,
    ):  # fmt: skip
        if (folder / CHECKPOINT).exists() and not overwrite:
            raise InputError(
                f"ckpt_path {folder} already holds {CHECKPOINT}: name another --ckpt_path, or replace it with "
                f"--overwrite=True"
            )
        data.manifest.verify(data.path, [VOCABULARY])
        self.folder, self.path, self._options_name = folder, folder / UNFINISHED, options_name
        self.state = self.path / "state.npz"
        self.path.mkdir(parents=True, exist_ok=True)
        self._lock = hold(self.path / _LOCK, f"ckpt_path {folder}")
        try:
            with naming(self.path):
                if resume and self.state.is_file():
                    self._check_same(data, options)
                else:
                    self._start(data, options)
        except BaseException:
            self._lock.close()
            raise

    def __enter__(self) -> "Run":
        return self

    def __exit__(self, *_: Any) -> None:
        self._lock.close()

    def _start(self, data: DataFolder, options: str) -> None:
        for path in sorted(self.path.iterdir(), key=lambda path: path != self.state):  # the state goes first
            if path.name != _LOCK:
                path.unlink()
        _link_or_copy(data.path / VOCABULARY, self.path / VOCABULARY)
        shutil.copyfile(data.path / MANIFEST, self.path / MANIFEST)
        (self.path / self._options_name).write_text(options, encoding="utf-8")

    def _check_same(self, data: DataFolder, options: str) -> None:
        """Refuse to go on with other options or data than those the run began with."""
        kept = self.path / self._options_name
        difference = differing_option(kept.read_text(encoding="utf-8"), options)
        if not difference and Manifest.load(self.path / MANIFEST) != data.manifest:
            difference = f"other data than {data.path}"
        if difference:
            raise InputError(
                f"{self.path} holds a training that was stopped, with {difference}: go on with what it had, name "
                f"another --ckpt_path, or throw it away with --resume=False"
            )
        kept.write_text(options, encoding="utf-8")  # of those that may differ, the checkpoint gets the new ones

    def best(self, step: int) -> Path:
        """Where the best network so far, that of a step, is kept. Each has a name of its own, so that a state always
        finds the one it goes with, whenever the run is killed."""
        return self.path / f"best-{step}.ckpt"

    def forget_all_but(self, step: int) -> None:
        """Remove the best networks of other steps."""
        for path in self.path.glob("best-*.ckpt"):
            if path != self.best(step):
                path.unlink()

    def finish(self, step: int) -> Path:
        """Put the files of a run that ended well in their places, the best network, that of a step, last.

        Returns:
            The checkpoint's path.
        """
        target = self.folder / CHECKPOINT
        with naming(self.folder):
            target.unlink(missing_ok=True)  # it must not stand beside another run's options
            for name in (self._options_name, MANIFEST, VOCABULARY):
                beside = self.folder / f"{name}.writing"
                beside.unlink(missing_ok=True)
                _link_or_copy(self.path / name, beside)
                os.replace(beside, self.folder / name)
                beside.unlink(missing_ok=True)  # two links to one file: renaming one to the other leaves both
            os.replace(self.best(step), target)
            shutil.rmtree(self.path)
        return target


def save(model: DLRM, fields: Sequence[str], path: Path) -> None:
    """Write the network's values to a MindSpore checkpoint file, whole or not at all.

    Args:
        model: the network.
        fields: names of the categorical columns.
        path: the file, ending in .ckpt.

    Raises:
        InputError: a value is not finite; MindSpore's ReLU on CPU makes 0 of nan, so the loss need not show it.
    """
    values = {parameter.name: parameter.asnumpy() for parameter in model.mlp_parameters()}
    values |= {_TABLE + field: table for field, table in zip(fields, model.tables.field_values())}
    for name, value in values.items():
        if not np.isfinite(value).all():
            raise InputError(f"{name} holds values that are not finite: training diverged; try a smaller --lr")
    entries = [{"name": name, "data": Tensor.from_numpy(value)} for name, value in values.items()]
    # MindSpore removes the old file before it writes the new one, so it gets a name of its own.
    beside = path.with_name(f"{path.stem}.writing.ckpt")
    check_space(path, sum(value.nbytes for value in values.values()))  # MindSpore would add lines of its own
    with naming(path):
        ms.save_checkpoint(entries, str(beside))
        beside.chmod(0o644)
        os.replace(beside, path)


def check_encoder(path: Path, data: DataFolder) -> None:
    """Refuse a data folder whose vocabulary is not the one that the checkpoint at `path` was trained with.

    A checkpoint without a manifest beside it can't be compared, which one line says.
    """
    beside = path.parent / MANIFEST
    if not path.is_file():
        raise InputError(f"checkpoint_path {path} is not a file: name a checkpoint that train.py wrote")
    if not beside.is_file():
        print(f"{path} has no {MANIFEST} beside it: whether its ids are those of {data.path} is not known", flush=True)
        return
    digests = [
        next((file.sha256 for file in manifest.files if file.name == VOCABULARY), None)
        for manifest in (Manifest.load(beside), data.manifest)
    ]
    if None in digests or digests[0] != digests[1]:
        raise InputError(
            f"checkpoint {path} was trained with another vocabulary than that of {data.path}, so its rows "
            f"stand for other categories: evaluate it on the data folder it was trained from"
        )


def load(
    path: Path,
    fields: Sequence[str],
    table_rows: Sequence[int],
    emb_dim: int,
    kernels: Kernels | None = None,
    **network: Any,
) -> DLRM:
    """The network of a checkpoint.

    Args:
        path: a file that `save` wrote.
        fields: names of the categorical columns.
        table_rows: rows of each field's table.
        emb_dim: width of an embedding vector.
        kernels: the compiled operators, if they are to be used.
        network: the other arguments of DLRM.

    Raises:
        InputError: no such file, not a checkpoint, or values of other names or sizes.
    """
    if not path.is_file():
        raise InputError(f"checkpoint_path {path} is not a file: name a checkpoint that train.py wrote")
    try:
        entries = ms.load_checkpoint(str(path))
    except (ValueError, RuntimeError, OSError) as error:
        raise InputError(
            f"checkpoint_path {path} is not a MindSpore checkpoint, or a damaged one "
            f"({str(error).strip().splitlines()[0]}): name one that train.py wrote"
        ) from None
    values = np.empty((sum(table_rows), emb_dim), np.float32)
    start = 0
    for field, rows in zip(fields, table_rows):
        table = _entry(entries, path, _TABLE + field, (rows, emb_dim))
        values[start : start + rows] = table.asnumpy()
        start += rows
        del table
    model = DLRM(tables=EmbeddingTables(table_rows, values, kernels), **network)
    for parameter in model.mlp_parameters():
        parameter.set_data(_entry(entries, path, parameter.name, parameter.shape))
    if entries:
        raise InputError(
            f"checkpoint {path} holds {sorted(entries)[0]}, which this model has not: give the "
            f"options and the data folder that it was trained with"
        )
    return model


def _entry(entries: dict[str, Any], path: Path, name: str, shape: tuple[int, ...]) -> Any:
    """Take an entry out, so that its memory can go as soon as it is copied."""
    found = entries.pop(name, None)
    if found is None or tuple(found.shape) != tuple(shape):
        has = "has no such entry" if found is None else f"has {list(found.shape)}"
        raise InputError(
            f"checkpoint {path} {has} for {name}, the model needs {list(shape)}: give the options and the "
            f"data folder that it was trained with"
        )
    return found


def _link_or_copy(source: Path, target: Path) -> None:
    """A hard link where the file system can, since full Criteo's vocabulary has 270 MB."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)
