"""The graphs that a dry run compiles for Ascend: training steps, evaluations, and what export writes.

A graph is anything with a `name`, a number of `ranks`, and a function `make` that gives a cell and its inputs. Tables
are of zeros that nobody reads: a dry run takes their shape alone.
"""

import itertools
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.workers import CRITEO_ROWS, SMALL_ROWS, table_rows
from src.base.errors import InputError
from src.data.layout import Layout
from src.network.options import NetworkSpec
from src.training.options import OptimizationSpec, ScheduleSpec

DENSE, FIELDS = 13, len(CRITEO_ROWS)
DEVICE = "Ascend"
PLAIN = Layout.plain(FIELDS)
# Lists of every pool among fields of one value, two of which share the first field's table.
LISTS = Layout((*range(FIELDS - 2), 0, 0), (1, 4, 1, 1, 3, 2, *[1] * (FIELDS - 8), 5, 1),
               ("", "mean", "", "", "max", "sum", *[""] * (FIELDS - 8), "mean", ""))  # fmt: skip
# What is combined, so that every two of these values meet in a graph, if the options' rules allow it.
AXES: dict[str, tuple[Any, ...]] = {
    "optimizer": ("sgd", "adagrad", "rowwise_adagrad", "adam"),
    "mlp_optimizer": ("", "sgd", "adam"),
    "interaction": ("dot", "self", "cat", "dcnv2"),
    "towers": (1, 2, 4),
    "mixed_dims": (0.0, 0.3),
    "dropout": (0.0, 0.1),
    "average_share": (0.0, 0.5),
    "lr_schedule": ("constant", "cosine"),
    "compute_dtype": ("float32", "float16", "bfloat16"),
    "loss_scale": ("dynamic", 1024.0),
    "decay": (0.0, 0.01),
    "label_smoothing": (0.0, 0.1),
    "reset_tables_each_epoch": (False, True),
    "weighted": (False, True),
    "logit_shift": (0.0, -2.3),
    "place": (("none", 1), ("data", 2), ("hybrid", 2), ("data", 8), ("hybrid", 8)),
    "batch": (128, 16384),
    "hidden": (((64,), (64,)),),  # sizes of the MLPs' layers but the last ones: more of them are more of the same
}
_ALL_HIDDEN = (NetworkSpec().bottom_mlp[:-1], NetworkSpec().top_mlp[:-1])
_Pair = tuple[tuple[str, Any], ...]  # two names of AXES in their order, each with a value
_DRAWS = 60  # for each graph, of which the one with the most new pairs is taken


