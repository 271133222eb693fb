"""Wide networks compile by MindSpore's own operators, though it nests at most 1,000 calls."""

import mindspore as ms
import numpy as np
import pytest
from mindspore import Parameter, Tensor, nn, ops
from networks import make_batch, make_model, make_step

WIDE = {"bottom": (4, 2), "top": (4, 1), "slot_dim": 3}
KINDS = {
    "best_config.yaml": (
        {"bottom": (6, 4, 2), "top": (8, 4, 1)},
        {"optimizer": "adagrad", "mlp_optimizer": "adam", "mlp_weight_decay": 0.01, "factors": np.array([1.0, 0.5])},
    ),
    "dcnv2": ({"interaction": "dcnv2", "dcn_rank": 2, "dcn_layers": 5}, {"optimizer": "adagrad", "average_from": 0}),
}


class OtherRank(nn.Cell):
    """An exchange with one other rank, which has the same samples, but overflows if this is said."""

    rank = 0

    def __init__(self, overflows=False):
        super().__init__()
        flag = Tensor([0.5 if overflows else 0.0])
        self.flag = Parameter(flag, name="flag", requires_grad=False)  # no constant, for which it would compile anew

    def mean(self, values):
        return ops.concat((values[:-1], values[-1:] + self.flag))


@pytest.fixture
def depth():
    """Lets MindSpore nest fewer calls."""
    yield ms.set_recursion_limit
    ms.set_recursion_limit(1000)


@pytest.mark.parametrize(("kind", "towers", "exchange"), [("best_config.yaml", 2, None), ("dcnv2", 2, OtherRank())],
                         ids=KINDS)  # fmt: skip
def test_eight_towers_compile_by_stock_operators(kind, towers, exchange, depth, own_graphs):
    """Or fewer within as much less depth, which grows with each tower: the graph of eight takes long to compile."""
    depth(125 * towers)
    network, options = KINDS[kind]
    model = make_model(**(WIDE | network | {"towers": towers}))
    step = make_step(model, exchange=exchange, **options)
    batch = tuple(map(Tensor, make_batch(model, 5, 4)))
    losses = [float(step(*batch).asnumpy()) for _ in range(2)]
    assert losses[1] < losses[0]


@pytest.mark.parametrize("overflows", [False, True])
def test_ranks_leave_out_an_update_that_overflows_on_one_of_them(overflows):
    model = make_model(slot_dim=2)
    step = make_step(model, loss_scale="dynamic", exchange=OtherRank(overflows))
    before = model.tables.table.asnumpy().copy()
    assert np.isfinite(step(*map(Tensor, make_batch(model, 5, 4))).asnumpy())
    assert step.skipped_updates() == overflows
    assert np.array_equal(model.tables.table.asnumpy(), before) == overflows
