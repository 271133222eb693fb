"""Ascend's operators beside those of GPU and CPU, on a CPU: see tests/ascend_on_cpu.py for which it lacks."""

import re

import mindspore as ms
import numpy as np
import pytest
from ascend_on_cpu import ASCEND_ON_CPU
from conftest import ROOT
from mindspore import Parameter, Tensor, nn
from mindspore.train import anf_ir_pb2
from networks import changing, make_batch, make_model, make_step

from src.dlrm import DLRM
from src.network.ascend import ASCEND, AscendLinear, AscendPrimitives, _Groups
from src.network.compiled import operators_for
from src.network.embedding import EmbeddingTables, initial_rows
from src.network.mixed_dims import widths_of
from src.network.options import NetworkSpec
from src.network.primitives import PRIMITIVES
from src.network.stock import STOCK, StockLinear

# All that has no aclnn kernel, or copies what it need not.
OLDER = {"AddN", "Assign", "AssignAdd", "AssignSub", "BiasAdd", "BiasAddGrad", "BitwiseAnd", "RightShift",
         "Slice", "Split", "TensorMove", "Unique", "UnsortedSegmentSum", "ZerosLike"}  # fmt: skip
KINDS = {
    "sgd": ({}, {}),
    "most": (
        {"towers": 2, "interaction": "dcnv2", "dcn_rank": 2, "dcn_layers": 2},
        {"optimizer": "adagrad", "mlp_optimizer": "adam", "mlp_weight_decay": 0.01, "table_weight_decay": 0.01,
         "dropout": 0.2, "average_from": 1, "factors": np.array([1.0, 0.5]), "loss_scale": "dynamic"},
    ),
    "adam": ({"self_interaction": True}, {"optimizer": "adam"}),
    "rowwise": ({"interaction": "cat"}, {"optimizer": "rowwise_adagrad", "label_smoothing": 0.1}),
}  # fmt: skip


class Call(nn.Cell):
    """A graph that calls something with its own parameter, if it has one, and what it is given."""

    def __init__(self, work, parameter=None):
        super().__init__()
        self.work, self.parameter = work, None if parameter is None else Parameter(Tensor(parameter), name="values")

    def construct(self, *inputs):
        return self.work(*inputs) if self.parameter is None else self.work(self.parameter, *inputs)


def test_a_run_on_ascend_gets_its_operators():
    assert operators_for("Ascend", True) is ASCEND
    assert operators_for("GPU", True) is STOCK


def test_operators_that_have_other_names_on_ascend_are_named_in_one_place():
    """Also those that are called outside of graphs, which the dry run does not see."""
    older = re.compile(r"\bops\.(Assign|Scatter|Unique|AddN|Bitwise|RightShift|Tensor(Move|Scatter))\w*\(")
    named = {path.relative_to(ROOT).as_posix() for path in ROOT.glob("src/**/*.py") if older.search(path.read_text())}
    assert named == {"src/network/primitives.py"}


@pytest.mark.parametrize("name", ["add", "subtract", "write"])
@pytest.mark.parametrize("kind", [np.float32, np.int32])
def test_parameters_change_as_by_the_older_operators(name, kind):
    rng = np.random.default_rng(1)
    before, values = (rng.integers(-9, 9, (5, 3)).astype(kind) for _ in range(2))
    after = []
    for primitives in (PRIMITIVES, AscendPrimitives()):
        call = Call(getattr(primitives, name)(), before)
        call(Tensor(values))
        after.append(call.parameter.asnumpy())
    expected = {"add": before + values, "subtract": before - values, "write": values}[name]
    np.testing.assert_array_equal(after, [expected] * 2)


