"""The update rules: what each keeps, and how it turns a gradient into a change.

With w a value, g its gradient and r the rate:

    sgd              w -= r g
    adagrad          s += g^2;          w -= r g / (sqrt(s) + e)          Duchi et al. 2011
    rowwise_adagrad  s += mean(g^2);    w -= r g / (sqrt(s) + e)          one s a row; MLPs use adagrad
    adam             m = b1 m + (1 - b1) g; v = b2 v + (1 - b2) g^2;      Kingma and Ba 2015, with the corrections
                     w -= r' m / (sqrt(v) + e)                            in r', as at the end of its section 2

A rule of one's own is an `UpdateRule` in RULES; docs/extending.md shows one. This file needs no MindSpore: a change is
arithmetic of tensors, which MindSpore compiles into the training step.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

_CORRECTED_STEPS = 20_000  # from then on Adam's correction is 1 in float32
_BETA1, _BETA2 = 0.9, 0.999
_REST1, _REST2 = 1 - _BETA1, 1 - _BETA2  # in the graph they would be differences in float32
_ADAGRAD_EPSILON, _ADAM_EPSILON = 1e-10, 1e-8


@dataclass(frozen=True)
class UpdateRule:
    """How values change.

    Attributes:
        name: as the options have it.
        change: from gradient, rate and the states, a tuple of tensors, to what is taken off the values, and the new
            states, a tuple, too. Of whole parameters, and of looked-up rows [., D], to which states of the same rows
            belong. A plain function of this module's kind, which MindSpore compiles.
        states: names of what is kept for each value, zeros at first.
        rowwise: whether a table's rows have one value of each state, instead of one for each of their values.
        epsilon, betas: constants of the compiled operators, which the change has in itself.
        corrections: factors on the rate by step, [steps]; the last one serves all later steps.
        packs_rows: whether a gradient of 0 changes no value, so that rows of several vectors may be updated when one
            of them is looked up.
        kernel: name of the compiled operators Table... and Dense... that do the same; "" if there are none.
        of_mlps: name of the rule that MLPs get in its place; "" for itself.
    """

    name: str
    change: Callable[..., tuple[Any, tuple[Any, ...]]]
    states: tuple[str, ...] = ()
    rowwise: bool = False
    epsilon: float = 0.0
    betas: tuple[float, float] = (_BETA1, _BETA2)
    corrections: Callable[[], np.ndarray] | None = None
    packs_rows: bool = False
    kernel: str = ""
    of_mlps: str = ""

    def state_values(self, width: int) -> int:
        """Values that are kept for a row of this width."""
        return len(self.states) * (1 if self.rowwise else width)

    def constants(self, weight_decay: float) -> tuple[float, ...]:
        """As the compiled operators take them, six."""
        first, second = self.betas
        return (self.epsilon, weight_decay, first, 1 - first, second, 1 - second)


def _sgd(gradient, rate, states):
    return rate * gradient, states


def _adagrad(gradient, rate, states):
    total = states[0] + gradient * gradient
    return rate * gradient / (total.sqrt() + _ADAGRAD_EPSILON), (total,)


def _rowwise_adagrad(gradient, rate, states):
    total = states[0] + (gradient * gradient).mean(1, keepdim=True)
    return rate * gradient / (total.sqrt() + _ADAGRAD_EPSILON), (total,)


def _adam(gradient, rate, states):
    mean = _BETA1 * states[0] + _REST1 * gradient
    square = _BETA2 * states[1] + _REST2 * gradient * gradient
    return rate * mean / (square.sqrt() + _ADAM_EPSILON), (mean, square)


def adam_corrections(steps: int = _CORRECTED_STEPS) -> np.ndarray:
    """sqrt(1 - b2^t) / (1 - b1^t) for t = 1, 2, ..., [steps] float64; the last one serves all later steps."""
    step = np.arange(1, steps + 1)
    return np.sqrt(1 - _BETA2**step) / (1 - _BETA1**step)


RULES = {
    rule.name: rule
    for rule in (
        UpdateRule("sgd", _sgd, packs_rows=True, kernel="SGD"),
        UpdateRule("adagrad", _adagrad, ("sum",), epsilon=_ADAGRAD_EPSILON, packs_rows=True, kernel="Adagrad"),
        UpdateRule(
            "rowwise_adagrad", _rowwise_adagrad, ("sum",), rowwise=True, epsilon=_ADAGRAD_EPSILON,
            kernel="RowwiseAdagrad", of_mlps="adagrad",
        ),
        UpdateRule(
            "adam", _adam, ("mean", "square"), epsilon=_ADAM_EPSILON, corrections=adam_corrections, kernel="Adam"
        ),
    )
}  # fmt: skip


def rule_of(name: str) -> UpdateRule:
    """The rule of this name.

    Raises:
        ValueError: there is none.
    """
    if name not in RULES:
        raise ValueError(f"optimizer is {name!r}; it is one of {', '.join(RULES)}")
    return RULES[name]


def rule_of_mlps(name: str) -> UpdateRule:
    """The rule that MLPs get where tables have the one of this name; errors as for `rule_of`."""
    return rule_of(rule_of(name).of_mlps or name)
