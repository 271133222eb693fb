"""Checks of labels: whether they are there, are those of their rows, and mean what they meant."""

import math

from src.doctor.check import Check, Found
from src.doctor.evidence import Evidence
from src.doctor.gathering import Gathered
from src.metrics.alone import alone_of_category, alone_of_number
from src.metrics.drift import deviations_apart, odds_ratio
from src.metrics.labels import auc_deviation

CHANCE = 3.0  # standard deviations of an AUC of scores that know nothing, within which one may be chance
_CLEARLY = 8.0  # the same of an AUC that is no chance
_APART, _ODDS = 5.0, 1.5  # standard deviations, and odds, by which label means differ


def chance_of(rows: Gathered) -> float:
    """The standard deviation of the AUC that scores have by chance, on the kept rows."""
    return auc_deviation(*rows.of_labels)


def best_alone(evidence: Evidence, rows: Gathered) -> tuple[str, float]:
    """The column that alone tells the labels of some rows best, and its AUC."""
    found = alone(evidence, rows)
    name = max(found, key=lambda one: found[one], default="")
    return name, found.get(name, math.nan)


def alone(evidence: Evidence, rows: Gathered) -> dict[str, float]:
    """The AUC of each column alone, of those that have one."""
    ids = evidence.leading(rows)
    found = {name: alone_of_number(rows.labels, rows.dense[:, i]) for i, name in enumerate(evidence.manifest.dense)}
    found |= {name: alone_of_category(rows.labels, ids[:, i]) for name, i in evidence.categories.items()}
    return {name: area for name, area in found.items() if not math.isnan(area)}


def _one_label(evidence: Evidence) -> Found | None:
    assert evidence.new
    if evidence.new.label_mean not in (0, 1):
        return None
    return Found(
        f"all {evidence.new.rows:,} rows have label {evidence.new.label_mean:.0f}, so they have no AUC, expected both",
        "name the column of labels, or say which values are clicks (positive: [..]), in a --schema",
    )


def _was_learned(evidence: Evidence) -> bool:
    """Whether the model is known to be better than chance by so much that these rows would show it."""
    assert evidence.new
    return evidence.expected_auc - 0.5 > _CLEARLY * chance_of(evidence.new)


def _inverted(evidence: Evidence) -> Found | None:
    assert evidence.new
    below = 0.5 - evidence.auc
    if not (_was_learned(evidence) and below > CHANCE * chance_of(evidence.new)):
        return None
    if 2 * below < evidence.expected_auc - 0.5 or evidence.explained:
        return None
    old = evidence.trained.manifest.parts.get("train")
    mean = evidence.trained.manifest.label_mean_of_all("train") if old else 0.0
    expected = f", training's {mean:.4f}" if old else ""
    return Found(
        f"scores rank clicks last: AUC {evidence.auc:.4f}, expected {evidence.expected_auc:.4f}; the label mean is "
        f"{evidence.new.label_mean:.4f}{expected}",
        'say which labels are clicks in a --schema, such as positive: ["0"], or exchange 0 and 1 in the file',
    )


def _shuffled(evidence: Evidence) -> Found | None:
    assert evidence.new
    within = CHANCE * chance_of(evidence.new)
    if _was_learned(evidence) and abs(evidence.auc - 0.5) <= within and not evidence.explained:
        return Found(
            f"labels have nothing to do with their rows: AUC {evidence.auc:.4f}, by chance 0.5 ± {within:.4f}, "
            f"expected {evidence.expected_auc:.4f}, while all columns are as in training",
            "join labels and rows anew by their key, and sort neither alone; then code the rows again: "
            + evidence.code_again,
        )
    rows = evidence.trained.rows
    if rows is None or _is_no_chance(evidence.old_auc, rows):
        return None
    name, best = best_alone(evidence, rows)
    if not 0 < best - 0.5 <= _alone_by_chance(rows, len(evidence.manifest.fields) + len(evidence.manifest.dense)):
        return None
    return Found(
        f"labels of the training rows have nothing to do with their columns: the best one alone, {name}, has AUC "
        f"{best:.4f}, and the model {evidence.old_auc:.4f} on the rows that it learned from",
        "join labels and rows anew by their key, and sort neither alone; then preprocess and train again",
    )


def _is_no_chance(area: float, rows: Gathered) -> bool:
    return abs(area - 0.5) > CHANCE * chance_of(rows)


def _alone_by_chance(rows: Gathered, columns: int) -> float:
    """How far above 0.5 the best of so many columns may be by chance; half of the rows measure."""
    return (CHANCE + math.sqrt(2 * math.log(max(columns, 2)))) * math.sqrt(2) * chance_of(rows)


def has_signal(evidence: Evidence, rows: Gathered) -> bool:
    """Whether some column alone tells the labels of some rows better than chance."""
    _, best = best_alone(evidence, rows)
    return best - 0.5 > _alone_by_chance(rows, len(evidence.manifest.fields) + len(evidence.manifest.dense))


def _mean(evidence: Evidence) -> Found | None:
    new, old = evidence.new, evidence.old
    part = evidence.trained.manifest.parts.get("train")
    assert new
    if old:
        mean, rows = old.label_mean, old.effective
    elif part and evidence.is_coded_alike:
        mean, rows = evidence.trained.manifest.label_mean_of_all("train"), part.rows
    else:
        return None
    odds = odds_ratio(mean, new.label_mean)
    if math.isnan(odds) or max(odds, 1 / odds) < _ODDS:
        return None
    if deviations_apart(mean, rows, new.label_mean, new.effective) < _APART:
        return None
    why = "were rows without a click left out, in one of both?" if odds > 1 else "were they in training?"
    return Found(
        f"the label mean is {new.label_mean:.4f}, expected {mean:.4f} as in training: the odds of a click are "
        f"{odds:.2f} times as high; {why}",
        "score rows that are sampled as training's were; where that is not wanted, AUC stands, and scores are put "
        f"right by python export.py --checkpoint_path={evidence.trained.path} --calibrate=True",
    )


CHECKS = (
    Check("one label", "the labels", "always", ("rows",), _one_label),
    Check("inverted labels", "the scores' AUC", f"below 0.5 by {CHANCE:g} standard deviations of chance (Mann and "
          f"Whitney 1947), and by half of what the model was above it", ("rows", "coding", "labels"), _inverted),
    Check("shuffled labels", "the scores' AUC, and that of each column alone", f"within {CHANCE:g} standard "
          f"deviations of chance, where {_CLEARLY:g} were expected", ("rows", "coding", "labels"), _shuffled),
    Check("another label mean", "the label mean", f"odds {_ODDS:g} times as high or low, {_APART:g} standard "
          f"deviations apart: click rates of real logs move by less from day to day",
          ("rows", "labels"), _mean, ("inverted labels",)),
)  # fmt: skip
