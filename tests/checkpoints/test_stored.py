"""Networks whose tables stay in the checkpoint's files."""

from types import SimpleNamespace

import numpy as np
import pytest

from src.base.errors import InputError
from src.checkpoints import checkpoint, protobuf
from src.checkpoints.stored import StoredTables, open_stored
from src.data.layout import PADDING, Layout
from src.network.mixed_dims import widths_of
from src.network.options import NetworkSpec
from src.network.stock import STOCK
from src.training.evaluation import score
from tests.parts import write_in_parts

PLAIN = Layout.plain(4)
LISTS = Layout((0, 1, 2, 1), (1, 3, 1, 2), ("", "mean", "", "max"))
NETWORKS = {
    "dot": (NetworkSpec(8, (12, 8), (9, 1)), PLAIN),
    "towers": (NetworkSpec(16, (12, 8), (9, 1), towers=2, interaction="dcnv2", dcn_layers=1, dcn_rank=4), PLAIN),
    "lists": (NetworkSpec(8, (12, 8), (9, 1), mixed_dims=0.4, interaction="cat"), LISTS),
}


def coded_by(layout):
    rows = layout.of_fields((3, 700, 45, 1001)[: max(layout.tables) + 1])
    fields = [f"C{field}" for field in range(layout.fields)]
    return SimpleNamespace(inputs=("I1", "I2"), fields=fields, table_rows=rows, layout=layout)


def rows_for(coded, count=70):
    rng, layout = np.random.default_rng(4), coded.layout
    ids = np.stack([rng.integers(0, rows, count) for rows in layout.of_ids(coded.table_rows)], 1).astype(np.int32)
    lists = np.array(layout.of_ids([pool != "" for pool in layout.pools]))
    ids[(rng.random(ids.shape) < 0.3) & lists] = PADDING
    ids[:, lists & (np.arange(layout.ids) == layout.ids - 1)] = PADDING  # all of the last column
    return rng.normal(size=(count, 2)).astype(np.float32), ids, np.zeros((count, 1), np.float32)


@pytest.fixture
def small_messages(monkeypatch):
    """Entries of many messages, at whose borders rows are cut, as those of large tables have."""
    monkeypatch.setattr(protobuf, "_CHUNK", 100)


@pytest.mark.parametrize(("name", "compiles", "parts"), [
    ("dot", False, 3), ("dot", True, 1), ("towers", False, 2), ("lists", True, 3),
])  # fmt: skip
def test_scores_are_those_of_the_whole_network_to_the_bit(name, compiles, parts, tmp_path, compiled, small_messages):
    operators = compiled if compiles else STOCK
    network, layout = NETWORKS[name]
    coded, path = coded_by(layout), tmp_path / "dlrm.ckpt"
    write_in_parts(path, coded, network, parts)
    batches = [tuple(column[low : low + 32] for column in rows_for(coded)) for low in (0, 32, 64)]
    whole, stored = (
        score(opened(path, coded, network, operators), batches, 32)[1] for opened in (checkpoint.load, open_stored)
    )
    assert stored.tobytes() == whole.tobytes()
    assert whole.std() > 0.01  # which the vectors make


def test_vectors_of_full_width_are_those_that_are_exported(tmp_path, small_messages):
    network, layout = NETWORKS["lists"]
    coded, path = coded_by(layout), tmp_path / "dlrm.ckpt"
    write_in_parts(path, coded, network, 2)
    parts, fill = checkpoint.full_width(path, coded, network)
    tables = StoredTables(parts, widths_of(layout.of_tables(coded.table_rows), network), layout)
    _, ids, _ = rows_for(coded)
    found = tables.full_width(ids)
    for column, table in enumerate(layout.of_ids(layout.tables)):
        values = np.empty((layout.of_tables(coded.table_rows)[table], 8), np.float32)
        fill(checkpoint.Piece(table, 0, len(values)), values)
        there = ids[:, column] != PADDING
        np.testing.assert_allclose(found[there, column], values[ids[there, column]], rtol=1e-6)
        assert not found[~there, column].any()


def test_rows_that_no_part_has_are_refused(tmp_path):
    network, layout = NETWORKS["dot"]
    coded, path = coded_by(layout), tmp_path / "dlrm.ckpt"
    write_in_parts(path, coded, network, 2)
    other = tmp_path / "dlrm.rank_1.ckpt"
    file = protobuf.CheckpointFile(other)
    entries = {name: file.read(name) for name in file.shapes}
    cut = next(name for name in entries if "@" in name)
    field, first = cut.removeprefix("embedding.").split("@")
    protobuf.write(other, [(name, values[:-1] if name == cut else values) for name, values in entries.items()])
    model = open_stored(path, coded, network)
    dense, ids, labels = rows_for(coded)
    ids[:] = 0
    score(model, [(dense, ids, labels)], 70)
    ids[-1, coded.fields.index(field)] = int(first) + len(entries[cut]) - 1
    with pytest.raises(InputError, match=f"has no such entry for embedding.{field}, the model needs"):
        score(model, [(dense, ids, labels)], 70)


def test_a_file_that_is_written_over_while_it_is_in_use_is_refused(tmp_path):
    network, layout = NETWORKS["dot"]
    coded, path = coded_by(layout), tmp_path / "dlrm.ckpt"
    write_in_parts(path, coded, network, 1)
    model, batch = open_stored(path, coded, network), rows_for(coded)
    score(model, [batch], 70)
    with path.open("r+b") as file:
        file.write(b"other")
        file.truncate()
    with pytest.raises(InputError, match="changed while it was in use"):
        score(model, [batch], 70)
