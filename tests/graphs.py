"""Cells that differ in values alone share a compiled graph, since compiling takes most of the time of small networks.

MindSpore compiles each cell object anew. Here one that is built as an earlier one was takes that one's graph: for each
call the graph's parameters get its values, which it gets back as the call left them. What is compiled, what is computed
and how it is called stay the same. Which cells are alike is found by `Structure`, which walks all that they hold.

A test that is about compiling itself, fails a graph, or changes what a graph takes from a module, takes the fixture
`own_graphs` of conftest.py.
"""

import contextlib
import functools
import gc
import hashlib
import inspect
import types
from collections.abc import Iterator
from pathlib import PurePath
from typing import Any, NamedTuple

import mindspore as ms
import numpy as np
from mindspore import Parameter, Tensor, nn
from mindspore.graph import api
from mindspore.graph.api import _CellGraphExecutor
from mindspore.graph.api import _real_phase as phase_of
from mindspore.ops import Primitive

# What MindSpore notes in a cell of this one object and its calls, or of a larger cell's that was compiled with it; and
# flags, which `get_flags` makes.
NOTES = {
    "_create_time", "arguments_key", "_compile_cache", "_phase_cache", "_compiled", "_compile_phase", "_exist_objs",
    "_exist_names", "_lazy_construct_sig", "_has_mutable_args_list", "current_phase", "sequence_modified", "_init_flag",
    "__compile_cell_hook__", "loans", "_scope", "_func_graph_flags",
}  # fmt: skip
NUMBER_OF_JIT = "hash_obj"  # a variable of functions that are decorated with jit, other in each
MOST_VALUES = 1 << 20  # in a cell that keeps its graph for others: it is never freed
PLAIN = (type(None), bool, int, float, complex, str, bytes)
compile_alone, run_alone, proto_alone = (
    _CellGraphExecutor.compile, _CellGraphExecutor.run, _CellGraphExecutor._get_func_graph_proto,
)  # fmt: skip


class UnknownError(Exception):
    """A cell holds something of which can't be told whether another one is the same."""


class Structure:
    """All that a compiled graph depends on, as a text's checksum; and the parameters, in the order of the text.

    What comes again is told by its number, so that it is also told which parts are the same object.
    """

    def __init__(self) -> None:
        self.sum, self.seen, self.parameters = hashlib.blake2b(), {}, []

    def tell(self, *words: Any) -> None:
        self.sum.update(repr(words).encode())

    def walk(self, value: Any) -> None:
        kind = type(value)
        if kind in PLAIN:
            self.tell(value)
        elif id(value) in self.seen:
            self.tell("again", self.seen[id(value)][0])
        else:
            self.seen[id(value)] = len(self.seen), value  # kept, so that no other object gets its id
            self.tell(kind.__module__, kind.__qualname__, id(kind))
            self.walk_new(value)

    def walk_new(self, value: Any) -> None:
        if isinstance(value, Parameter):
            self.parameters.append(value)
            self.tell(value.name, value.shape, str(value.dtype), value.requires_grad)
            self.know(not value.has_init)
        elif isinstance(value, (Tensor, np.ndarray, np.generic)):
            array = value.asnumpy() if isinstance(value, Tensor) else value
            self.know(not array.dtype.hasobject)
            self.tell(array.shape, str(value.dtype), array.tobytes())
        elif isinstance(value, (list, tuple)):
            self.walk_all(value)
        elif isinstance(value, dict):
            self.walk_all([*value, *value.values()])
        elif isinstance(value, (set, frozenset)):
            self.know(all(type(one) in PLAIN for one in value))
            self.tell(sorted(map(repr, value)))
        elif isinstance(value, functools.partial):
            self.walk_all((value.func, value.args, value.keywords))
        elif isinstance(value, types.MethodType):
            self.walk_all((value.__func__, value.__self__))
        elif isinstance(value, types.FunctionType):
            closure = dict(zip(value.__code__.co_freevars, value.__closure__ or ()))
            self.tell(id(value.__code__))
            self.walk_all((value.__defaults__, value.__kwdefaults__))
            self.walk({name: cell.cell_contents for name, cell in closure.items() if name != NUMBER_OF_JIT})
        elif isinstance(value, (type, types.BuiltinFunctionType, types.ModuleType)):
            self.tell(id(value))
        elif isinstance(value, (PurePath, ms._c_expression.typing.Type)):
            self.tell(str(value))
        else:
            self.walk_object(value)

    def walk_object(self, value: Any) -> None:
        self.know(hasattr(value, "__dict__"))
        held = dict(vars(value))
        if isinstance(value, nn.Cell):
            for name in [name for name, one in held.items() if name in NOTES or (name[:6] == "_lazy_" and not one)]:
                del held[name]
            held["its flags"], held["its construct"] = value.get_flags(), type(value).construct
        if isinstance(value, Primitive):
            held["its attributes"] = dict(sorted(value.attrs.items()))
        self.walk(held)

    def walk_all(self, values: Any) -> None:
        self.tell(len(values))
        for value in values:
            self.walk(value)

    def know(self, sure: bool) -> None:
        if not sure:
            raise UnknownError


class Graph(NamedTuple):
    """A compiled graph: the cell that has it, its name, and the parameters in the order of `Structure`."""

    cell: nn.Cell
    phase: str
    parameters: list[Parameter]


