"""The DLRM network (Naumov et al. 2019, arXiv 1906.00091, section 2): returns logits; knows no loss, option or file.

Legend for the shapes below:
    B  batch, samples
    N  dense, numeric features
    F  fields, categorical features
    L  ids of a sample: a field's one, or so many of a field of lists; L = F without lists
    D  width of an embedding vector
    K  towers
"""

import itertools

import mindspore as ms
import numpy as np
from mindspore import Parameter, Tensor, nn

from src.network.embedding import EmbeddingTables
from src.network.interactions import interaction_of
from src.network.layers import MLP
from src.network.mixed_dims import Widths, projections_of
from src.network.operators import Operators
from src.network.options import NetworkSpec


def mlp_values(dense_dim: int, fields: int, network: NetworkSpec) -> int:
    """Values of the parameters of a `DLRM` but the tables' and what belongs to these; arguments as there."""
    interaction = interaction_of(network.interaction)
    first = interaction.outputs(fields, network) if fields else network.bottom_mlp[-1]
    mlps = ((*_bottom(dense_dim, network),), (first, *network.top_mlp))
    of_mlps = sum((inputs + 1) * outputs for sizes in mlps for inputs, outputs in itertools.pairwise(sizes))
    return network.towers * (of_mlps + (interaction.values(fields, network) if fields else 0))


def _bottom(dense_dim: int, network: NetworkSpec) -> tuple[int, ...]:
    """Inputs and sizes of the bottom MLP; without numeric features one layer, whose bias is a learned vector."""
    return (dense_dim, *network.bottom_mlp) if dense_dim else (1, network.bottom_mlp[-1])


def activation_values(dense_dim: int, fields: int, network: NetworkSpec) -> int:
    """Values of a sample in a `DLRM`: inputs, vectors, and what each layer gives; arguments as there."""
    interaction = interaction_of(network.interaction)
    inner = getattr(interaction, "inner", lambda *_: 0)(fields, network) + interaction.outputs(fields, network)
    of_tower = sum(_bottom(dense_dim, network)[1:]) + (inner if fields else 0) + sum(network.top_mlp)
    return dense_dim + fields * (1 + network.emb_dim) + network.towers * of_tower


class Tower(nn.Cell):
    """Bottom MLP, interaction and top MLP: all of a DLRM but its tables.

    What rows lack is left away. Without fields there is no interaction. Without numeric features there is no bottom
    MLP but one learned vector, which interacts in the place of its output: so each field has a weight of its own too.

    Args:
        dense_dim: N, or 0 where the one dense input is zeros that stand in for none.
        fields: F, or 0 where the one vector of each sample stands in for none.
        network: sizes and interaction.
        rng: source of the initial values.
        operators: what computes it.
        compute_dtype: type of the matrix products.

    Inputs: dense [B, N], embedding vectors [B, F, D]; step [1] int32, with which dropout takes place, if there is any.
    Outputs: logits [B, 1].
    """

    def __init__(
        self, dense_dim: int, fields: int, network: NetworkSpec, rng: np.random.Generator, operators: Operators,
        compute_dtype=ms.float32,
    ):  # fmt: skip
        super().__init__()
        interaction = interaction_of(network.interaction)
        inputs, *sizes = _bottom(dense_dim, network)
        first = interaction.outputs(fields, network) if fields else sizes[-1]
        self.bottom = MLP(inputs, sizes, dense_dim > 0, rng, operators, compute_dtype, input_gradient=False)
        self.top = MLP(first, network.top_mlp, False, rng, operators, compute_dtype)
        self.interaction = interaction(fields, network, rng, operators, compute_dtype) if fields else None

    def set_dropout(self, rate: float, seed: tuple[int, int], rank: int) -> None:
        """Let values be dropped behind the MLPs' hidden layers where a step is given; arguments as for Dropout."""
        run_seed, number = seed
        self.bottom.set_dropout(rate, (run_seed, 2 * number), rank)
        self.top.set_dropout(rate, (run_seed, 2 * number + 1), rank)

    def construct(self, dense, vectors, step=None):
        bottom = self.bottom(dense, step)  # [B, D]
        if self.interaction is None:
            return self.top(bottom, step)
        return self.top(self.interaction(bottom, vectors), step)


