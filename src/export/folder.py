"""The folder of an exported model, with which alone raw rows can be scored.

export/dlrm.mindir       the graph, from rows to probabilities; .onnx or .air in other forms
export/dlrm.tables       the tables, where the host looks them up
export/dlrm.model        what goes in, and the files with their checksums
export/manifest.json     the columns of raw rows
export/vocabulary.npz    the encoder: category -> id, and what else is learned of the columns
"""

import shutil
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from src.base.errors import InputError
from src.base.files import whole_folder
from src.base.sealed import Facts, begins_as, read_facts, write_facts
from src.checkpoints.checkpoint import fill_mlps, full_width
from src.data.manifest import MANIFEST, VOCABULARY, Manifest
from src.dlrm import DLRM
from src.export.calibration import Calibration
from src.export.graph import export_graph
from src.export.options import ExportSpec
from src.export.table_file import TableFile, write_tables
from src.network.embedding import EmbeddingTables, joint_rows, whole_fields
from src.network.options import NetworkSpec

DESCRIPTION = ".model"
_CHUNK_BYTES = 1 << 20
_REMEDY = "export the model again"
_FROM_TRAINING = f"put {MANIFEST} and {VOCABULARY} there as train.py wrote them"


def checksum(path: Path) -> str:
    """CRC-32 of a file, 8 hex digits."""
    crc = 0
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK_BYTES):
            crc = zlib.crc32(chunk, crc)
    return f"{crc:08x}"


def is_export(folder: Path) -> bool:
    """Whether a folder holds an exported model, damaged or not."""
    return any(begins_as(path, "model") for path in folder.glob(f"*{DESCRIPTION}"))


def table_placement(wanted: str, table_type: str, table_rows: Sequence[int], width: int, graph_mb: int) -> str:
    """Where the tables go, "graph" or "host": as wanted; for "auto" into the graph up to so many MB of float32."""
    if wanted != "auto":
        return wanted
    return "graph" if table_type == "fp32" and 4 * sum(table_rows) * width <= graph_mb * 1e6 else "host"


@dataclass(frozen=True)
class Export:
    """A model that is to be exported.

    Attributes:
        checkpoint: the checkpoint, in one part or several.
        manifest: the one beside it.
        network: its shape.
        placement: "graph" or "host", from `table_placement`.
        calibration: of the scores, None for none.
    """

    checkpoint: Path
    manifest: Manifest
    network: NetworkSpec
    placement: str
    calibration: Calibration | None = None


def checkpoint_manifest(checkpoint_path: Path) -> Manifest:
    """The manifest beside a checkpoint.

    Raises:
        InputError: there is none, or the vocabulary is missing or damaged, so raw rows could not be scored.
    """
    folder = checkpoint_path.parent
    if not (folder / MANIFEST).is_file():
        raise InputError(
            f"checkpoint {checkpoint_path} has no {MANIFEST} beside it, without which raw rows can't be coded: "
            f"{_FROM_TRAINING}"
        )
    manifest = Manifest.load(folder / MANIFEST, _FROM_TRAINING)
    manifest.verify(folder, [VOCABULARY], _FROM_TRAINING)
    return manifest


def write_export(model: Export, spec: ExportSpec) -> None:
    """Export a model to the folder export_path, which is there whole or not at all, in place of an earlier one.

    Raises:
        InputError: the checkpoint does not fit the network, or MindSpore can't write this form here.
    """
    with whole_folder(Path(spec.export_path)) as beside:
        _write(model, spec, beside)


def _write(export: Export, spec: ExportSpec, folder: Path) -> None:
    manifest, name, placement = export.manifest, spec.file_name, export.placement
    table_rows, emb_dim, dense_dim = manifest.table_rows, export.network.emb_dim, len(manifest.inputs)
    parts, fill = full_width(export.checkpoint, manifest, export.network)
    if placement == "graph":
        tables = EmbeddingTables(table_rows, joint_rows(whole_fields(table_rows), emb_dim, fill))
    else:  # of which the graph has only the widths
        tables = EmbeddingTables([1] * len(table_rows), np.zeros((len(table_rows), emb_dim), np.float32))
    model = DLRM(dense_dim, tables, export.network)
    fill_mlps(model, parts)
    calibrated: list[tuple[Any, ...]] = []
    if export.calibration:
        export.calibration.put_into(model)
        calibrated = [("calibration", export.calibration.temperature, export.calibration.bias)]
    files = export_graph(model, folder, spec, dense_dim, placement)
    tables_of: list[tuple[Any, ...]] = []
    if placement == "host":
        table = folder / f"{name}.tables"
        write_tables(table, table_rows, emb_dim, fill, spec.table_type)
        tables_of = [("table", table.name, table.stat().st_size, TableFile(table).identity)]
    parts.check_all_read()
    for kept in (MANIFEST, VOCABULARY):
        shutil.copyfile(export.checkpoint.with_name(kept), folder / kept)
    facts = [
        ("format", spec.file_format),
        ("graph", files[0].relative_to(folder).as_posix()),
        ("placement", placement),
        ("batch_size", spec.export_batch_size),
        ("dense", dense_dim),
        ("width", emb_dim),
        ("vocabulary", manifest.sha256(VOCABULARY)),
        *(("field", field, rows) for field, rows in zip(manifest.fields, table_rows)),
        *calibrated,
        *tables_of,
        *(("file", path.relative_to(folder).as_posix(), path.stat().st_size, checksum(path)) for path in files),
    ]
    write_facts(folder / f"{name}{DESCRIPTION}", "model", facts)


