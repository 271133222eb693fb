"""The device of a run, and the processes that train together."""

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import mindspore as ms
import numpy as np
from mindspore import Tensor, ops

from src.base.errors import InputError
from src.base.signs import SignOfLife, sign_of
from src.base.stops import answered_alike
from src.model_utils import ALIVE_FOLDER
from src.model_utils.local_adapter import get_device_id, in_cluster, in_rank_table, is_rank


@contextmanager
def as_guest() -> Iterator[None]:
    """Work in MindSpore's graph mode in a program of someone else's, such as a notebook, which Ctrl-C does not end.

    Mode and signals are left behind as they were.
    """
    before = ms.get_context("mode")
    ms.set_context(mode=ms.GRAPH_MODE)
    try:
        with answered_alike():
            yield
    finally:
        ms.set_context(mode=before)


def set_device(device_target: str, device_id: int = 0) -> None:
    """Run graphs on a device; a rank gets one of its own, of a rank table the one there, whatever the number.

    Raises:
        InputError: this machine has no such device, or MindSpore can't use it.
    """
    ms.set_context(mode=ms.GRAPH_MODE)
    if device_target == "CPU":
        try:
            ms.set_device("CPU")
        except RuntimeError:  # of a program that has computed on another one
            raise InputError(
                f"device_target CPU: this process has run on {ms.get_context('device_target')}, and MindSpore does not "
                f"change that: start another one"
            ) from None
        return
    logging.disable(logging.WARNING)  # several lines of MindSpore's for what the error below says
    try:
        devices = getattr(ms.device_context, device_target.lower())
        count = devices.device_count() if devices.is_available() else 0
    except ValueError:  # MindSpore's answer where the device's libraries can't be loaded
        count = 0
    finally:
        logging.disable(logging.NOTSET)
    device_id = get_device_id() if in_rank_table() else device_id
    if count <= device_id:
        found = f"this machine has {count} of them" if count else "MindSpore finds none on this machine"
        raise InputError(
            f"device_target {device_target} with device_id {device_id}: {found}; check the driver, or give "
            f"--device_target=CPU"
        )
    if in_cluster() and not in_rank_table():
        ms.set_device(device_target)  # without a number MindSpore shares out the cards of a machine
    else:
        ms.set_device(device_target, device_id)


def check_products(compute_dtype: str) -> None:
    """See that the device multiplies matrices of a type, by multiplying two.

    Raises:
        InputError: it does not.
    """
    if compute_dtype == "float32":
        return
    ones = Tensor(np.ones((2, 2), np.float32)).to(getattr(ms, compute_dtype))
    try:
        ops.MatMul()(ones, ones).to(ms.float32).asnumpy()
    except (RuntimeError, TypeError):
        raise InputError(
            f"compute_dtype {compute_dtype}: {ms.get_context('device_target')} devices like this one can't multiply "
            f"such matrices: give float16 or float32"
        ) from None


def start_ranks(parallel_mode: str) -> tuple[int, int, SignOfLife]:
    """Join the processes of a run: the number of this one, from 0, how many there are, and what it says of itself.

    Raises:
        InputError: this process was not started as one of several, though the mode needs that, or the other way round.
    """
    started = is_rank()
    if parallel_mode == "none":
        if started:
            raise InputError(
                "parallel_mode none is for one process, but this one was started as one of several (MS_ROLE is set, or "
                "RANK_TABLE_FILE, RANK_ID and RANK_SIZE): give data or hybrid"
            )
        return 0, 1, SignOfLife()
    if not started:
        raise InputError(
            f"parallel_mode {parallel_mode} is for several processes, which scripts/run_distribute_train_cpu.sh and "
            f"run_distribute_eval_cpu.sh, or those of _gpu.sh and _ascend.sh, start: start it with one of them, or as "
            f"ModelArts or msrun do"
        )
    if ms.get_context("device_target") != "CPU":  # whose sums come in one order anyway
        ms.set_deterministic(True)
    ms.communication.init()
    rank, size = ms.communication.get_rank(), ms.communication.get_group_size()
    folder = os.environ.get(ALIVE_FOLDER)
    print(f"rank {rank} of {size}", flush=True)
    return rank, size, SignOfLife(sign_of(Path(folder), rank) if folder else None)
