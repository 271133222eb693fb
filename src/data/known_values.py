"""Values of categorical columns that training had: what they look like, and how many of other rows' it did not have.

Whoever reads rows otherwise than training did, such as through pandas' defaults, gets other categories, and scores that
are wrong without a word. So the encoder keeps some values as they stood in the training rows.

Legend: B rows, F fields.
"""

import json
import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass

import numpy as np

from src.data.lines import Columns, keys_of, text_of
from src.data.vocabulary import UNSEEN, AnyVocabulary, Vocabulary

_MOST_EXAMPLES, _LONGEST = 3, 60
_LEAST_ROWS = 20  # of which a warning is made
_CHUNK_KEYS = 1 << 16
# Text that pandas.read_csv takes for a missing value unless told otherwise; the empty cell is another matter.
_MISSING_TO_PANDAS = (
    "NULL", "null", "NA", "N/A", "n/a", "NaN", "nan", "-NaN", "-nan", "None", "<NA>", "#N/A", "#NA", "#N/A N/A",
    "1.#IND", "1.#QNAN", "-1.#IND", "-1.#QNAN",
)  # fmt: skip


@dataclass(frozen=True)
class Example:
    """What the values of a categorical column looked like in training; "" for what is not there.

    Attributes:
        known: some frequent values.
        not_whole: one that is not a whole number as Python writes it, such as 00054.
        like_missing: one that pandas takes for a missing value, such as NULL.
    """

    known: tuple[str, ...] = ()
    not_whole: str = ""
    like_missing: str = ""


def cells_of(text: bytes, columns: Columns) -> list[list[str]]:
    """The text of each categorical column's cells in the whole lines of `text`; odd lines are passed over."""
    places = [columns.file_names.index(name) for name in columns.categorical]
    rows = []
    for line in text.split(b"\n"):
        try:
            cells = line.removesuffix(b"\r").decode().split(columns.separator)
        except UnicodeDecodeError:
            continue
        if len(cells) == len(columns.file_names):
            rows.append([cells[place] for place in places])
    return [list(column) for column in zip(*rows)] or [[] for _ in places]


def examples_of(vocabulary: AnyVocabulary, cells: Sequence[Sequence[str]] = ()) -> tuple[Example, ...]:
    """What each column of a vocabulary looks like, from it and from `cells` of some training rows."""
    return tuple(_example(vocabulary, field, cells[field] if cells else ()) for field in range(len(vocabulary.names)))


def _example(vocabulary: AnyVocabulary, field: int, cells: Sequence[str]) -> Example:
    counted = Counter(cells)
    texts = [text for text, _ in sorted(counted.items(), key=lambda item: (-item[1], item[0])) if text]
    missing = [text for text in _MISSING_TO_PANDAS if text in counted]
    not_whole = [text for text in texts if not _is_whole(text)]
    if isinstance(vocabulary, Vocabulary):
        texts = _in(vocabulary, field, texts)  # a sample may be read otherwise than the parser reads
        not_whole = _in(vocabulary, field, not_whole) or _not_whole_keys(vocabulary.keys[field])
        missing = _in(vocabulary, field, _MISSING_TO_PANDAS)
        texts += [text for key in vocabulary.keys[field][: 2 * _MOST_EXAMPLES].tolist() if (text := text_of(key))]
    known = tuple(text[:_LONGEST] for text in dict.fromkeys(texts))
    return Example(known[:_MOST_EXAMPLES], next(iter(not_whole), "")[:_LONGEST], next(iter(missing), ""))


def _in(vocabulary: Vocabulary, field: int, texts: Sequence[str]) -> list[str]:
    """Those of the texts that the vocabulary has."""
    if not texts:
        return []
    return [text for text, own in zip(texts, vocabulary.ids_of(field, keys_of(texts))) if own != UNSEEN]


def _is_whole(text: str) -> bool:
    return re.fullmatch(r"0|-?[1-9][0-9]*", text) is not None


def _not_whole_keys(keys: np.ndarray) -> list[str]:
    """The first text among the keys that is not a whole number; hashed keys tell nothing."""
    for start in range(0, len(keys), _CHUNK_KEYS):
        chunk = np.require(keys[start : start + _CHUNK_KEYS], "<u8", "A")
        letters = chunk.view(np.uint8).reshape(-1, 8)
        lengths = (letters != 0).sum(axis=1)
        minus = letters[:, 0] == ord("-")
        digits = ((letters >= ord("0")) & (letters <= ord("9"))).sum(axis=1)
        first = np.where(minus, letters[:, 1], letters[:, 0])
        whole = (digits + minus == lengths) & (digits > 0) & ((first != ord("0")) | (digits + minus == 1))
        hashed = letters[:, 0] & 0xC0 == 0x80
        if len(odd := np.flatnonzero(~(whole | hashed | (lengths == 0)))):
            return [text_of(int(chunk[odd[0]])) or ""]
    return []


