"""Graphs compiled for Ascend without a card: `bash scripts/run_ascend_dryrun.sh [--quick] [--processes=2]`.

MindSpore's dry run (MS_SIMULATION_LEVEL=1) compiles each graph for an Atlas A2, chooses every operator's kernel, lays
out its memory, and launches none: nothing is computed, and nothing is said of speed or numbers. Where CANN is installed
its libraries are used, else empty stand-ins, which are built once.

A line for each graph says what it is and what became of it: compiled or not, and how many of its kernels are aclnn,
those that MindSpore maintains, aclop, the older way, which compiles on the card at first use, and collective
operations; and the memory in MB (2^20 bytes) that tensors took at most, as if on the device. The last line is

    graphs=N compiled=N aclop=N

with the kinds of operators, over all graphs, that have an aclop kernel. Exit code 1 where a graph does not compile, has
an aclop kernel that STAYS does not name, or where ranks of one training send in different orders.

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
import re
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TextIO

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks import cann_stubs, results
from src.base.errors import InputError, run
from src.base.native import BUILD

# Operators that keep an aclop kernel: in graphs whose name begins so, and why.
_EXPORTED = ("export ", "in what export writes, for MindSpore Lite, which has a converter of its own; nowhere else")
STAYS = {"Gather": _EXPORTED, "Split": _EXPORTED}
IN_ONE_PROCESS = 24  # graphs, since MindSpore keeps the memory of each
SECONDS_A_GRAPH = 300
_MARK = "ascend_dryrun:"
_SLEEP_S = 0.1
_KERNEL = re.compile(r"kernel opname:(\w+), kernel type:(\w+)")
_SELECTED = re.compile(r"\] (\w+) select (\w+) kernel")
_NODE = re.compile(r"GenerateKernelBuildInfo\] (?:\S*/)?(\w+)-op\d+ ")
_ALL_CHOSEN = "PrintOpSelectedNum"
_ACLNN, _ACLOP, _COLLECTIVE = "opapi_kernel", "acl_kernel", "hccl_kernel"


@dataclass
class Outcome:
    """What became of a graph.

    Attributes:
        name: of the graph.
        error: why it does not compile, "" if it does.
        kernels: (operator, type) in the order in which they are launched.
        memory_mb: of its tensors at most; 0 where it is not told.
        laid_out: whether kernels were made and tensors laid out. The stand-ins of CANN can't make most aclop kernels;
            such a graph compiles, and its kernels are chosen, but MindSpore then fails or dies.
    """

    name: str
    error: str = "not reached"
    kernels: list[tuple[str, str]] = field(default_factory=list)
    memory_mb: float = 0.0
    laid_out: bool = True

    def operators(self, kind: str) -> list[str]:
        """Of the kernels of a type."""
        return [operator for operator, one in self.kernels if one == kind]

    def __str__(self) -> str:
        aclop = Counter(self.operators(_ACLOP))
        named = f" ({', '.join(f'{name} {count}' for name, count in sorted(aclop.items()))})" if aclop else ""
        return (
            f"{self.name}: {f'NOT COMPILED, {self.error}' if self.error else 'compiled'}, "
            f"{'' if self.laid_out else 'but not laid out, '}"
            f"kernels: aclnn {len(self.operators(_ACLNN))}, aclop {aclop.total()}{named}, "
            f"collectives {len(self.operators(_COLLECTIVE))}, memory {self.memory_mb:,.1f} MB"
        )


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
        own["PYTHONPATH"] = ":".join([str(cann / "python"), *filter(None, [own.get("PYTHONPATH")])])
        own |= {"ASCEND_HOME_PATH": home, "ASCEND_OPP_PATH": str(cann / "opp")}
    for name in ("MS_ROLE", "RANK_TABLE_FILE"):
        own.pop(name, None)
    return own | {
        "MS_SIMULATION_LEVEL": "1", "RANK_SIZE": str(ranks), "RANK_ID": "0", "GLOG_v": "3",
        "MS_SUBMODULE_LOG_v": "{DEVICE:1}", "GLOG_logtostderr": "1", "OMP_NUM_THREADS": "1",
    }  # fmt: skip


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

    In a dry run a wait for the card comes back at once, and for each stream a thread waits for ever.
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
    print(f"\n{_MARK} {json.dumps(words)}", file=sys.stderr, flush=True)


def follow(log: Iterable[str], outcomes: dict[int, Outcome]) -> Iterator[int]:
    """Fill in what a process says of its graphs, line by line; the numbers of those that ended, as they do.

    That in which the process itself ended is the last one.
    """
    now, kinds, nodes, chosen = None, dict[str, str](), list[str](), False
    for line in log:
        if line.startswith(_MARK):
            words = json.loads(line.removeprefix(_MARK))
            if "begins" in words:
                now, nodes, chosen = words["begins"], [], False
                outcomes[now].name = words["name"]
                continue
            outcome = outcomes[words["ends"]]
            outcome.error, outcome.memory_mb = words["error"], words["memory_mb"]
            _complete(outcome, nodes, kinds, chosen and "is null" in outcome.error)
            yield words["ends"]
            now = None
        elif now is not None and (found := _KERNEL.search(line)):
            outcomes[now].kernels.append((found[1], found[2]))
        elif found := _SELECTED.search(line):  # told once for each operator in a process
            kinds[found[1]] = {"aclnn": _ACLNN, "aclop": _ACLOP}.get(found[2], found[2])
        elif now is not None and (found := _NODE.search(line)):
            nodes.append(found[1])
        elif _ALL_CHOSEN in line:
            chosen = True
    if now is not None:
        outcomes[now].error = "MindSpore died"
        _complete(outcomes[now], nodes, kinds, chosen)
        yield now


def _complete(outcome: Outcome, nodes: list[str], kinds: dict[str, str], chosen: bool) -> None:
    """The kernels that were chosen, if the making of them ended early, as aclop kernels may end it without CANN."""
    if outcome.error and len(nodes) > len(outcome.kernels):
        outcome.kernels = [(name, kinds.get(name, "")) for name in nodes]
    if outcome.error and chosen and outcome.operators(_ACLOP):
        outcome.error, outcome.laid_out = "", False


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
                command = [sys.executable, __file__, *arguments, f"--work={','.join(map(str, left))}"]
                done = _run(command, environments[graphs[left[0]].ranks], file, outcomes)
                if not done:  # it did not even begin
                    for one in left:
                        outcomes[one].error = "its process ended before it began; see --keep_log"
                        print(outcomes[one], flush=True)
                left = [one for one in left if done and one not in done]

    with ThreadPoolExecutor(processes) as pool:
        list(pool.map(compile_chunk, sorted(range(len(chunks)), key=lambda number: -len(chunks[number]))))
    return [outcomes[number] for number in range(len(graphs))]


def _run(command: Sequence[str], surroundings: dict[str, str], file: TextIO, outcomes: dict[int, Outcome]) -> set[int]:
    """Run a process that compiles graphs; those that it came to an end with."""
    done = set()

    def written(lines: Iterable[str]) -> Iterator[str]:
        for line in lines:
            file.write(line)
            yield line

    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=surroundings, text=True,
                          errors="replace") as process:  # fmt: skip
        for number in follow(written(process.stdout or ()), outcomes):
            print(outcomes[number], flush=True)
            done.add(number)
    return done


def out_of_order(graphs: Sequence[Any], outcomes: Sequence[Outcome]) -> list[str]:
    """Trainings of which a rank sends something else, or in another order, than their first one: they would hang."""
    first: dict[str, tuple[str, list[str]]] = {}
    found = []
    for graph, outcome in zip(graphs, outcomes):
        if graph.ranks > 1 and not outcome.error:
            whole = re.sub(r"rank \d+ of", "of", graph.name)
            sent = outcome.operators(_COLLECTIVE)
            name, expected = first.setdefault(whole, (graph.name, sent))
            if sent != expected:
                found.append(f"{graph.name} sends {' '.join(sent)}, but {name} {' '.join(expected)}")
    return found


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
    arguments = [f"--of={options.of}", f"--only={options.only}", *(["--quick"] if options.quick else [])]
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
        aclop = ", ".join(sorted({name for one in own for name in one.operators(_ACLOP)})) or "none"
        table.append({
            "graphs": group, "compiled": f"{sum(not one.error for one in own)} of {len(own)}",
            "aclnn kernels": _range(len(one.operators(_ACLNN)) for one in own), "operators by aclop": aclop,
            "collectives": _range(len(one.operators(_COLLECTIVE)) for one in own),
            "tensors, MB": _range(round(one.memory_mb) for one in own),
        })  # fmt: skip
    stands_in = Path(environment(1)["ASCEND_HOME_PATH"]).is_relative_to(BUILD)
    results.save(
        "ascend_dryrun", table, command="bash scripts/run_ascend_dryrun.sh",
        cann="empty stand-ins" if stands_in else "installed", lines=[str(outcome) for outcome in outcomes],
    )  # fmt: skip


def _range(values: Iterable[int]) -> str:
    found = sorted(values)
    return f"{found[0]:,}" if found[0] == found[-1] else f"{found[0]:,} to {found[-1]:,}"


def conclude(graphs: Sequence[Any], outcomes: Sequence[Outcome]) -> int:
    """Print the last lines; the exit code."""
    kernels = {(name, outcome.name) for outcome in outcomes for name in outcome.operators(_ACLOP)}
    unexpected = {name for name, graph in kernels if name not in STAYS or not graph.startswith(STAYS[name][0])}
    aclop = sorted({name for name, _ in kernels})
    for name in aclop:
        print(f"aclop {name}: {'NOT EXPECTED' if name in unexpected else STAYS[name][1]}")
    disorder = out_of_order(graphs, outcomes)
    print("\n".join([*disorder, ""]), end="")
    compiled = sum(not outcome.error for outcome in outcomes)
    print(f"graphs={len(outcomes)} compiled={compiled} aclop={len(aclop)}")
    return int(compiled < len(outcomes) or bool(unexpected) or bool(disorder))


if __name__ == "__main__":
    run(main)
