"""Starts the ranks of a training or an evaluation, waits for them, and says which one failed.

    python src/launch.py DEVICE_NUM [--program=eval] [--rank_table=FILE] [--rank_timeout=SECONDS]
                         [--CLUSTER_OPTION=VALUE ...] [--OPTION=VALUE ...]

Cluster options, for several hosts, are worker_num, local_worker_num, master_addr, master_port, node_rank, first_rank,
cluster_time_out and bind_core, in the manner of MindSpore's msrun. All else goes to train.py, or eval.py (their
--help). Logs are log0/output.log, log1/output.log and so on; of an evaluation log0/eval_output.log. A rank that dies or
hangs ends the run: the others are stopped, and a line names it.
"""

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

if __name__ == "__main__":
    from src.base.stops import end_at_once

    end_at_once()

from src.base.errors import NOTHING_TO_DO, InputError, run
from src.base.locks import hold
from src.base.signs import Watch
from src.base.workers import die_with_parent
from src.checkpoints.names import file_of, folder_of
from src.data.manifest import find
from src.model_utils import ALIVE_FOLDER, CPU_THREADS
from src.model_utils.moxing_adapter import job
from src.options import NEEDS_NO_RANKS, EvalOptions, TrainOptions, resolve
from src.ranks.cluster import CLUSTER_OPTIONS, Cluster, cluster_of
from src.ranks.rank_logs import RankLogs

ROOT = Path(__file__).resolve().parents[1]
_LOOKS_EVERY_S = 0.3
_INPUT_AT_FAULT = 2  # exit code
# MindSpore's process by which ranks find each other. It trains nothing, so it needs no more than this.
_SCHEDULER = "import mindspore; mindspore.set_device('CPU'); mindspore.communication.init()"


class Launch:
    """One run: its processes, logs and signs of life, in the current folder.

    Args:
        cluster: the ranks.
        program: the command that each rank is.
        logs: of the ranks.
        goes_on: whether the same command goes on with what a stopped one had done.
    """

    def __init__(
        self, cluster: Cluster, program: Sequence[str], logs: RankLogs | None = None, goes_on: bool = True
    ):  # fmt: skip
        self.cluster, self.shown, self.trains = cluster, 0, False
        self.logs, self.goes_on = logs or RankLogs(), goes_on
        self.folder = self.logs.folder_of(cluster.first_rank)
        alive = self.folder / "alive"
        alive.mkdir(parents=True, exist_ok=True)
        self.lock = hold(self.folder / ".lock", f"folder {Path.cwd()}")
        for old in alive.iterdir():
            old.unlink()
        self.watch = Watch(alive, cluster.ranks, cluster.rank_timeout_s, cluster.is_whole)
        self.environment = os.environ | {
            ALIVE_FOLDER: str(alive.resolve()), "PYTHONUNBUFFERED": "1",
            CPU_THREADS: os.environ.get("OMP_NUM_THREADS", ""),
            "PATH": f"{Path(sys.executable).parent}:{os.environ.get('PATH', '')}",
        }  # fmt: skip
        self.scheduler: subprocess.Popen[bytes] | None = None
        self.ranks: dict[int, subprocess.Popen[bytes]] = {}
        self.logs.keep_earlier(cluster.ranks)
        try:
            if cluster.is_master:
                self.scheduler = self._start(-1, [sys.executable, "-c", _SCHEDULER], self.folder / "scheduler.log")
            for rank in cluster.ranks:
                self.ranks[rank] = self._start(rank, program, self.logs.log_of(rank))
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
        if not self.watch.have_begun() and any(self.logs.lines_of(rank, NOTHING_TO_DO) for rank in self.ranks):
            self.logs.give_back_earlier(self.cluster.ranks)
        else:
            self.logs.forget_earlier(self.cluster.ranks, self.cluster.worker_num)

    def _fail(self, rank: int, code: int, what: str) -> int:
        """Stop all ranks and say why; the exit code."""
        self._stop()
        self._show()
        error, log = self._last_error(rank), self.logs.log_of(rank)
        if code == _INPUT_AT_FAULT and not self.trains:
            self.logs.give_back_earlier(self.cluster.ranks, bool(error))
            log = self.logs.refused_of(rank) if self.logs.refused_of(rank).is_file() else log
        hint = f"{what}{error}; the other ranks were stopped" + (f"; see {log}" if log.is_file() else "")
        if code != _INPUT_AT_FAULT and self.goes_on:
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
        lines = self.logs.lines_of(rank, "error: ")
        return f" ({lines[-1].removeprefix('error: ')})" if lines else ""

    def _show(self) -> None:
        with self.logs.log_of(self.cluster.first_rank).open("rb") as log:
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


