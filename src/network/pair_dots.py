"""Dot products of all pairs of vectors, by MindSpore's own operators.

Legend: B batch, D width of a vector, V vectors, P pairs.
"""

import mindspore as ms
import numpy as np
from mindspore import Tensor, nn, ops

from src.network.primitives import PRIMITIVES, Primitives


def pair_count(fields: int, self_interaction: bool) -> int:
    """P, of the bottom MLP's output and the vectors of so many fields."""
    vectors = fields + 1
    return vectors * (vectors + 1 if self_interaction else vectors - 1) // 2


class PairDots(nn.Cell):
    """Dot products of all pairs of vectors, the lower triangle of Z = E E^T row by row.

    The gradient is written out, since the stock one of a gather along axis 1 transposes and sums by
    segments: with G the gradient laid out symmetrically, dE = G E, and 2 on G's diagonal.

    Args:
        vectors: V.
        self_interaction: whether each vector's product with itself is among the pairs.
        primitives: of the device.

    Attributes:
        pairs: P.

    Inputs: [B, V, D]. Outputs: [B, P].
    """

    def __init__(self, vectors: int, self_interaction: bool = False, primitives: Primitives = PRIMITIVES):
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
        self.take = primitives.take()

    def construct(self, vectors):
        gram = self.gram(vectors, vectors)  # [B, V, V]
        return self.take(gram.reshape(-1, self.square), self.cell_of_pair, 1)

    def bprop(self, vectors, out, dout):
        return (self.gradient(vectors, dout),)

    def gradient(self, vectors, dout):
        """That of the vectors, [B, V, D], of that of the pairs, [B, P]."""
        if not self.self_interaction:
            dout = ops.concat((dout, ops.zeros((dout.shape[0], 1), dtype=ms.float32)), 1)
        symmetric = self.take(dout, self.pair_of_cell, 1).reshape(-1, self.vectors, self.vectors)
        if self.self_interaction:
            symmetric = symmetric * self.diagonal_twice
        return self.batch_matmul(symmetric, vectors)
