"""Times of all metrics of a run's report, beside scikit-learn's: `python benchmarks/metrics.py [--rows=137139]`.

Rows as many as the real sample of Criteo has, with 26 fields of ids; scores are drawn so that their AUC is about 0.77.
"""

import argparse
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

import numpy as np
from sklearn import metrics as sklearn_metrics
from sklearn.calibration import calibration_curve

from src.metrics import binary as metrics
from src.metrics import bootstrap, slices
from src.metrics import curves as score_curves


def best_of(times: int, work: Callable[[], Any]) -> float:
    """The least seconds of processor time that the work took: other work on the machine does not count."""
    seconds = []
    for _ in range(times):
        begin = time.process_time()
        work()
        seconds.append(time.process_time() - begin)
    return min(seconds)


def rows_of(rows: int, fields: int = 26) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Labels [B], logits [B] and ids [B, F]."""
    rng = np.random.default_rng(1)
    logits = rng.normal(-1.3, 1.2, rows).astype(np.float32)
    labels = (rng.random(rows) < metrics.scores_of(logits)).astype(np.float32)
    sizes = np.geomspace(4, 60_000, fields)
    ids = np.stack([np.minimum(rng.zipf(1.3, rows) - 1, size - 1).astype(np.int32) for size in sizes], 1)
    return labels, logits, ids


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=137_139)
    labels, logits, ids = rows_of(parser.parse_args().rows)
    scores = metrics.scores_of(logits)
    names = [f"C{number + 1}" for number in range(ids.shape[1])]
    works: dict[str, tuple[Callable[[], Any], Callable[[], Any] | None]] = {
        "auc": (lambda: metrics.auc(labels, logits), lambda: sklearn_metrics.roc_auc_score(labels, logits)),
        "logloss": (lambda: metrics.logloss(labels, logits), lambda: sklearn_metrics.log_loss(labels, scores)),
        "average precision": (
            lambda: metrics.average_precision(labels, logits),
            lambda: sklearn_metrics.average_precision_score(labels, logits),
        ),
        "reliability": (
            lambda: score_curves.reliability(labels, scores),
            lambda: calibration_curve(labels, scores, n_bins=score_curves.BINS, strategy="quantile"),
        ),
        "curves": (
            lambda: score_curves.curves(labels, logits),
            lambda: (
                sklearn_metrics.roc_curve(labels, logits), sklearn_metrics.precision_recall_curve(labels, logits),
            ),
        ),
        "quality": (lambda: score_curves.quality(labels, logits), None),
        "histogram": (lambda: score_curves.histogram(labels, scores), None),
        "bootstrap": (lambda: bootstrap.intervals(labels, logits), None),
        "slices": (lambda: slices.field_slices(labels, logits, ids, names), None),
    }  # fmt: skip
    total = 0.0
    for name, (ours, theirs) in works.items():
        seconds = best_of(3, ours)
        total += seconds
        beside = f", scikit-learn {best_of(3, theirs) / seconds:.1f} times as long" if theirs else ""
        print(f"{name:<18}{seconds:8.4f} s{beside}")
    print(f"{'all':<18}{total:8.4f} s, {len(labels)} rows of {ids.shape[1]} fields")


if __name__ == "__main__":
    main()
