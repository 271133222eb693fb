"""What stands where a run's checkpoint is to go, told without MindSpore."""

import json
from pathlib import Path
from typing import Any

from src.base.errors import AlreadyDone, InputError
from src.base.sealed import check_json
from src.checkpoints.names import CHECKPOINT, REPORT, REPORT_PAGE, UNFINISHED
from src.checkpoints.parts import open_parts
from src.checkpoints.run_options import RunOptions
from src.data.counted import encoder_files
from src.data.manifest import MANIFEST, Manifest

FINISHED, PROGRESS = "finished", "progress.json"
OLDER, REPLACES = "older", "replaces_checkpoint"


def trains_on(folder: Path, options: RunOptions, overwrite: bool, resume: bool, data: Manifest) -> bool:
    """Whether a run is to go on with the one that ended well in a folder, after fewer epochs.

    Args:
        folder: the checkpoint folder.
        options: of the run.
        overwrite: whether the folder's checkpoint may be replaced.
        resume: whether to go on with what is there.
        data: of the run's data.

    Raises:
        AlreadyDone: this very run has ended well here, all that it is to leave is there, and it may go on with that.
        InputError: there is another checkpoint, or one that lacks something, which may not be replaced.
    """
    is_longer = resume and not overwrite and _is_longer(folder, options)
    if (folder / CHECKPOINT).exists() and not (overwrite or is_longer or (resume and is_replacing(folder))):
        words = f"ckpt_path {folder} already holds {CHECKPOINT}"
        remedy = "replace it with --overwrite=True, or let it train on with more --epochs, if its last state was kept"
        lacks = ""
        if resume and _is_own(folder, options, data):
            lacks = _lacks(folder, options, data)
            if not lacks:
                raise AlreadyDone(f"{words}: the same command has made it; {remedy}")
            lacks = f", which the same command has made, but {lacks}"
        raise InputError(f"{words}{lacks}: name another --ckpt_path, {remedy}")
    return is_longer


def _is_own(folder: Path, options: RunOptions, data: Manifest) -> bool:
    """Whether a run with these options, and on these data, has ended well here, and none was stopped since."""
    try:
        saved = options.saved_in(folder)
        made_of = Manifest.load(folder / MANIFEST)
    except (InputError, OSError):
        return False
    same = saved.strip() and not options.changes(saved) and not options.difference(saved)
    return bool(same) and made_of == data and not (folder / UNFINISHED / PROGRESS).is_file()


def _lacks(folder: Path, options: RunOptions, data: Manifest) -> str:
    """What is missing, or no longer whole, of all that a run has left here and where its options say, in words; "" for
    nothing. The network's values are not read, only that their files have them."""
    try:
        open_parts(folder / CHECKPOINT, check=())
        data.verify(folder, encoder_files(data))
    except InputError as error:
        return str(error).partition(": ")[0]
    is_evaluated = options.value("do_eval") and {"valid", "test"} & set(data.parts)
    logs = ["loss_file_name", "metrics_file_name", *(["eval_file_name"] if is_evaluated else [])]
    wanted = [folder / name for name in (REPORT_PAGE, REPORT) if options.value("report")]
    wanted += [Path(value) for name in logs if (value := options.value(name))]
    return next((f"{path} is missing" for path in wanted if not path.exists()), "")


def _is_longer(folder: Path, options: RunOptions) -> bool:
    """Whether a run has more epochs than the one that ended well here.

    It may have begun to go on with that before it was stopped, but no other run may have been stopped here.
    """
    ended = folder / FINISHED
    states, own = states_of(ended / PROGRESS), states_of(folder / UNFINISHED / PROGRESS)
    if not states or (own and own[0].get("run") != states[0].get("run")):
        return False
    return options.has_more_epochs(options.saved_in(ended))


def is_replacing(folder: Path) -> bool:
    """Whether a run was stopped here while its files went to their places, and has given up what stood there."""
    return any(state.get(REPLACES) for state in states_of(folder / UNFINISHED / PROGRESS))


def goes_on_from(folder: Path) -> bool:
    """Whether there is a state in a checkpoint folder that a run may go on from."""
    return any(states_of(folder / name / PROGRESS) for name in (UNFINISHED, FINISHED))


def states_of(path: Path) -> list[dict[str, Any]]:
    """What the commits of the states that are kept had to say, the newest first; none without a file."""
    if not path.is_file():
        return []
    try:
        content = dict(json.loads(path.read_text(encoding="utf-8")))
        content = check_json(content, path, "start afresh with --resume=False")
        states = [content, *map(dict, content.pop(OLDER, []))]
        if not all(isinstance(state["step"], int) for state in states):
            raise TypeError("a step is no number")
    except (KeyError, TypeError, ValueError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(
            f"{path} is damaged ({error!r}), so the stopped training can't go on: start afresh with --resume=False"
        ) from None
    return states
