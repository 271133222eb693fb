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
    --keep_log=FILE MindSpore's own log
"""

import argparse
import importlib.util
import json
import os
import re
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks import cann_stubs
from src.base.errors import InputError, run

# Operators that keep an aclop kernel, and why.
STAYS: dict[str, str] = {}
IN_ONE_PROCESS = 24  # graphs, since MindSpore keeps the memory of each
SECONDS_A_GRAPH = 300
_MARK = "ascend_dryrun:"
_KERNEL = re.compile(r"kernel opname:(\w+), kernel type:(\w+)")
_SELECTED = re.compile(r"\] (\w+) select (\w+) kernel")
_NODE = re.compile(r"GenerateKernelBuildInfo\] (?:\S*/)?(\w+)-op\d+ ")
_ACLNN, _ACLOP, _COLLECTIVE = "opapi_kernel", "acl_kernel", "hccl_kernel"


@dataclass
class Outcome:
    """What became of a graph.

    Attributes:
        name: of the graph.
        error: why it does not compile, "" if it does.
        kernels: (operator, type) in the order in which they are launched.
        memory_mb: of its tensors at most; 0 where it is not told.
    """

    name: str
    error: str = "not reached"
    kernels: list[tuple[str, str]] = field(default_factory=list)
    memory_mb: float = 0.0

    def operators(self, kind: str) -> list[str]:
        """Of the kernels of a type."""
        return [operator for operator, one in self.kernels if one == kind]

    def __str__(self) -> str:
        aclop = Counter(self.operators(_ACLOP))
        named = f" ({', '.join(f'{name} {count}' for name, count in sorted(aclop.items()))})" if aclop else ""
        return (
            f"{self.name}: {f'NOT COMPILED, {self.error}' if self.error else 'compiled'}, "
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
        "MS_SUBMODULE_LOG_v": "{DEVICE:1}", "GLOG_logtostderr": "1",
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
        _say(begins=number)
        error = ""
        try:
            ms.runtime.reset_max_memory_allocated()
            cell, inputs = graphs[number].make()
            outputs = cell(*inputs)
            for one in outputs if isinstance(outputs, tuple) else (outputs,):
                one.asnumpy()
        except Exception as found:
            lines = [line for line in str(found).splitlines() if line.strip(" -")]
            error = f"{type(found).__name__}: {lines[0] if lines else ''}"
        memory_mb = ms.runtime.max_memory_allocated() / 2**20
        _say(ends=number, error=error[:500], memory_mb=memory_mb)
        cell = inputs = outputs = None
        gc.collect()
    faulthandler.cancel_dump_traceback_later()


def _say(**words: Any) -> None:
    print(f"\n{_MARK} {json.dumps(words)}", file=sys.stderr, flush=True)


def read(log: Iterable[str], outcomes: dict[int, Outcome]) -> int | None:
    """Fill in what a process's log says of its graphs; the number of the one it ended in, None if it ended well."""
    now, kinds = None, dict[str, str]()
    nodes: list[str] = []
    for line in log:
        if line.startswith(_MARK):
            words = json.loads(line.removeprefix(_MARK))
            if "begins" in words:
                now, nodes = words["begins"], []
                continue
            outcome = outcomes[words["ends"]]
            outcome.error, outcome.memory_mb = words["error"], words["memory_mb"]
            _complete(outcome, nodes, kinds)
            now = None
        elif now is not None and (found := _KERNEL.search(line)):
            outcomes[now].kernels.append((found[1], found[2]))
        elif found := _SELECTED.search(line):  # told once for each operator in a process
            kinds[found[1]] = {"aclnn": _ACLNN, "aclop": _ACLOP}.get(found[2], found[2])
        elif now is not None and (found := _NODE.search(line)):
            nodes.append(found[1])
    if now is not None:
        outcomes[now].error = "MindSpore died"
        _complete(outcomes[now], nodes, kinds)
    return now


def _complete(outcome: Outcome, nodes: list[str], kinds: dict[str, str]) -> None:
    """The kernels that were chosen, if the making of them ended early; some aclop kernels end it without a card."""
    if outcome.error and len(nodes) > len(outcome.kernels):
        outcome.kernels = [(name, kinds.get(name, "")) for name in nodes]


def compile_all(graphs: Sequence[Any], arguments: Sequence[str], processes: int, log: Path) -> list[Outcome]:
    """What becomes of graphs in processes of their own, some at once; what they say goes to a file.

    Args:
        graphs: all of them.
        arguments: by which a process finds the same graphs.
        processes: how many at once.
        log: the file.
    """
    outcomes = {number: Outcome(graph.name) for number, graph in enumerate(graphs)}
    environments = {ranks: environment(ranks) for ranks in sorted({graph.ranks for graph in graphs})}
    chunks = []
    for ranks in environments:
        own = [number for number, graph in enumerate(graphs) if graph.ranks == ranks]
        count = -(-len(own) // IN_ONE_PROCESS)
        chunks += [own[first::count] for first in range(count)]

    def compile_chunk(number: int) -> None:
        left, part = list(chunks[number]), log.with_name(f"{log.name}.{number}")
        own = environments[graphs[left[0]].ranks]
        while left:
            command = [sys.executable, __file__, *arguments, f"--work={','.join(map(str, left))}"]
            with part.open("w", encoding="utf-8") as file:
                code = subprocess.run(command, stdout=file, stderr=file, env=own, check=False).returncode
            with part.open(encoding="utf-8", errors="replace") as file:
                ended_in = read(file, outcomes)
            with part.open("rb") as file, log.open("ab") as whole:
                whole.write(file.read())
            part.unlink()
            for one in left[: left.index(ended_in) + 1] if ended_in is not None else left:
                if outcomes[one].error == "not reached":
                    outcomes[one].error = f"its process ended before it with code {code}"
                print(outcomes[one], flush=True)
            left = left[left.index(ended_in) + 1 :] if ended_in is not None else []

    with ThreadPoolExecutor(processes) as pool:
        list(pool.map(compile_chunk, sorted(range(len(chunks)), key=lambda number: -len(chunks[number]))))
    return [outcomes[number] for number in range(len(graphs))]


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
    with tempfile.TemporaryDirectory() as folder:
        log = Path(options.keep_log or f"{folder}/log").resolve()
        log.unlink(missing_ok=True)
        outcomes = compile_all(graphs, arguments, max(1, options.processes), log)
    return conclude(graphs, outcomes)


def conclude(graphs: Sequence[Any], outcomes: Sequence[Outcome]) -> int:
    """Print the last lines; the exit code."""
    aclop = sorted({name for outcome in outcomes for name in outcome.operators(_ACLOP)})
    for name in aclop:
        print(f"aclop {name}: {STAYS.get(name, 'NOT EXPECTED')}")
    disorder = out_of_order(graphs, outcomes)
    print("\n".join([*disorder, ""]), end="")
    compiled = sum(not outcome.error for outcome in outcomes)
    print(f"graphs={len(outcomes)} compiled={compiled} aclop={len(aclop)}")
    return int(compiled < len(outcomes) or bool(set(aclop) - set(STAYS)) or bool(disorder))


if __name__ == "__main__":
    run(main)
