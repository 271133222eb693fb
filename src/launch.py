"""Starts the ranks of a training, waits for them, and says which one failed.

    python src/launch.py DEVICE_NUM [--rank_table=FILE] [--rank_timeout=SECONDS] [--CLUSTER_OPTION=VALUE ...]
                         [--OPTION=VALUE ...]

Cluster options, for several hosts, are worker_num, local_worker_num, master_addr, master_port, node_rank, first_rank,
cluster_time_out and bind_core, in the manner of MindSpore's msrun. All else goes to train.py (its --help). Logs are
log0/output.log, log1/output.log and so on. A rank that dies or hangs ends the run: the others are stopped, and a line
names it.
"""

import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from src.base.errors import NOTHING_TO_DO, InputError, run
from src.base.locks import hold
from src.base.signs import Watch
from src.base.workers import die_with_parent
from src.data.manifest import find
from src.model_utils import ALIVE_FOLDER
from src.model_utils.moxing_adapter import job
from src.options import TrainOptions, resolve
from src.ranks.rank_logs import forget_earlier, give_back_earlier, keep_earlier, lines_of, log_of, refused_of
from src.ranks.rank_table import cards_of

ROOT = Path(__file__).resolve().parents[1]
_LOOKS_EVERY_S = 0.3
_INPUT_AT_FAULT = 2  # exit code
_NODE_TIMEOUT_S = 30  # MindSpore's own
# MindSpore's process by which ranks find each other. It trains nothing, so it needs no more than this.
_SCHEDULER = "import mindspore; mindspore.set_device('CPU'); mindspore.communication.init()"


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


class Launch:
    """One run: its processes, logs and signs of life, in the current folder.

    Args:
        cluster: the ranks.
        program: the command that each rank is.
    """

    def __init__(self, cluster: Cluster, program: Sequence[str]):
        self.cluster, self.shown, self.trains = cluster, 0, False
        self.folder = Path("launch_log") / f"from_rank_{cluster.first_rank}"
        alive = self.folder / "alive"
        alive.mkdir(parents=True, exist_ok=True)
        self.lock = hold(self.folder / ".lock", f"folder {Path.cwd()}")
        for old in alive.iterdir():
            old.unlink()
        self.watch = Watch(alive, cluster.ranks, cluster.rank_timeout_s, cluster.is_whole)
        self.environment = os.environ | {
            ALIVE_FOLDER: str(alive.resolve()), "PYTHONUNBUFFERED": "1",
            "PATH": f"{Path(sys.executable).parent}:{os.environ.get('PATH', '')}",
        }  # fmt: skip
        self.scheduler: subprocess.Popen[bytes] | None = None
        self.ranks: dict[int, subprocess.Popen[bytes]] = {}
        keep_earlier(cluster.ranks)
        try:
            if cluster.is_master:
                self.scheduler = self._start(-1, [sys.executable, "-c", _SCHEDULER], self.folder / "scheduler.log")
            for rank in cluster.ranks:
                self.ranks[rank] = self._start(rank, program, log_of(rank))
                (alive / f"rank_{rank}.pid").write_text(str(self.ranks[rank].pid), encoding="ascii")
        except BaseException:
            self._stop()
            raise

    def _start(self, rank: int, command: Sequence[str], path: Path) -> "subprocess.Popen[bytes]":
        processors = self.cluster.processors(rank)

        def prepare() -> None:
            die_with_parent()
            if processors:
                os.sched_setaffinity(0, processors)

        path.parent.mkdir(exist_ok=True)
        with path.open("wb") as log:
            return subprocess.Popen(
                command, stdout=log, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL, start_new_session=True,
                env=self.environment | self.cluster.environment(rank),
                preexec_fn=prepare,  # noqa: PLW1509 - there are no threads here
            )  # fmt: skip

    def wait(self) -> int:
        """Show the first rank's log until the run ends; the exit code: 0, or that of the first rank that failed."""
        try:
            while True:
                ended = None not in [child.poll() for child in self.ranks.values()]
                self._show()
                failure = self._failure()
                if not self.trains and (self.watch.have_begun() or (ended and not failure)):
                    self._settle()
                if failure:
                    return self._fail(*failure)
                if ended:
                    if self.scheduler and not self.cluster.is_whole:
                        self.scheduler.wait()  # other machines' ranks may still need it
                    return 0
                time.sleep(_LOOKS_EVERY_S)
        finally:
            self._stop()

    def _settle(self) -> None:
        """Let this run's logs take the place of an earlier one's, unless it found nothing to do."""
        self.trains = True
        if not self.watch.have_begun() and any(lines_of(rank, NOTHING_TO_DO) for rank in self.ranks):
            give_back_earlier(self.cluster.ranks)
        else:
            forget_earlier(self.cluster.ranks, self.cluster.worker_num)

    def _fail(self, rank: int, code: int, what: str) -> int:
        """Stop all ranks and say why; the exit code."""
        self._stop()
        self._show()
        error, log = self._last_error(rank), log_of(rank)
        if code == _INPUT_AT_FAULT and not self.trains:
            give_back_earlier(self.cluster.ranks, bool(error))
            log = refused_of(rank) if refused_of(rank).is_file() else log
        hint = f"{what}{error}; the other ranks were stopped" + (f"; see {log}" if log.is_file() else "")
        if code != _INPUT_AT_FAULT:
            hint += ". The same command goes on from the last save"
        print(f"error: {hint}", file=sys.stderr)
        return code

    def _failure(self) -> tuple[int, int, str] | None:
        """The rank that failed, the exit code, and what happened; None if nothing did."""
        failed = [(rank, child.returncode) for rank, child in self.ranks.items() if child.poll()]
        if failed:
            # Of several, one that was killed, or has something to say: others may have failed by missing it.
            rank, code = min(failed, key=lambda one: (one[1] > 0, one[1] != _INPUT_AT_FAULT))
            how = f"was killed by signal {-code}" if code < 0 else f"ended with exit code {code}"
            return rank, code if code > 0 else 128 - code, f"rank {rank} {how}"
        if hanging := self.watch.hanging(time.monotonic()):
            return hanging[0], 1, hanging[1]
        if self.scheduler and self.scheduler.poll():
            what = f"MindSpore's scheduler ended with exit code {self.scheduler.returncode}"
            return self.cluster.first_rank, 1, f"{what}, see {self.folder}/scheduler.log"
        return None

    def _last_error(self, rank: int) -> str:
        """A rank's own word on what went wrong, if it left one."""
        lines = lines_of(rank, "error: ")
        return f" ({lines[-1].removeprefix('error: ')})" if lines else ""

    def _show(self) -> None:
        with log_of(self.cluster.first_rank).open("rb") as log:
            log.seek(self.shown)
            new = log.read()
        new = new[: new.rfind(b"\n") + 1]  # whole lines
        for line in new.decode("utf-8", "replace").splitlines():
            # MindSpore prints its lines whatever its log level is; an error is shown when the run is over.
            if not line.startswith(("[INFO] ", "error: ")):
                print(line, flush=True)
        self.shown += len(new)

    def _stop(self) -> None:
        """Kill what is left: the ranks and the scheduler, each in a session of its own."""
        for child in [*self.ranks.values(), *([self.scheduler] if self.scheduler else [])]:
            if child.poll() is None:
                os.killpg(child.pid, signal.SIGKILL)
                child.wait()


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


