"""How runs are compared."""

from dataclasses import dataclass

from src.model_utils.options import LANGUAGES, Rule, one_of, option

FAIL_BELOW = Rule(lambda value: value == -1 or 0 <= value <= 1, "must lie between 0 and 1, or be -1")


@dataclass(frozen=True)
class CompareSpec:
    """What a comparison refuses, and where it goes."""

    fail_below: float = option(
        -1.0, "how far a later run's monitored metric may be worse than the first's before the exit code is 1; -1 for "
        "any", FAIL_BELOW,
    )  # fmt: skip
    output: str = option("", "HTML file to write the comparison to")
    language: str = option("en", "language of the page", one_of(LANGUAGES))
