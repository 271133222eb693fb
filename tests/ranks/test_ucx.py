"""What the compiled operators of several ranks send and sum, to the value."""

import numpy as np
import pytest
import ucx_ranks
from ucx_ranks import Connected

from src.data.layout import Layout
from src.network.embedding import initial_values, joint_rows
from src.ranks.options import WIRE_DTYPES, ucx_folder
from src.ranks.placement import most_distinct, place, ucx_step_bytes
from src.ranks.slots import pieces_of
from src.ranks.ucx import Messages, pieces_of_all

pytestmark = pytest.mark.skipif(ucx_folder() is None, reason="UCX is not installed")
RANKS, SAMPLES, WIDTH = 3, 40, 4
ROWS = (3, 400, 1, 50)  # of tables, the second of which is cut; the first is of two ids
LAYOUT = Layout((0, 1, 0, 2, 3), (1,) * 5, ("",) * 5)


@pytest.fixture(scope="module")
def library():
    return str(Messages.of(0, 1).path)


@pytest.fixture(scope="module")
def ranks(library):
    """Ranks of which each does what these tests ask one after another."""
    with Connected(library, RANKS) as connected:
        yield connected


def as_sent(values, wire):
    """Values as they are behind the way."""
    if WIRE_DTYPES[wire] == "bfloat16":
        bits = values.view(np.uint32).astype(np.uint64)
        return ((bits + 0x7FFF + (bits >> 16 & 1) >> 16) << 16).astype(np.uint32).view(np.float32)
    return values.astype(WIRE_DTYPES[wire]).astype(np.float32)


