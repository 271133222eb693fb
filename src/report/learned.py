"""Whether a run learned: its figures beside those of the label mean and of a linear model, and what to try if not."""

import math
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from src.base.errors import InputError
from src.data.manifest import Manifest
from src.dataset import Rows, sample
from src.metrics.binary import auc, logloss
from src.metrics.labels import auc_deviation, entropy, one_label
from src.metrics.linear import LinearModel
from src.metrics.monitored import Metrics
from src.report.files import without_nan

SAMPLE_ROWS = 100_000  # at most about so many train the linear model, and measure it
_BEHIND = 0.005  # of AUC: what a run may lie below the linear model
_DEVIATIONS = 2.0  # from 0.5, within which an AUC may be chance
_RECIPE = "--config_path=best_config.yaml, for preprocessing too"


@dataclass(frozen=True)
class Linear:
    """The linear model's figures: how many of all training rows it was fitted to, and on how many it was measured."""

    train_rows: int
    all_train_rows: int
    rows: int
    auc: float
    logloss: float


@dataclass(frozen=True)
class Learned:
    """How a run's kept network does beside others.

    Attributes:
        evaluated, rows: name of the rows, and how many.
        auc, logloss: of the network; auc is nan where all rows have one label.
        mean_logloss: of the label mean as each row's score, and normalised_entropy the network's share of it.
        linear: the linear model's, None where there is none, and why_none then says why.
        hint: what is wrong, and what to try; "" for nothing.
    """

    evaluated: str
    rows: int
    auc: float
    logloss: float
    mean_logloss: float
    normalised_entropy: float
    linear: Linear | None
    why_none: str
    hint: str

    def content(self) -> dict[str, Any]:
        """The same in JSON's types."""
        return dict(without_nan(asdict(self)))

    def lines(self) -> list[str]:
        """The same for people."""
        if not self.mean_logloss:
            return [f"not compared with others: {self.hint}"]
        beside, linear_auc, linear_loss = "", "", ""
        if one := self.linear:
            some = f" of {one.all_train_rows:,}" if one.train_rows < one.all_train_rows else ""
            beside = f" and a linear model fitted to {one.train_rows:,}{some} training rows"
            beside += f", measured on {one.rows:,}" if one.rows < self.rows else ""
            linear_auc, linear_loss = f" (linear {one.auc:.4f})", f", linear {one.logloss:.4f}"
        lines = [
            f"beside the label mean{beside}, on {self.rows:,} {self.evaluated} rows: AUC {self.auc:.4f}{linear_auc}, "
            f"logloss {self.logloss:.4f} (label mean {self.mean_logloss:.4f}{linear_loss}), "
            f"normalised entropy {self.normalised_entropy:.3f}"
        ]
        lines += [f"no linear model: {self.why_none}"] if self.why_none else []
        return lines + ([f"learned little: {self.hint}"] if self.hint else [])


def learned(
    metrics: Metrics, part: str, manifest: Manifest, rate: float, sources: tuple[Rows, Rows] | None,
    interval: tuple[float, float] | None = None,
) -> Learned:  # fmt: skip
    """Hold a network against others.

    Args:
        metrics: of the network, AUC and logloss among them.
        part: name of the rows that these are of.
        manifest: of the data.
        rate: learning rate of the MLPs, for the hint.
        sources: rows to fit and to measure a linear model, None for none.
        interval: that of the network's AUC; None where it is not known, and the rows' labels alone tell what chance
            may do.
    """
    facts = manifest.parts[part]
    linear, why_none = None, ""
    mean_logloss = entropy(facts.label_mean)
    if sources and mean_logloss:
        try:
            linear = _linear(*sources, manifest.logit_shift)
        except InputError as error:
            why_none = str(error)
        except Exception as error:  # whatever it is, the run has trained its network, which must not be lost for it
            why_none = f"it failed with {type(error).__name__}: {error}"
    share = metrics["logloss"] / mean_logloss if mean_logloss else math.nan
    found = Learned(part, facts.rows, metrics["auc"], metrics["logloss"], mean_logloss, share, linear, why_none, "")
    return replace(found, hint=_hint(found, manifest, rate, interval))


def _linear(training: Rows, evaluated: Rows, logit_shift: float) -> Linear:
    names = [name for name, *_ in training.tables]
    dense, ids, labels, *weights = sample(training, SAMPLE_ROWS)
    model, fitted = LinearModel(dense, ids, labels, [names.index(name) for name in names], *weights), len(labels)
    del dense, ids  # before as many come
    dense, ids, labels, *weights = sample(evaluated, SAMPLE_ROWS)
    logits = model.logits(dense, ids) + logit_shift
    area, loss = auc(labels, logits, *weights), logloss(labels, logits, *weights)
    return Linear(fitted, training.count, len(labels), area, loss)


def _hint(found: Learned, manifest: Manifest, rate: float, interval: tuple[float, float] | None) -> str:
    facts, linear = manifest.parts[found.evaluated], found.linear
    if one := one_label(facts.label_mean, facts.rows, found.evaluated):
        return f"{one}, so they have no AUC"
    clicks = round(facts.label_mean * facts.rows)
    chance = auc_deviation(clicks, facts.rows - clicks)
    low, high = interval or (0.5 - _DEVIATIONS * chance, 0.5 + _DEVIATIONS * chance)
    if low <= (0.5 if interval else found.auc) <= high:
        held = f"its interval, {low:.4f} to {high:.4f}, holds 0.5" if interval else f"0.5 ± {high - 0.5:.4f}"
        what = f"AUC {found.auc:.4f} may be chance, {held}"
        if linear and linear.auc - 0.5 > _DEVIATIONS * chance:
            return f"{what}, yet the rows can be learned from: --lr={rate:g} may be too high or too low; try {_RECIPE}"
        worst = int(np.argmax(facts.unseen_share))
        return (
            f"{what}{', and so is the linear model' if linear else ''}: is --lr={rate:g} too high, are labels shuffled "
            f"against their rows, have columns shifted against the manifest's ({', '.join(manifest.dense[:2])} ..), or "
            f"are too many values unseen in training ({np.mean(facts.unseen_share):.0%} of all, "
            f"{facts.unseen_share[worst]:.0%} of {manifest.fields[worst]})? If not, try {_RECIPE}"
        )
    if linear and (behind := linear.auc - found.auc) > max(_BEHIND, chance):
        return f"AUC is {behind:.4f} below the linear model's; try {_RECIPE}, or more --epochs"
    if found.normalised_entropy >= 1:
        return f"scores are further off than the label mean; try fewer --epochs, a lower --lr, or {_RECIPE}"
    return ""
