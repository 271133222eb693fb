"""Entries are told from each other by name, whatever the columns are called."""

import numpy as np
import pytest

from src.checkpoints import protobuf
from src.checkpoints.checkpoint import TABLE, Parts, rows_of
from src.network.embedding import EmbeddingTables, joint_rows, whole_fields
from src.ranks.placement import Piece

ROWS = (6, 4, 3)
WHOLE = tuple(whole_fields(ROWS))


@pytest.mark.parametrize("pieces", [WHOLE, (Piece(0, 0, 1), Piece(0, 1, 6), *WHOLE[1:])])
@pytest.mark.parametrize("fields", [("a", "a@1", "a@01"), ("a@1", "a", "@"), ("a@1@1", "a@1", "a")])
def test_names_that_look_like_those_of_pieces_come_back(fields, pieces, tmp_path):
    values = np.arange(sum(ROWS) * 2, dtype=np.float32).reshape(-1, 2)
    tables = EmbeddingTables(ROWS, values.copy(), pieces=pieces)
    entries = rows_of(tables, TABLE, values, fields)
    assert len(entries) == len(pieces)
    protobuf.write(tmp_path / "dlrm.ckpt", entries.items())
    parts = Parts(tmp_path / "dlrm.ckpt", fields, ROWS)
    np.testing.assert_array_equal(joint_rows(WHOLE, 2, parts.fill(TABLE)), values)
    parts.check_all_read()
