"""Starts the ranks of a training with msrun, waits for them, and says which one failed.

    python src/launch.py DEVICE_NUM [--rank_table=FILE] [--rank_timeout=SECONDS] [--MSRUN_OPTION=VALUE ...]
                         [--OPTION=VALUE ...]

What msrun knows goes to msrun (for several hosts: master_addr, master_port, worker_num, local_worker_num, node_rank),
all else to train.py. The ranks' logs are log0/output.log, log1/output.log and so on. A rank that dies or hangs ends the
run: the others are stopped, and a line names it.
"""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from src.base.errors import InputError, run
from src.base.locks import hold
from src.base.workers import die_with_parent
from src.data.manifest import find
from src.model_utils import ALIVE_FOLDER
from src.options import TrainOptions, resolve
from src.ranks.rank_table import check_rank_table

ROOT = Path(__file__).resolve().parents[1]
_MSRUN_OPTIONS = ("worker_num", "local_worker_num", "master_addr", "master_port", "node_rank", "cluster_time_out",
                  "bind_core", "bind_numa")  # fmt: skip
_HANGS_AFTER_S = 60.0  # unless --rank_timeout says otherwise; a rank gives a sign of life every second
_LOOKS_EVERY_S = 0.3
_INPUT_AT_FAULT = 2  # exit code


class Launch:
    """One run: its processes, logs and signs of life, in the current folder.

    Args:
        device_num: ranks on this machine.
        msrun_options: by name.
        program_options: the command line of train.py.
        timeout_s: without a sign of life, after which a rank is taken to hang.
    """

    def __init__(
        self, device_num: int, msrun_options: dict[str, str], program_options: Sequence[str], timeout_s: float
    ):  # fmt: skip
        self.timeout_s = timeout_s
        node = max(0, int(msrun_options.get("node_rank", 0)))
        self.ranks = range(node * device_num, (node + 1) * device_num)
        self.folder = Path("msrun_log") / f"node_{node}"
        self.alive = self.folder / "alive"
        self.alive.mkdir(parents=True, exist_ok=True)
        self.lock = hold(self.folder / ".lock", f"folder {Path.cwd()}")
        self.seen: dict[int, tuple[float, float]] = {}
        for old in [*self.alive.iterdir(), *self.folder.glob("*.log")]:
            old.unlink()
        for rank in self.ranks:
            place = Path(f"log{rank}")
            place.mkdir(exist_ok=True)
            (place / "output.log").unlink(missing_ok=True)
            (place / "output.log").symlink_to(".." / self.folder / f"worker_{rank}.log")
        options = {"worker_num": device_num, "local_worker_num": device_num, "master_port": _free_port(),
                   "log_dir": self.folder, "join": "True",
                   "tail_worker_log": 10**9} | msrun_options  # fmt: skip
        command = [
            str(Path(sys.executable).with_name("msrun")),
            *(f"--{name}={value}" for name, value in options.items()),
        ]
        with (self.folder / "msrun.log").open("w", encoding="utf-8") as log:
            self.msrun = subprocess.Popen(
                [*command, str(ROOT / "train.py"), *program_options], stdout=log, stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL, start_new_session=True, env=os.environ | self._environment(),
                preexec_fn=die_with_parent,  # noqa: PLW1509 - there are no threads here
            )  # fmt: skip
        self.shown = 0

    def _environment(self) -> dict[str, str]:
        path = f"{Path(sys.executable).parent}:{os.environ.get('PATH', '')}"
        return {ALIVE_FOLDER: str(self.alive.resolve()), "PATH": path, "PYTHONUNBUFFERED": "1"}

    def wait(self) -> int:
        """Show the first rank's log until the run ends; the exit code: 0, or that of the first rank that failed."""
        try:
            while True:
                ended = self.msrun.poll() is not None
                self._show()
                if failure := self._failure():
                    rank, code, what = failure
                    self._stop()
                    self._show()
                    log = f"log{rank}/output.log" if rank is not None else str(self.folder)
                    hint = f"{what}{self._last_error(rank)}; the other ranks were stopped; see {log}"
                    if code != _INPUT_AT_FAULT:
                        hint += ". The same command goes on from the last save"
                    print(f"error: {hint}", file=sys.stderr)
                    return code
                if ended:
                    return self.msrun.returncode
                time.sleep(_LOOKS_EVERY_S)
        finally:
            self._stop()

    def _failure(self) -> tuple[int | None, int, str] | None:
        """The rank that failed if it is known, the exit code, and what happened; None if nothing did."""
        pids = self._pids()
        exits = re.findall(r"Worker process (\d+) exit with exception\. Error code: (-?\d+)", self._text("msrun.log"))
        for pid, code in exits:
            with_error = [rank for rank in self.ranks if self._last_error(rank)]
            rank = next((rank for rank, known in pids.items() if known == int(pid)), (*with_error, None)[0])
            status = int(code)
            how = f"was killed by signal {-status}" if status < 0 else f"ended with exit code {status}"
            return rank, status if status > 0 else 128 - status, f"rank {'?' if rank is None else rank} {how}"
        silent = [rank for rank in pids if self._silent_s(rank) > self.timeout_s]
        if silent and self.msrun.poll() is None:
            return silent[0], 1, f"rank {silent[0]} has given no sign of life for {self.timeout_s:.0f} s"
        if self.msrun.poll():
            return None, self.msrun.returncode, f"msrun ended with exit code {self.msrun.returncode}"
        return None

    def _silent_s(self, rank: int) -> float:
        """Seconds since a rank's sign was seen to change, by this process's own clock."""
        changed, now = self._sign(rank).stat().st_mtime, time.monotonic()
        if self.seen.get(rank, (0.0, 0.0))[0] != changed:
            self.seen[rank] = (changed, now)
        return now - self.seen[rank][1]

    def _sign(self, rank: int) -> Path:
        return self.alive / f"rank_{rank}.json"

    def _pids(self) -> dict[int, int]:
        """Process of each rank that has said so."""
        found = {}
        for rank in self.ranks:
            try:
                found[rank] = int(json.loads(self._sign(rank).read_text(encoding="utf-8"))["pid"])
            except (OSError, ValueError):
                continue
        return found

    def _text(self, name: str) -> str:
        path = self.folder / name
        return path.read_text(encoding="utf-8", errors="replace") if path.is_file() else ""

    def _last_error(self, rank: int | None) -> str:
        """A rank's own word on what went wrong, if it left one."""
        lines = [line for line in self._text(f"worker_{rank}.log").splitlines() if line.startswith("error: ")]
        return f" ({lines[-1].removeprefix('error: ')})" if lines else ""

    def _show(self) -> None:
        path = self.folder / f"worker_{self.ranks[0]}.log"
        if not path.is_file():
            return
        with path.open("rb") as log:
            log.seek(self.shown)
            new = log.read()
        new = new[: new.rfind(b"\n") + 1]  # whole lines
        for line in new.decode("utf-8", "replace").splitlines():
            # MindSpore prints its lines whatever its log level is; an error is shown when the run is over.
            if not line.startswith(("[INFO] ", "error: ")):
                print(line, flush=True)
        self.shown += len(new)

    def _stop(self) -> None:
        """Kill what is left: the ranks, each in a session of its own, msrun and its scheduler."""
        for pid in [*self._pids().values(), self.msrun.pid]:
            try:
                if pid == self.msrun.pid or _is_rank(pid):
                    os.killpg(pid, signal.SIGKILL)
            except (ProcessLookupError, PermissionError):
                continue
        self.msrun.wait()


