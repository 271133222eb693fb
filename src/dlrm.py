"""The DLRM network (Naumov et al. 2019, arXiv 1906.00091, section 2): returns logits; knows no loss, option or file.

Legend for the shapes below:
    B  batch, samples
    N  dense, numeric features
    F  fields, categorical features
    D  width of an embedding vector
    V  vectors that interact, F + 1
    K  towers
    P  pairs of vectors, V (V - 1) / 2, or V (V + 1) / 2 with self-interaction
"""

import itertools
from collections.abc import Sequence

import mindspore as ms
import numpy as np
from mindspore import Parameter, Tensor, nn, ops

from src.network.cpu_kernels import Kernels
from src.network.embedding import EmbeddingTables
from src.network.interactions.cross import CrossNetwork
from src.network.layers import MLP
from src.network.mixed_dims import Widths, projections_of

INTERACTIONS = ("dot", "cat", "dcnv2")


class PairDots(nn.Cell):
    """Dot products of all pairs of vectors, the lower triangle of Z = E E^T row by row.

    The gradient is written out, since the stock one of a gather along axis 1 transposes and sums by
    segments: with G the gradient laid out symmetrically, dE = G E, and 2 on G's diagonal.

    Args:
        vectors: V.
        self_interaction: whether each vector's product with itself is among the pairs.

    Inputs: [B, V, D]. Outputs: [B, P].
    """

    def __init__(self, vectors: int, self_interaction: bool = False):
        super().__init__()
        rows, columns = np.tril_indices(vectors, 0 if self_interaction else -1)
        self.pairs = len(rows)
        self.square = vectors * vectors
        self.vectors = vectors
        # Where pair p stands in the flattened Z, and which pair each cell of G shows. Without
        # self-interaction the diagonal shows pair P, a column of zeros that the backward pass appends.
        shown = np.full((vectors, vectors), self.pairs, np.int32)
        shown[rows, columns] = shown[columns, rows] = np.arange(self.pairs)
        self.cell_of_pair = Tensor((rows * vectors + columns).astype(np.int32))
        self.pair_of_cell = Tensor(shown.reshape(-1))
        self.self_interaction = self_interaction
        self.diagonal_twice = Tensor(np.ones((vectors, vectors), np.float32) + np.eye(vectors, dtype=np.float32))
        self.gram = ops.BatchMatMul(transpose_b=True)
        self.batch_matmul = ops.BatchMatMul()
        self.gather = ops.Gather()

    def construct(self, vectors):
        gram = self.gram(vectors, vectors)  # [B, V, V]
        return self.gather(gram.reshape(-1, self.square), self.cell_of_pair, 1)

    def bprop(self, vectors, out, dout):
        if not self.self_interaction:
            dout = ops.concat((dout, ops.zeros((dout.shape[0], 1), ms.float32)), 1)
        symmetric = self.gather(dout, self.pair_of_cell, 1).reshape(-1, self.vectors, self.vectors)
        if self.self_interaction:
            symmetric = symmetric * self.diagonal_twice
        return (self.batch_matmul(symmetric, vectors),)


class Interaction(nn.Cell):
    """The dot products of all pairs of vectors, behind the bottom MLP's output itself.

    Args:
        fields: F.
        width: D.
        self_interaction: as for `PairDots`.
        kernels: the compiled operators, if they are to be used.

    Inputs: bottom [B, D], vectors [B, F, D]. Outputs: [B, D + P].
    """

    def __init__(self, fields: int, width: int, self_interaction: bool = False, kernels: Kernels | None = None):
        super().__init__()
        self.width = width
        self.pair_dots = PairDots(fields + 1, self_interaction)
        self.fused = CompiledInteraction(kernels, fields, self.pair_dots.pairs) if kernels else None

    def construct(self, bottom, vectors):
        if self.fused is not None:
            return self.fused(bottom, vectors)
        stacked = ops.concat((bottom.reshape(-1, 1, self.width), vectors), 1)  # [B, V, D]
        return ops.concat((bottom, self.pair_dots(stacked)), 1)


class CompiledInteraction(nn.Cell):
    """`Interaction` by the compiled operator, and its gradient."""

    def __init__(self, kernels: Kernels, fields: int, pairs: int):
        super().__init__()
        self.forward, self.backward = kernels.interaction(fields, pairs)

    def construct(self, bottom, vectors):
        return self.forward(bottom, vectors)

    def bprop(self, bottom, vectors, out, dout):
        return self.backward(bottom, vectors, dout)


