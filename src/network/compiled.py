"""What a network computes by operators that are compiled for this CPU, each in place of several of MindSpore's.

Legend: as in src/network/operators.py.
"""

from collections.abc import Sequence
from typing import Any

import mindspore as ms
import numpy as np
from mindspore import Tensor, nn, ops
from mindspore.train import anf_ir_pb2

from src.network.ascend import ASCEND
from src.network.cpu_kernels import Kernels, load
from src.network.dropout import Dropout
from src.network.pair_dots import pair_count
from src.network.stock import STOCK, StockOperators


class CompiledOperators(StockOperators):
    """The compiled operators, and MindSpore's own for products in float16 and other shapes.

    Those that update change parameters in place, which MindSpore does not know of. So a graph that holds them must not
    hold any of MindSpore's operators that write parameters, such as Assign: for their sake it would hand out copies of
    all parameters, and the changes would be lost. `check_graph` sees to that.

    Args:
        kernels: the compiled library.
    """

    counts_last = False
    ends_rows = True
    skips_updates = False  # a CPU computes in float32, which needs no loss scale

    def __init__(self, kernels: Kernels):
        self.kernels = kernels

    def linear(self, relu: bool, pad: bool, input_gradient: bool, bias: bool, compute_dtype=ms.float32) -> nn.Cell:
        if compute_dtype != ms.float32:
            return super().linear(relu, pad, input_gradient, bias, compute_dtype)
        return CompiledLinear(self.kernels, relu, pad, input_gradient)

    def dropped_linear(self, dropout: Dropout, pad: bool, input_gradient: bool, compute_dtype=ms.float32) -> nn.Cell:
        if compute_dtype != ms.float32:
            return super().dropped_linear(dropout, pad, input_gradient, compute_dtype)
        return CompiledDroppedLinear(self.kernels, dropout, pad, input_gradient)

    def pair_dots(self, fields: int, width: int, self_interaction: bool) -> nn.Cell:
        if not self.kernels.can_interact(width):
            return super().pair_dots(fields, width, self_interaction)
        return CompiledPairDots(self.kernels, fields, self_interaction)

    def cross_entropy(self) -> nn.Cell:
        return CompiledCrossEntropy(self.kernels)

    def weighted_cross_entropy(self) -> nn.Cell:
        return CompiledWeightedCrossEntropy(self.kernels)

    def lookup(self) -> Any:
        return self.kernels.lookup()

    def next_step(self, lengths: Sequence[int]) -> Any:
        return self.kernels.next_step(len(lengths))

    def average(self) -> nn.Cell:
        return CompiledAverage(self.kernels)

    def table_update(self, rule: Any, weight_decay: float, shape: tuple[int, int], across: bool = False) -> nn.Cell:
        return CompiledTableUpdate(self.kernels, rule, weight_decay, across)

    def dense_update(self, rule: Any, weight_decay: float, decays: Sequence[bool], followed: bool) -> nn.Cell:
        return CompiledDenseUpdate(self.kernels, rule, weight_decay)

    def serve(self, table_rule: Any, mlp_rule: Any) -> bool:
        if not (table_rule.kernel and mlp_rule.kernel):
            return False
        return self.kernels.has(f"Table{table_rule.kernel}") and self.kernels.has(f"Dense{mlp_rule.kernel}")

    def check_graph(self, cell: nn.Cell) -> None:
        graph = anf_ir_pb2.ModelProto()
        graph.ParseFromString(cell.get_func_graph_proto())
        writers = {
            node.op_type for node in graph.graph.node if any(one.name == "side_effect_mem" for one in node.attribute)
        }
        if writers:
            raise RuntimeError(
                f"{type(cell).__name__} holds MindSpore's operators {', '.join(sorted(writers))}, which write "
                f"parameters, beside compiled ones that do so in place, and whose changes are lost for that: count and "
                f"assign outside of the training step, such as in a callback, or give --cpu_kernels=False"
            )


class CompiledLinear(nn.Cell):
    """A layer, and its gradient; see `Operators.linear`. Without input_gradient the gradient of x is given as 0."""

    def __init__(self, kernels: Kernels, relu: bool, pad: bool, input_gradient: bool):
        super().__init__()
        self.forward, self.backward = kernels.linear(relu, pad, input_gradient)
        self.relu, self.input_gradient = relu, input_gradient

    def construct(self, x, weight, bias):
        return self.forward(x, weight, bias)

    def bprop(self, x, weight, bias, out, dout):
        gradients = self.backward(x, weight, out, dout) if self.relu else self.backward(x, weight, dout)
        x_gradient = gradients[-1] if self.input_gradient else ops.zeros_like(x)
        return x_gradient, gradients[0], gradients[1]


