"""Values that training did not have, by field: where they are most, and where nothing matches.

Legend: F fields.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from src.data.lines import Columns, parse, text_of
from src.data.manifest import Manifest
from src.data.vocabulary import UNSEEN, AnyVocabulary, Vocabulary

_TIMES = 10  # as many unseen values as are usual are told
_LEAST_USUAL = 0.01
_LEAST_ROWS = 10
_SHOWN = 3


@dataclass(frozen=True)
class Unmatched:
    """A field whose values are unseen far more often than is usual.

    Attributes:
        field: its name.
        share: of its values that are unseen.
        unseen, known: an example each, if there is one at hand.
    """

    field: str
    share: float
    unseen: str | None = None
    known: str | None = None

    def __str__(self) -> str:
        examples = [f"{text!r} is {word}" for word in ("unseen", "known") if (text := getattr(self, word)) is not None]
        return f"{self.field} {self.share:.1%}" + (f" ({', '.join(examples)})" if examples else "")


def worst(fields: Sequence[str], shares: Sequence[float]) -> str:
    """The fields with the largest shares of unseen values, for people; "" if there is no such value."""
    order = [number for number in np.argsort(-np.asarray(shares), kind="stable").tolist() if shares[number] > 0]
    return ", ".join(f"{fields[number]} {shares[number]:.2%}" for number in order[:_SHOWN])


def usual_shares(manifest: Manifest) -> np.ndarray:
    """The share of unseen values of each field that rows like those of a data folder have, [F].

    Rows that came after training tell; without such rows nothing is known, and 1 is returned.
    """
    later = [part.unseen_share for name, part in manifest.parts.items() if name != "train"]
    return np.maximum(np.max(later, axis=0), _LEAST_USUAL) if later else np.ones(len(manifest.fields))


def unmatched(shares: Sequence[float], usual: np.ndarray, rows: int) -> list[int]:
    """Numbers of the fields in which nothing matches, or ten times less than is usual.

    Args:
        shares: of unseen values, of each field.
        usual: the same of rows as they should be.
        rows: that the shares are of; few tell nothing.
    """
    told = [share == 1 or share >= _TIMES * expected for share, expected in zip(shares, usual)]
    return [number for number, is_told in enumerate(told) if is_told and rows >= _LEAST_ROWS]


def examples_of(
    text: bytes, columns: Columns, vocabulary: AnyVocabulary, fields: Sequence[int]
) -> list[tuple[str | None, str | None]]:
    """For some fields, an unseen value and a known one among lines of raw text, None where there is none.

    Where no value is known, the vocabulary itself gives one, if its values are short.
    """
    block = parse(text, columns)
    bad = {row.line for row in block.bad}
    lines = [line for number, line in enumerate(text.split(b"\n"), 1) if number not in bad]
    ids = vocabulary.encode(block.keys)
    found = []
    for field in fields:
        place = columns.file_names.index(columns.categorical[field])

        def first(rows: np.ndarray, place: int = place) -> str | None:
            cells = (lines[row].rstrip(b"\r").split(columns.separator.encode())[place] for row in rows[:1].tolist())
            return next((cell.decode("utf-8", "replace")[:40] for cell in cells), None)

        unseen, known = first(np.flatnonzero(ids[:, field] == UNSEEN)), first(np.flatnonzero(ids[:, field] != UNSEEN))
        if known is None and isinstance(vocabulary, Vocabulary) and len(vocabulary.keys[field]):
            known = text_of(int(vocabulary.keys[field][0]))
        found.append((unseen, known))
    return found


def warning(where: str, found: Sequence[Unmatched]) -> str:
    """One line that tells of such fields, the first ones by name; "" if there is none."""
    if not found:
        return ""
    more = f" and {len(found) - _SHOWN} fields more" if len(found) > _SHOWN else ""
    return (
        f"{where}: values that training did not have: {'; '.join(map(str, found[:_SHOWN]))}{more}. Are they written "
        f"as in training (quotes, blanks, letter case, leading zeros, hashing)?"
    )
