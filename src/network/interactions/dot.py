"""The interaction of the paper (section 2): dot products of all pairs of vectors, behind the bottom MLP's output.

Legend: B batch, F fields, D width of a vector, V vectors (F + 1), P pairs, V (V - 1) / 2, or V (V + 1) / 2 with
self-interaction.
"""

import mindspore as ms
import numpy as np
from mindspore import nn

from src.network.operators import Operators
from src.network.options import NetworkSpec


class Interaction(nn.Cell):
    """Products of all pairs of vectors, behind the bottom MLP's output itself.

    Args:
        fields, network, rng, operators, compute_dtype: as for every interaction; rng and type are not used.

    Inputs: bottom [B, D], vectors [B, F, D]. Outputs: [B, D + P].
    """

    def __init__(
        self, fields: int, network: NetworkSpec, rng: np.random.Generator, operators: Operators,
        compute_dtype=ms.float32,
    ):  # fmt: skip
        super().__init__()
        self.products = operators.pair_dots(fields, network.bottom_mlp[-1], network.self_interaction)

    @staticmethod
    def outputs(fields: int, network: NetworkSpec) -> int:
        """D + P."""
        vectors = fields + 1
        return network.bottom_mlp[-1] + vectors * (vectors + 1 if network.self_interaction else vectors - 1) // 2

    @staticmethod
    def values(fields: int, network: NetworkSpec) -> int:
        """It has no parameters."""
        return 0

    def construct(self, bottom, vectors):
        return self.products(bottom, vectors)
