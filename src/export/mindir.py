"""MindIR of version 1, which every MindSpore Lite from 2.0 on reads; MindSpore 2.10 writes version 3.

In version 3 what an operator is set to, such as transpose_b, is a constant input of its node; in version 1 it is an
attribute of the operator's primitive. Everything else is alike, for the operators listed here.
"""

from typing import Any

VERSION = 1
_REFERENCE = "REF::"

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
