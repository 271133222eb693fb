"""Fully connected layers and chains of them.

Legend for the shapes below: B batch, samples.
"""

from collections.abc import Sequence
from typing import Any

import mindspore as ms
import numpy as np
from mindspore import Parameter, Tensor, nn, ops

from src.network.cpu_kernels import Kernels
from src.network.dropout import Dropout


class CompiledLinear(nn.Cell):
    """A fully connected layer by the compiled operator, and its gradient.

    Args:
        kernels: the compiled operators.
        relu: whether negative outputs become 0.
        pad: whether rows of the outputs may be longer than `out`, for another CompiledLinear to take.
        input_gradient: whether anybody asks for the gradient of x; without, it is given as 0.

    Inputs: x [B, in], weight [out, in], bias [out]. Outputs: [B, out].
    """

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
    """A fully connected layer with ReLU and dropout by the compiled operator, and its gradient.

    Args:
        kernels, pad, input_gradient: as for `CompiledLinear`.
        dropout: behind the ReLU.

    Inputs: x [B, in], weight [out, in], bias [out], step [1] int32. Outputs: [B, out].
    """

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


class Linear(nn.Cell):
    """A fully connected layer, x W^T + b or max(x W^T + b, 0), with the initialisation of the paper's public code.

    Weights are normal with variance 2 / (in + out), biases normal with variance 1 / out.

    Args:
        inputs: features in.
        outputs: features out.
        relu: whether negative outputs become 0.
        rng: source of the initial values.
        compute_dtype: type of the matrix product; the weights stay float32.
        kernels: the compiled operators, if they are to be used; they compute in float32 alone.
        pad, input_gradient: as for `CompiledLinear`, if it is used.
        bias: whether there is b.

    Inputs: x [B, in]; step [1] int32, with which the dropout takes place, if there is any. Outputs: [B, out], float32.
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        relu: bool,
        rng: np.random.Generator,
        compute_dtype=ms.float32,
        kernels: Kernels | None = None,
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
        else:  # as the compiled operator takes it
            self.bias = Tensor(np.zeros(outputs, np.float32))
        self.matmul = ops.MatMul(transpose_b=True)
        self.bias_add = ops.BiasAdd() if bias else None
        self.relu = ops.ReLU() if relu else None
        self.compute_dtype = compute_dtype
        self.half = compute_dtype != ms.float32
        self.kernels, self.pad, self.input_gradient = kernels, pad, input_gradient
        self.fused = CompiledLinear(kernels, relu, pad, input_gradient) if kernels and not self.half else None
        self.dropout: Any = None
        self.fused_dropped: Any = None

    def set_dropout(self, dropout: Dropout) -> None:
        """Let values be dropped behind the layer, which has a ReLU."""
        self.dropout = dropout
        if self.fused is not None and self.kernels:
            self.fused_dropped = CompiledDroppedLinear(self.kernels, dropout, self.pad, self.input_gradient)

    def construct(self, x, step=None):
        dropped = step is not None and self.dropout is not None
        if self.fused is not None:
            if dropped:
                return self.fused_dropped(x, self.weight, self.bias, step)
            return self.fused(x, self.weight, self.bias)
        if self.half:
            product = self.matmul(x.astype(self.compute_dtype), self.weight.astype(self.compute_dtype))
            product = product.astype(ms.float32)
        else:
            product = self.matmul(x, self.weight)
        total = product if self.bias_add is None else self.bias_add(product, self.bias)
        result = total if self.relu is None else self.relu(total)
        return self.dropout(result, step) if dropped else result


class MLP(nn.Cell):
    """A chain of `Linear` layers with ReLU between them, and behind the last one if `last_relu`.

    Args:
        inputs: features in.
        sizes: features out of each layer.
        last_relu: whether the last layer has a ReLU too.
        rng, compute_dtype, kernels, input_gradient: as for `Linear`.

    Inputs: x [B, inputs]; step [1] int32, with which `set_dropout` takes effect. Outputs: [B, sizes[-1]].
    """

    def __init__(
        self,
        inputs: int,
        sizes: Sequence[int],
        last_relu: bool,
        rng: np.random.Generator,
        compute_dtype=ms.float32,
        kernels: Kernels | None = None,
        input_gradient: bool = True,
    ):
        super().__init__()
        last = len(sizes) - 1
        self.layers = nn.CellList(
            [
                Linear(
                    before,
                    after,
                    layer < last or last_relu,
                    rng,
                    compute_dtype,
                    kernels,
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
                layer.set_dropout(Dropout(rate, (*seed, number), rank))

    def construct(self, x, step=None):
        for layer in self.layers:
            x = layer(x, step)
        return x
