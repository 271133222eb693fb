"""What a check is: what it looks at, when it tells, and what it says then."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from src.doctor.evidence import Evidence

_SHOWN = 3
ANY = "any"


@dataclass(frozen=True)
class Found:
    """What a check found.

    Attributes:
        sentence: what is wrong, with the numbers: found, and expected.
        remedy: what mends it, with a command where there is one.
        columns: names of the columns that this explains, of which later checks need not tell.
    """

    sentence: str
    remedy: str
    columns: tuple[str, ...] = ()


@dataclass(frozen=True)
class Check:
    """A mistake that is looked for.

    Attributes:
        name: of the mistake.
        looks_at: what is compared.
        threshold: when it is told, and why not earlier.
        needs: of `Evidence.lacks`, without which it can't be told.
        find: what it says of some evidence; None if there is nothing to say.
        unless: names of earlier checks that explain whatever this one would find; ANY for all of them.
    """

    name: str
    looks_at: str
    threshold: str
    needs: tuple[str, ...]
    find: "Callable[[Evidence], Found | None]"
    unless: tuple[str, ...] = ()


def some_of(words: Sequence[str]) -> str:
    """The first ones of some words, and how many there are more."""
    more = f" and {len(words) - _SHOWN} more" if len(words) > _SHOWN else ""
    return ", ".join(words[:_SHOWN]) + more


def are(words: Sequence[str]) -> str:
    """The verb for so many things."""
    return "is" if len(words) == 1 else "are"