@pytest.mark.parametrize(("size", "wire"), [(1001, 0), (1001, 1), (1001, 2), (300_001, 0), (2, 0), (1, 1)])
def test_mean_is_of_the_ranks_in_their_order_and_the_same_on_all(ranks, size, wire):
    """Each sums up a part, its own values unrounded; the last value is float32 always."""
    rng = np.random.default_rng(1)
    values = [rng.normal(size=size).astype(np.float32) for _ in range(RANKS)]
    found = ranks(ucx_ranks.mean, values, wire=wire)
    share, expected = np.float32(1 / RANKS), np.empty(size, np.float32)
    cuts = [(size - 1) * rank // RANKS for rank in range(RANKS + 1)]
    for owner in range(RANKS):
        part = slice(cuts[owner], cuts[owner + 1])
        terms = [one[part] if rank == owner else as_sent(one[part], wire) for rank, one in enumerate(values)]
        expected[part] = as_sent(((terms[0] + terms[1]) + terms[2]) * share, wire)
    expected[-1] = ((values[0][-1] + values[1][-1]) + values[2][-1]) * share
    for mean, _ in found:
        np.testing.assert_array_equal(mean, expected)
    value_bytes = 2 if wire else 4
    assert sum(sent for _, sent in found) == 2 * (RANKS - 1) * (size - 1) * value_bytes + RANKS * (RANKS - 1) * 4


@pytest.fixture(scope="module")
def split():
    """Split tables: their placement, ranks' tables, and samples of each rank with their vectors' gradients."""
    placement = place(ROWS, "hybrid", RANKS, LAYOUT.uses)
    fill, rng = initial_values(ROWS, 1), np.random.default_rng(2)
    tables = [joint_rows(pieces_of(placement, rank), WIDTH, fill, 1) for rank in range(RANKS)]
    highs = [ROWS[table] for table in LAYOUT.of_ids(LAYOUT.tables)]
    ids = [rng.integers(0, highs, (SAMPLES, LAYOUT.ids)).astype(np.int32) for _ in range(RANKS)]
    ids[1][3:9, 1] = -1  # padding
    gradients = [rng.normal(size=(SAMPLES, LAYOUT.ids, WIDTH)).astype(np.float32) for _ in range(RANKS)]
    return placement, tables, ids, gradients


def look_up_and_give_back(ranks, split, ids, wire=0):
    placement, tables, _, gradients = split
    rooms = [RANKS * most_distinct(pieces, placement, SAMPLES) for pieces in placement.pieces]
    of_ids = np.array(LAYOUT.of_ids(LAYOUT.tables), np.int32)
    return ranks(ucx_ranks.step, tables, ids, [of_ids] * RANKS, [pieces_of_all(placement)] * RANKS, gradients, rooms,
                 wire=wire)  # fmt: skip


@pytest.mark.parametrize("wire", range(3))
def test_vectors_come_from_whoever_has_them(ranks, split, wire):
    placement, _, ids, _ = split
    whole = [joint_rows([piece], WIDTH, initial_values(ROWS, 1)) for piece in place(ROWS, "none", 1).pieces[0]]
    owners = [{piece.table: rank for piece in pieces} for rank, pieces in enumerate(placement.pieces)]
    for rank, (vectors, _, _) in enumerate(look_up_and_give_back(ranks, split, ids, wire)):
        for place_, table in enumerate(LAYOUT.of_ids(LAYOUT.tables)):
            column = ids[rank][:, place_]
            expected = np.where((column >= 0)[:, None], whole[table][np.maximum(column, 0)], 0)
            if len([one for one in owners if table in one]) == 1 and table not in owners[rank]:
                np.testing.assert_array_equal(vectors[:, place_], as_sent(expected, wire))
            else:
                np.testing.assert_allclose(vectors[:, place_], expected, rtol=(1e-7, 4e-3, 1e-3)[wire])


@pytest.mark.parametrize("wire", range(2))
def test_gradients_of_each_rank_come_once_a_row(ranks, split, wire):
    placement, tables, ids, gradients = split
    found = look_up_and_give_back(ranks, split, ids, wire)
    share = np.float32(1 / RANKS)
    for owner, (_, (rows, sums), _) in enumerate(found):
        used = list(rows[:, 0]).index(-1) if -1 in rows else len(rows)
        assert (rows[used:] == -1).all()
        assert 0 < used < len(rows)
        expected, start = [], 0  # by rank, of each row the sum of its gradients in their order
        for piece in pieces_of(placement, owner):
            for rank in range(RANKS):
                mine = [place_ for place_, table in enumerate(LAYOUT.of_ids(LAYOUT.tables)) if table == piece.table]
                for row in range(piece.low, piece.high):
                    if (wanted := gradients[rank][:, mine][ids[rank][:, mine] == row]).size:
                        total = np.add.accumulate(wanted)[-1] * share
                        expected.append(
                            (rank, start + row - piece.low, total if rank == owner else as_sent(total, wire))
                        )
            start += piece.rows + 1
        assert len(expected) == used
        of_row = {(rank, row): total for rank, row, total in expected}
        ranks = [rank for rank, *_ in sorted(expected, key=lambda one: one[0])]  # rank by rank
        for rank, row, total in zip(ranks, rows[:used, 0], sums[:used, 0]):
            np.testing.assert_array_equal(total, of_row[rank, row])


def test_what_is_sent_is_what_is_planned(ranks):
    """Where all rows come equally often; with ids that are all the same there is less."""
    rows, samples, rng = (30, 2000, 5), 300, np.random.default_rng(3)
    placement, layout = place(rows, "hybrid", RANKS), Layout.plain(3)
    tables = [joint_rows(pieces_of(placement, rank), WIDTH, initial_values(rows, 1), 1) for rank in range(RANKS)]
    rooms = [RANKS * most_distinct(pieces, placement, samples) for pieces in placement.pieces]
    of_ids = [np.array(layout.tables, np.int32)] * RANKS
    gradients = [np.zeros((samples, 3, WIDTH), np.float32)] * RANKS
    planned = ucx_step_bytes(placement, samples * RANKS, WIDTH, 0, 4)
    for drawn in (rows, (1, 1, 1)):
        ids = [rng.integers(0, drawn, (samples, 3)).astype(np.int32) for _ in range(RANKS)]
        found = ranks(ucx_ranks.step, tables, ids, of_ids, [pieces_of_all(placement)] * RANKS, gradients, rooms)
        sent = [one[-1] + (RANKS - 1) * 4 for one in found]  # the plan has the loss
        if drawn == rows:
            assert sent == pytest.approx(list(planned), rel=0.05)
        else:
            assert max(sent) < min(planned) / 10


@pytest.mark.parametrize("outside", [400, -2])
def test_id_outside_its_table_fails(library, split, outside):
    ids = [one.copy() for one in split[2]]
    for one in ids:
        one[7, 1] = outside
    with Connected(library, RANKS) as ranks:
        assert [vectors for vectors, *_ in look_up_and_give_back(ranks, split, ids)] == [None] * RANKS


def test_all_ranks_get_the_same_gradients_of_tables_that_all_hold(ranks):
    rng, starts = np.random.default_rng(4), np.array([0, 3, 403, 404])
    of_ids = np.array(LAYOUT.of_ids(LAYOUT.tables), np.int32)
    spans = zip(range(len(ROWS)), [0] * len(ROWS), starts, starts + ROWS, starts)
    pieces = np.array(list(spans), np.int32)
    rows = [(starts[of_ids] + rng.integers(0, np.array(ROWS)[of_ids], (SAMPLES, 5))).astype(np.int32)
            for _ in range(RANKS)]  # fmt: skip
    gradients = [rng.normal(size=(SAMPLES, 5, WIDTH)).astype(np.float32) for _ in range(RANKS)]
    placement = place(ROWS, "data", RANKS, LAYOUT.uses)
    room = RANKS * most_distinct(placement.pieces[0], placement, SAMPLES)
    for wire in range(3):
        found = ranks(ucx_ranks.all_gradients, rows, gradients, [of_ids] * RANKS, [pieces] * RANKS, [room] * RANKS,
                      wire=wire)  # fmt: skip
        first_rows, first_sums = found[0][0]
        used = list(first_rows[:, 0]).index(-1)
        for (own_rows, sums), _ in found:
            np.testing.assert_array_equal(own_rows, first_rows)
            assert sums[:used].tobytes() == first_sums[:used].tobytes()
        expected, total = np.zeros((sum(ROWS), WIDTH)), np.zeros((sum(ROWS), WIDTH))
        for one, own in zip(rows, gradients):
            np.add.at(expected, one.reshape(-1), own.reshape(-1, WIDTH) / RANKS)
        np.add.at(total, first_rows[:used, 0], first_sums[:used, 0])
        np.testing.assert_allclose(total, expected, atol=(1e-5, 0.1, 0.01)[wire])
        assert used == sum(len(np.unique(one)) for one in rows)


def test_rank_that_others_wait_for_in_vain_is_named(library, tmp_path):
    values = [np.ones(5, np.float32)] * RANKS
    with Connected(library, RANKS, limit_s=0.2, said=tmp_path / "said") as ranks:
        assert ranks(ucx_ranks.mean_but_for_the_last, values) == [None] * RANKS
    assert "error: rank 0 has waited 0 s in vain for rank 2" in (tmp_path / "said").read_text()
