"""The folder of an exported model, with which alone raw rows can be scored.

export/dlrm.mindir       the graph, from rows to probabilities; .onnx or .air in other forms
export/dlrm.tables       the tables, where the host looks them up
export/dlrm.model        what goes in, and the files with their checksums
export/manifest.json     the columns of raw rows
export/vocabulary.npz    the encoder: category -> id, and what else is learned of the columns
"""

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from src.base.errors import InputError
from src.base.files import whole_folder
from src.base.sealed import write_facts
from src.checkpoints.checkpoint import fill_mlps, full_width
from src.data.manifest import MANIFEST, VOCABULARY, DataFolder, Manifest, dense_dim_of, has_fields
from src.dlrm import DLRM
from src.export.calibration import Calibration, learned
from src.export.delta import Delta, check_alike, description_of_delta, finish_delta, write_changed_rows
from src.export.exported import DESCRIPTION, ExportFolder, check_export_place, checksum, field_facts
from src.export.graph import EXPORTED, export_graph, tables_of_widths
from src.export.options import GRAPH_TABLES_MB, ExportSpec
from src.export.table_file import chunks, encode_rows, write_tables
from src.network.embedding import EmbeddingTables, Fill, whole_tables
from src.network.options import NetworkSpec

_MOST_ONNX_BYTES = 2**31 - (1 << 20)


def table_placement(
    wanted: str, table_type: str, table_rows: Sequence[int], width: int, graph_mb: int, lists: Sequence[str] = ()
) -> str:
    """Where the tables go, "graph" or "host": as wanted; for "auto" into the graph up to so many MB of float32.

    With fields of lists, whose names are given, "auto" is the host, where a list's vectors are pooled as they come.
    """
    if wanted != "auto":
        return wanted
    if lists:
        return "host"
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


def export_checkpoint(
    path: Path, manifest: Manifest, network: NetworkSpec, spec: ExportSpec, data: DataFolder | None
) -> None:
    """Export a checkpoint as options say, and tell of it.

    Args:
        path, manifest: the checkpoint, and the manifest beside it.
        network: its shape.
        spec: how, and to where.
        data: whose named part's rows calibrate; None for no calibration.

    Raises:
        InputError: as of `write_export`, or the rows can't calibrate.
    """
    lists = [name for name, pool in zip(manifest.fields, manifest.layout.pools) if pool]
    wanted = "host" if spec.delta_from else spec.table_placement
    placement = table_placement(
        wanted, spec.table_type, manifest.rows_of_tables, network.emb_dim, GRAPH_TABLES_MB, lists
    )  # fmt: skip
    found = None
    if data:
        found = learned(path, data, spec.eval_batch_size, network)
        print(
            f"calibrated by {found.rows} {data.named_part} rows of {data.path}{data.manifest.weighting}: temperature "
            f"{found.temperature:.4f}, bias {found.bias:.4f}"
        )
        print(f"logloss of these rows: {found.before:.5f} before, {found.after:.5f} after")
    write_export(Export(path, manifest, network, placement, found), spec)
    if spec.delta_from:
        changed = Delta.load(Path(spec.export_path)).words
        print(f"wrote what {path} changed since {spec.delta_from} to {spec.export_path}: {changed}")
        return
    tables = f"tables in the graph, {spec.table_type}" if placement == "graph" else f"{spec.table_type} table file"
    print(
        f"exported {path} to {spec.export_path}: {spec.file_format}, batches of {spec.export_batch_size} rows, {tables}"
    )


def write_export(model: Export, spec: ExportSpec) -> None:
    """Export a model, or what it changed since delta_from, to the folder export_path.

    That is there whole or not at all, in place of an earlier one.

    Raises:
        InputError: the checkpoint does not fit the network, MindSpore can't write this form here, something is in the
            place that may not be replaced, or a delta can't lead from delta_from to this model.
    """
    old = ExportFolder.load(Path(spec.delta_from)) if spec.delta_from else None
    if old:
        check_alike(old, model.manifest, model.network.emb_dim, spec.table_type)
    with whole_folder(Path(spec.export_path), lambda: check_export_place(spec)) as beside:
        _write(model, spec, beside, old)


def _refuse_large_onnx(spec: ExportSpec, placement: str, table_rows: Sequence[int], width: int) -> None:
    """Refuse an ONNX graph above what protobuf can hold, before it is made."""
    table_bytes = 4 * sum(table_rows) * width
    if spec.file_format == "ONNX" and placement == "graph" and table_bytes >= _MOST_ONNX_BYTES:
        raise InputError(
            f"file_format ONNX holds at most 2 GB, and the tables have {table_bytes / 1e9:.1f}: give "
            f"--table_placement=host, and look the vectors up in the table file"
        )


def _tables_of_graph(export: Export, fill: Fill) -> EmbeddingTables:
    """All tables, which `fill` fills, where they go into the graph; else such as have no more than the widths."""
    manifest, width = export.manifest, export.network.emb_dim
    if export.placement == "host":
        return tables_of_widths(len(manifest.fields), width)
    try:
        return whole_tables(manifest.rows_of_tables, width, fill, EXPORTED, manifest.layout)
    except MemoryError:
        raise InputError(
            f"table_placement graph: the memory of this process can't hold the "
            f"{4 * width * sum(manifest.rows_of_tables) / 2**20:,.0f} MB of tables: give --table_placement=host, "
            f"which needs no such memory"
        ) from None


def _write(export: Export, spec: ExportSpec, folder: Path, old: ExportFolder | None) -> None:
    manifest, name, placement = export.manifest, spec.file_name, export.placement
    table_rows, emb_dim, dense_dim = manifest.rows_of_tables, export.network.emb_dim, len(manifest.inputs)
    _refuse_large_onnx(spec, placement, table_rows, emb_dim)
    parts, fill = full_width(export.checkpoint, manifest, export.network)
    tables = _tables_of_graph(export, fill)
    model = DLRM(dense_dim_of(manifest), tables, export.network, has_fields=has_fields(manifest))
    fill_mlps(model, parts)
    calibrated: list[tuple[Any, ...]] = []
    if export.calibration:
        export.calibration.put_into(model)
        calibrated = [("calibration", export.calibration.temperature, export.calibration.bias)]
    files = export_graph(model, folder, spec, dense_dim, placement)
    tables_of: list[tuple[Any, ...]] = []
    if placement == "host":
        table = folder / f"{name}.tables"
        if old and old.table:
            rows = (encode_rows(values, spec.table_type) for _, values in chunks(table_rows, emb_dim, fill))
            written = write_changed_rows(folder, name, old.table, table_rows, rows)
        else:
            written = write_tables(table, table_rows, emb_dim, fill, spec.table_type)
        tables_of = [("table", table.name, *written)]
    parts.check_all_read()
    for kept in (MANIFEST,) if old else (MANIFEST, VOCABULARY):
        shutil.copyfile(export.checkpoint.with_name(kept), folder / kept)
    facts = [
        ("format", spec.file_format),
        ("graph", files[0].relative_to(folder).as_posix()),
        ("placement", placement),
        ("batch_size", spec.export_batch_size),
        ("dense", dense_dim),
        ("width", emb_dim),
        ("vocabulary", manifest.sha256(VOCABULARY)),
        *field_facts(manifest),
        *calibrated,
        *tables_of,
        *(("file", path.relative_to(folder).as_posix(), path.stat().st_size, checksum(path)) for path in files),
    ]
    write_facts(folder / (description_of_delta(name) if old else f"{name}{DESCRIPTION}"), "model", facts)
    if old:
        finish_delta(folder, name, old, manifest, export.checkpoint.with_name(VOCABULARY))
