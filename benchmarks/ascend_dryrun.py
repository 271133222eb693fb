"""Graphs compiled for Ascend without a card: `bash scripts/run_ascend_dryrun.sh [--quick] [--processes=2]`.

MindSpore's dry run (MS_SIMULATION_LEVEL=1) compiles each graph for an Atlas A2, chooses every operator's kernel, lays
out its memory, and launches none: nothing is computed, and nothing is said of speed or numbers. Where CANN is installed
its libraries are used, else empty stand-ins, which are built once.

A line for each graph says what it is and what became of it: compiled or not, laid out or why not, and how many of its
kernels are aclnn, those that MindSpore maintains, aclop, the older way, which compiles on the card at first use, and
collective operations; and the memory in MB (2^20 bytes) that tensors took at most, as if on the device. The last lines
are

    laid_out=N; collectives of N ranks compared, in N graphs
    graphs=N compiled=N aclop=N

with the kinds of operators, over all graphs, that have an aclop kernel. Exit code 1 where a graph does not compile, has
an aclop kernel that STAYS does not name, or where ranks of one graph send different things, or in different orders.
Graphs with aclop kernels can't be laid out by the stand-ins of CANN; with CANN itself they must be.

    --quick         a few small graphs; writes no result file
    --processes=N   at once, 2 by default
    --of=FILE       a Python file whose `graphs()` are compiled instead; benchmarks/ascend_graphs.py says what they are
    --only=TEXT     graphs alone whose name has this text
    --keep_log=FILE what MindSpore says, in FILE.0, FILE.1 and so on, one for each process
"""

import argparse
import importlib.util
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TextIO

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks import cann_stubs, results
from benchmarks.dryrun_log import ACLNN, ACLOP, COLLECTIVE, MARK, Outcome, follow, of_one_graph, out_of_order, share_out
from src.base.errors import InputError, run
from src.base.native import BUILD

# Operators that keep an aclop kernel: in graphs whose name begins so, and why.
_EXPORTED = ("export ", "in what export writes, for MindSpore Lite, which has a converter of its own; nowhere else")
STAYS = {"Gather": _EXPORTED, "Split": _EXPORTED}
IN_ONE_PROCESS = 24  # graphs, since MindSpore keeps the memory of each
SECONDS_A_GRAPH = 300
PROGRAM = Path(__file__).resolve()
_SLEEP_S = 0.1


