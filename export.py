"""Export a checkpoint: `python export.py --checkpoint_path=./checkpoint/dlrm.ckpt --file_format=MINDIR`."""

from collections.abc import Sequence
from pathlib import Path

from src.base.errors import InputError, run
from src.checkpoints.names import file_of, folder_of
from src.export.exported import calibrating_rows, check_export_place, checkpoint_manifest
from src.export.options import GRAPH_TABLES_MB
from src.model_utils.moxing_adapter import job
from src.options import ExportOptions, resolve


def main(argv: Sequence[str]) -> None:
    """Export as the command line says, to a folder that can score raw rows."""
    options = resolve(ExportOptions, argv)
    spec = options.export
    with job(options.modelarts, spec.dataset_path, folder_of(spec.checkpoint_path), [Path(spec.export_path)]):
        # Again, for a checkpoint that only now is there has options beside it.
        export(resolve(ExportOptions, argv) if options.modelarts.enable_modelarts else options, argv)


def export(options: ExportOptions, argv: Sequence[str]) -> None:
    """Write the export folder."""
    spec, network = options.export, options.network
    given = [name for name in ("dataset_path", "eval_batch_size") if any(w.startswith(f"--{name}") for w in argv)]
    if given and not spec.calibrate:
        raise InputError(f"{given[0]} has no effect without calibrate: drop it, or give --calibrate=True")
    if "dataset_path" in given and not spec.calibrates_by_own:
        raise InputError(f"dataset_path has no effect with calibrate {spec.calibrate}, which names the rows: drop one")
    path = file_of(spec.checkpoint_path)
    check_export_place(spec)
    manifest = checkpoint_manifest(path)
    data = calibrating_rows(spec)
    # Imported here, so that a mistake does not wait for MindSpore.
    from src.export import calibration, folder
    from src.model_utils.device_target import set_device

    set_device(options.device.device_target, options.device.device_id)
    placement = folder.table_placement(
        spec.table_placement,
        spec.table_type,
        manifest.rows_of_tables,
        network.emb_dim,
        GRAPH_TABLES_MB,
        [name for name, pool in zip(manifest.fields, manifest.layout.pools) if pool],
    )
    found = None
    if data:
        found = calibration.learned(path, data, spec.eval_batch_size, network)
        weighted = f" weighted by column {data.manifest.weight}" if data.manifest.weight else ""
        print(
            f"calibrated by {found.rows} {data.named_part} rows of {data.path}{weighted}: temperature "
            f"{found.temperature:.4f}, bias {found.bias:.4f}"
        )
        print(f"logloss of these rows: {found.before:.5f} before, {found.after:.5f} after")
    folder.write_export(folder.Export(path, manifest, network, placement, found), spec)
    tables = f"tables in the graph, {spec.table_type}" if placement == "graph" else f"{spec.table_type} table file"
    print(
        f"exported {path} to {spec.export_path}: {spec.file_format}, batches of {spec.export_batch_size} rows, {tables}"
    )


if __name__ == "__main__":
    run(main)