@dataclass(frozen=True)
class Graph:
    """A graph of this repository.

    Attributes:
        kind: "train", "evaluate", or "export", which is what export.py writes, read again.
        network, optimization, schedule: as in src/options.py.
        compute_dtype: as in ComputeSpec.
        mode, ranks, rank: parallel_mode, how many processes, and which of them.
        batch: samples over all ranks.
        total_rows: of all tables, shared out as Criteo's.
        placement: of the tables in an export.
        layout: of a row's ids.
        weighted, logit_shift: as of TrainStep.
        group: what it is an example of, in words.
    """

    kind: str = "train"
    network: NetworkSpec = NetworkSpec()
    optimization: OptimizationSpec = OptimizationSpec()
    schedule: ScheduleSpec = ScheduleSpec()
    compute_dtype: str = "float32"
    mode: str = "none"
    ranks: int = 1
    rank: int = 0
    batch: int = 128
    total_rows: int = SMALL_ROWS
    placement: str = "graph"
    layout: Layout = PLAIN
    weighted: bool = False
    logit_shift: float = 0.0
    group: str = ""

    @property
    def name(self) -> str:
        """What is other than the defaults, in words."""
        words = [self.kind, f"batch={self.batch}"]
        if self.kind == "export":
            words.append(f"tables={'in the graph' if self.placement == 'graph' else 'beside it'}")
        if self.mode != "none":
            words.append(f"{self.mode} rank {self.rank} of {self.ranks}")
        if self.layout.has_lists:
            words.append("lists and shared tables")
        words += ["weighted"] if self.weighted else []
        words += ["sampled negatives"] if self.logit_shift else []
        if self.total_rows != SMALL_ROWS:
            words.append(f"{self.total_rows:,} rows")
        if self.compute_dtype != "float32":
            words.append(self.compute_dtype)
        for spec in (self.network, self.optimization, self.schedule):
            default = type(spec)()
            words += [
                f"{name}={_shown(value)}" for name, value in vars(spec).items() if value != getattr(default, name)
            ]
        return " ".join(words)

    def make(self) -> tuple[Any, tuple[Any, ...]]:
        """The cell and its inputs."""
        if self.kind == "train":
            return self._step(), self._inputs(1 + self.weighted)
        model, _ = self._model()
        model.set_train(False)
        return (model, self._inputs(0)) if self.kind == "evaluate" else self._exported(model)

    def _model(self) -> tuple[Any, Any]:
        """The network, and what its ranks send by."""
        import mindspore as ms

        from src.dlrm import DLRM
        from src.export.graph import EXPORTED
        from src.network.compiled import operators_for
        from src.network.embedding import make_tables
        from src.network.mixed_dims import widths_of
        from src.ranks.placement import has_all_to_all, place

        rows = self.layout.of_tables(table_rows(self.total_rows))
        exported = self.kind == "export"  # by tables of full width
        widths = widths_of(rows, replace(self.network, mixed_dims=0.0) if exported else self.network)
        operators = EXPORTED if exported else operators_for(DEVICE, True, self.optimization.rules)
        tables, exchange = make_tables(
            place(widths.packed_rows, self.mode, self.ranks, self.layout.uses), self.rank, self.network.emb_dim,
            lambda *_: None, operators, has_all_to_all(DEVICE), self.layout,
        )  # fmt: skip
        return DLRM(DENSE, tables, self.network, getattr(ms, self.compute_dtype), 1, widths), exchange

    def _step(self) -> Any:
        from src.training.step import TrainStep

        (model, exchange), schedule = self._model(), self.schedule
        factors = np.linspace(1, 0, 1000) if schedule.lr_schedule != "constant" else None
        resets = 100 if schedule.reset_tables_each_epoch and self.optimization.rules[0].corrections else 0
        if resets and factors is None:
            factors = np.ones(1000)
        scale = self.optimization.loss_scale if self.compute_dtype == "float16" else None
        average_from = 500 if schedule.average_share else None
        return TrainStep(
            model, self.optimization, factors, average_from, scale, 1, exchange, resets, weighted=self.weighted,
            logit_shift=self.logit_shift,
        )  # fmt: skip

    def _inputs(self, columns: int) -> tuple[Any, ...]:
        from mindspore import Tensor

        own = self.batch // self.ranks
        shapes = [(own, DENSE), (own, self.layout.ids), *[(own, 1)] * columns]
        kinds = ("float32", "int32", *["float32"] * columns)
        return tuple(Tensor(np.zeros(shape, kind)) for shape, kind in zip(shapes, kinds))

    def _exported(self, model: Any) -> tuple[Any, tuple[Any, ...]]:
        import mindspore as ms
        from mindspore import Tensor, nn

        from src.export.graph import export_graph
        from src.export.options import ExportSpec

        with tempfile.TemporaryDirectory() as folder:
            spec = ExportSpec(export_batch_size=self.batch, mindir_version=3)
            path, *_ = export_graph(model, Path(folder), spec, DENSE, self.placement)
            cell = nn.GraphCell(ms.load(str(path)))
        dense, ids = self._inputs(0)
        if self.placement == "host":
            return cell, (dense, Tensor(np.zeros((self.batch, FIELDS, self.network.emb_dim), np.float32)))
        return cell, (dense, ids)


def _shown(value: Any) -> str:
    return ",".join(map(str, value)) if isinstance(value, tuple) else str(value)