def mlp_values(
    dense_dim: int, fields: int, bottom_mlp: Sequence[int], top_mlp: Sequence[int], interaction: str,
    self_interaction: bool, dcn_layers: int = 3, dcn_rank: int = 64, towers: int = 1,
) -> int:  # fmt: skip
    """Values of the parameters of a `DLRM` but the tables'; arguments as there."""
    inputs_of_top = top_inputs(fields, bottom_mlp[-1], interaction, self_interaction)
    crosses = dcn_layers * inputs_of_top * (2 * dcn_rank + 1) if interaction == "dcnv2" else 0
    return towers * (crosses + sum(
        (inputs + 1) * outputs
        for sizes in ((dense_dim, *bottom_mlp), (inputs_of_top, *top_mlp))
        for inputs, outputs in itertools.pairwise(sizes)
    ))  # fmt: skip


def top_inputs(fields: int, width: int, interaction: str, self_interaction: bool) -> int:
    """Values that the top MLP of a `DLRM` takes: D + P, or V D."""
    vectors = fields + 1
    if interaction != "dot":
        return width * vectors
    return width + vectors * (vectors + 1 if self_interaction else vectors - 1) // 2


class Tower(nn.Cell):
    """Bottom MLP, interaction and top MLP: all of a DLRM but its tables.

    Args:
        dense_dim: N.
        fields: F.
        bottom_mlp: sizes of the bottom MLP; the last one is D.
        top_mlp: sizes of the top MLP; the last one is 1.
        interaction: "dot" (pairwise products behind the bottom MLP's output), "cat" (all vectors side by side) or
            "dcnv2" (these, crossed by a CrossNetwork).
        self_interaction: for "dot", whether vectors are also multiplied with themselves.
        compute_dtype: type of the MLPs' matrix products.
        rng: source of the initial values.
        dcn_layers, dcn_rank: for "dcnv2", how many layers cross, and the rank of each.
        kernels: the compiled operators, if they are to be used.
    """

    def __init__(
        self,
        dense_dim: int,
        fields: int,
        bottom_mlp: Sequence[int],
        top_mlp: Sequence[int],
        interaction: str,
        self_interaction: bool,
        compute_dtype,
        rng: np.random.Generator,
        dcn_layers: int,
        dcn_rank: int,
        kernels: Kernels | None,
    ):
        super().__init__()
        width = bottom_mlp[-1]
        self.interaction, self.vector_values = None, fields * width
        if interaction == "dot":
            usable = kernels if kernels and kernels.can_interact(width) else None
            self.interaction = Interaction(fields, width, self_interaction, usable)
        self.bottom = MLP(dense_dim, bottom_mlp, True, rng, compute_dtype, kernels, input_gradient=False)
        inputs_of_top = top_inputs(fields, width, interaction, self_interaction)
        self.top = MLP(inputs_of_top, top_mlp, False, rng, compute_dtype, kernels)
        self.cross = None
        if interaction == "dcnv2":
            self.cross = CrossNetwork(inputs_of_top, dcn_layers, dcn_rank, rng, compute_dtype, kernels)

    def tower_parameters(self) -> list[Parameter]:
        """The parameters of this tower alone."""
        cross = self.cross.get_parameters() if self.cross is not None else ()
        return [*self.bottom.get_parameters(), *self.top.get_parameters(), *cross]

    def tower_logits(self, dense, vectors, step=None):
        """Logits [B, 1] from dense [B, N] and embedding vectors [B, F, D].

        With a step [1] int32, dropout takes place.
        """
        bottom = self.bottom(dense, step)  # [B, D]
        if self.interaction is not None:
            return self.top(self.interaction(bottom, vectors), step)
        joint = ops.concat((bottom, vectors.reshape(-1, self.vector_values)), 1)  # [B, V D]; exported for any B
        return self.top(joint if self.cross is None else self.cross(joint), step)

    def construct(self, dense, vectors):
        return self.tower_logits(dense, vectors)