class CompiledDroppedLinear(nn.Cell):
    """A layer with ReLU and dropout, and its gradient; see `Operators.dropped_linear`."""

    def __init__(self, kernels: Kernels, dropout: Dropout, pad: bool, input_gradient: bool):
        super().__init__()
        self.forward, self.backward = kernels.dropped_linear(pad, input_gradient)
        self.settings = Tensor(np.array([dropout.key, dropout.limit, dropout.rank], np.int32))
        self.scale = Tensor([dropout.scale], ms.float32)
        self.input_gradient = input_gradient

    def construct(self, x, weight, bias, step):
        return self.forward(x, weight, bias, step, self.settings, self.scale)

    def bprop(self, x, weight, bias, step, out, dout):
        gradients = self.backward(x, weight, out, dout, self.scale)  # which is 0 where the result is
        x_gradient = gradients[-1] if self.input_gradient else ops.zeros_like(x)
        return x_gradient, gradients[0], gradients[1], ops.zeros_like(step)


class CompiledPairDots(nn.Cell):
    """Products of all pairs behind the bottom MLP's output; see `Operators.pair_dots`."""

    def __init__(self, kernels: Kernels, fields: int, self_interaction: bool):
        super().__init__()
        self.forward, self.backward = kernels.interaction(fields, pair_count(fields, self_interaction))

    def construct(self, bottom, vectors):
        return self.forward(bottom, vectors)

    def bprop(self, bottom, vectors, out, dout):
        return self.backward(bottom, vectors, dout)


class CompiledCrossEntropy(nn.Cell):
    """Mean sigmoid cross entropy; see `Operators.cross_entropy`."""

    def __init__(self, kernels: Kernels):
        super().__init__()
        self.forward, self.backward = kernels.cross_entropy()

    def construct(self, logits, labels):
        return self.forward(logits, labels).reshape(())

    def bprop(self, logits, labels, out, dout):
        return self.backward(logits, labels, dout), ops.zeros_like(labels)


class CompiledWeightedCrossEntropy(nn.Cell):
    """Weighted mean of the same; see `Operators.weighted_cross_entropy`."""

    def __init__(self, kernels: Kernels):
        super().__init__()
        self.forward, self.backward = kernels.weighted_cross_entropy()

    def construct(self, logits, labels, weights):
        return self.forward(logits, labels, weights).reshape(())

    def bprop(self, logits, labels, weights, out, dout):
        return self.backward(logits, labels, weights, dout), ops.zeros_like(labels), ops.zeros_like(weights)


class CompiledAverage(nn.Cell):
    """The running mean of values; see `Operators.average`."""

    def __init__(self, kernels: Kernels):
        super().__init__()
        self.kernel = kernels.average()

    def construct(self, step, first_step, done, values, means):
        return self.kernel(step, first_step, done, *values, *means)


class CompiledTableUpdate(nn.Cell):
    """Updates looked-up rows; see `Operators.table_update`. Where no row comes across, columns are shared out."""

    def __init__(self, kernels: Kernels, rule: Any, weight_decay: float, across: bool):
        super().__init__()
        self.kernel = kernels.table_update(rule.kernel)
        self.constants = Tensor(np.array([*rule.constants(weight_decay), across], np.float32))

    def construct(self, table, rows, gradients, rate, states):
        return self.kernel(table, rows, gradients, rate, self.constants, *states)


class CompiledDenseUpdate(nn.Cell):
    """Updates whole values; see `Operators.dense_update`. The operator decays matrices alone."""

    def __init__(self, kernels: Kernels, rule: Any, weight_decay: float):
        super().__init__()
        self.kernel = kernels.dense_update(rule.kernel)
        self.constants = Tensor(np.array(rule.constants(weight_decay), np.float32))

    def construct(self, rate, decay_rate, values, gradients, states):
        flat: tuple = ()
        for state in states:
            flat = (*flat, *state)
        return self.kernel(rate, decay_rate, self.constants, *values, *gradients, *flat)


def operators_for(device_target: str, cpu_kernels: bool, rules: tuple[Any, Any] | None = None) -> StockOperators:
    """The operators of a run, chosen once: the compiled ones on a CPU, where these can be had and are wanted.

    Args:
        device_target: Ascend, GPU or CPU.
        cpu_kernels: whether compiled ones are wanted.
        rules: by which tables and MLPs are updated, if they are; a line says so where compiled operators do not know
            one, and MindSpore's own do all.
    """
    kernels = load() if device_target == "CPU" and cpu_kernels else None
    compiled = CompiledOperators(kernels) if kernels else STOCK
    if device_target == "Ascend":
        return ASCEND
    if rules and not compiled.serve(*rules):
        names = " and ".join(dict.fromkeys(rule.name for rule in rules))
        print(f"no compiled operators update by {names}: MindSpore's own do all, more slowly", flush=True)
        return STOCK
    return compiled
