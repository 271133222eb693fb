"""No interaction but the top MLP's: all vectors side by side (the paper's code has it as "cat").

Legend: B batch, F fields, D width of a vector, V vectors (F + 1).
"""

import mindspore as ms
import numpy as np
from mindspore import nn, ops

from src.network.operators import Operators
from src.network.options import NetworkSpec


class Interaction(nn.Cell):
    """All vectors side by side.

    Args:
        fields, network, rng, operators, compute_dtype: as for every interaction; only the first two are used.

    Inputs: bottom [B, D], vectors [B, F, D]. Outputs: [B, V D].
    """

    def __init__(
        self, fields: int, network: NetworkSpec, rng: np.random.Generator, operators: Operators,
        compute_dtype=ms.float32,
    ):  # fmt: skip
        super().__init__()
        self.vector_values = fields * network.bottom_mlp[-1]

    @staticmethod
    def outputs(fields: int, network: NetworkSpec) -> int:
        """V D."""
        return network.bottom_mlp[-1] * (fields + 1)

    @staticmethod
    def values(fields: int, network: NetworkSpec) -> int:
        """It has no parameters."""
        return 0

    def construct(self, bottom, vectors):
        return ops.concat((bottom, vectors.reshape(-1, self.vector_values)), 1)  # exported for any B