class DLRM(Tower):
    """Bottom MLP, embedding tables, interaction and top MLP.

    With several towers, each takes its own slice of the embedding vectors. They learn by themselves, but for fields
    whose narrow vectors they share, and the logit is the mean of theirs: one model that does what several with other
    seeds do together.

    Args:
        dense_dim: N.
        tables: the embedding tables; they give F, towers times D, and the compiled operators, if these are used.
        bottom_mlp, top_mlp, interaction, self_interaction, compute_dtype, dcn_layers, dcn_rank: as for `Tower`.
        seed: of the initial values.
        towers: K.
        widths: of the fields' vectors, if these differ; the tables are then packed, and have packed_rows.

    Inputs:
        dense: [B, N] float32. ids: [B, F] int32, each field's own ids, 0 <= id < table_rows[f]. Others are
            an error with the compiled operators, for packed tables only beyond the last packed row; MindSpore's own
            look up zeros, or another field's row.
    Outputs: logits, [B, 1] float32.
    """

    def __init__(
        self,
        dense_dim: int,
        tables: EmbeddingTables,
        bottom_mlp: Sequence[int] = (512, 256, 64, 16),
        top_mlp: Sequence[int] = (512, 256, 1),
        interaction: str = "dot",
        self_interaction: bool = False,
        compute_dtype=ms.float32,
        seed: int = 1,
        dcn_layers: int = 3,
        dcn_rank: int = 64,
        towers: int = 1,
        widths: Widths | None = None,
    ):
        emb_dim = tables.table.shape[1]
        if towers * bottom_mlp[-1] != emb_dim or top_mlp[-1] != 1:
            raise ValueError(
                f"bottom_mlp {list(bottom_mlp)} must end with emb_dim {emb_dim}{' / towers' if towers > 1 else ''}, "
                f"top_mlp {list(top_mlp)} with 1"
            )
        if interaction not in INTERACTIONS:
            raise ValueError(f"interaction is {interaction!r}; it is one of {', '.join(INTERACTIONS)}")
        shape = (dense_dim, len(tables.table_rows), bottom_mlp, top_mlp, interaction, self_interaction, compute_dtype)
        more = (dcn_layers, dcn_rank, tables.kernels)
        super().__init__(*shape, np.random.default_rng([seed, 0]), *more)
        self.tables = tables
        self.kernels = tables.kernels
        others = [Tower(*shape, np.random.default_rng([seed, 0, tower]), *more) for tower in range(1, towers)]
        self.others = nn.CellList(others) if others else None
        self.towers, self.width = towers, bottom_mlp[-1]
        self.share = Tensor(np.array([1 / towers], np.float32))
        self.projections = projections_of(widths, np.random.default_rng([seed, 0, towers])) if widths else None

    def all_towers(self) -> list[Tower]:
        """Itself, which is the first one, and the others."""
        return [self, *(self.others or ())]

    def mlp_parameters(self) -> list[Parameter]:
        """All parameters but the tables, which get row-sparse updates of their own."""
        towers = [parameter for tower in self.all_towers() for parameter in tower.tower_parameters()]
        return [*towers, *(self.projections.get_parameters() if self.projections is not None else ())]

    def set_dropout(self, rate: float, seed: int, rank: int = 0) -> None:
        """Let `each` drop values behind the MLPs' hidden layers when it is given a step; arguments as for Dropout."""
        for number, tower in enumerate(self.all_towers()):
            tower.bottom.set_dropout(rate, (seed, 2 * number), rank)
            tower.top.set_dropout(rate, (seed, 2 * number + 1), rank)

    def each(self, dense, vectors, step=None):
        """The towers' logits, a tuple of [B, 1], from dense [B, N] and the embedding vectors [B, F, K D].

        With a step [1] int32, their dropout takes place.
        """
        if self.projections is not None:
            vectors = self.projections(vectors)
        if self.others is None:
            return (self.tower_logits(dense, vectors, step),)
        slices = ops.split(vectors, self.width, 2)
        logits: tuple = (self.tower_logits(dense, slices[0], step),)
        for number in range(self.towers - 1):
            logits = (*logits, self.others[number].tower_logits(dense, slices[number + 1], step))
        return logits

    def score(self, dense, vectors):
        """Logits [B, 1] from dense [B, N] and the looked-up embedding vectors [B, F, K D]."""
        logits = self.each(dense, vectors)
        if self.others is None:
            return logits[0]
        total = logits[0]
        for number in range(1, self.towers):
            total = total + logits[number]
        return total * self.share

    def construct(self, dense, ids):
        if self.projections is None:
            return self.score(dense, self.tables(ids))
        packed, mask = self.projections.address(ids)
        return self.score(dense, self.tables(packed) * mask)
