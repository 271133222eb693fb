"""What a dry run's process says of its graphs: MindSpore's log, line by line, and what became of each graph."""

import csv
import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

MARK = "ascend_dryrun:"  # begins what the process says beside MindSpore's log
ACLNN, ACLOP, COLLECTIVE = "opapi_kernel", "acl_kernel", "hccl_kernel"
_KERNEL = re.compile(r"kernel opname:(\w+), kernel type:(\w+)")
_SELECTED = re.compile(r"\] (\w+) select (\w+) kernel")
_NODE = re.compile(r"GenerateKernelBuildInfo\] (?:\S*/)?(\w+)-op\d+ ")
_ALL_CHOSEN = "PrintOpSelectedNum"


@dataclass
class Outcome:
    """What became of a graph.

    Attributes:
        name: of the graph.
        error: why it does not compile, "" if it does.
        kernels: (operator, type) in the order in which they are launched.
        memory_mb: of its tensors at most; 0 where it is not told.
        sent: each collective operation, as it is launched: its group, what goes in and what comes out.
        not_laid_out: why kernels were not made and tensors not laid out, "" if they were. The stand-ins of CANN can't
            make most aclop kernels; a graph with one compiles, its kernels are chosen, and MindSpore then fails or
            dies.
    """

    name: str
    error: str = "not reached"
    kernels: list[tuple[str, str]] = field(default_factory=list)
    memory_mb: float = 0.0
    sent: list[str] = field(default_factory=list)
    not_laid_out: str = ""

    def operators(self, kind: str) -> list[str]:
        """Of the kernels of a type."""
        return [operator for operator, one in self.kernels if one == kind]

    def __str__(self) -> str:
        aclop = Counter(self.operators(ACLOP))
        named = f" ({', '.join(f'{name} {count}' for name, count in sorted(aclop.items()))})" if aclop else ""
        laid_out = f"not laid out ({self.not_laid_out})" if self.not_laid_out else "laid out"
        return (
            f"{self.name}: {f'NOT COMPILED, {self.error}' if self.error else f'compiled, {laid_out}'}, "
            f"kernels: aclnn {len(self.operators(ACLNN))}, aclop {aclop.total()}{named}, "
            f"collectives {len(self.operators(COLLECTIVE))}, memory {self.memory_mb:,.1f} MB"
        )


def follow(log: Iterable[str], outcomes: dict[int, Outcome], stand_ins: bool) -> Iterator[int]:
    """Fill in what a process says of its graphs, line by line; the numbers of those that ended, as they do.

    That in which the process itself ended is the last one.

    Args:
        log: of the process.
        outcomes: by number.
        stand_ins: whether CANN is stood in for, whose aclop kernels then can't be made; else whatever fails is a fault.
    """
    now, kinds, nodes, chosen = None, dict[str, str](), list[str](), False
    for line in log:
        if line.startswith(MARK):
            words = json.loads(line.removeprefix(MARK))
            if "begins" in words:
                now, nodes, chosen = words["begins"], [], False
                outcomes[now].name = words["name"]
                continue
            outcome = outcomes[words["ends"]]
            outcome.error, outcome.memory_mb = words["error"], words["memory_mb"]
            _complete(outcome, nodes, kinds, stand_ins and chosen and "is null" in outcome.error)
            yield words["ends"]
            now = None
        elif now is not None and (found := _KERNEL.search(line)):
            outcomes[now].kernels.append((found[1], found[2]))
        elif found := _SELECTED.search(line):  # told once for each operator in a process
            kinds[found[1]] = {"aclnn": ACLNN, "aclop": ACLOP}.get(found[2], found[2])
        elif now is not None and (found := _NODE.search(line)):
            nodes.append(found[1])
        elif _ALL_CHOSEN in line:
            chosen = True
    if now is not None:
        outcomes[now].error = "MindSpore died"
        _complete(outcomes[now], nodes, kinds, stand_ins and chosen)
        yield now


def _complete(outcome: Outcome, nodes: list[str], kinds: dict[str, str], excused: bool) -> None:
    """The kernels that were chosen, if the making of them ended early; excused where there is an aclop kernel."""
    if outcome.error and len(nodes) > len(outcome.kernels):
        outcome.kernels = [(name, kinds.get(name, "")) for name in nodes]
    if outcome.error and excused and outcome.operators(ACLOP):
        outcome.error, outcome.not_laid_out = "", outcome.error


def share_out(folder: Path, outcomes: Iterable[Outcome]) -> None:
    """Fill in what is sent, which MindSpore writes down as a process ends: all its graphs' collectives, in their order.

    Args:
        folder: in which the process ran.
        outcomes: of its graphs, in their order.
    """
    rows = []
    for path in sorted(folder.rglob("comm_execute_order.csv")):
        with open(path, encoding="utf-8", newline="") as file:
            rows += list(csv.DictReader(file))
    for outcome in outcomes:
        launched = outcome.operators(COLLECTIVE)
        own, rows = rows[: len(launched)], rows[len(launched) :]
        if [row["primitive"] for row in own] != launched:
            return  # nobody can say whose the others are
        outcome.sent = [
            f"{row['primitive']} {row['input_type']}{row['input_shape']} to {row['output_type']}{row['output_shape']} "
            f"in {row['group']} of {row['comm_rank']}"
            for row in own
        ]


def of_one_graph(graphs: Sequence[Any], outcomes: Sequence[Outcome]) -> list[list[Outcome]]:
    """The ranks that were laid out, of each graph of which several were."""
    ranks: dict[str, list[Outcome]] = {}
    for graph, outcome in zip(graphs, outcomes):
        if graph.ranks > 1 and not (outcome.error or outcome.not_laid_out):
            ranks.setdefault(re.sub(r"rank \d+ of", "of", graph.name), []).append(outcome)
    return [own for own in ranks.values() if len(own) > 1]


def out_of_order(graphs: Sequence[Any], outcomes: Sequence[Outcome]) -> list[str]:
    """Ranks that send something else, or in another order, than the first one of their graph: they would hang.

    Compared are groups, operations, shapes and types. Where MindSpore told less than it launches, that is a fault too.
    """
    found = []
    for own in of_one_graph(graphs, outcomes):
        for one in own:
            if len(one.sent) != len(one.operators(COLLECTIVE)):
                found.append(f"{one.name} told {len(one.sent)} of {len(one.operators(COLLECTIVE))} collectives")
            elif one.sent != own[0].sent:
                found.append(f"{one.name} sends {'; '.join(one.sent)}, but {own[0].name} {'; '.join(own[0].sent)}")
    return found