_CLUSTER_OPTIONS = ("worker_num", "local_worker_num", "master_addr", "master_port", "node_rank", "first_rank",
                    "cluster_time_out", "bind_core", "rank_table", "rank_timeout")  # fmt: skip


def main(argv: Sequence[str]) -> int:
    """Start the ranks as the command line says; the exit code."""
    if not argv or not re.fullmatch(r"[1-9]\d*", argv[0]):
        raise InputError(f"DEVICE_NUM is {argv[0] if argv else 'missing'}: give the number of ranks on this machine")
    given: dict[str, str] = {}
    program_options: list[str] = []
    for argument in argv[1:]:
        name, _, value = argument.removeprefix("--").partition("=")
        if name in _CLUSTER_OPTIONS:
            given[name] = value
        else:
            program_options.append(argument)
    cluster = cluster_of(given, int(argv[0]))
    program = [sys.executable, str(ROOT / "train.py"), *program_options]
    if any(re.fullmatch(r"--plan_only(=(true|1))?", option.lower()) for option in program_options):
        command = [*program, f"--ranks={cluster.worker_num}"]
        if "--device_target=CPU" in program_options and not any("device_memory_mb" in o for o in program_options):
            machine_mb = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2**20
            command.append(f"--device_memory_mb={machine_mb // cluster.local_worker_num}")
        return subprocess.run(command, check=False).returncode
    # A mistake is found before anything is started or made.
    options = resolve(TrainOptions, program_options)
    data, kept, sends = options.data.dataset_path, options.kept, cluster.first_rank == 0
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with job(options.modelarts, data, Path(kept.ckpt_path), kept.results, sends):
        folder = find(data)
        if sends:
            options.check_place(folder)
        print(f"starts {cluster.local_worker_num} ranks; lines of the first follow, from {log_of(cluster.first_rank)}")
        return Launch(cluster, program).wait()


if __name__ == "__main__":
    run(main, goes_on=True, usage=__doc__.partition("\n")[2])
