"""Learning rates by step: warm-up, then constant, polynomial or cosine decay."""

import numpy as np

SCHEDULES = ("constant", "polynomial", "cosine")


def rate_factors(
    schedule: str, steps: int, warmup_steps: int = 0, decay_steps: int = 0, end_factor: float = 0.0, power: float = 2.0,
    decay_share: float = 0.0, cycles: int = 1,
) -> np.ndarray:  # fmt: skip
    """What the learning rate is multiplied with in each step, [steps] float64.

    The first warmup_steps rise evenly to 1. The decay begins behind them, takes decay_steps (0: all that are left),
    and what follows it stays at end_factor. With a decay_share it takes this share of all steps at their end instead,
    or what the warm-up leaves. Several cycles do so in each of as many equal parts of the training (warm restarts,
    Loshchilov and Hutter 2017).

    Args:
        schedule: "constant" (no decay), "polynomial" (as (1 - progress)^power) or "cosine" (half a wave).
        steps: of the whole training, a multiple of the cycles.
        warmup_steps, decay_steps, end_factor, power, decay_share, cycles: see above.

    Raises:
        ValueError: an unknown schedule, or steps that the cycles do not divide.
    """
    if schedule not in SCHEDULES:
        raise ValueError(f"lr_schedule is {schedule!r}; it is one of {', '.join(SCHEDULES)}")
    if steps % cycles:
        raise ValueError(f"{steps} steps are not a multiple of {cycles} cycles")
    steps //= cycles
    step = np.arange(steps)
    begin = max(warmup_steps, steps - round(decay_share * steps)) if decay_share else warmup_steps
    progress = np.clip((step - begin) / max(1, decay_steps or steps - begin), 0, 1)
    left = {
        "constant": np.ones(steps),
        "polynomial": (1 - progress) ** power,
        "cosine": (1 + np.cos(np.pi * progress)) / 2,
    }[schedule]
    factors = left if schedule == "constant" else end_factor + (1 - end_factor) * left
    return np.tile(np.where(step < warmup_steps, (step + 1) / max(1, warmup_steps), factors), cycles)
