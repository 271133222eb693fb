"""By what the ranks of a run send to each other within a step: MindSpore's collective operations, or UCX."""

from typing import Any

import numpy as np

from src.base.errors import InputError
from src.model_utils.local_adapter import get_wait_limit_s
from src.ranks.group import Ranks
from src.ranks.options import WIRE_DTYPES, ParallelSpec, ucx_folder
from src.ranks.ucx import Messages

_ADVICE = "UCX on all hosts, with compiled operators, makes steps faster: pip install -r requirements-cpu-ranks.txt"
_LACKING = ("is told to send by MindSpore", "computes by MindSpore's own operators", "has no UCX")


def uses_ucx(parallel: ParallelSpec, device_target: str) -> bool:
    """Whether the ranks of a run on machines like this one would send by UCX, with compiled operators."""
    return device_target == "CPU" and parallel.transport != "mindspore" and ucx_folder() is not None


def exchange_of(ranks: Ranks, parallel: ParallelSpec, on_cpu: bool, ends_rows: bool) -> Any:
    """What travels within a step in place of MindSpore's collective operations; None for these. Rank 0 says which.

    All ranks call this together, and get the same, whatever their hosts have; what connects them stays for the process.

    Args:
        ranks: of the run.
        parallel: how they work together.
        on_cpu: whether the device is a CPU.
        ends_rows: whether the operators of the run know where distinct rows end.

    Raises:
        InputError: UCX is asked for, and some rank lacks it.
    """
    if ranks.size == 1 or not on_cpu:
        return None
    ranks.agree("how they send", {"the place of wire_dtype": WIRE_DTYPES.index(parallel.wire_dtype)})
    wanted, lacking = parallel.transport != "mindspore", ""
    messages = Messages.of(ranks.rank, ranks.size) if wanted and ends_rows and not ranks.messages else ranks.messages
    has = 0 if not wanted else 1 if not ends_rows else 2 if messages is None else 3
    found = ranks.gather(np.array([has], np.int32))[:, 0]
    if found.min() < len(_LACKING):
        rank = int(found.argmin())
        lacking = f"rank {rank} {_LACKING[found[rank]]}"
    elif messages is not None and ranks.messages is None:
        lacking = _connect(messages, ranks)
    for name, value, plain in (
        ("transport", parallel.transport, "auto"),
        ("wire_dtype", parallel.wire_dtype, "float32"),
    ):
        if lacking and value not in (plain, "mindspore"):
            raise InputError(f"{name} {value}: {lacking}; {_ADVICE}")
    if ranks.rank == 0 and wanted:
        by = f"MindSpore's collective operations ({lacking}); {_ADVICE}" if lacking else f"UCX, {parallel.wire_dtype}"
        print(f"ranks send by {by}", flush=True)
    return None if lacking else ranks.messages.exchange(parallel.wire_dtype)


def _connect(messages: Messages, ranks: Ranks) -> str:
    """Connect the ranks; what lacks where, the same on all of them, if they can't be."""
    addresses = ranks.gather(messages.open(get_wait_limit_s()))
    if not (found := addresses.any(1)).all():
        return f"UCX finds no network on rank {int(found.argmin())}"
    reached = ranks.gather(np.array([messages.connect(addresses)], np.int32))[:, 0]
    if not reached.all():
        return f"rank {int(reached.argmin())} can't reach the others by UCX"
    ranks.messages = messages
    return ""