@dataclass(frozen=True)
class ExportFolder:
    """An exported model that is there whole.

    Attributes:
        path: the folder.
        graph: file of the graph.
        table: the tables, or None where the graph has them.
        batch_size: rows that the graph takes at once.
        width: D.
        vocabulary: SHA-256 of the vocabulary.
        manifest: facts of the data it was trained on.
    """

    path: Path
    graph: Path
    table: TableFile | None
    batch_size: int
    width: int
    vocabulary: str
    manifest: Manifest

    @classmethod
    def load(cls, path: Path) -> "ExportFolder":
        """Read and check an exported model: its folder, or a file in it.

        The rows of a table file are checked when they are looked up.

        Raises:
            InputError: there is none, or a file of it is missing, damaged, or another model's.
        """
        folder = path if path.is_dir() else path.parent
        found = sorted(folder.glob(f"*{DESCRIPTION}"))
        if len(found) != 1:
            raise InputError(
                f"{path} is no exported model: {folder} holds {len(found)} files named *{DESCRIPTION}, which export.py "
                f"writes; name its --export_path"
            )
        if not path.exists():
            raise InputError(f"{path} is not there: name what export.py wrote in {folder}")
        try:
            return cls._of_facts(folder, read_facts(found[0], "model"))
        except (KeyError, IndexError, ValueError) as error:
            if isinstance(error, InputError):
                raise
            raise InputError(f"{found[0]} is not as this version of the program writes it: {_REMEDY}") from None

    @classmethod
    def _of_facts(cls, folder: Path, facts: Facts) -> "ExportFolder":
        single = {key: values[0][0] for key, values in facts.items()}
        files = {name: (int(size), crc) for name, size, crc in facts["file"]}
        for name, (file_bytes, crc) in files.items():
            file = _sized(folder, name, file_bytes)
            if checksum(file) != crc:
                raise InputError(f"{file} is damaged (its checksum differs): {_REMEDY}")
        if single["graph"] not in files:
            raise InputError(f"{folder / single['graph']} is not among the files of its description: {_REMEDY}")
        fields = {name: int(rows) for name, rows in facts["field"]}
        table = None
        for name, size, identity in facts.get("table", []):
            table = TableFile(_sized(folder, name, int(size)))
            if table.identity != identity:
                raise InputError(f"{table.path} is of another export than the model: {_REMEDY}")
        manifest = _manifest_of(folder, single["vocabulary"], int(single["dense"]), fields)
        return cls(
            folder, folder / single["graph"], table, int(single["batch_size"]), int(single["width"]),
            single["vocabulary"], manifest,
        )  # fmt: skip


def _sized(folder: Path, name: str, size: int) -> Path:
    """A file of the folder that has so many bytes."""
    file = folder / name
    if Path(name).is_absolute() or ".." in Path(name).parts:
        raise InputError(f"{file} is no file in an exported model's folder: {_REMEDY}")
    if not file.is_file() or file.stat().st_size != size:
        raise InputError(f"{file} is missing or has not its {size} bytes: {_REMEDY}")
    return file


def _manifest_of(folder: Path, vocabulary: str, dense_dim: int, fields: dict[str, int]) -> Manifest:
    """The manifest of an exported model, which, as the vocabulary beside it, must be that model's own."""
    if not (folder / MANIFEST).is_file():
        raise InputError(f"{folder / MANIFEST} is missing: {_REMEDY}")
    manifest = Manifest.load(folder / MANIFEST, _REMEDY)
    found = (manifest.sha256(VOCABULARY), len(manifest.inputs), dict(zip(manifest.fields, manifest.table_rows)))
    if found != (vocabulary, dense_dim, fields) or tuple(fields) != manifest.fields:
        raise InputError(f"{folder / MANIFEST} is of another model: {_REMEDY}")
    manifest.verify(folder, [VOCABULARY], _REMEDY)
    return manifest
