"""Negative down-sampling: of the training rows without a click only a share is kept, chosen by the rows' places.

What that does to scores is undone in the network: see `Negatives` in src/data/parts.py.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from src.base.errors import InputError
from src.data.parts import Negatives
from src.rows.block import Block, Span
from src.rows.cells.split import mixed_shares
from src.rows.columns import Columns

_STREAM = 1  # of the seed, beside that of a random split


@dataclass(frozen=True)
class SampledSpan(Span):
    """Those rows of a span that are kept: all clicks, and of the others a share.

    Which are kept follows from their numbers among all rows and a seed, and not from how rows are cut into spans.

    Attributes:
        span: all rows.
        share: of the others.
        seed: of the choice.
    """

    span: Span
    share: float
    seed: int

    @classmethod
    def of(cls, span: Span, share: float, seed: int) -> "SampledSpan":
        """The rows of a span that are kept."""
        return cls(span.first_row, span.rows, span, share, seed, raw=span.raw, follows=span.follows)

    def blocks(self, columns: Columns) -> Iterator[Block]:
        for block, numbers in self.span.numbered(columns):
            kept = (block.labels > 0) | (mixed_shares(numbers.astype(np.uint64), [self.seed, _STREAM]) < self.share)
            own = block.chosen(kept)
            left, weight = block.negative_sums - own.negative_sums
            yield replace(own, bad=block.bad, left_out=(int(left), float(weight)))

    def cells(self, columns: Columns) -> Iterator[list[list[str]]]:
        """The text of all rows' cells: samples of it tell what values look like, whichever rows are kept."""
        return self.span.cells(columns)


def negatives_of(counts: Sequence[np.ndarray], share: float) -> Negatives:
    """What became of the training rows without a click.

    Args:
        counts: of each piece, how many such rows are kept and the sum of their weights, and the same of those left out.
        share: that was to be kept.

    Raises:
        InputError: none is kept, or none that has a weight.
    """
    kept, kept_weight, left, left_weight = np.sum(counts, axis=0).tolist()
    if left and not kept_weight:
        raise InputError(
            f"keep_negatives {share:g} leaves none of {left + kept:.0f} training rows without a click, or none with a "
            f"weight above 0: give a larger one"
        )
    whole = kept_weight + left_weight
    return Negatives(int(kept + left), int(kept), kept_weight / whole if whole else 1.0)
