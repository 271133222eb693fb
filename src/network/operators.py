"""The seam between what a network computes and what computes it.

`Operators` says what there is to compute; `src/network/stock.py` does it by MindSpore's own operators, on any device,
and `src/network/compiled.py` by ones that are compiled for this CPU. A network gets one of them when it is made, and
nothing behind the seam, nor before it, asks which. Each method gives a cell or a primitive to call in a graph; none of
these holds parameters: what they read and change is handed to them.

Legend: B batch, F fields, L ids of a sample, D width of a vector, P pairs of vectors, I inputs and O outputs of a
layer, R rows of all tables, U rows that a batch looks up (with those that come twice).
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import mindspore as ms
from mindspore import nn

from src.data.layout import Layout
from src.network.dropout import Dropout
from src.network.pooling import Pooling
from src.network.primitives import PRIMITIVES, Primitives


class Operators(ABC):
    """What there is to compute.

    Attributes:
        skips_updates: whether updates can be left out by what the graph computes.
        counts_last: whether `next_step` leaves it to the end of the step to count it.
        ends_rows: whether `table_update` takes rows that end before the tensor does, at one of -1.
        primitives: what else a graph calls, by the names that its device has.
    """

    skips_updates = True
    counts_last = True
    ends_rows = False
    primitives: Primitives = PRIMITIVES

    @abstractmethod
    def linear(self, relu: bool, pad: bool, input_gradient: bool, bias: bool, compute_dtype=ms.float32) -> Any:
        """(x [B, I], weight [O, I], bias [O]) to [B, O].

        Args:
            relu: whether negative outputs become 0.
            pad: whether rows of the outputs may have a tail that the next layer of the same operators passes over.
            input_gradient: whether anybody asks for the gradient of x.
            bias: whether there is one; else what is given in its place are zeros.
            compute_dtype: of the product; what goes in and comes out is float32.
        """

    @abstractmethod
    def dropped_linear(self, dropout: Dropout, pad: bool, input_gradient: bool, compute_dtype=ms.float32) -> Any:
        """(x, weight, bias, step [1] int32) to [B, O]: as `linear`, with a ReLU, a bias, and dropout behind it."""

    @abstractmethod
    def pair_dots(self, fields: int, width: int, self_interaction: bool) -> Any:
        """(bottom [B, D], vectors [B, F, D]) to [B, D + P]: products of all pairs of these, behind the bottom."""

    @abstractmethod
    def cross_entropy(self) -> Any:
        """(logits [B, 1], labels [B, 1]) to the mean sigmoid cross entropy, a scalar (paper, section 2.1)."""

    @abstractmethod
    def weighted_cross_entropy(self) -> Any:
        """(logits [B, 1], labels [B, 1], weights [B, 1] of a mean of 1) to the mean of weight times cross entropy."""

    @abstractmethod
    def lookup(self) -> Any:
        """(table [R, D], ids [B, L] int32, starts [L] int32) to rows [B, L] int32 of the table, and vectors [B, L, D].

        The rows of an id's table begin at starts[l], and end where others begin. An id outside them is an error of the
        compiled operators; MindSpore's own give zeros, or another table's row, on GPU and CPU, and anything on Ascend.
        """

    def pooling(self, layout: Layout) -> nn.Cell:
        """The vectors of lists as one: a cell like `Pooling`."""
        return Pooling(layout, self.primitives)

    @abstractmethod
    def next_step(self, lengths: Sequence[int]) -> Any:
        """(steps done [1] int32, series of factors [S], ...) to that number, and this step's factor of each, [1].

        Counts the step in place, unless `counts_last`. The last factor of a series, of one of these lengths, serves all
        later steps.
        """

    @abstractmethod
    def average(self) -> Any:
        """(step [1] int32, first step [1] int32, done, values, means) to what comes after the means' change in place.

        The mean of values behind each step from the first one on; values and means are tuples, and done, what
        `dense_update` gave for these values in this step.
        """

    @abstractmethod
    def table_update(self, rule: Any, weight_decay: float, shape: tuple[int, int], across: bool = False) -> Any:
        """(table [R, D], rows [B, L] int32, gradients [B, L, D], rate, states) to what comes after the change in place.

        Where `skips_updates`, one more input may follow, a bool: nothing changes where it is False. A row that comes
        several times gets one update by the sum of its gradients, as if the gradient were dense.

        Args:
            rule: a training.rules.UpdateRule.
            weight_decay: times the row, added to the gradient of a row that is looked up.
            shape: [R, D].
            across: whether the same row may come in several columns of rows; else it comes in one.
        """

    @abstractmethod
    def dense_update(self, rule: Any, weight_decay: float, decays: Sequence[bool], followed: bool) -> Any:
        """(rate, rate of the decay, values, gradients, states) to what comes after the change in place.

        One more input may follow, as for `table_update`.

        Args:
            rule: as for `table_update`; states hold a tuple for each of the rule's names.
            weight_decay: share of the values that goes, times its rate, apart from the gradient.
            decays: which of the values have it.
            followed: whether what comes after is read as the new values, by `average`. They are then tensors of their
                own: of parameters that are read before a change and behind it MindSpore makes two copies.
        """

    def serve(self, table_rule: Any, mlp_rule: Any) -> bool:
        """Whether there are operators that update tables by one rule, and other values by another one."""
        return True

    def check_graph(self, cell: nn.Cell) -> None:
        """See that a cell's compiled graph computes what it says; for the training step, once it is compiled.

        Raises:
            RuntimeError: it does not; the error says why.
        """
