"""What the surroundings say of this process: its place among those of a job.

Processes are started by msrun or src/launch.py (MS_ROLE), or by ModelArts, once for each card. With a rank table
RANK_TABLE_FILE, RANK_ID and RANK_SIZE say which this one is, and DEVICE_ID or ASCEND_DEVICE_ID which card it has,
whoever started it. A rank table alone may lie in the surroundings of any process of an Ascend host.
"""

import os

from src.base.errors import InputError


def get_device_id() -> int:
    """The card of this process, 0 unless it is told."""
    return _number("DEVICE_ID", "ASCEND_DEVICE_ID", default=0)


def get_device_num() -> int:
    """How many processes the job has, 1 unless it is told."""
    return _number("RANK_SIZE", default=1)


def get_rank_id() -> int:
    """The number of this process in the job, from 0."""
    return _number("RANK_ID", "MS_NODE_ID", default=0)


def get_job_id() -> str:
    """The name of the job, "default" unless it is told."""
    return os.environ.get("JOB_ID") or "default"


def in_cluster() -> bool:
    """Whether msrun or src/launch.py has started this process as one of several."""
    return bool(os.environ.get("MS_ROLE"))


def in_rank_table() -> bool:
    """Whether this process was started as one of several that a rank table lists."""
    return bool(os.environ.get("RANK_TABLE_FILE") and os.environ.get("RANK_ID")) and get_device_num() > 1


def is_rank() -> bool:
    """Whether this process was started as one of several, in whatever way."""
    return in_cluster() or in_rank_table()


def _number(*names: str, default: int) -> int:
    """What the first of these variables says that is set.

    Raises:
        InputError: it is no number.
    """
    for name in names:
        if text := os.environ.get(name):
            if not text.isdecimal():
                raise InputError(f"the environment's {name} is {text!r}: it must be a whole number from 0")
            return int(text)
    return default