def _is_rank(pid: int) -> bool:
    """Whether the process is still one of ours, and its number not another's by now."""
    try:
        return b"train.py" in Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return False


def _free_port() -> int:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        return int(server.getsockname()[1])


def _seconds(text: str) -> float:
    if not re.fullmatch(r"\d+(\.\d+)?", text) or not float(text) > 0:
        raise InputError(f"rank_timeout is {text!r}: it must be seconds, a number above 0")
    return float(text)


def main(argv: Sequence[str]) -> int:
    """Start the ranks as the command line says; the exit code."""
    if not argv or not re.fullmatch(r"[1-9]\d*", argv[0]):
        raise InputError(f"DEVICE_NUM is {argv[0] if argv else 'missing'}: give the number of ranks on this machine")
    device_num, timeout_s = int(argv[0]), _HANGS_AFTER_S
    msrun_options: dict[str, str] = {}
    program_options: list[str] = []
    for argument in argv[1:]:
        name, _, value = argument.removeprefix("--").partition("=")
        if name == "rank_table":
            msrun_options["rank_table_file"] = value
        elif name == "rank_timeout":
            timeout_s = _seconds(value)
        elif name in _MSRUN_OPTIONS:
            msrun_options[name] = value
        else:
            program_options.append(argument)
    for name in ("worker_num", "local_worker_num", "node_rank", "master_port"):
        if not re.fullmatch(r"\d+", msrun_options.get(name, "0")):
            raise InputError(f"{name} is {msrun_options[name]!r}: it must be a whole number")
    device_num = int(msrun_options.get("local_worker_num", device_num))
    total = int(msrun_options.get("worker_num", device_num))
    if table := msrun_options.get("rank_table_file"):
        check_rank_table(Path(table), total)
    if any(re.fullmatch(r"--plan_only(=(true|1))?", option.lower()) for option in program_options):
        command = [sys.executable, str(ROOT / "train.py"), f"--ranks={total}", *program_options]
        if "--device_target=CPU" in program_options and not any("device_memory_mb" in o for o in program_options):
            machine_mb = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2**20
            command.append(f"--device_memory_mb={machine_mb // device_num}")
        return subprocess.run(command, check=False).returncode
    find(
        resolve(TrainOptions, program_options).data.dataset_path
    )  # a mistake is found before anything is started or made
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    return Launch(device_num, msrun_options, program_options, timeout_s).wait()


if __name__ == "__main__":
    run(main, goes_on=True)
