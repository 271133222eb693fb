"""Export a checkpoint: `python export.py --checkpoint_path=./checkpoint/dlrm.ckpt --file_format=MINDIR`."""

from collections.abc import Sequence
from pathlib import Path

from src.base.errors import InputError, run
from src.model_utils.config import GRAPH_TABLES_MB, resolve


def main(argv: Sequence[str]) -> None:
    """Export as the command line says, to a folder that can score raw rows."""
    config = resolve("export", argv)
    if config.file_format == "AIR" and config.device_target != "Ascend":
        raise InputError(
            f"file_format AIR needs device_target Ascend, and it is {config.device_target}: export MINDIR or ONNX"
        )
    unused = [name for name in ("dataset_path", "eval_batch_size") if any(w.startswith(f"--{name}") for w in argv)]
    if unused and not config.calibrate:
        raise InputError(f"{unused[0]} has no effect without calibrate: drop it, or give --calibrate=True")
    # Imported here, so that a mistake on the command line does not wait for MindSpore.
    from src.base.files import check_place
    from src.data.manifest import find
    from src.export import calibration
    from src.export import folder as export_folder
    from src.export.folder import ExportOptions
    from src.model_utils.device_target import set_device
    from src.training import checkpoint

    path, folder = checkpoint.file_of(config.checkpoint_path), Path(config.export_path)
    check_place(folder, export_folder.is_export, "export_path", config.overwrite)
    manifest = export_folder.checkpoint_manifest(path)
    set_device(config.device_target, config.device_id)
    placement = export_folder.table_placement(
        config.table_placement, config.table_type, manifest.table_rows, config.emb_dim, GRAPH_TABLES_MB
    )
    network = {"dense_dim": len(manifest.inputs), **config.network()}
    found = None
    if config.calibrate:
        data = find(config.dataset_path)
        found = calibration.learned(path, data, config.eval_batch_size, config.emb_dim, **network)
        print(f"calibrated by {found.rows} validation rows: temperature {found.temperature:.4f}, bias {found.bias:.4f}")
        print(f"logloss of these rows: {found.before:.5f} before, {found.after:.5f} after")
    options = ExportOptions(
        config.file_name, config.file_format, config.export_batch_size, placement, config.table_type,
        config.mindir_version, found,
    )  # fmt: skip
    export_folder.write_export(path, manifest, folder, options, config.emb_dim, **network)
    tables = f"tables in the graph, {config.table_type}" if placement == "graph" else f"{config.table_type} table file"
    print(f"exported {path} to {folder}: {config.file_format}, batches of {config.export_batch_size} rows, {tables}")


if __name__ == "__main__":
    run(main)
