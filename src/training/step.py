"""One training step: the only place with gradients and loss scale.

Legend: B batch, N dense features, L ids of a sample, D width of a vector.
"""

from collections.abc import Callable, Sequence

import mindspore as ms
import numpy as np
from mindspore import Parameter, ParameterTuple, Tensor, nn, ops
from mindspore.graph.api import _cell_graph_executor

from src.base.stops import held_back
from src.dlrm import DLRM
from src.network.embedding import Fill
from src.ranks.exchange import Exchange
from src.ranks.placement import Piece
from src.training.averaging import Result, WeightAverage
from src.training.loss_scale import LossScale
from src.training.optimizers import DenseOptimizer, TableOptimizer
from src.training.options import OptimizationSpec, Scale
from src.training.rules import UpdateRule
from src.training.step_counter import StepCounter

_LEAST_MEAN = float(np.finfo(np.float32).tiny)


class TrainStep(nn.Cell):
    """Forward, backward and update for one batch.

    The gradient is taken with respect to the looked-up vectors, never to a table: its size is B L D,
    whatever the number of rows.

    Args:
        model: the network; its parameters are updated in place.
        optimization: how.
        factors: what both rates are multiplied with in each step, [steps]; the last one serves all later steps.
        average_from: number, from 0, of the first step behind which the MLPs' weights are averaged.
        loss_scale: factor on the loss while gradients are taken, undone before the update, for float16 products; see
            `LossScale`. None: there is none, and no gradient is looked at.
        seed: of the dropout.
        exchange: with the other ranks, if there are any: the batch is then this rank's part of the samples, and the
            loss and the gradients are means over those of all ranks.
        reset_steps: steps behind which `reset_tables` is called, each time; 0 for never. The corrections of the
            tables' rule begin anew with them, and the factors are those of the whole training.
        steps_before: steps of earlier trainings that the rules' states, of tables and of MLPs, have behind them, and so
            their corrections.
        weighted: whether samples have weights: the loss is then their weighted mean, over the batch of all ranks; 0
            where all of its weights are.
        logit_shift: what the network's logits lie above those of the training rows' clicks, which the loss is of.

    Inputs: dense [B, N] float32, ids [B, L] int32, labels [B, 1] float32 of 0 and 1, and if weighted weights [B, 1]
        float32 of 0 or more.
    Outputs: the mean loss of the batch before the update, scalar float32.

    Attributes:
        may_lack: names of values that the state of a run with another loss scale may lack; they then stay as new.
    """

    def __init__(
        self,
        model: DLRM,
        optimization: OptimizationSpec,
        factors: np.ndarray | None = None,
        average_from: int | None = None,
        loss_scale: Scale | None = None,
        seed: int = 1,
        exchange: Exchange | None = None,
        reset_steps: int = 0,
        steps_before: Sequence[int] = (0, 0),
        weighted: bool = False,
        logit_shift: float = 0.0,
    ):
        super().__init__(auto_prefix=False)
        if loss_scale is not None and not model.operators.skips_updates:
            raise ValueError("a loss scale leaves out updates, which compiled operators can't: give stock ones")
        self.model, self.tables, self.operators = model, model.tables, model.operators
        self.learning_rate = _number(optimization.lr, "learning_rate")
        self.table_learning_rate = _number(optimization.table_lr or optimization.lr, "table_learning_rate")
        rule, mlp_rule = optimization.rules
        # What the rates of tables, MLPs and weight decay are multiplied with; the last is without a rule's corrections.
        series: list[np.ndarray] = []
        of_tables = _corrected(factors, rule, reset_steps, steps_before[0])
        same = rule.name == mlp_rule.name and not reset_steps and steps_before[0] == steps_before[1]
        of_mlps = of_tables if same else _corrected(factors, mlp_rule, 0, steps_before[1])
        wanted = [of_tables, of_mlps, factors if optimization.mlp_weight_decay else None]
        self.factor_places = tuple(_place(one, series) for one in wanted)
        self.dropout, self.label_smoothing = optimization.dropout, optimization.label_smoothing
        self.step_place = int(model.pooling is not None)  # behind what the model pools by
        self.weight_place = self.step_place + int(self.dropout > 0)
        self.weighted, self.logit_shift = weighted, logit_shift
        if self.dropout:
            model.set_dropout(self.dropout, seed, exchange.rank if exchange else 0)
        counts = bool(series or self.dropout or average_from is not None)
        self.counter = StepCounter(series or [np.ones(1)], self.operators) if counts else None
        self.mlp_weight_decay = optimization.mlp_weight_decay
        self.exchange, primitives = exchange, self.operators.primitives
        self.scale = None if loss_scale is None else LossScale(loss_scale, primitives)
        self.may_lack = {value.name for value in self.scale.values} if self.scale is not None else set()
        self.cross_entropy = self.operators.weighted_cross_entropy() if weighted else self.operators.cross_entropy()
        parameters = model.mlp_parameters()
        overflows = [] if self.scale is None else [1]
        self.parts = primitives.parts([*(value.size for value in parameters), 1, *overflows], 0)
        self.each = ops.HyperMap()  # a loop would nest a call in a call for each parameter: see StockDenseUpdate
        decay = optimization.table_weight_decay
        across = not self.tables.layout.is_plain
        self.table_optimizer = TableOptimizer(self.tables.table, rule, decay, self.operators, across)
        self.dense_optimizer = DenseOptimizer(
            parameters, mlp_rule, self.operators, self.mlp_weight_decay, average_from is not None
        )
        self.average = None if average_from is None else WeightAverage(parameters, average_from, self.operators)
        self.loss_and_gradients = ops.value_and_grad(self.scaled_loss, 1, ParameterTuple(parameters))
        self._last_call: tuple | None = None
        self._on_cpu = ms.get_context("device_target") == "CPU"

    def __call__(self, *batch: Tensor) -> Tensor:
        """As `Cell.__call__`, whose checks walk all child cells and cost a fifth of a step of 128 samples.

        They are left out where the last call passed them with the same kind of batch. Ctrl-C waits for its end.
        """
        with held_back(self._on_cpu):
            return self._call(*batch)

    def _call(self, *batch: Tensor) -> Tensor:
        call = (ms.get_context("mode"), self.phase, *((column.shape, column.dtype) for column in batch))
        if call == self._last_call:
            return _cell_graph_executor(self, *batch, phase=self.phase)
        self._last_call = None  # a call that fails leaves MindSpore with another graph's key
        loss = super().__call__(*batch)
        if call[0] == ms.GRAPH_MODE:
            self.operators.check_graph(self)
        self._last_call = call if call[0] == ms.GRAPH_MODE else None
        return loss

    def reset_tables(self, fill: Fill) -> None:
        """Fill the tables anew, and let their optimizer forget; the MLPs and theirs stay."""
        for parameter in self.row_values().values():
            self.tables.refill(parameter, fill if parameter is self.tables.table else _zeros)

    def row_values(self) -> dict[str, Parameter]:
        """What has a row for each row of the tables, [R, ...], by name: the tables, and their optimizer's states."""
        return {"embedding": self.tables.table, **{state.name: state for state in self.table_optimizer.states}}

    def other_values(self) -> dict[str, Parameter]:
        """All other values that change from step to step, by name."""
        dense = self.dense_optimizer
        states = [value for state in dense.states for value in state]
        counter = [self.counter.steps_done] if self.counter is not None else []
        means = self.average.means if self.average is not None else ()
        scale = self.scale.values if self.scale is not None else ()
        return {value.name: value for value in (*dense.values, *states, *means, *counter, *scale)}

    def skipped_updates(self) -> int:
        """How many updates were left out so far, since their gradients overflowed under the loss scale."""
        return int(self.scale.skipped.asnumpy()[0]) if self.scale is not None else 0

    def with_average(self, work: Callable[[], Result]) -> Result:
        """The result of some work that finds the averaged weights in the MLPs, if averaging has begun."""
        if self.average is None or self.counter is None or self.counter.steps_done.asnumpy()[0] <= self.average.first:
            return work()
        return self.average.instead(work)

    def scaled_loss(self, dense, vectors, labels, *more):
        """The mean loss of the batch, times the loss scale; more are what the model pools by, if it does, the step, if
        there is dropout, the weights, if there are any, and the scale."""
        step = more[self.step_place] if self.dropout else None
        if self.label_smoothing != 0:
            labels = labels * (1 - self.label_smoothing) + self.label_smoothing / 2
        logits = self.model.each(dense, vectors, more, step)
        columns: tuple = (labels,)
        if self.weighted:
            columns = (labels, more[self.weight_place])
        joined = logits[0]
        if self.model.count > 1:  # the mean of the towers' losses, so that each learns by itself
            joined, columns = ops.concat(logits, 0), self.each(self.of_towers, columns)
        if self.logit_shift != 0:
            joined = joined - self.logit_shift
        loss = self.cross_entropy(joined, *columns)
        return loss if self.scale is None else loss * more[-1]

    def of_towers(self, column):
        """A column of the samples [B, 1], once for each tower."""
        return ops.tile(column, (self.model.count, 1))

    def construct(self, dense, ids, labels, *weights):
        counted: tuple = ()
        if self.counter is not None:
            counted = self.counter()
        more = (*self.model.present(ids), *(counted[:1] if self.dropout else ()))
        factor = None
        if self.scale is not None:
            factor = self.scale.factor()  # once: of parameters read again behind messages MindSpore makes copies
        rows, vectors, mask = self.model.look_up(ids)
        if self.weighted:
            more = (*more, self.normalised(weights[0], vectors))
        if self.scale is not None:
            more = (*more, factor)
        loss, (vector_gradients, gradients) = self.loss_and_gradients(dense, vectors, labels, *more)
        applied = None if self.scale is None else self.scale.all_finite((loss, vector_gradients, *gradients))
        if self.exchange is not None:
            loss, gradients, applied = self.mean_over_ranks(loss, gradients, applied, self.exchange)
            # All ranks send in one order: this message, then those of the tables.
            vector_gradients = ops.depend(vector_gradients, loss)
        rows, vector_gradients = self.model.table_gradients(rows, vector_gradients, mask)
        if self.scale is not None:
            loss, vector_gradients = loss / factor, vector_gradients / factor
            gradients = self.each(ops.partial(self.unscaled, factor), gradients)
        done = self.update(rows, vector_gradients, gradients, counted, applied)
        loss = ops.depend(loss, done)
        return loss if self.scale is None else ops.depend(loss, self.scale(applied, factor))

    def normalised(self, weights, vectors):
        """Weights whose mean over the batch of all ranks is 1, or which are all 0."""
        mean = weights.sum() / weights.shape[0]  # no mean, whose kernel on Ascend is an older one
        if self.exchange is not None:  # all ranks send in one order: this behind the messages that give the vectors
            mean = self.exchange.mean(ops.depend(mean, vectors).reshape(1)).reshape(())
        return weights / ops.maximum(mean, _LEAST_MEAN)

    def mean_over_ranks(self, loss, gradients, applied, exchange):
        """The loss and the MLPs' gradients, and whether all ranks' were finite; all in one message."""
        overflows: tuple = ()
        if applied is not None:
            overflows = ((1 - applied.to(ms.float32)).reshape(1),)
        flat = self.each(self.flat, gradients)
        means = self.parts(exchange.mean(ops.concat((*flat, loss.reshape(1), *overflows))))
        if applied is not None:
            applied = means[-1].reshape(()) == 0
        count = len(gradients)
        return means[count].reshape(()), self.each(self.shaped, means[:count], gradients), applied

    def flat(self, value):
        """A tensor's values side by side."""
        return value.reshape(-1)

    def shaped(self, flat, like):
        """Values side by side in the shape that another tensor has."""
        return flat.reshape(like.shape)

    def unscaled(self, factor, value):
        """A gradient of the scaled loss without the factor."""
        return value / factor

    def update(self, rows, vector_gradients, gradients, counted, applied):
        """Update all parameters, at the rates that the counted step makes; gives what comes behind that."""
        table_rate = self.rate(self.table_learning_rate, counted, 0)
        tables_done = self.table_optimizer(rows, vector_gradients, table_rate, applied)
        rate, decay_rate = self.rate(self.learning_rate, counted, 1), None
        if self.mlp_weight_decay != 0:
            decay_rate = self.rate(self.learning_rate, counted, 2)
        done = self.dense_optimizer(gradients, rate, decay_rate, applied)
        if self.average is not None:
            done = self.average(counted[0], done)
        if self.counter is not None and self.counter.counts_last:
            return tables_done, done, self.counter.end()
        return tables_done, done

    def rate(self, constant, counted, purpose):
        """A rate times the counted step's factor for a purpose: 0 tables, 1 MLPs, 2 weight decay."""
        place = self.factor_places[purpose]
        return constant if place < 0 else constant * counted[1 + place]


