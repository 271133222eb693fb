"""Learning rates by step: warm-up, then constant, polynomial or cosine decay."""

from collections.abc import Callable

import numpy as np

# What is left of the rate at a progress of 0 to 1 through the decay, for an exponent that polynomial alone has.
SCHEDULES: dict[str, Callable[[np.ndarray, float], np.ndarray]] = {
    "constant": lambda progress, power: np.ones_like(progress),
    "polynomial": lambda progress, power: (1 - progress) ** power,
    "cosine": lambda progress, power: (1 + np.cos(np.pi * progress)) / 2,
}


def rate_factors(
    lr_schedule: str, steps: int, warmup_steps: int = 0, decay_steps: int = 0, lr_end_factor: float = 0.0,
    lr_power: float = 2.0, decay_share: float = 0.0, cycles: int = 1,
) -> np.ndarray:  # fmt: skip
    """What the learning rate is multiplied with in each step, [steps] float64.

    The first warmup_steps rise evenly to 1. The decay begins behind them, takes decay_steps (0: all that are left),
    and what follows it stays at lr_end_factor. With a decay_share it takes this share of all steps at their end
    instead, or what the warm-up leaves. Several cycles do so in each of as many equal parts of the training (warm
    restarts, Loshchilov and Hutter 2017).

    Args:
        lr_schedule: one of SCHEDULES: no decay, (1 - progress)^lr_power, or half a wave of a cosine.
        steps: of the whole training, a multiple of the cycles.
        warmup_steps, decay_steps, lr_end_factor, lr_power, decay_share, cycles: see above.

    Raises:
        ValueError: an unknown schedule, or steps that the cycles do not divide.
    """
    if lr_schedule not in SCHEDULES:
        raise ValueError(f"lr_schedule is {lr_schedule!r}; it is one of {', '.join(SCHEDULES)}")
    if steps % cycles:
        raise ValueError(f"{steps} steps are not a multiple of {cycles} cycles")
    steps //= cycles
    step = np.arange(steps)
    begin = max(warmup_steps, steps - round(decay_share * steps)) if decay_share else warmup_steps
    progress = np.clip((step - begin) / max(1, decay_steps or steps - begin), 0, 1)
    left = SCHEDULES[lr_schedule](progress, lr_power)
    factors = left if lr_schedule == "constant" else lr_end_factor + (1 - lr_end_factor) * left
    return np.tile(np.where(step < warmup_steps, (step + 1) / max(1, warmup_steps), factors), cycles)