def to_json(examples: Sequence[Example]) -> np.ndarray:
    """Examples as an array of bytes."""
    return np.frombuffer(json.dumps([asdict(one) for one in examples]).encode(), np.uint8)


def from_json(array: np.ndarray) -> tuple[Example, ...]:
    """What `to_json` made."""
    found = json.loads(array.tobytes())
    return tuple(Example(tuple(one["known"]), one["not_whole"], one["like_missing"]) for one in found)


def is_strange(share: float, expected: float, rows: int) -> bool:
    """Whether so large a share of unseen values is no accident.

    That is all of some rows' values, or ten times the share that other rows had, of which 1 % is always granted.
    """
    if rows < _LEAST_ROWS:
        return False
    if share == 1:
        return max(expected, 0.05) ** rows < 1e-6
    return rows >= 5 * _LEAST_ROWS and share >= 10 * max(expected, 0.01)


def told(what: str, field: str, share: float, strange: str | None, known: Sequence[str]) -> str:
    """One warning: a field, its share of unseen values, and one of these beside known ones."""
    example = repr(strange[:_LONGEST]) if strange is not None else "a text of more than 8 bytes"
    beside = f"; training had {', '.join(map(repr, known[:2]))}" if known else ""
    return (
        f"{what}: {share:.0%} of the values of {field} did not occur in training, such as {example}{beside}: are "
        f"quotes, blanks, letter case and encoding those of the training rows?"
    )


class Unseen:
    """How many values of each field the encoder does not know, over all rows that are added.

    Args:
        fields: names of all fields; those of categorical columns come first.
        expected: the share of each field that is usual.
    """

    def __init__(self, fields: Sequence[str], expected: Sequence[float]):
        self.fields, self.expected = tuple(fields), tuple(expected)
        self.rows = 0
        self.counts = np.zeros(len(fields), np.int64)
        self.keys: dict[int, int] = {}  # of each field, the first one that is not known

    def add(self, ids: np.ndarray, keys: np.ndarray) -> None:
        """Count rows with ids [B, F], made of keys [F of categorical columns, B]."""
        unseen = ids == UNSEEN
        self.rows += len(ids)
        self.counts += unseen.sum(axis=0)
        for field in range(len(keys)):
            if field not in self.keys and unseen[:, field].any():
                self.keys[field] = int(keys[field, np.argmax(unseen[:, field])])

    @property
    def shares(self) -> tuple[float, ...]:
        """Of each field."""
        return tuple((self.counts / max(self.rows, 1)).tolist())

    def warning(
        self, what: str, examples: Sequence[Example], find: Callable[[int, int], str | None] | None = None
    ) -> str | None:
        """One line where a field has far more unseen values than usual, else None.

        Args:
            what: the rows, to begin the line.
            examples: of the categorical columns.
            find: the text of a field's key, where the rows are at hand, or None; asked for keys that are hashes alone.
        """
        field = worst(self.shares, self.expected, self.rows)
        if field is None:
            return None
        key = self.keys.get(field)
        text = None if key is None else text_of(key)
        if text is None and key is not None and find:
            text = find(field, key)
        known = examples[field].known if field < len(examples) else ()
        line = told(what, self.fields[field], self.shares[field], text, known)
        others = [
            name
            for name, share, usual in zip(self.fields, self.shares, self.expected)
            if is_strange(share, usual, self.rows) and name != self.fields[field]
        ]
        return line + (f" So it is with {', '.join(others)}." if others else "")


def worst(shares: Sequence[float], expected: Sequence[float], rows: int) -> int | None:
    """The strange field whose share is furthest above what is usual; None where none is strange."""
    strange = [
        (share - usual, -field)
        for field, (share, usual) in enumerate(zip(shares, expected))
        if is_strange(share, usual, rows)
    ]
    return -max(strange)[1] if strange else None


def find_text(cells: Sequence[str], key: int) -> str | None:
    """The one of some cells that has a key, None if there is none."""
    places = np.flatnonzero(keys_of(cells) == np.uint64(key)).tolist() if cells else []
    return cells[places[0]] if places else None