def _zeros(_: Piece, values: np.ndarray) -> None:
    values[:] = 0


def _place(factors: np.ndarray | None, series: list[np.ndarray]) -> int:
    """Where factors stand among the series, which get them if they lack them; -1 for None."""
    if factors is None:
        return -1
    for place, other in enumerate(series):
        if other is factors:
            return place
    series.append(factors)
    return len(series) - 1


def _corrected(
    factors: np.ndarray | None, rule: UpdateRule, reset_steps: int = 0, before: int = 0
) -> np.ndarray | None:
    """The factors with a rule's corrections, which both go on for ever with their last values.

    The corrections begin anew behind so many steps, each time; 0 for never. They have some steps behind them.
    """
    if rule.corrections is None:
        return factors
    first, second = np.ones(1) if factors is None else factors, rule.corrections()
    second = second[min(before, len(second) - 1) :]
    length = max(len(first), len(second))
    if reset_steps:
        length = len(first)
        second = np.resize(_lasting(second, reset_steps)[:reset_steps], length)
    return _lasting(first, length) * _lasting(second, length)


def _lasting(series: np.ndarray, length: int) -> np.ndarray:
    """A series that goes on with its last value, if it is shorter."""
    return np.pad(series, (0, max(0, length - len(series))), "edge")


def _number(value: float, name: str) -> Parameter:
    return Parameter(Tensor(value, ms.float32), name=name, requires_grad=False)
