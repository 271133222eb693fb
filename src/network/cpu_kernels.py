"""Operators compiled for the CPU from kernels/, which take the place of several of MindSpore's at a time.

They are built on first use with the machine's own C++ compiler, and kept in build/. Without a compiler, and on Ascend
and GPU, MindSpore's operators do the same work; tests compare the two. benchmarks/train_step.py shows what they gain.

Legend: B batch, F fields, L ids of a sample, D width of a vector, P pairs of vectors, O outputs of a layer, R rows of
all tables.
"""

import ctypes
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import mindspore as ms
from mindspore import ops

from src.base.native import build
from src.model_utils.aot import FLAGS, operator

SOURCE = Path(__file__).parent / "kernels" / "kernels.cc"
_ONEDNN = Path(ms.__file__).parent / "lib" / "libdnnl.so.3"  # MindSpore's own copy; already loaded, so nothing is twice
_FLAGS = (*FLAGS, f"-L{_ONEDNN.parent}", f"-l:{_ONEDNN.name}", f"-Wl,-rpath,{_ONEDNN.parent}")
_WIDTHS = (16, 32, 64, 128)
_PADDED, _PADDING = 128, 16  # float32 values: see Kernels.linear


class Kernels:
    """The operators of a compiled library; each method gives one as a primitive for a cell to call.

    Some change parameters in place, which MindSpore does not know of: see compiled.CompiledOperators.

    Args:
        library: the compiled library.
    """

    def __init__(self, library: Path):
        self.library = library

    def _operator(self, name: str, shape: Callable[..., Any], *dtypes: Any, whole: Sequence[int] = ()) -> ops.Custom:
        """An operator with outputs of these types, or one of float32; see aot.operator."""
        return operator(self.library, name, shape, dtypes, whole)

    def has(self, name: str) -> bool:
        """Whether the library has an operator."""
        return hasattr(ctypes.CDLL(str(self.library)), name)

    def lookup(self) -> ops.Custom:
        """(table [R, D], ids [B, L] int32, starts [L] int32) to rows [B, L] int32 of the table, and vectors [B, L, D].

        An id outside its table's rows, which begin at starts[l], is an error.
        """

        def shapes(table, ids, starts):
            if ids[1] != starts[0]:
                raise ValueError(f"ids have {ids[1]} columns; the tables are of {starts[0]}")
            return ids, [*ids, table[1]]

        return self._operator("Lookup", shapes, ms.int32, ms.float32, whole=(1, 2))

    def cross_entropy(self) -> tuple[ops.Custom, ops.Custom]:
        """(logits [B, 1], labels [B, 1]) to the mean loss, a scalar, and (logits, labels, its gradient) to [B, 1]."""
        return (
            self._operator("CrossEntropy", lambda *_: [1]),
            self._operator("CrossEntropyGrad", lambda logits, *_: logits),
        )

    def weighted_cross_entropy(self) -> tuple[ops.Custom, ops.Custom]:
        """The same of (logits [B, 1], labels [B, 1], weights [B, 1]), weights times losses."""
        return (
            self._operator("WeightedCrossEntropy", lambda *_: [1]),
            self._operator("WeightedCrossEntropyGrad", lambda logits, *_: logits),
        )

    @staticmethod
    def can_interact(width: int) -> bool:
        """Whether there is an interaction operator for vectors of this width D."""
        return width in _WIDTHS

    def interaction(self, fields: int, pairs: int) -> tuple[ops.Custom, ops.Custom]:
        """(bottom [B, D], vectors [B, F, D]) to [B, D + P], and (bottom, vectors, gradient) to both gradients."""

        def result_shape(bottom, vectors):
            if vectors[1] != fields:
                raise ValueError(f"vectors of {vectors[1]} fields; the interaction is for {fields}")
            return [bottom[0], bottom[1] + pairs]

        return (
            self._operator("Interaction", result_shape),
            self._operator("InteractionGrad", lambda bottom, vectors, _: (bottom, vectors), *[ms.float32] * 2),
        )

    def linear(self, relu: bool, pad: bool, input_gradient: bool) -> tuple[ops.Custom, ops.Custom]:
        """A layer, and its gradient.

        (x [B, I], weight [O, I], bias [O]) to [B, O], and (x, weight, gradient) to the gradients of weight and bias,
        with the one of x behind them if input_gradient. With relu the second one takes (x, weight, result, gradient),
        and gives the gradient of the product between those.

        Args:
            relu: whether negative results become 0.
            pad: whether the rows of the result get a tail that is never read, where their length in bytes is a multiple
                of a high power of two: else they share few sets of the caches, and products take up to twice the time.
                Rows of x may have such a tail.
            input_gradient: see above.
        """

        result_shape, gradient_shapes = _linear_shapes(relu, pad, input_gradient)
        name = "LinearRelu" if relu else "Linear"
        return (
            self._operator(name, result_shape),
            self._operator(f"{name}Grad", gradient_shapes, *[ms.float32] * (2 + relu + input_gradient)),
        )

    def dropped_linear(self, pad: bool, input_gradient: bool) -> tuple[ops.Custom, ops.Custom]:
        """A layer with ReLU and dropout behind it, and its gradient.

        (x, weight, bias, step [1] int32, settings [3] int32, scale [1]) to [B, O], and (x, weight, result, gradient,
        scale) as for `linear`. The settings are a dropout.Dropout's key, limit and rank.
        """
        result_shape, gradient_shapes = _linear_shapes(True, pad, input_gradient)
        return (
            self._operator("LinearReluDrop", result_shape, whole=(3, 4)),
            self._operator("LinearReluDropGrad", gradient_shapes, *[ms.float32] * (3 + input_gradient)),
        )

    def next_step(self, series: int) -> ops.Custom:
        """(steps done [1] int32, series of factors [S], ...) to that number, and this step's factors; counts in place.

        The last factor of a series serves all later steps.

        Args:
            series: how many there are, at least one.
        """
        shapes = ([1],) * (1 + series)
        return self._operator("NextStep", lambda *_: shapes, ms.int32, *[ms.float32] * series, whole=[0])

    def average(self) -> ops.Custom:
        """(step [1] int32, first step [1] int32, what must be done before, values..., means...) to [1]; in place."""
        return self._operator("AverageWeights", lambda *_: [1], whole=(0, 1))

    def table_update(self, rule: str) -> ops.Custom:
        """(table, rows [B, L], gradients [B, L, D], rate, constants [7], states...) to [1]; updates in place.

        The last constant says whether a row may come in several columns.

        Args:
            rule: an UpdateRule's kernel.
        """
        return self._operator(f"Table{rule}", lambda *_: [1], whole=[1])

    def dense_update(self, rule: str) -> ops.Custom:
        """(rate, rate of the decay, constants [6], values..., gradients..., first states..., second states...) to [1].

        In place. The weight decay among the constants is for matrices.

        Args:
            rule: an UpdateRule's kernel.
        """
        return self._operator(f"Dense{rule}", lambda *_: [1])


def _linear_shapes(relu: bool, pad: bool, input_gradient: bool) -> tuple[Callable[..., Any], Callable[..., Any]]:
    """Of a layer's result and of its gradients, by the shapes of what the two operators take."""

    def result_shape(x, weight, *_):
        if x[1] not in (weight[1], weight[1] + (_PADDING if weight[1] % _PADDED == 0 else 0)):
            raise ValueError(f"rows of {x[1]} values; the layer takes {weight[1]}")
        return [x[0], weight[0] + (_PADDING if pad and weight[0] % _PADDED == 0 else 0)]

    def gradient_shapes(x, weight, *more):
        product = (more[0],) if relu else ()  # of the result
        return weight, [weight[0]], *product, *((x,) if input_gradient else ())

    return result_shape, gradient_shapes


def load() -> Kernels | None:
    """The kernels, compiled if this source has not been compiled for this processor yet.

    Returns None, and says why in one line, where they can't be had.
    """
    library = build(SOURCE, _FLAGS, "the CPU operators",
                    "CPU operators of MindSpore alone, slower than the compiled ones")  # fmt: skip
    return Kernels(library) if library else None
