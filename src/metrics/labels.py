"""What labels alone tell, before anything is trained and of what came of it."""

import math

import numpy as np

_RUNS_OF_ONE_LABEL = 0.1  # of the changes of label that rows in random order have
_FEWEST_CHANGES = 20  # expected, below which no order can be told


def entropy(mean: float) -> float:
    """The logloss of the label mean as every row's score; 0 if all labels are the same."""
    return -mean * math.log(mean) - (1 - mean) * math.log1p(-mean) if 0 < mean < 1 else 0.0


def auc_deviation(clicks: float, others: float) -> float:
    """The standard deviation of the AUC, 0.5 on average, of scores that know nothing (Mann and Whitney 1947)."""
    return math.sqrt((clicks + others + 1) / (12 * clicks * others)) if clicks and others else math.nan


def one_label(mean: float, rows: int, part: str) -> str:
    """What to say of rows that all have one label; "" for others."""
    return f"all {rows:,} {part} rows have label {mean:.0f}" if mean in (0, 1) else ""


def sorted_by_label(labels: np.ndarray) -> str:
    """What to say of labels [B], in the order of their rows, that come in long runs of one label; "" for others."""
    mean, changes = float(np.mean(labels)), int(np.count_nonzero(labels[1:] != labels[:-1]))
    expected = 2 * mean * (1 - mean) * (len(labels) - 1)
    if expected < _FEWEST_CHANGES or changes > _RUNS_OF_ONE_LABEL * expected:
        return ""
    return (
        f"training rows look sorted by label, which changes {changes} times in {len(labels):,} rows; in random order "
        f"it would some {expected:.0f} times"
    )
