"""MindIR of version 1, which every MindSpore Lite from 2.0 on reads; MindSpore 2.10 writes version 3.

In version 3 what an operator is set to, such as transpose_b, is a constant input of its node; in version 1 it is an
attribute of the operator's primitive. Everything else is alike, for the operators listed here.

MindSpore numbers what it exports by all that it compiled before; here graphs get names of their own, so that a network
gives the same bytes whenever it is exported.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

VERSION = 1
_REFERENCE = "REF::"
_GRAPH = "score"
_FLOAT32 = 1  # of TensorProto.DataType

# Which inputs of an operator, from 0, become which attributes.
_ATTRIBUTES = {
    "MatMul": {2: "transpose_a", 3: "transpose_b"},
    "BatchMatMul": {2: "transpose_a", 3: "transpose_b"},
    "BiasAdd": {2: "format"},
    "Gather": {3: "batch_dims"},
    "Concat": {1: "axis"},
    "Split": {1: "axis", 2: "output_num"},
    "ReduceSum": {2: "keep_dims", 3: "skip_mode"},
}
# Operators whose nodes are the same in both versions.
_ALIKE = {
    "ReLU", "Sigmoid", "Reshape", "Add", "Sub", "Mul", "RealDiv", "Maximum", "Minimum", "MakeTuple", "TupleGetItem",
    "Load", "UpdateState", "Depend",
}  # fmt: skip
_FORMATS = {0: "NCHW"}


Weights = dict[str, np.ndarray]  # parameters of a graph by their names


def name_anew(model: Any) -> None:
    """Name what a mind_ir_pb2.ModelProto holds by its place, in place; inputs and parameters keep theirs.

    A name is the graph's, a colon and its own.
    """
    old, new = model.graph.name, _GRAPH
    names = {
        value.name: f"{new}:{value.name.rpartition(':')[2]}" for value in (*model.graph.input, *model.graph.parameter)
    }
    for place, node in enumerate(model.graph.node):
        for number, output in enumerate(node.output):
            names[output] = f"{new}:{place}.{number}"
    model.graph.name = new
    for value in (*model.graph.input, *model.graph.output, *model.graph.parameter):
        value.name = names[value.name]
    for node in model.graph.node:
        node.input[:] = [names.get(name, name) for name in node.input]
        node.output[:] = [names.get(name, name) for name in node.output]
        node.name = names.get(node.name, node.name).replace(old, new)
    for attribute in model.graph.attribute:
        if attribute.name == "compile_phase":  # which holds the time
            attribute.s = b"export"


def written_as(version: int) -> Callable[[Any], None]:
    """What is done to a ModelProto before it is written: what `mindspore.export` takes as custom_func."""

    def rewrite(model: Any) -> None:
        if version == VERSION:
            to_version_1(model)
        name_anew(model)

    return rewrite


def weights_of(path: Path) -> tuple[bytes, Weights]:
    """What is left of a graph's file without the values of its parameters, and these.

    Two graphs of which the first is the same compute the same with the same weights; it is empty where values stand in
    files of their own.
    """
    from mindspore.train.mind_ir_pb2 import ModelProto

    model = ModelProto()
    model.ParseFromString(path.read_bytes())
    name_anew(model)  # which earlier exports were not
    weights = {}
    if not all(parameter.raw_data for parameter in model.graph.parameter):
        return b"", {}
    for parameter in model.graph.parameter:
        if parameter.data_type == _FLOAT32:
            values = np.frombuffer(parameter.raw_data, "<f4").reshape(tuple(parameter.dims))
            weights[parameter.name.rpartition(":")[2]] = values
            parameter.raw_data = b""
    return model.SerializeToString(deterministic=True), weights


def to_version_1(model: Any) -> None:
    """Rewrite a mind_ir_pb2.ModelProto in place, as `mindspore.export` hands it to custom_func.

    Raises:
        ValueError: an operator that is not known here, or a graph within the graph.
    """
    if model.functions:  # which would stay as they are, under the stamp of version 1
        raise ValueError(f"{model.functions[0].name}, a graph within the graph, is not known to the rewriting")
    constants = {node.output[0]: node for node in model.graph.node if node.op_type == "Constant"}
    originals = {primitive.name: primitive for primitive in model.primitives}
    written = set()
    for node in model.graph.node:
        if not node.op_type.startswith(_REFERENCE):
            continue
        original = originals[node.op_type.removeprefix(_REFERENCE)]
        if original.op_type not in _ALIKE and original.op_type not in _ATTRIBUTES:
            raise ValueError(f"operator {original.op_type} is not known to the rewriting to MindIR of version 1")
        names = _ATTRIBUTES.get(original.op_type, {})
        attributes = {name: constants[node.input[index]].attribute[0] for index, name in names.items()}
        kept = [value for index, value in enumerate(node.input) if index not in names]
        del node.input[:]
        node.input.extend(kept)
        # Nodes share a primitive, in which what was an input may differ from node to node.
        own = original.name + "".join(f":{name}={value.i}" for name, value in attributes.items())
        node.op_type = _REFERENCE + own
        if own not in written:
            written.add(own)
            primitive = model.primitives.add()
            primitive.CopyFrom(original)
            primitive.name, primitive.prim_type = own, primitive.PRIMITIVE
            _set(primitive, attributes)
    del model.primitives[: len(originals)]
    _drop_unused(model)
    model.mind_ir_version = VERSION


def _set(primitive: Any, attributes: dict[str, Any]) -> None:
    for name, value in attributes.items():
        attribute = primitive.attribute.add()
        attribute.name = name
        if name == "format":
            attribute.type, attribute.s = attribute.STRING, _FORMATS[value.i].encode()
        else:
            attribute.type, attribute.i = value.type, value.i


def _drop_unused(model: Any) -> None:
    """Remove constants that no node takes any more."""
    used = {name for node in model.graph.node for name in node.input} | {value.name for value in model.graph.output}
    for index in reversed(range(len(model.graph.node))):
        node = model.graph.node[index]
        if node.op_type == "Constant" and node.output[0] not in used:
            del model.graph.node[index]
