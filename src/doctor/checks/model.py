"""Checks of the model itself: whether it has learned, is the one of its report, and how its scores lie."""

import math

import numpy as np

from src.doctor.check import ANY, Check, Found
from src.doctor.checks.labels import CHANCE, chance_of, has_signal
from src.doctor.evidence import Evidence
from src.doctor.gathering import Gathered
from src.doctor.trained import rows_of
from src.metrics.binary import auc, scores_of
from src.metrics.binary import mean as mean_of
from src.metrics.drift import deviations_apart, odds_ratio

_SAME = 2e-3  # of AUC: more than rounding on another device makes
_LOST = 0.02  # of AUC, beside chance
_DEVIATIONS = 4.0
_ODDS = 1.5
_RECIPE = "--config_path=best_config.yaml"


def _other(evidence: Evidence) -> Found | None:
    trained = evidence.trained
    part, reported = trained.evaluated
    data = trained.data
    if data is None or not part or data.manifest.parts.get(part) != trained.manifest.parts.get(part):
        return None
    rows = rows_of(data, part)
    if rows is None or rows.label_mean in (0, 1):
        return None
    logits = trained.logits(rows.dense, rows.ids)
    found = auc(rows.labels, logits, rows.weights) if np.isfinite(logits).all() else math.nan
    allowed = _SAME if len(rows.labels) == rows.rows else _SAME + _DEVIATIONS * spread(found, rows)
    if abs(found - reported) <= allowed:
        return None
    return Found(
        f"{trained.path} has AUC {found:.4f} on {part} rows, expected {reported:.4f} as in the report beside it: it is "
        f"the network of another run, or of another epoch",
        f"copy {trained.path.name} and report.json anew from one run, or train again: python train.py "
        f"--dataset_path={data.path} --ckpt_path=NEW",
    )


def spread(area: float, rows: Gathered) -> float:
    """The most that an AUC's standard deviation can be (Birnbaum and Klose 1957)."""
    fewest = min(rows.of_labels)
    return math.sqrt(max(area * (1 - area), 0) / fewest) if fewest else math.inf


def _unlearned(evidence: Evidence) -> Found | None:
    rows, rate = evidence.trained.rows, evidence.trained.report.get("options", {}).get("lr")
    assert rows
    alike = np.isfinite(evidence.old_logits).all() and float(np.std(evidence.old_logits)) < 1e-6
    chance = CHANCE * chance_of(rows)
    if not math.isnan(evidence.old_auc) and abs(evidence.old_auc - 0.5) > chance:
        return None
    if not has_signal(evidence, rows):
        return None
    what = "scores all rows alike" if alike else f"has AUC {evidence.old_auc:.4f}, by chance 0.5 ± {chance:.4f},"
    said = f" --lr={rate:g}" if isinstance(rate, float | int) else " the learning rate"
    return Found(
        f"the model {what} on the rows that it learned from, of which single columns tell more, expected well above "
        f"0.5:{said} may be too high or too low",
        f"python train.py --dataset_path={evidence.trained.reported or 'DATA'} --ckpt_path=NEW {_RECIPE}",
    )


def _off(evidence: Evidence) -> Found | None:
    new = evidence.new
    assert new
    if not np.isfinite(evidence.logits).all():
        return None
    label_mean, rows = mean_of(new.labels, new.weights), sum(new.of_labels)
    mean = mean_of(scores_of(evidence.logits), new.weights)
    odds = odds_ratio(label_mean, mean)
    if math.isnan(odds) or max(odds, 1 / odds) < _ODDS:
        return None
    if deviations_apart(label_mean, rows, mean, rows) < _DEVIATIONS:
        return None
    return Found(
        f"the mean score is {mean:.4f}, expected the label mean {label_mean:.4f}; AUC stands, logloss suffers",
        f"python export.py --checkpoint_path={evidence.trained.path} --calibrate=True, or fewer --epochs",
    )


def _worse(evidence: Evidence) -> Found | None:
    new, expected = evidence.new, evidence.expected_auc
    assert new
    by_chance = _DEVIATIONS * spread(evidence.auc, new)
    if math.isnan(expected) or not evidence.auc < expected - _LOST - by_chance:
        return None
    return Found(
        f"AUC is {evidence.auc:.4f}, expected {expected:.4f} ± {_LOST + by_chance:.4f}, and nothing else explains it: "
        f"clicks may follow another law than in training",
        "train again with newer rows, and compare: python -m src.report OLD NEW",
    )


CHECKS_OF_NETWORK = (
    Check("another checkpoint", "the AUC on the rows that the report is of",
          f"{_SAME:g} beside the report's: the same network differs by rounding alone", ("model's rows",), _other),
    Check("a model that has not learned", "the AUC on the rows that it learned from, and that of each column alone",
          f"within {CHANCE:g} standard deviations of chance, where a column alone is not",
          ("model's rows",), _unlearned),
)  # fmt: skip
CHECKS_OF_SCORES = (
    Check("scores that are off", "the mean score beside the label mean",
          f"odds {_ODDS:g} times as high or low, {_DEVIATIONS:g} standard deviations apart",
          ("rows", "coding", "labels"), _off, (ANY,)),
    Check("a lower AUC", "the AUC beside the report's", f"{_LOST:g} and {_DEVIATIONS:g} standard deviations lower, at "
          f"most (Birnbaum and Klose 1957)", ("rows", "coding", "labels"), _worse, (ANY,)),
)  # fmt: skip
