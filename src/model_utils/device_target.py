"""The device of a run, and the processes that train together."""

import os
from pathlib import Path

import mindspore as ms

from src.base.errors import InputError
from src.base.signs import SignOfLife, sign_of
from src.model_utils import ALIVE_FOLDER


def set_device(device_target: str, device_id: int = 0) -> None:
    """Run graphs on a device; a rank gets one of its own, whatever the number.

    Raises:
        InputError: this machine has no such device, or MindSpore can't use it.
    """
    ms.set_context(mode=ms.GRAPH_MODE)
    if device_target == "CPU":
        ms.set_device("CPU")
        return
    try:
        count = ms.hal.device_count(device_target) if ms.hal.is_available(device_target) else 0
    except ValueError:  # MindSpore's answer where the device's libraries can't be loaded
        count = 0
    if count <= device_id:
        found = f"this machine has {count} of them" if count else "MindSpore finds none on this machine"
        raise InputError(
            f"device_target {device_target} with device_id {device_id}: {found}; check the driver, or give "
            f"--device_target=CPU"
        )
    if _started_as_rank():
        ms.set_device(device_target)  # without a number MindSpore shares out the cards of a machine
    else:
        ms.set_device(device_target, device_id)


def _started_as_rank() -> bool:
    return bool(os.environ.get("MS_ROLE"))  # a rank table may lie in the surroundings of any process of an Ascend host


def start_ranks(parallel_mode: str) -> tuple[int, int, SignOfLife]:
    """Join the processes of a run: the number of this one, from 0, how many there are, and what it says of itself.

    Raises:
        InputError: this process was not started as one of several, though the mode needs that, or the other way round.
    """
    started = _started_as_rank()
    if parallel_mode == "none":
        if started:
            raise InputError(
                "parallel_mode none is for one process, but this one was started as one of several (MS_ROLE is set): "
                "give data or hybrid"
            )
        return 0, 1, SignOfLife()
    if not started:
        raise InputError(
            f"parallel_mode {parallel_mode} is for several processes, which scripts/run_distribute_train_cpu.sh, "
            f"_gpu.sh and _ascend.sh start: start it with one of them"
        )
    if ms.get_context("device_target") != "CPU":  # whose sums come in one order anyway
        ms.set_deterministic(True)
    ms.communication.init()
    rank, size = ms.communication.get_rank(), ms.communication.get_group_size()
    folder = os.environ.get(ALIVE_FOLDER)
    print(f"rank {rank} of {size}", flush=True)
    return rank, size, SignOfLife(sign_of(Path(folder), rank) if folder else None)
