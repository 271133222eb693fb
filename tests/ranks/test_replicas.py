"""Values that all ranks hold, with ranks that are threads."""

import numpy as np
import pytest
from mindspore import Parameter, Tensor
from simulated import on_ranks

from src.network.primitives import PRIMITIVES
from src.ranks import replicas
from src.ranks.group import ONE_RANK
from src.ranks.replicas import keep_equal


def kept_equal(*values, write_rows=PRIMITIVES.write_rows()):
    """What `keep_equal` makes of each rank's arrays: the arrays afterwards, and the result or the error, by rank."""
    held = [{name: Parameter(Tensor(one)) for name, one in own.items()} for own in values]
    results = on_ranks(len(values), lambda ranks: keep_equal(held[ranks.rank], ranks, write_rows))
    return [{name: one.asnumpy() for name, one in own.items()} for own in held], results


@pytest.fixture
def table():
    return np.random.default_rng(3).normal(size=(50, 4)).astype(np.float32)


def test_equal_replicas_are_left_alone(table):
    after, results = kept_equal({"table": table}, {"table": table.copy()})
    assert results == [{}, {}]
    assert all(own["table"].tobytes() == table.tobytes() for own in after)


def test_one_rank_has_nothing_to_compare(table):
    assert keep_equal({"table": Parameter(Tensor(table))}, ONE_RANK, PRIMITIVES.write_rows()) == {}


def test_rows_are_written_by_the_device_s_own_operator(table):
    """None that is named here: an operator that a GPU has may be of the older kind on Ascend."""
    written = []

    def write_rows(parameter, rows, values):
        written.append(values.asnumpy())
        PRIMITIVES.write_rows()(parameter, rows, values)

    after, _ = kept_equal({"table": table}, {"table": table + 1}, write_rows=write_rows)
    assert [one.tobytes() for one in written] == [table.tobytes()]
    assert after[1]["table"].tobytes() == table.tobytes()


@pytest.mark.parametrize("chunk_rows", [7, 50, 1000])
def test_sums_in_another_order_make_all_ranks_take_rank_0_s(table, monkeypatch, chunk_rows):
    """The same 64 gradients for each row, added up in two orders."""
    monkeypatch.setattr(replicas, "_CHUNK_ROWS", chunk_rows)
    rng = np.random.default_rng(4)
    gradients = rng.normal(size=(64, 50, 4)).astype(np.float32)
    own = []
    for _ in range(3):
        sums = table.copy()
        for gradient in gradients[rng.permutation(64)]:
            sums -= gradient
        own.append({"same": table.copy(), "sums": sums})
    assert own[0]["sums"].tobytes() != own[1]["sums"].tobytes()
    after, results = kept_equal(*own)
    for values, result in zip(after, results):
        assert values["sums"].tobytes() == own[0]["sums"].tobytes()
        assert values["same"].tobytes() == table.tobytes()
        assert list(result) == ["sums"]
        assert 0 < result["sums"] < 1e-5


def test_differences_that_have_grown_are_brought_together_too(table):
    """A run of many steps between saves does not end for them; `TOLERANCE` decides whether they are a warning."""
    apart = table * 1.5
    after, results = kept_equal({"table": table}, {"table": apart})
    assert all(own["table"].tobytes() == table.tobytes() for own in after)
    assert results[0]["table"] == pytest.approx(0.5)


@pytest.mark.parametrize("wrong", [np.nan, np.inf])
def test_a_rank_whose_values_are_not_finite_ends_the_run(table, wrong):
    astray = table.copy()
    astray[31, 2] += wrong
    _, results = kept_equal({"table": table}, {"table": table.copy()}, {"table": astray})
    assert len({str(error) for error in results}) == 1
    with pytest.raises(RuntimeError, match="rank 2 holds other values of table than rank 0, by up to"):
        raise results[0]


def test_ranks_of_different_steps_end_the_run():
    """Whole numbers have no rounding."""
    values = [{"steps_done": np.array([steps], np.int32)} for steps in (100_000, 100_001)]
    _, results = kept_equal(*values)
    with pytest.raises(RuntimeError, match="rank 1 holds other values of steps_done"):
        raise results[1]
