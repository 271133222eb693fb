"""The interaction of the paper (section 2): dot products of all pairs of vectors, behind the bottom MLP's output.

Legend: B batch, F fields, D width of a vector, V vectors (F + 1), P pairs, V (V - 1) / 2, or V (V + 1) / 2 with
self-interaction.
"""

import mindspore as ms
import numpy as np
from mindspore import nn

from src.network.operators import Operators
from src.network.options import NetworkSpec
from src.network.pair_dots import pair_count


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
        return network.bottom_mlp[-1] + pair_count(fields, network.self_interaction)

    @staticmethod
    def values(fields: int, network: NetworkSpec) -> int:
        """It has no parameters."""
        return 0

    def construct(self, bottom, vectors):
        return self.products(bottom, vectors)
