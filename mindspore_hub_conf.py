"""What MindSpore Hub asks of a repository: `create_network("dlrm", checkpoint_path="checkpoint")`."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import mindspore as ms
from mindspore import Tensor, nn

from src.base.errors import InputError
from src.checkpoints import checkpoint
from src.checkpoints.names import file_of
from src.dlrm import DLRM
from src.export.exported import checkpoint_manifest
from src.export.table_file import check_ids
from src.network.compiled import operators_for
from src.network.embedding import EmbeddingTables, initial_rows
from src.network.options import NetworkSpec
from src.options import EvalOptions, resolve
from src.publishing.network import network_of
from src.publishing.published import Published, is_published


class CheckedDLRM(DLRM):
    """A network whose ids are checked where it is called by itself; within another cell's graph nothing can be refused.

    Inputs, Outputs: as of `create_network`.

    Raises:
        InputError: an id that its field's table has not.
    """

    def __call__(self, dense: Tensor, ids: Tensor) -> Tensor:
        check_ids(ids.asnumpy(), self.field_rows, self.tables.layout)
        return super().__call__(dense, ids)


def _checked(network: DLRM, field_rows: Sequence[int]) -> CheckedDLRM:
    network.__class__ = CheckedDLRM  # the parameters keep their names, as they would not within another cell
    network.field_rows = tuple(field_rows)
    return cast(CheckedDLRM, network)


def create_network(
    name: str, checkpoint_path: str = "", *, table_rows: Sequence[int] = (), dense_dim: int = 13, seed: int = 1,
    **network: Any,
) -> nn.Cell:  # fmt: skip
    """The network of a checkpoint, or a fresh one; legend: B rows, N numeric inputs, F fields.

    Args:
        name: "dlrm", the one network here.
        checkpoint_path: one that train.py wrote, with the files beside it, which say the network's shape; or a folder
            that export.py wrote with publish.
        table_rows: of a fresh network, rows of each of the F fields' tables, row 0 for values never seen included.
        dense_dim: N of a fresh network.
        seed: of a fresh network's values.
        network: options of a fresh network by their names, such as emb_dim=16 or bottom_mlp=(512, 256, 64, 16).

    It is made for the device that MindSpore is set to, which comes first: mindspore.set_device("Ascend").

    Inputs: dense [B, N] float32, ids [B, F] int32, each field's own. Outputs: logits [B, 1] float32.

    Called by itself, it refuses ids that a field's table has not; in a graph around it nothing does.

    Raises:
        InputError: another name, no checkpoint in that place, neither it nor table_rows, or both.
    """
    if name != "dlrm":
        raise InputError(f"name is {name!r}: this repository has the network 'dlrm'")
    if bool(checkpoint_path) == bool(table_rows):
        raise InputError("give either checkpoint_path, of train.py, or table_rows, for a fresh network")
    # MindSpore's own, on a CPU too: the compiled ones have no gradients of the tables, which fine-tuning may ask for.
    operators = operators_for(ms.get_context("device_target"), False)
    if not checkpoint_path:
        spec = NetworkSpec(**network)
        if spec.mixed_dims:
            raise InputError(f"mixed_dims {spec.mixed_dims}: a fresh network here has vectors of one width; train one")
        tables = EmbeddingTables(table_rows, initial_rows(table_rows, spec.emb_dim, seed), operators)
        return _checked(DLRM(dense_dim, tables, spec, seed=seed), table_rows)
    if network:
        raise InputError(f"{min(network)} has no effect with checkpoint_path, beside which the shape stands: drop it")
    if is_published(Path(checkpoint_path)):
        published = Published.load(Path(checkpoint_path))
        return _checked(network_of(published, operators), published.manifest.table_rows)
    path = file_of(checkpoint_path)
    saved = resolve(EvalOptions, [f"--checkpoint_path={path}", "--device_target=CPU"]).network
    manifest = checkpoint_manifest(path)
    return _checked(checkpoint.load(path, manifest, saved, operators), manifest.table_rows)
