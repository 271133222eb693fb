"""The interaction of DLRM-DCNv2: crosses of low rank (Wang et al. 2021, arXiv 2008.13535, section 3; MLPerf 3.0).

Legend for the shapes below:
    B  batch, samples
    W  values of all vectors of a sample side by side
    R  rank
"""

import mindspore as ms
import numpy as np
from mindspore import Tensor, nn

from src.network.interactions import cat
from src.network.layers import Linear, Twice
from src.network.operators import Operators
from src.network.options import NetworkSpec


class CrossNetwork(nn.Cell):
    """Layers that multiply: x_(l+1) = x_0 * (U_l V_l x_l + b_l) + x_l, the products of matrices between parentheses.

    U_l [W, R] and V_l [R, W] are normal with variance 2 / (W + R), b_l are zeros, as in MLPerf's code.

    Args:
        width: W.
        layers: how many.
        rank: R.
        rng: source of the initial values.
        operators, compute_dtype: as for `Linear`.

    Inputs: [B, W]. Outputs: [B, W].
    """

    def __init__(
        self, width: int, layers: int, rank: int, rng: np.random.Generator, operators: Operators,
        compute_dtype=ms.float32,
    ):  # fmt: skip
        super().__init__()
        down = [Linear(width, rank, False, rng, operators, compute_dtype, bias=False) for _ in range(layers)]
        up = [Linear(rank, width, False, rng, operators, compute_dtype) for _ in range(layers)]
        for layer in up:
            layer.bias.set_data(Tensor(np.zeros(width, np.float32)))
        self.down, self.up, self.twice = nn.CellList(down), nn.CellList(up), Twice()

    def construct(self, first):
        first, x = self.twice(first)
        last = len(self.up) - 1
        for index in range(last + 1):
            factor = first
            if index < last:
                first, factor = self.twice(first)
            x, crossed = self.twice(x)
            x = factor * self.up[index](self.down[index](crossed)) + x
        return x


class Interaction(nn.Cell):
    """All vectors side by side, crossed.

    Args:
        fields, network, rng, operators, compute_dtype: as for every interaction.

    Inputs: bottom [B, D], vectors [B, F, D]. Outputs: [B, W].
    """

    def __init__(
        self, fields: int, network: NetworkSpec, rng: np.random.Generator, operators: Operators,
        compute_dtype=ms.float32,
    ):  # fmt: skip
        super().__init__()
        width = self.outputs(fields, network)
        self.side_by_side = cat.Interaction(fields, network, rng, operators, compute_dtype)
        self.cross = CrossNetwork(width, network.dcn_layers, network.dcn_rank, rng, operators, compute_dtype)

    @staticmethod
    def outputs(fields: int, network: NetworkSpec) -> int:
        """W."""
        return cat.Interaction.outputs(fields, network)

    @staticmethod
    def inner(fields: int, network: NetworkSpec) -> int:
        width = cat.Interaction.outputs(fields, network)
        return width + network.dcn_layers * (width + network.dcn_rank)

    @staticmethod
    def values(fields: int, network: NetworkSpec) -> int:
        """Of U, V and b of all layers."""
        return network.dcn_layers * cat.Interaction.outputs(fields, network) * (2 * network.dcn_rank + 1)

    def construct(self, bottom, vectors):
        return self.cross(self.side_by_side(bottom, vectors))
