"""The ranks of a run on one machine or several, as a launcher's command line says them."""

import os
import re
import socket
from dataclasses import dataclass
from pathlib import Path

from src.base.errors import InputError
from src.ranks.rank_table import cards_of

CLUSTER_OPTIONS = ("worker_num", "local_worker_num", "master_addr", "master_port", "node_rank", "first_rank",
                   "cluster_time_out", "bind_core", "rank_table", "rank_timeout")  # fmt: skip
_NODE_TIMEOUT_S = 30  # MindSpore's own


@dataclass(frozen=True)
class Cluster:
    """The ranks of a run, and those of this machine.

    Attributes:
        worker_num: ranks in all.
        local_worker_num: ranks on this machine, of consecutive numbers from first_rank on.
        master_addr, master_port: where the scheduler listens, on the machine that has this address, a number.
        rank_table: of an Ascend cluster, "" for none.
        rank_timeout_s: after which a rank is taken to hang; see src/base/signs.py.
        cluster_time_out_s: after which ranks that lack others give up: to meet, and where all are on this machine also
            in collective operations on a CPU.
        bind_core: whether each rank gets a part of the processors for itself.
        cards: numbers of the local ranks' cards, which a rank table has; unless given, from 0 on.
    """

    worker_num: int
    local_worker_num: int
    first_rank: int
    master_addr: str
    master_port: int
    rank_table: str = ""
    rank_timeout_s: float = 60.0
    cluster_time_out_s: int = 600
    bind_core: bool = False
    cards: tuple[int, ...] = ()

    @property
    def ranks(self) -> range:
        """Numbers of this machine's ranks."""
        return range(self.first_rank, self.first_rank + self.local_worker_num)

    @property
    def is_whole(self) -> bool:
        """Whether all ranks are on this machine."""
        return self.worker_num == self.local_worker_num

    @property
    def is_master(self) -> bool:
        """Whether this machine has the scheduler's address."""
        with socket.socket(socket.AF_INET6 if ":" in self.master_addr else socket.AF_INET) as probe:
            try:
                probe.bind((self.master_addr, 0))
            except OSError:
                return False
        return True

    def environment(self, rank: int) -> dict[str, str]:
        """What MindSpore, of its ways the "dynamic cluster", looks for in a rank; of a scheduler for rank -1."""
        found = {
            "MS_ROLE": "MS_SCHED" if rank < 0 else "MS_WORKER",
            "MS_WORKER_NUM": str(self.worker_num),
            "MS_SCHED_HOST": self.master_addr,
            "MS_SCHED_PORT": str(self.master_port),
            "MS_TOPO_TIMEOUT": str(self.cluster_time_out_s),
            "RANK_SIZE": str(self.worker_num),
            "RANK_ID": str(max(rank, 0)),
        }
        if self.is_whole:  # how long collective operations on a CPU wait; this machine sees itself who is gone
            found["MS_NODE_TIMEOUT"] = str(max(_NODE_TIMEOUT_S, self.cluster_time_out_s))
        if rank >= 0:
            place = rank - self.first_rank  # MindSpore takes DEVICE_ID only where there is a rank table
            found |= {"MS_NODE_ID": str(rank), "DEVICE_ID": str(self.cards[place] if self.cards else place)}
        return found | ({"RANK_TABLE_FILE": self.rank_table} if self.rank_table else {})

    def processors(self, rank: int) -> list[int]:
        """Those that a rank gets for itself, consecutive ones; none to share all with the others."""
        usable, place = sorted(os.sched_getaffinity(0)), rank - self.first_rank
        low, high = (len(usable) * part // self.local_worker_num for part in (place, place + 1))
        return usable[low:high] if self.bind_core and rank >= 0 else []


def free_port() -> int:
    """A port that no program listens at now."""
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        return int(server.getsockname()[1])


def _address(text: str) -> str:
    """The number of a machine's name, or of its number."""
    try:
        return str(socket.getaddrinfo(text.strip("[]"), None, type=socket.SOCK_STREAM)[0][4][0])
    except (OSError, UnicodeError):
        raise InputError(f"master_addr is {text!r}: no machine is known by this name; give its address") from None


def _seconds(text: str) -> float:
    if not re.fullmatch(r"\d+(\.\d+)?", text) or not float(text) > 0:
        raise InputError(f"rank_timeout is {text!r}: it must be seconds, a number above 0")
    return float(text)


def _truth(text: str) -> bool:
    if text.lower() not in ("true", "false"):
        raise InputError(f"bind_core is {text!r}: it must be True or False")
    return text.lower() == "true"


def cluster_of(given: dict[str, str], device_num: int) -> Cluster:
    """The ranks that the options of the command line make.

    Raises:
        InputError: they make none.
    """
    numbers: dict[str, int] = {}
    for name in ("worker_num", "local_worker_num", "node_rank", "first_rank", "master_port", "cluster_time_out"):
        if name in given:
            if not re.fullmatch(r"\d+", given[name]):
                raise InputError(f"{name} is {given[name]!r}: it must be a whole number")
            numbers[name] = int(given[name])
    local = numbers.get("local_worker_num", device_num)
    total = numbers.get("worker_num", local)
    if local < total and not {"node_rank", "first_rank"} & set(numbers):
        raise InputError(
            f"worker_num is {total}, and {local} of these ranks are on this machine: say which by --node_rank=0, 1 and "
            f"so on, or by --first_rank"
        )
    if "first_rank" not in numbers and total % local:
        raise InputError(
            f"worker_num {total} is no multiple of local_worker_num {local}: where machines have different numbers of "
            f"ranks, give each --first_rank, the number of its first rank, instead of node_rank"
        )
    first = numbers.get("first_rank", numbers.get("node_rank", 0) * local if local < total else 0)
    if first + local > total:
        raise InputError(
            f"ranks {first} to {first + local - 1} would be on this machine, and worker_num {total} makes the last one "
            f"{total - 1}: give another node_rank or first_rank"
        )
    table = given.get("rank_table", "")
    cards = cards_of(Path(table), range(first, first + local), total) if table else ()
    address, port = _address(given.get("master_addr", "127.0.0.1")), numbers.get("master_port") or free_port()
    return Cluster(
        total, local, first, address, port,
        table, _seconds(given.get("rank_timeout", "60")), numbers.get("cluster_time_out", 600),
        _truth(given.get("bind_core", "False")), cards,
    )  # fmt: skip
