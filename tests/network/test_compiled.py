"""The rule of compiled operators: no operator of MindSpore's writes parameters in a graph with them."""

import mindspore as ms
import pytest
from mindspore import Parameter, Tensor, ops
from networks import make_batch, make_model

from src.training.options import OptimizationSpec
from src.training.step import TrainStep


class CountingStep(TrainStep):
    """A training step that counts clicks before it trains, as users may write one."""

    def __init__(self, model):
        super().__init__(model, OptimizationSpec())
        self.clicks = Parameter(Tensor([0.0], ms.float32), name="clicks", requires_grad=False)

    def construct(self, dense, ids, labels):
        ops.assign_add(self.clicks, labels.sum().reshape(1))
        return super().construct(dense, ids, labels)


def test_a_writer_beside_compiled_operators_is_refused_and_serves_beside_stock_ones(compiled):
    model = make_model(operators=compiled)
    batch = make_batch(model, 5)
    with pytest.raises(
        RuntimeError, match="CountingStep holds MindSpore's operators AssignAdd, which write parameters"
    ):
        CountingStep(model)(*map(Tensor, batch))
    step = CountingStep(make_model())
    step(*map(Tensor, batch))
    assert step.clicks.asnumpy()[0] == batch[2].sum()