@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize("sizes", [(2, 2, 2), (1, 5), (3, 1, 2)])
def test_parts_are_slices_that_make_up_the_axis(axis, sizes):
    values = np.random.default_rng(1).normal(size=(6, 6, 6)).astype(np.float32)
    expected = np.split(values, np.cumsum(sizes)[:-1], axis)
    for primitives in (PRIMITIVES, AscendPrimitives()):
        found = Call(primitives.parts(sizes, axis))(Tensor(values))
        assert len(found) == len(sizes)
        for one, part in zip(found, expected):
            np.testing.assert_array_equal(one.asnumpy(), part)


@pytest.mark.parametrize("bits", [15, 16])
def test_bits_are_shifted_without_their_sign(bits):
    values = np.random.default_rng(1).integers(-(2**31), 2**31, 1000).astype(np.int32)
    values[:4] = [-(2**31), 2**31 - 1, -1, 0]
    expected = (values.view(np.uint32) >> np.uint32(bits)).view(np.int32)
    for primitives in (PRIMITIVES, ASCEND_ON_CPU.primitives):
        np.testing.assert_array_equal(Call(primitives.shifted(bits))(Tensor(values)).asnumpy(), expected)


def test_groups_are_places_of_the_same_row():
    """In each of several batches, whatever an earlier one left."""
    groups = Call(_Groups(50, ASCEND_ON_CPU.primitives))
    for seed in range(3):
        rows = np.random.default_rng(seed).integers(0, 50, 40).astype(np.int32)
        found = groups(Tensor(rows)).asnumpy()
        np.testing.assert_array_equal(rows[found], rows)
        assert all(len(set(found[rows == row])) == 1 for row in rows)


@pytest.mark.parametrize("kind", [ms.float32, ms.float16])
def test_linear_is_that_of_the_older_operators(kind):
    rng = np.random.default_rng(1)
    x, weight, bias = (Tensor(rng.normal(size=shape).astype(np.float32)) for shape in ((6, 5), (4, 5), (4,)))
    for relu in (False, True):
        for has_bias in (False, True):
            cells = (StockLinear(relu, has_bias, kind), AscendLinear(relu, has_bias, kind))
            old, new = (cell(x, weight, bias).asnumpy() for cell in cells)
            np.testing.assert_allclose(new, old, rtol=0, atol=1e-6)


def operators_of(cell):
    """Of a compiled graph."""
    graph = anf_ir_pb2.ModelProto()
    graph.ParseFromString(cell.get_func_graph_proto())
    return {node.op_type for node in graph.graph.node}


def check_steps(models, options, batches):
    """Losses and all values of the same steps are the same to rounding, and Ascend's graph has no older operator."""
    steps = [make_step(model, 0.05, **options) for model in models]
    for batch in batches:
        losses = [float(step(*map(Tensor, batch)).asnumpy()) for step in steps]
        assert losses[1] == pytest.approx(losses[0], rel=1e-6)
    for name, value in changing(steps[0]).items():
        np.testing.assert_allclose(changing(steps[1])[name].asnumpy(), value.asnumpy(), rtol=0, atol=2e-6, err_msg=name)
    assert not operators_of(steps[1]) & OLDER


@pytest.mark.parametrize("kind", KINDS)
def test_steps_are_those_of_the_older_operators(kind):
    network, options = KINDS[kind]
    models = [
        make_model(slot_dim=3, bottom=(4,), top=(3, 1), seed=2, operators=one, **network)
        for one in (STOCK, ASCEND_ON_CPU)
    ]
    check_steps(models, options, [make_batch(models[0], 5, 16, seed) for seed in range(3)])


def test_steps_with_mixed_dimensions_are_those_of_the_older_operators():
    rows, spec = [4, 40, 400], NetworkSpec(8, (8,), (3, 1), mixed_dims=0.4)
    widths = widths_of(rows, spec)
    models = [
        DLRM(5, EmbeddingTables(widths.packed_rows, initial_rows(widths.packed_rows, 8, 1), one), spec, widths=widths)
        for one in (STOCK, ASCEND_ON_CPU)
    ]
    check_steps(models, {"optimizer": "adagrad"}, [make_batch(models[0], 5, 16, seed) for seed in range(3)])
