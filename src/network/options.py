"""What a network looks like, and how it is computed."""

from dataclasses import dataclass

from src.base.errors import InputError
from src.model_utils.options import NOT_NEGATIVE, POSITIVE, SIZES, one_of, option, refuse_changed, shown
from src.network.interactions import INTERACTIONS


@dataclass(frozen=True)
class NetworkSpec:
    """The network's shape but its columns, which are the data's matter."""

    emb_dim: int = option(16, "width of an embedding vector", POSITIVE, network=True)
    bottom_mlp: tuple[int, ...] = option((512, 256, 64, 16), "sizes of the bottom MLP", SIZES, network=True)
    top_mlp: tuple[int, ...] = option((512, 256, 1), "sizes of the top MLP", SIZES, network=True)
    interaction: str = option(
        "dot", "how vectors interact", one_of(INTERACTIONS), network=True, aliases=["interaction_op"]
    )
    self_interaction: bool = option(False, "whether dot includes each vector with itself", network=True)
    dcn_layers: int = option(3, "layers of dcnv2 that cross the vectors", POSITIVE, network=True)
    dcn_rank: int = option(64, "rank of each layer of dcnv2", POSITIVE, network=True)
    towers: int = option(
        1, "networks side by side, each with a slice of the vectors, whose mean logit counts", POSITIVE, network=True
    )
    mixed_dims: float = option(
        0.0,
        "temperature of mixed dimensions: the larger a table, the narrower its vectors; 0: all of them have emb_dim",
        NOT_NEGATIVE,
        network=True,
    )

    def __post_init__(self) -> None:
        if self.emb_dim % self.towers:
            raise InputError(f"towers {self.towers} must divide emb_dim {self.emb_dim}: change one of them")
        if self.bottom_mlp[-1] * self.towers != self.emb_dim:
            shares = f" / towers {self.towers}" if self.towers > 1 else ""
            raise InputError(
                f"bottom_mlp {shown(self.bottom_mlp)} ends with {self.bottom_mlp[-1]}, which must equal "
                f"emb_dim {self.emb_dim}{shares}: change one of them"
            )
        if self.top_mlp[-1] != 1:
            raise InputError(f"top_mlp {shown(self.top_mlp)} must end with 1, the logit")
        if self.interaction != "dot":
            refuse_changed(self, ["self_interaction"], f"with interaction {self.interaction}: drop it or use dot")
        if self.interaction != "dcnv2":
            refuse_changed(
                self, ["dcn_layers", "dcn_rank"], f"with interaction {self.interaction}: drop it or use dcnv2"
            )
        if self.mixed_dims and self.emb_dim % 2:
            raise InputError(
                f"mixed_dims {self.mixed_dims} halves widths, and emb_dim {self.emb_dim} is odd: change one"
            )

    @property
    def has_hidden_layers(self) -> bool:
        """Whether an MLP has a layer but its last one."""
        return len(self.bottom_mlp) > 1 or len(self.top_mlp) > 1


@dataclass(frozen=True)
class ComputeSpec:
    """How a network is computed."""

    compute_dtype: str = option(
        "float32", "type of the MLPs' matrix products (float16 and bfloat16: Ascend and GPU only)",
        one_of(("float32", "float16", "bfloat16")),
    )  # fmt: skip
    cpu_kernels: bool = option(True, "whether the CPU uses operators that are compiled on first use", free=True)

    def check_device(self, device_target: str) -> None:
        """Refuse what a device can't do.

        Raises:
            InputError: it is told to.
        """
        if device_target == "CPU" and self.compute_dtype != "float32":
            raise InputError(
                f"compute_dtype {self.compute_dtype} is for Ascend and GPU; CPU computes in float32: drop it"
            )
