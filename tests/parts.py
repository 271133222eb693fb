"""Checkpoints in parts, written as ranks write them, of networks that were never trained."""

import shutil
from types import SimpleNamespace

from ranks.simulated import on_ranks

from src.checkpoints import checkpoint
from src.data.manifest import MANIFEST, VOCABULARY, dense_dim_of, has_fields
from src.dlrm import DLRM
from src.model_utils.config import SAVED_OPTIONS, to_yaml
from src.network.embedding import initial_values, joint_rows, whole_tables
from src.network.mixed_dims import widths_of
from src.ranks.placement import place


def write_in_parts(path, coded, network, parts, seed=1):
    """Write a network's initial values as so many ranks in hybrid mode do, but those of tables 30 times as large."""
    layout = coded.layout
    widths = widths_of(layout.of_tables(coded.table_rows), network)
    rows, names = widths.packed_rows, layout.of_tables(coded.fields)
    stand_in = whole_tables([1] * len(rows), network.emb_dim, lambda _, values: values.fill(0), layout=layout)
    model = DLRM(dense_dim_of(coded), stand_in, network, seed=seed, widths=widths, has_fields=has_fields(coded))
    common = {value.name: value.asnumpy() for value in model.mlp_parameters()}
    placement, fill = place(rows, "hybrid", parts, layout.uses), initial_values(rows, seed)

    def write(ranks):
        pieces = placement.pieces[ranks.rank]
        joint = 30 * joint_rows(pieces, network.emb_dim, fill, 1)
        views, low = [], 0
        for piece in pieces:
            views.append((piece, joint[low : low + piece.rows]))
            low += piece.rows + 1
        tables = SimpleNamespace(replicated=parts == 1, table_rows=rows, views=lambda _: views)
        own = checkpoint.rows_of(tables, checkpoint.TABLE, joint, names)
        checkpoint.write_part(path, common, own, tables, ranks, sync=False)

    for found in on_ranks(parts, write):
        if isinstance(found, Exception):
            raise found


def write_checkpoint_folder(folder, data, network, parts, seed=1):
    """The folder of such a checkpoint, with what stands beside one; the checkpoint's path."""
    folder.mkdir()
    (folder / SAVED_OPTIONS).write_text(to_yaml(network))
    for name in (MANIFEST, VOCABULARY):
        shutil.copy(data.path / name, folder / name)
    write_in_parts(folder / "dlrm.ckpt", data.manifest, network, parts, seed)
    return folder / "dlrm.ckpt"
