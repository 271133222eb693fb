"""Which columns of some rows hold the values that another column had in training.

Legend: S rows kept.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from src.data.transforms import TRANSFORMS
from src.data.vocabulary import UNSEEN, Vocabulary
from src.metrics.drift import MUCH, Moved, moved_category, moved_number

if TYPE_CHECKING:
    from src.doctor.evidence import Evidence

BETTER = 4.0  # times nearer another column's values
_LOOKED_AT = 5_000  # rows


def assigned(evidence: "Evidence") -> dict[str, str]:
    """Columns whose values are much nearer another column's, and that other one; the rows are coded as the model's."""
    return _of_fields(evidence) | _of_numbers(evidence)


def _of_fields(evidence: "Evidence") -> dict[str, str]:
    (new, old), vocabulary = evidence.pair, evidence.trained.encoder.vocabulary
    lists = evidence.manifest.layout.pools
    names = [name for name, place in evidence.categories.items() if not lists[place]]
    told = {one.field for one in evidence.unmatched}
    odd = [name for name in names if name in told or evidence.drift.columns[name].beyond(MUCH)]
    if len(new.keys) == 0:
        return {}
    old_ids = evidence.leading(old)

    def distance(name: str, other: str) -> Moved:
        place = evidence.categories[other]
        ids = vocabulary.ids_of(place, np.ascontiguousarray(new.keys[evidence.categories[name], :_LOOKED_AT]))
        if (
            isinstance(vocabulary, Vocabulary)
            and np.mean(ids == UNSEEN) > 0.5 + np.mean(old_ids[:, place] == UNSEEN) / 2
        ):
            return Moved(np.inf, 0.0)
        return moved_category(old_ids[:, place], ids)

    return _nearest(odd, names, distance)


def _of_numbers(evidence: "Evidence") -> dict[str, str]:
    (new, old), learned = evidence.pair, evidence.trained.encoder.learned
    transform = TRANSFORMS[learned.transform]
    has_numbers = new.numbers.shape[1] > 0
    if transform.learns and not has_numbers:
        return {}
    names = list(evidence.numbers)
    odd = [name for name in names if evidence.drift.columns[name].beyond(MUCH)]

    def distance(name: str, other: str) -> Moved:
        place, column = evidence.numbers[other], evidence.numbers[name]
        if has_numbers:
            values = transform(
                new.numbers[:_LOOKED_AT, [column]].astype(np.float32), learned.columns[place : place + 1]
            )
        else:
            values = new.dense[:_LOOKED_AT, [column]]
        return moved_number(old.dense[:, place], values[:, 0])

    return _nearest(odd, names, distance)


def _nearest(odd: list[str], names: list[str], distance: Callable[[str, str], Moved]) -> dict[str, str]:
    """Of odd columns the one that is nearest, if it is another one, near, and much nearer than the column itself."""
    found = {}
    for name in odd:
        distances = {other: distance(name, other) for other in names}
        nearest = min(names, key=lambda other: distances[other].psi)
        least = distances[nearest]
        if nearest != name and not least.beyond(MUCH) and least.psi * BETTER < distances[name].psi:
            found[name] = nearest
    return found