def graphs_of(file: str, quick: bool = False) -> list[Any]:
    """The graphs of a Python file, or by default of this repository.

    Raises:
        InputError: there is no such file, or it has no function `graphs`.
    """
    if not file:
        from benchmarks import ascend_graphs

        return ascend_graphs.quick_graphs() if quick else ascend_graphs.all_graphs()
    spec = importlib.util.spec_from_file_location("graphs_of_file", file)
    if not Path(file).is_file() or spec is None or spec.loader is None:
        raise InputError(f"--of {file} is not a Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    if not hasattr(module, "graphs"):
        raise InputError(f"--of {file} has no function graphs, which gives the graphs")
    return list(module.graphs())


def environment(ranks: int) -> dict[str, str]:
    """What a process needs that makes a dry run as the first of so many ranks."""
    own = os.environ.copy()
    home = next((own[name] for name in ("ASCEND_HOME_PATH", "ASCEND_TOOLKIT_HOME") if own.get(name)), "")
    if not home or not list(Path(home).glob("**/libascendcl.so"))[:1]:
        cann = cann_stubs.stand_ins()
        home = str(cann)
        paths = [str(cann / "lib64"), *map(str, cann_stubs.plugin_paths())]
        own["LD_LIBRARY_PATH"] = ":".join([*paths, *filter(None, [own.get("LD_LIBRARY_PATH")])])
        own["LD_PRELOAD"] = " ".join([str(cann / cann_stubs.WAITING), *filter(None, [own.get("LD_PRELOAD")])])
        own["PYTHONPATH"] = ":".join([str(cann / "python"), *filter(None, [own.get("PYTHONPATH")])])
        own |= {"ASCEND_HOME_PATH": home, "ASCEND_OPP_PATH": str(cann / "opp")}
    for name in ("MS_ROLE", "RANK_TABLE_FILE"):
        own.pop(name, None)
    return own | {
        "MS_SIMULATION_LEVEL": "1", "RANK_SIZE": str(ranks), "RANK_ID": "0", "GLOG_v": "3",
        "MS_SUBMODULE_LOG_v": "{DEVICE:1}", "GLOG_logtostderr": "1", "OMP_NUM_THREADS": "1",
    }  # fmt: skip


def stands_in(surroundings: dict[str, str]) -> bool:
    """Whether an `environment` has the stand-ins of CANN."""
    return Path(surroundings["ASCEND_HOME_PATH"]).is_relative_to(BUILD)


def work(graphs: Sequence[Any], numbers: Sequence[int]) -> None:
    """Compile graphs in this process, and say before each which it is, and behind it what became of it."""
    import faulthandler
    import gc

    import mindspore as ms

    ms.set_context(mode=ms.GRAPH_MODE)
    ms.set_device("Ascend")
    if graphs[numbers[0]].ranks > 1:
        ms.communication.init()
    for number in numbers:
        faulthandler.dump_traceback_later(SECONDS_A_GRAPH, exit=True)
        _hush()
        _say(begins=number, name=graphs[number].name)
        error = ""
        try:
            gc.collect()
            ms.runtime.reset_max_memory_allocated()
            before = ms.runtime.memory_allocated()  # by graphs that MindSpore keeps
            cell, inputs = graphs[number].make()
            outputs = cell(*inputs)
            for one in outputs if isinstance(outputs, tuple) else (outputs,):
                one.asnumpy()
        except Exception as found:
            lines = [line for line in str(found).splitlines() if line.strip(" -")]
            error = f"{type(found).__name__}: {lines[0] if lines else ''}"
        memory_mb = (ms.runtime.max_memory_allocated() - before) / 2**20
        _say(ends=number, error=error[:500], memory_mb=memory_mb)
        cell = inputs = outputs = one = None
    faulthandler.cancel_dump_traceback_later()


def _hush() -> None:
    """Let threads that run while there is nothing to do go on only where nobody else wants to.

    In a dry run a wait for the card comes back at once, and for each stream a thread waits for ever; but for the
    stand-ins of CANN, which do wait.
    """
    before = _ticks()
    time.sleep(_SLEEP_S)
    for thread, ticks in _ticks().items():
        if ticks > before.get(thread, ticks):
            os.sched_setscheduler(thread, os.SCHED_IDLE, os.sched_param(0))


def _ticks() -> dict[int, int]:
    """Processor time of all threads but this one."""
    found = {}
    for task in Path("/proc/self/task").iterdir():
        if int(task.name) != threading.get_native_id():
            fields = (task / "stat").read_text(encoding="utf-8").rpartition(")")[2].split()
            found[int(task.name)] = int(fields[11]) + int(fields[12])  # in user and system mode
    return found


def _say(**words: Any) -> None:
    print(f"\n{MARK} {json.dumps(words)}", file=sys.stderr, flush=True)


def compile_all(graphs: Sequence[Any], arguments: Sequence[str], processes: int, log: str = "") -> list[Outcome]:
    """What becomes of graphs, a line for each as soon as it is known; in processes of their own, some at once.

    Args:
        graphs: all of them.
        arguments: by which a process finds the same graphs.
        processes: how many at once.
        log: begin of the names of files for what MindSpore says, one for each process; "" for none.
    """
    outcomes = {number: Outcome(graph.name) for number, graph in enumerate(graphs)}
    environments = {ranks: environment(ranks) for ranks in sorted({graph.ranks for graph in graphs})}
    chunks = []
    for ranks in environments:
        own = [number for number, graph in enumerate(graphs) if graph.ranks == ranks]
        count = -(-len(own) // IN_ONE_PROCESS)
        chunks += [own[first::count] for first in range(count)]

    def compile_chunk(number: int) -> None:
        left = list(chunks[number])
        with open(f"{log}.{number}" if log else os.devnull, "w", encoding="utf-8") as file:
            while left:
                command = [sys.executable, str(PROGRAM), *arguments, f"--work={','.join(map(str, left))}"]
                done = _run(command, environments[graphs[left[0]].ranks], file, outcomes)
                if not done:  # it did not even begin
                    for one in left:
                        outcomes[one].error = "its process ended before it began; see --keep_log"
                        print(outcomes[one], flush=True)
                left = [one for one in left if done and one not in done]

    with ThreadPoolExecutor(processes) as pool:
        list(pool.map(compile_chunk, sorted(range(len(chunks)), key=lambda number: -len(chunks[number]))))
    return [outcomes[number] for number in range(len(graphs))]


def _run(command: Sequence[str], surroundings: dict[str, str], file: TextIO, outcomes: dict[int, Outcome]) -> list[int]:
    """Run a process that compiles graphs, in a folder of its own, for files that MindSpore writes where it is.

    Returns:
        Those that it came to an end with.
    """
    done = []

    def written(lines: Iterable[str]) -> Iterator[str]:
        for line in lines:
            file.write(line)
            yield line

    with tempfile.TemporaryDirectory() as folder:
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=surroundings, text=True,
                              errors="replace", cwd=folder) as process:  # fmt: skip
            for number in follow(written(process.stdout or ()), outcomes, stands_in(surroundings)):
                print(outcomes[number], flush=True)
                done.append(number)
        share_out(Path(folder), [outcomes[number] for number in done])
    return done


def main(argv: Sequence[str]) -> int:
    """Compile the graphs that the command line says."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--of", default="")
    parser.add_argument("--only", default="")
    parser.add_argument("--keep_log", default="")
    parser.add_argument("--work", default="", help=argparse.SUPPRESS)  # of a process: the graphs that it compiles
    options = parser.parse_args(argv)
    graphs = [graph for graph in graphs_of(options.of, options.quick) if options.only in graph.name]
    if not graphs:
        raise InputError(f"--only {options.only}: no graph's name has this text")
    if options.work:
        work(graphs, [int(number) for number in options.work.split(",")])
        return 0
    own = str(Path(options.of).resolve()) if options.of else ""
    arguments = [f"--of={own}", f"--only={options.only}", *(["--quick"] if options.quick else [])]
    outcomes = compile_all(graphs, arguments, max(1, options.processes), options.keep_log)
    code = conclude(graphs, outcomes)
    if not (options.quick or options.of or options.only):
        save(graphs, outcomes)
    return code


def save(graphs: Sequence[Any], outcomes: Sequence[Outcome]) -> None:
    """Write the result file: a row of the table for each group of graphs, and a line for each graph."""
    groups: dict[str, list[Outcome]] = {}
    for graph, outcome in zip(graphs, outcomes):
        groups.setdefault(graph.group, []).append(outcome)
    table = []
    for group, own in groups.items():
        aclop = ", ".join(sorted({name for one in own for name in one.operators(ACLOP)})) or "none"
        table.append({
            "graphs": group, "compiled": f"{sum(not one.error for one in own)} of {len(own)}",
            "laid out": sum(not (one.error or one.not_laid_out) for one in own),
            "aclnn kernels": _range(len(one.operators(ACLNN)) for one in own), "operators by aclop": aclop,
            "collectives": _range(len(one.operators(COLLECTIVE)) for one in own),
            "tensors, MB": _range(round(one.memory_mb) for one in own),
        })  # fmt: skip
    results.save(
        "ascend_dryrun", table, command="bash scripts/run_ascend_dryrun.sh",
        cann="empty stand-ins" if stands_in(environment(1)) else "installed", lines=[str(one) for one in outcomes],
    )  # fmt: skip


def _range(values: Iterable[int]) -> str:
    found = sorted(values)
    return f"{found[0]:,}" if found[0] == found[-1] else f"{found[0]:,} to {found[-1]:,}"


def conclude(graphs: Sequence[Any], outcomes: Sequence[Outcome]) -> int:
    """Print the last lines; the exit code."""
    kernels = {(name, outcome.name) for outcome in outcomes for name in outcome.operators(ACLOP)}
    unexpected = {name for name, graph in kernels if name not in STAYS or not graph.startswith(STAYS[name][0])}
    aclop = sorted({name for name, _ in kernels})
    for name in aclop:
        print(f"aclop {name}: {'NOT EXPECTED' if name in unexpected else STAYS[name][1]}")
    disorder = out_of_order(graphs, outcomes)
    print("\n".join([*disorder, ""]), end="")
    compiled = sum(not outcome.error for outcome in outcomes)
    laid_out, compared = sum(not (one.error or one.not_laid_out) for one in outcomes), of_one_graph(graphs, outcomes)
    print(f"laid_out={laid_out}; collectives of {sum(map(len, compared))} ranks compared, in {len(compared)} graphs")
    print(f"graphs={len(outcomes)} compiled={compiled} aclop={len(aclop)}")
    return int(compiled < len(outcomes) or bool(unexpected) or bool(disorder))


if __name__ == "__main__":
    run(main)
