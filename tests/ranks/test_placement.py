"""Which rank holds which rows, in memory, in checkpoints, and as a plan says it."""

import os
import re
import subprocess
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from trainings import ENVIRONMENT, SMALL, script

import train
from src.base import events
from src.base.errors import InputError
from src.checkpoints import protobuf, run_folder
from src.checkpoints.checkpoint import Parts, part_of
from src.checkpoints.checkpoint import rows_of as entries_of
from src.network.embedding import EmbeddingTables, initial_rows, initial_values, joint_rows
from src.ranks.placement import Piece, place
from src.ranks.slots import pieces_of

TABLES = st.lists(st.integers(1, 300), min_size=1, max_size=9)


@given(TABLES, st.integers(1, 9))
def test_every_row_lies_on_one_rank(table_rows, ranks):
    placement = place(table_rows, "hybrid", ranks)
    held = sorted((p.table, row) for pieces in placement.pieces for p in pieces for row in range(p.low, p.high))
    assert held == [(field, row) for field, rows in enumerate(table_rows) for row in range(rows)]
    most = max(placement.rows(rank) for rank in range(ranks))
    assert most <= -(-sum(table_rows) // ranks) * 1.06 + 2


def test_criteo_s_tables_are_spread_evenly_in_few_pieces():
    rows = (1460, 583, 10131227, 2202608, 305, 24, 12517, 633, 3, 93145, 5683, 8351593, 3194, 27, 14992, 5461306, 10,
            5652, 2173, 4, 7046547, 18, 15, 286181, 105, 142572)  # fmt: skip
    for ranks in (2, 4, 8):
        placement = place(rows, "hybrid", ranks)
        held = [placement.rows(rank) for rank in range(ranks)]
        assert max(held) < 1.01 * sum(rows) / ranks
        assert sum(map(len, placement.pieces)) <= 26 + ranks
        assert placement.slots <= 26 / ranks + 4


def held_by(placement, rank):
    """What stands for a rank's tables where no process is started."""
    held = SimpleNamespace(table_rows=placement.table_rows, pieces=pieces_of(placement, rank), spare=1)
    held.views = lambda joint: EmbeddingTables.views(held, joint)
    return held


@given(TABLES, st.permutations([1, 2, 3, 4, 8]))
@example([3, 300, 20, 7], [1, 2, 4])
def test_layouts_in_any_order_give_the_same_bits(tmp_path_factory, table_rows, order):
    """A rank never reads more than its own rows."""
    fields, folder = [f"C{field}" for field in range(len(table_rows))], tmp_path_factory.mktemp("layouts")
    fill = initial_values(table_rows, 3)
    for turn, ranks in enumerate([*order, 1]):
        placement, path = place(table_rows, "hybrid", ranks), folder / f"{turn}.ckpt"
        for rank in range(ranks):
            joint = joint_rows(pieces_of(placement, rank), 5, fill, 1)
            assert len(joint) == placement.rows(rank) + placement.slots
            entries = entries_of(held_by(placement, rank), "embedding.", joint, fields)
            extra = {"parts": np.array([ranks], np.int32)} if ranks > 1 or not entries else {}
            protobuf.write(part_of(path, rank), (entries | extra).items())
        fill = Parts(path, fields, table_rows).fill("embedding.")
    whole = joint_rows(place(table_rows, "none", 1).pieces[0], 5, fill)
    assert whole.tobytes() == initial_rows(table_rows, 5, 3).tobytes()


def test_killed_while_the_parts_are_put_in_place_loses_none(tiny_data, tmp_path, monkeypatch):
    """Part 1 is there, part 0 is not yet: going on from an earlier state, the best network must still be whole."""

    def kill_before_the_checkpoint(moment):
        if moment == "dlrm.rank_1.ckpt is in its place":
            raise KeyboardInterrupt

    def run_at(step, fail):
        with run_folder.Run(tmp_path, tiny_data, run_folder.RunOptions("dlrm.yaml", "lr: 1\n")) as run:
            if fail:
                for rank in range(2):
                    content = [("parts", np.array([2], np.int32)), (f"value{rank}", np.zeros(3, np.float32))]
                    protobuf.write(part_of(run.best(step), rank), content)
                run.commit({"step": step}, step, step)
            run.finish(step)

    with monkeypatch.context() as patch:
        patch.setattr(events, "listeners", [kill_before_the_checkpoint])
        with pytest.raises(KeyboardInterrupt):
            run_at(20, True)
    assert not (tmp_path / "dlrm.ckpt").exists()
    run_at(20, False)
    assert sorted(os.listdir(tmp_path)) == [
        "counts.npz",
        "dlrm.ckpt",
        "dlrm.rank_1.ckpt",
        "dlrm.yaml",
        "manifest.json",
        "vocabulary.npz",
    ]
    assert Parts(tmp_path / "dlrm.ckpt", [], []).ranks == 2


def test_missing_part_is_refused(tmp_path):
    path = tmp_path / "dlrm.ckpt"
    protobuf.write(path, [("parts", np.array([2], np.int32))])
    with pytest.raises(InputError, match=r"rank_1\.ckpt is not a file"):
        Parts(part_of(path, 1), ["C1"], [4])
    with pytest.raises(InputError, match=r"has 2 parts, and .*dlrm\.rank_1\.ckpt is missing"):
        Parts(path, ["C1"], [4])
    protobuf.write(part_of(path, 1), [("embedding.C1@2", np.zeros((2, 3), np.float32))])
    with pytest.raises(InputError, match=r"rank_1\.ckpt is one part of a checkpoint: name dlrm\.ckpt"):
        Parts(part_of(path, 1), ["C1"], [4])
    parts, rows = Parts(path, ["C1"], [4]), np.empty((2, 3), np.float32)
    parts.fill("embedding.")(Piece(0, 2, 4), rows)
    with pytest.raises(InputError, match=r"has no such entry for embedding\.C1"):
        parts.fill("embedding.")(Piece(0, 1, 3), rows)


def test_plan_says_what_each_rank_holds(tiny_data, tmp_path):
    command = script(4, tiny_data.path, *SMALL, "--plan_only=True", "--parallel_mode=hybrid")
    done = subprocess.run(command, cwd=tmp_path, env=ENVIRONMENT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    line = r"^rank \d: \d+ pieces, [\d,]+ rows, .* MB in all as computed, sends .* MB a step$"
    assert len(re.findall(line, done.stdout, re.M)) == 4
    assert not list(tmp_path.iterdir()), "nothing is made"


def test_plan_refuses_too_little_memory(tiny_data):
    options = [*SMALL, "--device_target=CPU", "--plan_only=True", "--parallel_mode=hybrid", "--ranks=4"]
    with pytest.raises(InputError, match=r"a device's 10 MB can't hold"):
        train.main([f"--dataset_path={tiny_data.path}", *options, "--device_memory_mb=10"])
