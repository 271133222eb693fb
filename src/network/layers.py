"""Fully connected layers and chains of them.

Legend for the shapes below: B batch, samples.
"""

from collections.abc import Sequence
from functools import partial
from typing import Any

import mindspore as ms
import numpy as np
from mindspore import Parameter, Tensor, nn

from src.network.dropout import Dropout
from src.network.operators import Operators
from src.network.stock import STOCK


class Twice(nn.Cell):
    """A value for two uses, whose gradients it adds up.

    MindSpore itself would do so by an operator that has no aclnn kernel.

    Inputs: x. Outputs: x, x.
    """

    def construct(self, x):
        return x, x

    def bprop(self, x, out, dout):
        return (dout[0] + dout[1],)


class Linear(nn.Cell):
    """A fully connected layer, x W^T + b or max(x W^T + b, 0), with the initialisation of the paper's public code.

    Weights are normal with variance 2 / (in + out), biases normal with variance 1 / out.

    Args:
        inputs: features in.
        outputs: features out.
        relu: whether negative outputs become 0.
        rng: source of the initial values.
        operators: what computes it.
        compute_dtype: type of the matrix product; the weights stay float32.
        pad, input_gradient, bias: as for `Operators.linear`.

    Inputs: x [B, in]; step [1] int32, with which the dropout takes place, if there is any. Outputs: [B, out], float32.
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        relu: bool,
        rng: np.random.Generator,
        operators: Operators = STOCK,
        compute_dtype=ms.float32,
        pad: bool = False,
        input_gradient: bool = True,
        bias: bool = True,
    ):
        super().__init__()
        weight = rng.normal(0.0, np.sqrt(2.0 / (inputs + outputs)), (outputs, inputs)).astype(np.float32)
        self.weight = Parameter(Tensor(weight))
        if bias:
            first = rng.normal(0.0, np.sqrt(1.0 / outputs), outputs).astype(np.float32)
            self.bias = Parameter(Tensor(first))
        else:
            self.bias = Tensor(np.zeros(outputs, np.float32))
        self.product = operators.linear(relu, pad, input_gradient, bias, compute_dtype)
        self.dropped_product: Any = None
        self.make_dropped = partial(
            operators.dropped_linear, pad=pad, input_gradient=input_gradient, compute_dtype=compute_dtype
        )

    def set_dropout(self, dropout: Dropout) -> None:
        """Let values be dropped behind the layer, which has a ReLU."""
        self.dropped_product = self.make_dropped(dropout)

    def construct(self, x, step=None):
        if step is not None and self.dropped_product is not None:
            return self.dropped_product(x, self.weight, self.bias, step)
        return self.product(x, self.weight, self.bias)


class MLP(nn.Cell):
    """A chain of `Linear` layers with ReLU between them, and behind the last one if `last_relu`.

    Args:
        inputs: features in.
        sizes: features out of each layer.
        last_relu: whether the last layer has a ReLU too.
        rng, operators, compute_dtype, input_gradient: as for `Linear`.

    Inputs: x [B, inputs]; step [1] int32, with which `set_dropout` takes effect. Outputs: [B, sizes[-1]].
    """

    def __init__(
        self,
        inputs: int,
        sizes: Sequence[int],
        last_relu: bool,
        rng: np.random.Generator,
        operators: Operators = STOCK,
        compute_dtype=ms.float32,
        input_gradient: bool = True,
    ):
        super().__init__()
        self.primitives = operators.primitives
        last = len(sizes) - 1
        self.layers = nn.CellList(
            [
                Linear(
                    before,
                    after,
                    layer < last or last_relu,
                    rng,
                    operators,
                    compute_dtype,
                    pad=layer < last,
                    input_gradient=layer > 0 or input_gradient,
                )
                for layer, (before, after) in enumerate(zip([inputs, *sizes[:-1]], sizes))
            ]
        )

    def set_dropout(self, rate: float, seed: Sequence[int], rank: int) -> None:
        """Let values be dropped behind all layers but the last one; arguments as for `Dropout`."""
        for number, layer in enumerate(self.layers):
            if number < len(self.layers) - 1:
                layer.set_dropout(Dropout(rate, (*seed, number), rank, self.primitives))

    def construct(self, x, step=None):
        for layer in self.layers:
            x = layer(x, step)
        return x