def main(argv: Sequence[str]) -> int:
    """Start the ranks as the command line says; the exit code."""
    if not argv or not re.fullmatch(r"[1-9]\d*", argv[0]):
        raise InputError(f"DEVICE_NUM is {argv[0] if argv else 'missing'}: give the number of ranks on this machine")
    given: dict[str, str] = {}
    options: list[str] = []
    for argument in argv[1:]:
        name, _, value = argument.removeprefix("--").partition("=")
        if name in (*CLUSTER_OPTIONS, _PROGRAM):
            given[name] = value
        else:
            options.append(argument)
    program = given.pop(_PROGRAM, "train")
    if program == "export":
        raise InputError(NEEDS_NO_RANKS)
    if program not in _PROGRAMS:
        raise InputError(f"program is {program!r}: it must be one of {', '.join(_PROGRAMS)}")
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    return _PROGRAMS[program](cluster_of(given, int(argv[0])), options)


def _train(cluster: Cluster, given: Sequence[str]) -> int:
    program = [sys.executable, str(ROOT / "train.py"), *given]
    if any(re.fullmatch(r"--plan_only(=(true|1))?", option.lower()) for option in given):
        command = [*program, f"--ranks={cluster.worker_num}"]
        if "--device_target=CPU" in given and not any("device_memory_mb" in o for o in given):
            machine_mb = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2**20
            command.append(f"--device_memory_mb={machine_mb // cluster.local_worker_num}")
        return subprocess.run(command, check=False).returncode
    # A mistake is found before anything is started or made.
    options = resolve(TrainOptions, given)
    _share_processors(cluster, options.device.device_target)
    data, kept, sends = options.data.dataset_path, options.kept, cluster.first_rank == 0
    with job(options.modelarts, data, Path(kept.ckpt_path), kept.results, sends):
        folder = find(data)
        if sends:
            options.check_place(folder)
        _tell(cluster, RankLogs())
        return Launch(cluster, program).wait()


def _evaluate(cluster: Cluster, given: Sequence[str]) -> int:
    options = resolve(EvalOptions, given)
    _share_processors(cluster, options.device.device_target)
    score, results, sends = options.score, options.logs.results, cluster.first_rank == 0
    with job(options.modelarts, score.dataset_path, folder_of(score.checkpoint_path), results, sends):
        find(score.dataset_path).part_to_score()
        file_of(score.checkpoint_path)
        program = [sys.executable, str(ROOT / "eval.py"), *given]
        _tell(cluster, logs := RankLogs("eval_"))
        return Launch(cluster, program, logs, goes_on=False).wait()


def _share_processors(cluster: Cluster, device_target: str) -> None:
    """Else each rank on a CPU would compute with as many threads as there are processors."""
    if device_target == "CPU":
        threads = len(os.sched_getaffinity(0)) // cluster.local_worker_num
        os.environ.setdefault("OMP_NUM_THREADS", str(max(1, threads)))


def _tell(cluster: Cluster, logs: RankLogs) -> None:
    log = logs.log_of(cluster.first_rank)
    print(f"starts {cluster.local_worker_num} ranks; lines of the first follow, from {log}")


_PROGRAM = "program"  # the option
_PROGRAMS = {"train": _train, "eval": _evaluate}


if __name__ == "__main__":
    run(main, goes_on="--program=eval" not in sys.argv, usage=__doc__.partition("\n")[2])
