"""The interaction of DLRM-DCNv2: crosses of low rank (Wang et al. 2021, arXiv 2008.13535, section 3; MLPerf 3.0).

Legend for the shapes below:
    B  batch, samples
    W  values of all vectors of a sample side by side
    R  rank
"""

import mindspore as ms
import numpy as np
from mindspore import Tensor, nn

from src.network.cpu_kernels import Kernels
from src.network.layers import Linear


class CrossNetwork(nn.Cell):
    """Layers that multiply: x_(l+1) = x_0 * (U_l V_l x_l + b_l) + x_l, the products of matrices between parentheses.

    U_l [W, R] and V_l [R, W] are normal with variance 2 / (W + R), b_l are zeros, as in MLPerf's code.

    Args:
        width: W.
        layers: how many.
        rank: R.
        rng: source of the initial values.
        compute_dtype, kernels: as for `Linear`.

    Inputs: [B, W]. Outputs: [B, W].
    """

    def __init__(
        self, width: int, layers: int, rank: int, rng: np.random.Generator, compute_dtype=ms.float32,
        kernels: Kernels | None = None,
    ):  # fmt: skip
        super().__init__()
        down = [Linear(width, rank, False, rng, compute_dtype, kernels, bias=False) for _ in range(layers)]
        up = [Linear(rank, width, False, rng, compute_dtype, kernels) for _ in range(layers)]
        for layer in up:
            layer.bias.set_data(Tensor(np.zeros(width, np.float32)))
        self.down, self.up = nn.CellList(down), nn.CellList(up)

    def construct(self, first):
        x = first
        for index in range(len(self.up)):
            x = first * self.up[index](self.down[index](x)) + x
        return x
