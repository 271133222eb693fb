"""How several processes share a training."""

from dataclasses import dataclass

from src.base.errors import InputError
from src.model_utils.options import NOT_NEGATIVE, POSITIVE, one_of, option
from src.ranks.placement import MODES


@dataclass(frozen=True)
class SharingSpec:
    """Which process holds what."""

    parallel_mode: str = option(
        "none", "none: one process; data: tables on every rank; hybrid: tables split over the ranks", one_of(MODES),
        free=True,
    )  # fmt: skip


@dataclass(frozen=True)
class ParallelSpec(SharingSpec):
    """Which process of a training holds what, and plans for it."""

    plan_only: bool = option(False, "print what each rank would hold and send, and end", free=True)
    ranks: int = option(1, "ranks that plan_only is to plan for", POSITIVE, free=True)
    device_memory_mb: int = option(0, "memory of a device, which a plan must fit; 0 for any", NOT_NEGATIVE, free=True)

    def __post_init__(self) -> None:
        if not self.plan_only and (self.ranks > 1 or self.device_memory_mb):
            raise InputError("ranks and device_memory_mb have no effect without plan_only: drop them")
        if self.ranks > 1 and self.parallel_mode == "none":
            raise InputError(
                f"ranks {self.ranks} can't be those of parallel_mode none: plan with --parallel_mode=data or hybrid"
            )