class DLRM(nn.Cell):
    """Embedding tables, and towers of bottom MLP, interaction and top MLP.

    With several towers, each takes its own slice of the embedding vectors. They learn by themselves, but for fields
    whose narrow vectors they share, and the logit is the mean of theirs: one model that does what several with other
    seeds do together.

    Args:
        dense_dim: N, or 0: see `Tower`.
        tables: the embedding tables; they give F, L, K times D, and the operators that compute the network.
        network: its shape.
        compute_dtype: type of the MLPs' matrix products.
        seed: of the initial values.
        widths: of the fields' vectors, if these differ; the tables are then packed, and have packed_rows.
        has_fields: whether the tables are of fields; else one table stands in for none, whose vectors are not used.

    Inputs:
        dense: [B, N] float32. ids: [B, L] int32, each table's own, 0 <= id < table_rows, or padding in lists. Others
            are an error with the compiled operators, for packed tables only beyond the last packed row; MindSpore's own
            look up zeros, or another table's row, and on Ascend anything.
    Outputs: logits, [B, 1] float32.

    Raises:
        ValueError: the tables have another width than the network.
    """

    def __init__(
        self, dense_dim: int, tables: EmbeddingTables, network: NetworkSpec, compute_dtype=ms.float32, seed: int = 1,
        widths: Widths | None = None, has_fields: bool = True,
    ):  # fmt: skip
        if network.emb_dim != tables.table.shape[1]:
            raise ValueError(f"the tables have a width of {tables.table.shape[1]}, the network {network.emb_dim}")
        super().__init__()
        self.tables, self.operators = tables, tables.operators
        self.count, self.width = network.towers, network.bottom_mlp[-1]
        self.has_fields = has_fields
        fields = tables.layout.fields if has_fields else 0
        seeds = [[seed, 0], *([seed, 0, number] for number in range(1, self.count))]
        self.towers = nn.CellList([
            Tower(dense_dim, fields, network, np.random.default_rng(one), self.operators, compute_dtype)
            for one in seeds
        ])  # fmt: skip
        self.slices = self.operators.primitives.parts([self.width] * self.count, 2)
        self.share = Tensor(np.array([1 / self.count], np.float32))
        rng = np.random.default_rng([seed, 0, self.count])
        tables_of_ids = tables.layout.of_ids(tables.layout.tables)
        primitives = self.operators.primitives
        self.projections = projections_of(widths, rng, tables_of_ids, primitives) if widths else None
        self.pooling = self.operators.pooling(tables.layout) if tables.layout.has_lists else None
        for number, tower in enumerate(self.towers):
            for parameter in tower.get_parameters():
                parameter.name = _name_in_checkpoints(parameter.name, number)

    def mlp_parameters(self) -> list[Parameter]:
        """All parameters but the tables, which get row-sparse updates of their own."""
        towers = [parameter for tower in self.towers for parameter in tower.get_parameters()]
        return [*towers, *(self.projections.get_parameters() if self.projections is not None else ())]

    def change_logits(self, slope: float, shift: float) -> None:
        """Let each logit become slope times it plus a shift, in the towers' last layers, which are linear."""
        for tower in self.towers:
            weight, bias = list(tower.top.get_parameters())[-2:]
            weight.set_data(Tensor((weight.asnumpy() * slope).astype(np.float32)))
            bias.set_data(Tensor((bias.asnumpy() * slope + shift).astype(np.float32)))

    def set_dropout(self, rate: float, seed: int, rank: int = 0) -> None:
        """Let `each` drop values behind the MLPs' hidden layers when it is given a step; arguments as for Dropout."""
        for number, tower in enumerate(self.towers):
            tower.set_dropout(rate, (seed, number), rank)

    def look_up(self, ids):
        """What the tables have for ids [B, L]: rows, vectors [B, L, K D], and what `table_gradients` takes as mask."""
        if self.projections is None:
            rows, vectors = self.tables.lookup(ids)
            return rows, vectors, None
        packed, mask = self.projections.address(ids)
        rows, vectors = self.tables.lookup(packed)
        return rows, vectors * mask, mask

    def table_gradients(self, rows, gradients, mask):
        """The rows of this device's tables to update and their gradients, of what `look_up` gave in all ranks."""
        return self.tables.owned(rows, gradients if mask is None else gradients * mask)

    def present(self, ids):
        """What `each` takes so as to pool the vectors of ids [B, L], a tuple; an empty one where there are no lists."""
        return () if self.pooling is None else (self.pooling.present(ids),)

    def each(self, dense, vectors, present=(), step=None):
        """The towers' logits, a tuple of [B, 1], from dense [B, N] and the looked-up vectors [B, L, K D].

        With a step [1] int32, their dropout takes place.
        """
        if self.projections is not None:
            vectors = self.projections(vectors)
        if self.pooling is not None:
            vectors = self.pooling(vectors, present[0])
        if self.count == 1:
            return (self.towers[0](dense, vectors, step),)
        slices = self.slices(vectors)
        logits: tuple = ()
        for number in range(self.count):
            logits = (*logits, self.towers[number](dense, slices[number], step))
        return logits

    def score(self, dense, vectors, present=()):
        """Logits [B, 1] from dense [B, N] and the looked-up embedding vectors [B, L, K D]; arguments as for `each`."""
        logits = self.each(dense, vectors, present)
        total = logits[0]
        for number in range(1, self.count):
            total = total + logits[number]
        return total if self.count == 1 else total * self.share

    def construct(self, dense, ids):
        return self.score(dense, self.look_up(ids)[1], self.present(ids))


def _name_in_checkpoints(name: str, tower: int) -> str:
    """A tower's parameter as checkpoints have named it ever since there were towers: the first one's have no prefix."""
    own = name.removeprefix(f"towers.{tower}.").replace("interaction.cross.", "cross.")
    return own if tower == 0 else f"others.{tower - 1}.{own}"
