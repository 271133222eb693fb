"""Checkpoints: the values of the network alone, and beside them what is needed to use it.

    checkpoint/dlrm.ckpt         the best network by validation AUC, or the last one without evaluation
    checkpoint/dlrm.yaml         the options of the run
    checkpoint/manifest.json     facts of the training data
    checkpoint/vocabulary.npz    category -> id

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

from src.dlrm import DLRM
from src.embedding import EmbeddingTables
from src.errors import InputError
from src.manifest import MANIFEST, VOCABULARY, DataFolder, Manifest

CHECKPOINT = "dlrm.ckpt"
_TABLE = "embedding."


def start_folder(folder: Path, data: DataFolder, options_name: str, options: str, overwrite: bool) -> None:
    """Make the folder and put the options (YAML text, under that name), manifest and vocabulary there.

    Raises:
        InputError: it already holds a checkpoint, which overwrite does not allow to be replaced.
    """
    if (folder / CHECKPOINT).exists() and not overwrite:
        raise InputError(
            f"ckpt_path {folder} already holds {CHECKPOINT}: name another --ckpt_path, or replace it with "
            f"--overwrite=True"
        )
    data.manifest.verify(data.path, [VOCABULARY])
    folder.mkdir(parents=True, exist_ok=True)
    (folder / CHECKPOINT).unlink(missing_ok=True)
    _replace(folder / VOCABULARY, lambda beside: _link_or_copy(data.path / VOCABULARY, beside))
    _replace(folder / MANIFEST, lambda beside: shutil.copyfile(data.path / MANIFEST, beside))
    _replace(folder / options_name, lambda beside: beside.write_text(options, encoding="utf-8"))


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
    ms.save_checkpoint(entries, str(beside))
    beside.chmod(0o644)
    os.replace(beside, path)


def check_encoder(path: Path, data: DataFolder) -> None:
    """Refuse a data folder whose vocabulary is not the one that the checkpoint at `path` was trained with.

    A checkpoint without a manifest beside it can't be compared, which one line says.
    """
    beside = path.parent / MANIFEST
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


def load(path: Path, fields: Sequence[str], table_rows: Sequence[int], emb_dim: int, **network: Any) -> DLRM:
    """The network of a checkpoint.

    Args:
        path: a file that `save` wrote.
        fields: names of the categorical columns.
        table_rows: rows of each field's table.
        emb_dim: width of an embedding vector.
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
    model = DLRM(tables=EmbeddingTables(table_rows, values), **network)
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


def _replace(path: Path, write: Any) -> None:
    beside = path.with_name(path.name + ".tmp")
    beside.unlink(missing_ok=True)
    write(beside)
    os.replace(beside, path)
    beside.unlink(missing_ok=True)  # two links to one file: renaming one to the other leaves both


def _link_or_copy(source: Path, target: Path) -> None:
    """A hard link where the file system can, since full Criteo's vocabulary has 270 MB."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)