class Loan(NamedTuple):
    """Another cell's graph, and the cell's own parameters with that one's."""

    graph: Graph
    pairs: list[tuple[Parameter, Parameter]]


graphs: dict[str, Graph] = {}  # by the checksum of their structure
sharing = [False]


def structure_of(cell: nn.Cell, *more: Any) -> tuple[str, list[Parameter]]:
    """The checksum of a cell's structure, and its parameters.

    Raises:
        UnknownError: other cells can't share its graph.
    """
    structure = Structure()
    structure.walk(cell)
    parameters = structure.parameters
    structure.know({id(one) for one in cell.get_parameters()} <= {id(one) for one in parameters})
    structure.know(sum(one.size for one in parameters) <= MOST_VALUES)
    structure.walk((*more, ms.get_context("mode")))
    return structure.sum.hexdigest(), parameters


def compile_or_share(self, cell, *inputs, phase="predict", jit_config_dict=None, **more):
    """In place of MindSpore's `compile`, which is called before each run: gives the graph's name, and if it is new."""

    def alone():
        return compile_alone(self, cell, *inputs, phase=phase, jit_config_dict=jit_config_dict, **more)

    if not sharing[0] or more or phase not in ("train", "predict") or any(type(one) is not Tensor for one in inputs):
        return alone()
    kind = (phase, *((one.shape, one.dtype) for one in inputs))
    names, loans = vars(cell).setdefault("loans", ({}, {}))  # names of kinds, loans of names
    if kind not in names:
        names[kind] = None
        with contextlib.suppress(UnknownError):
            name, parameters = structure_of(cell, kind, jit_config_dict)
            if name not in graphs:
                compiled = alone()
                graphs[name] = Graph(cell, compiled[0], parameters)
                return compiled
            loans[name] = Loan(graphs[name], [*zip(parameters, graphs[name].parameters)])
            names[kind] = name
    if names[kind] is None:
        return alone()
    cell.arguments_key = names[kind]
    cell.phase_cache[phase] = cell.current_phase = cell.compile_phase = full = phase_of(phase, cell)
    return full, False


def loan_of(cell: nn.Cell) -> Loan | None:
    """What the cell borrowed to be called as it was compiled last."""
    return vars(cell).get("loans", ({}, {}))[1].get(cell.arguments_key)


def run_own_or_shared(self, cell, *inputs, phase="predict"):
    loan = loan_of(cell)
    try:
        if loan is None:
            return run_alone(self, cell, *inputs, phase=phase)
        with lent(loan.pairs):
            return copies(self._exec_pip(loan.graph.cell, *inputs, phase=loan.graph.phase))
    except BaseException:  # behind which MindSpore may not run the graph again
        owner = cell if loan is None else loan.graph.cell
        for name in [name for name, graph in graphs.items() if graph.cell is owner]:
            del graphs[name]
        raise


def proto_of_own_or_shared(self, cell, phase, ir_type="onnx_ir", use_prefix=False, incremental=False):
    loan = loan_of(cell)
    if loan is None or not use_prefix:
        return proto_alone(self, cell, phase, ir_type, use_prefix, incremental)
    return proto_alone(self, loan.graph.cell, loan.graph.phase, ir_type, False, incremental)


@contextlib.contextmanager
def lent(pairs: list[tuple[Parameter, Parameter]]) -> Iterator[None]:
    """The second ones' memory holds the first ones' values, which get what becomes of them."""
    arrays = [(mine.asnumpy(), theirs.asnumpy()) for mine, theirs in pairs]  # each call takes 20 microseconds
    before = [there.copy() for _, there in arrays]
    for own, there in arrays:
        there[...] = own
    try:
        yield
    finally:
        for (own, _), (_, theirs), values in zip(arrays, pairs, before):
            there = theirs.asnumpy()
            own[...], there[...] = there, values


def copies(outputs):
    """Tensors that don't share memory with a graph's parameters; the call is over when they are made."""
    if isinstance(outputs, (list, tuple)):
        return type(outputs)(map(copies, outputs))
    return Tensor(outputs.asnumpy().copy(), outputs.dtype) if isinstance(outputs, Tensor) else outputs


def share() -> None:
    """Let this process's cells share their graphs from now on."""
    sharing[0] = True
    _CellGraphExecutor.compile = compile_or_share
    _CellGraphExecutor.run = run_own_or_shared
    _CellGraphExecutor._get_func_graph_proto = proto_of_own_or_shared
    compile_quickly()


def compile_quickly() -> None:
    """Let MindSpore find the sources of functions once, not for each graph, and collect but new garbage before it."""
    of_code = functools.cache(inspect.getsourcelines)

    def lines_of(thing):
        code = getattr(inspect.unwrap(thing) if callable(thing) else thing, "__code__", None)
        lines, number = of_code(code) if code else of_code.__wrapped__(thing)
        return [*lines], number

    inspect.getsourcelines = lines_of
    api.gc = types.SimpleNamespace(collect=lambda: gc.collect(1))  # of what is new; the rest when it gets much


@contextlib.contextmanager
def apart() -> Iterator[None]:
    """Meanwhile each cell compiles its own graph, and keeps it to itself."""
    sharing[0] = False
    try:
        yield
    finally:
        sharing[0] = True
