"""Export a checkpoint: `python export.py --checkpoint_path=./checkpoint/dlrm.ckpt --file_format=MINDIR`."""

if __name__ == "__main__":
    from src.base.stops import end_at_once

    end_at_once()

from collections.abc import Sequence

from src.base.errors import InputError, run
from src.base.logs import phase
from src.checkpoints.names import file_of, folder_of
from src.export.delta import write_applied
from src.export.exported import calibrating_rows, check_export_place, checkpoint_manifest
from src.model_utils.local_adapter import is_rank
from src.model_utils.moxing_adapter import job
from src.options import NEEDS_NO_RANKS, ExportOptions, resolve


def main(argv: Sequence[str]) -> None:
    """Export as the command line says, to a folder that can score raw rows."""
    options = resolve(ExportOptions, argv)
    spec = options.export
    if is_rank():
        raise InputError(NEEDS_NO_RANKS)
    with job(options.modelarts, spec.dataset_path, folder_of(spec.checkpoint_path), options.results):
        # Again, for a checkpoint that only now is there has options beside it.
        export(resolve(ExportOptions, argv) if options.modelarts.enable_modelarts else options, argv)


def export(options: ExportOptions, argv: Sequence[str]) -> None:
    """Write the export folder, or a delta."""
    spec = options.export
    if spec.apply_delta:
        check_export_place(spec)
        write_applied(spec)
        print(f"applied {spec.apply_delta} to {spec.delta_from}: {spec.export_path} is a whole export")
        return
    given = [name for name in ("dataset_path", "eval_batch_size") if any(w.startswith(f"--{name}") for w in argv)]
    if given and not spec.calibrate:
        raise InputError(f"{given[0]} has no effect without calibrate: drop it, or give --calibrate=True")
    if "dataset_path" in given and not spec.calibrates_by_own:
        raise InputError(f"dataset_path has no effect with calibrate {spec.calibrate}, which names the rows: drop one")
    path = file_of(spec.checkpoint_path)
    if options.publishing.publish:
        from src.publishing.folder import publish

        with phase(f"publishing {path}"):
            publish(path, checkpoint_manifest(path), options.network, options.publishing, spec.overwrite)
        return
    check_export_place(spec)
    manifest = checkpoint_manifest(path)
    data = calibrating_rows(spec)
    # Imported here, so that a mistake does not wait for MindSpore.
    from src.export.folder import export_checkpoint
    from src.model_utils.device_target import set_device

    set_device(options.device.device_target, options.device.device_id)
    with phase(f"exporting {path}"):
        export_checkpoint(path, manifest, options.network, spec, data)


if __name__ == "__main__":
    run(main)
