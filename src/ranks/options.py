"""How several processes share a training."""

import importlib.util
from dataclasses import dataclass
from pathlib import Path

from src.base.errors import InputError
from src.model_utils.options import NOT_NEGATIVE, POSITIVE, one_of, option
from src.ranks.placement import MODES

TRANSPORTS = ("auto", "mindspore", "ucx")
WIRE_DTYPES = ("float32", "bfloat16", "float16")


def ucx_folder() -> Path | None:
    """The folder of the installed UCX; None where there is none."""
    found = importlib.util.find_spec("libucx")
    return Path(found.origin).parent if found and found.origin else None


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

    transport: str = option(
        "auto", "by what CPU ranks send in a step: mindspore, ucx, or auto: UCX where all have it", one_of(TRANSPORTS),
        free=True,
    )  # fmt: skip
    wire_dtype: str = option("float32", "type in which ucx sends vectors and gradients", one_of(WIRE_DTYPES))
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
        if self.wire_dtype != "float32" and self.transport == "mindspore":
            raise InputError(
                f"wire_dtype {self.wire_dtype} has no effect with transport mindspore, which sends float32: drop it, "
                f"or give ucx"
            )

    def check_device(self, device_target: str) -> None:
        """Refuse what has no effect on a device.

        Raises:
            InputError: something has none.
        """
        for name, value in (("transport", self.transport), ("wire_dtype", self.wire_dtype)):
            if value in ("auto", "float32"):
                continue
            if self.parallel_mode == "none":
                raise InputError(f"{name} {value} has no effect with parallel_mode none: drop it")
            if device_target != "CPU" and value != "mindspore":
                raise InputError(
                    f"{name} {value} is for ranks on CPU; those on {device_target} send by MindSpore's collective "
                    f"operations: drop it"
                )