def of_values(values: dict[str, Any], number: int = 0) -> Graph | None:
    """The training step of a value of each of AXES, on one of the ranks; None where the options' rules forbid it."""
    towers, (mode, ranks), decay = values["towers"], values["place"], values["decay"]
    own, (bottom, top) = values["interaction"] == "self", values["hidden"]
    try:
        network = NetworkSpec(
            16, (*bottom, 16 // towers), (*top, 1), interaction="dot" if own else values["interaction"],
            self_interaction=own, towers=towers, mixed_dims=values["mixed_dims"],
        )  # fmt: skip
        optimization = OptimizationSpec(
            values["optimizer"], values["mlp_optimizer"], table_weight_decay=decay, mlp_weight_decay=decay,
            dropout=values["dropout"], label_smoothing=values["label_smoothing"], loss_scale=values["loss_scale"],
        )  # fmt: skip
        optimization.check_network(network)
    except InputError:
        return None
    if values["loss_scale"] != "dynamic" and values["compute_dtype"] != "float16":
        return None
    schedule = ScheduleSpec(
        reset_tables_each_epoch=values["reset_tables_each_epoch"], average_share=values["average_share"],
        lr_schedule=values["lr_schedule"],
    )  # fmt: skip
    return Graph(
        "train", network, optimization, schedule, values["compute_dtype"], mode, ranks, number % ranks, values["batch"],
        weighted=values["weighted"], logit_shift=values["logit_shift"],
    )  # fmt: skip


def combined() -> list[Graph]:
    """Training steps in which every two values of AXES meet that may: drawn, always the same."""
    rng, graphs = np.random.default_rng(1), list[Graph]()
    left = _allowed_pairs()
    while left:
        best: tuple[set[Any], Graph] | None = None
        wanted = dict(min(left, key=repr))
        for _ in range(_DRAWS):
            values = {name: choices[rng.integers(len(choices))] for name, choices in AXES.items()} | wanted
            graph = of_values(values, len(graphs))
            found = _pairs(values) & left
            if graph and (best is None or len(found) > len(best[0])):
                best = found, graph
        if best is None:
            left -= {tuple(wanted.items())}
            continue
        left -= best[0]
        graphs.append(best[1])
    return graphs


def other_ranks(graphs: Sequence[Graph]) -> list[Graph]:
    """Of graphs of two ranks, that of the other one: what they send is compared."""
    return [replace(graph, rank=1 - graph.rank) for graph in graphs if graph.ranks == 2]


def _pairs(values: dict[str, Any]) -> set[_Pair]:
    return set(itertools.combinations(((name, values[name]) for name in AXES), 2))


def _allowed_pairs() -> set[_Pair]:
    plain = {name: choices[0] for name, choices in AXES.items()}
    found = set()
    for (first, choices), (second, others) in itertools.combinations(AXES.items(), 2):
        for pair in itertools.product(choices, others):
            values = plain | dict(zip((first, second), pair))
            if "loss_scale" in (first, second) and values["loss_scale"] != "dynamic":
                values |= {"compute_dtype": "float16"} if "compute_dtype" not in (first, second) else {}
            if of_values(values):
                found.add(((first, pair[0]), (second, pair[1])))
    return found


def every_rank() -> Iterator[Graph]:
    """The training step of each rank, data and hybrid parallel."""
    for mode, ranks in itertools.product(("data", "hybrid"), (2, 8)):
        for rank in range(ranks):
            yield Graph(mode=mode, ranks=ranks, rank=rank)


def rules_and_interactions() -> Iterator[Graph]:
    """Training steps of every rule with every interaction."""
    plain = {name: choices[0] for name, choices in AXES.items()} | {"hidden": _ALL_HIDDEN}
    for optimizer, interaction in itertools.product(AXES["optimizer"], AXES["interaction"]):
        if graph := of_values(plain | {"optimizer": optimizer, "interaction": interaction}):
            yield graph


def full_size() -> Iterator[Graph]:
    """Training steps and an evaluation over Criteo's tables whole."""
    graph = Graph(batch=16384, total_rows=sum(CRITEO_ROWS))
    for optimizer in AXES["optimizer"]:
        yield replace(graph, optimization=OptimizationSpec(optimizer))
    yield replace(graph, mode="hybrid", ranks=8, rank=7, optimization=OptimizationSpec("adam"))
    yield replace(graph, kind="evaluate")


def lists() -> Iterator[Graph]:
    """Training steps and evaluations of rows with lists: of every rule, on one rank and on both of two."""
    graph = Graph(layout=LISTS)
    for optimizer in AXES["optimizer"]:
        yield replace(graph, optimization=OptimizationSpec(optimizer))
    yield replace(graph, compute_dtype="float16", network=NetworkSpec(mixed_dims=0.3), weighted=True)
    for mode, rank in itertools.product(("data", "hybrid"), (0, 1)):
        yield replace(graph, mode=mode, ranks=2, rank=rank)
    for mode, ranks in (("none", 1), ("hybrid", 2)):
        yield replace(graph, kind="evaluate", batch=16384, mode=mode, ranks=ranks)


def evaluations() -> Iterator[Graph]:
    """Networks that score, on one rank and several."""
    whole = Graph("evaluate", batch=16384)
    for graph in (whole, replace(whole, batch=128)):
        yield from _networks(graph)
    for mode, ranks in (("data", 2), ("hybrid", 2), ("hybrid", 8)):
        yield replace(whole, mode=mode, ranks=ranks, rank=ranks - 1)


def exports() -> Iterator[Graph]:
    """What export.py writes."""
    for placement in ("graph", "host"):
        for graph in _networks(Graph("export", batch=1024, placement=placement)):
            yield replace(graph, network=replace(graph.network, mixed_dims=0.0))


def _networks(graph: Graph) -> Iterator[Graph]:
    for network in (
        NetworkSpec(),
        NetworkSpec(interaction="cat", mixed_dims=0.3),
        NetworkSpec(interaction="dcnv2", bottom_mlp=(512, 256, 64, 8), towers=2),
    ):
        yield replace(graph, network=network)


def all_graphs() -> list[Graph]:
    """All of them, in groups that the result file tells apart."""
    pairs = combined()
    groups = {
        "training steps, every rule with every interaction": rules_and_interactions(),
        "training steps of all ranks, 2 and 8, data and hybrid parallel": every_rank(),
        "training steps, every two options together": pairs,
        "of these with 2 ranks, the other rank": other_ranks(pairs),
        "training steps and evaluation, Criteo's tables whole": full_size(),
        "training steps and evaluations, lists and shared tables": lists(),
        "evaluations": evaluations(),
        "exports, read again": exports(),
    }
    return [replace(graph, group=group) for group, graphs in groups.items() for graph in graphs]


def quick_graphs() -> list[Graph]:
    """A few small ones with much in them, of both ranks of two, which one process can compile."""
    small = NetworkSpec(8, (8,), (8, 1), mixed_dims=0.3)
    schedule = ScheduleSpec(average_share=0.5, lr_schedule="cosine")
    most = OptimizationSpec("adagrad", mlp_weight_decay=0.01, dropout=0.1, label_smoothing=0.1)
    two = Graph("train", small, most, schedule, "float16", "hybrid", 2, 1)
    return [two, *other_ranks([two]), replace(two, kind="evaluate", mode="data", compute_dtype="float32")]
