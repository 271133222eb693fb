"""Values of categorical columns that training had: what they look like, and how many of other rows' it did not have.

Whoever reads rows otherwise than training did, such as through pandas' defaults, gets other categories, and scores that
are wrong without a word. So the encoder keeps some values as they stood in the training rows.

Legend: B rows, F fields, L ids of a row.
"""

import json
import re
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, replace

import numpy as np

from src.data.layout import PADDING, Layout
from src.data.manifest import Manifest
from src.data.vocabulary import UNSEEN, AnyVocabulary, Vocabulary
from src.rows.block import Block
from src.rows.columns import Example
from src.rows.keys import is_free, keys_of, text_of

_MOST_EXAMPLES, _LONGEST = 3, 60
_TIMES = 10  # as many unseen values as are usual are told
_LEAST_USUAL = 0.01
_LEAST_ROWS = 10
_CHANCE = 1e-6  # that nothing matches by chance
_RUN = 50  # rows of one value behind each other that tell as much as one: ten ads for one user are no ten users
_SHOWN = 3
UNTOLD = "(not told)"  # stands for a value
_CHUNK_KEYS = 1 << 16
_MIXED = np.uint64(0x9E3779B97F4A7C15)
# Text that pandas.read_csv takes for a missing value unless told otherwise; the empty cell is another matter.
_MISSING_TO_PANDAS = (
    "NULL", "null", "NA", "N/A", "n/a", "NaN", "nan", "-NaN", "-nan", "None", "<NA>", "#N/A", "#NA", "#N/A N/A",
    "1.#IND", "1.#QNAN", "-1.#IND", "-1.#QNAN",
)  # fmt: skip


def learn_examples(vocabulary: AnyVocabulary, cells: Sequence[Sequence[str]] = ()) -> tuple[Example, ...]:
    """What each column of a vocabulary looks like, from it and from `cells` of some training rows."""
    return tuple(_example(vocabulary, field, cells[field] if cells else ()) for field in range(len(vocabulary.names)))


def _example(vocabulary: AnyVocabulary, field: int, cells: Sequence[str]) -> Example:
    counted = Counter(cells)
    texts = [text for text, _ in sorted(counted.items(), key=lambda item: (-item[1], item[0])) if text]
    missing = [text for text in _MISSING_TO_PANDAS if text in counted]
    not_whole = [text for text in texts if not _is_whole(text)]
    if isinstance(vocabulary, Vocabulary):
        # A sample may be read otherwise than the parser reads.
        has = _in(vocabulary, field, [*texts, *_MISSING_TO_PANDAS])
        texts, missing = ([text for text in some if text in has] for some in (texts, _MISSING_TO_PANDAS))
        not_whole = [text for text in not_whole if text in has] or _not_whole_keys(vocabulary.keys_of(field))
        texts += [text for key in vocabulary.keys_of(field)[: 2 * _MOST_EXAMPLES].tolist() if (text := text_of(key))]
    known = tuple(text[:_LONGEST] for text in dict.fromkeys(texts))
    return Example(known[:_MOST_EXAMPLES], next(iter(not_whole), "")[:_LONGEST], next(iter(missing), ""))


def _in(vocabulary: Vocabulary, field: int, texts: Sequence[str]) -> set[str]:
    """Those of the texts that the vocabulary has."""
    ids = vocabulary.ids_of(field, keys_of(texts, vocabulary.key_seed))
    return {text for text, own in zip(texts, ids) if own != UNSEEN}


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
        if len(odd := np.flatnonzero(~(whole | hashed | is_free(chunk) | (lengths == 0)))):
            return [text_of(int(chunk[odd[0]])) or ""]
    return []


def untold(examples: Sequence[Example]) -> tuple[Example, ...]:
    """What stays of examples that may not be told: which columns have such as a DataFrame might hold otherwise."""
    return tuple(
        Example((), UNTOLD if one.not_whole else "", UNTOLD if one.like_missing else "") for one in examples
    )  # fmt: skip


def to_json(examples: Sequence[Example]) -> np.ndarray:
    """Examples as an array of bytes."""
    return np.frombuffer(json.dumps([asdict(one) for one in examples]).encode(), np.uint8)


def from_json(array: np.ndarray) -> tuple[Example, ...]:
    """What `to_json` made."""
    found = json.loads(array.tobytes())
    return tuple(Example(tuple(one["known"]), one["not_whole"], one["like_missing"]) for one in found)


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
        told = (("unseen", self.unseen), ("known", self.known))
        examples = [f"{text[:_LONGEST]!r} is {word}" for word, text in told if text is not None]
        return f"{self.field} {self.share:.1%}" + (f" ({', '.join(examples)})" if examples else "")


def worst(fields: Sequence[str], shares: Sequence[float]) -> str:
    """The fields with the largest shares of unseen values, for people; "" if there is no such value."""
    order = [number for number in np.argsort(-np.asarray(shares), kind="stable").tolist() if shares[number] > 0]
    return ", ".join(f"{fields[number]} {shares[number]:.2%}" for number in order[:_SHOWN])


def usual_shares(manifest: Manifest) -> np.ndarray:
    """The share of unseen values of each field that rows like those of a data folder have, [F].

    Rows that came after training tell; without such rows nothing is known, and 1 is returned. It is infinite for a
    field of which training itself kept no value, such as by min_count, for there is nothing to match; and for one by
    whose values rows were split at random, each of which is in one part alone.
    """
    later = [part.unseen_share for name, part in manifest.parts.items() if name != "train"]
    shares = np.maximum(np.max(later, axis=0), _LEAST_USUAL) if later else np.ones(len(manifest.fields))
    drawn = str(manifest.options.get("split", "")).removeprefix("random:")  # of no other split is the rest a field
    shares = np.where([name == drawn for name in manifest.fields], np.inf, shares)
    train = manifest.parts.get("train")
    return shares if train is None else np.where(np.array(train.unseen_share) == 1, np.inf, shares)


def unmatched(shares: Sequence[float], usual: np.ndarray, rows: Sequence[int]) -> list[int]:
    """Numbers of the fields in which nothing matches, ten times less than is usual, or ten times more does not.

    Args:
        shares: of unseen values, of each field.
        usual: the same of rows as they should be.
        rows: that the shares are of, of each field, which must be independent of each other; few tell nothing.
    """

    def is_told(share: float, expected: float, own: int) -> bool:
        nothing = share == 1 and (expected**own < _CHANCE or (expected == 1 and own >= _LEAST_ROWS))
        more = share >= _TIMES * expected and own >= _TIMES * _LEAST_ROWS
        matched, usually = 1 - share, 1 - expected
        # So many rows that of those that usually match ten times as few, too, would be enough to tell.
        less = 0 <= matched <= usually / _TIMES and own * usually >= _TIMES * _LEAST_ROWS
        return nothing or more or less

    return [number for number, field in enumerate(zip(shares, usual, rows)) if is_told(*field)]


def unmatched_of(manifest: Manifest, part: str, trained: Manifest | None = None) -> list[Unmatched]:
    """The fields of a part of a data folder in which nothing matches, or ten times less than in other later rows.

    Args:
        manifest: the data folder's.
        part: the part's name.
        trained: the manifest of the folder that a network was trained with, if these are other rows.
    """
    own = manifest.parts[part]
    usual = trained or manifest
    others = {name: other for name, other in usual.parts.items() if other != own}
    rows = [own.rows if own.rows >= _LEAST_ROWS else 0] * len(own.unseen_share)
    found = unmatched(own.unseen_share, usual_shares(replace(usual, parts=others)), rows)
    return [Unmatched(manifest.fields[number], own.unseen_share[number]) for number in found]


def warning_of_dropped(where: str, dropped: Mapping[str, int], sizes: Mapping[str, int]) -> str:
    """One line that tells how many values of lists were left out, of fields of such sizes; "" if none was."""
    told = ", ".join(f"{count:,} of {name} beyond {sizes[name]} in a cell" for name, count in dropped.items())
    return f"{where}: values were left out, the least frequent ones of their cells: {told}" if told else ""


def warning(where: str, found: Sequence[Unmatched]) -> str:
    """One line that tells of such fields, the first ones by name; "" if there is none."""
    if not found:
        return ""
    more = f" and {len(found) - _SHOWN} fields more" if len(found) > _SHOWN else ""
    return (
        f"{where}: values that training did not have: {'; '.join(map(str, found[:_SHOWN]))}{more}. Are they written "
        f"as in training (quotes, blanks, letter case, leading zeros, hashing)?"
    )


class Unseen:
    """How many values of each field the encoder does not know, over all rows that are added.

    Rows of one value behind each other, such as the ads that are scored for one user, count as one for each 50 of them:
    so a field of which 1 % is usually unseen is told after four values that training did not have, or 151 rows of one.

    Args:
        fields: names of all fields; those of categorical columns come first.
        usual: the share of each field that is usual.
        key_seed: of the rows' keys.
        layout: of the rows' ids; unless given there are no lists.

    Attributes:
        rows: how many were added.
        dropped: values of lists that were left out, of each field that has any.
    """

    def __init__(self, fields: Sequence[str], usual: np.ndarray, key_seed: str = "", layout: Layout | None = None):
        self.fields, self.usual, self.key_seed = tuple(fields), usual, key_seed
        self.layout = layout or Layout.plain(len(fields))
        self.rows = 0
        self.dropped: dict[str, int] = {}
        self._unseen, self._values, self._draws, self._unseen_draws = np.zeros((4, len(fields)), np.int64)
        self._last: np.ndarray | None = None  # value of each field
        self._begun = np.zeros(len(fields), np.int64)  # rows of it so far
        self.keys: dict[int, int] = {}  # of each field, the first one that is not known

    def add(self, ids: np.ndarray, block: Block) -> None:
        """Count rows with ids [B, L], made of a block."""
        if not len(ids):
            return
        layout = self.layout
        unseen, there, draws = ids == UNSEEN, ids != PADDING, self._draws_of(ids, block)
        self.rows += len(ids)
        of_fields = layout.count(unseen)
        self._unseen += of_fields
        self._values += layout.count(there)
        self._draws += layout.count(draws & there)
        self._unseen_draws += layout.count(unseen & draws)
        for field, lists in block.lists.items():
            if left_out := lists.dropped(layout.sizes[field]):
                self.dropped[self.fields[field]] = self.dropped.get(self.fields[field], 0) + left_out
        for field in np.flatnonzero(of_fields[: len(block.keys)]).tolist():
            if field not in self.keys:
                start = layout.starts[field]
                self._note(field, unseen[:, start : start + layout.sizes[field]], block)

    def _note(self, field: int, unseen: np.ndarray, block: Block) -> None:
        """Keep the first key of a field that is not known; of a list that was not kept whole none."""
        if field not in block.lists:
            self.keys[field] = int(block.keys[field, np.argmax(unseen[:, 0])])
            return
        lists = block.lists[field]
        firsts = np.cumsum(lists.counts) - lists.counts
        rows, places = np.nonzero(unseen & (lists.counts <= unseen.shape[1])[:, None])
        if len(rows):
            self.keys[field] = int(lists.keys[firsts[rows[0]] + places[0]])

    def _draws_of(self, ids: np.ndarray, block: Block) -> np.ndarray:
        """Which ids [B, L] bool are of cells that begin a run of equal ones, or come _RUN rows behind such a one."""
        values = np.empty((len(ids), len(self.fields)), np.uint64)
        values[:, : len(block.keys)] = block.keys.T
        for field in (*block.lists, *range(len(block.keys), len(self.fields))):  # a number that stands for all ids
            start, size = self.layout.starts[field], self.layout.sizes[field]
            own = ids[:, start : start + size].astype(np.uint64)
            values[:, field] = own @ _MIXED ** np.arange(size, dtype=np.uint64)
        before = values[:1] if self._last is None else self._last[None]
        same = values == np.concatenate([before, values[:-1]])
        same[0] &= self._last is not None
        rows = np.arange(1, len(ids) + 1)[:, None]
        begins = np.maximum.accumulate(np.where(same, 0, rows), axis=0)
        in_run = np.where(begins > 0, rows - begins, rows - 1 + self._begun)
        self._last, self._begun = values[-1], in_run[-1] + 1
        draws: np.ndarray = np.repeat(in_run % _RUN == 0, self.layout.sizes, axis=1)
        return draws

    def fields_above(self) -> list[int]:
        """Numbers of the fields of which far more values are unseen than is usual."""
        shares = self._unseen_draws / np.maximum(self._draws, 1)
        enough = np.where(self.rows >= _LEAST_ROWS, self._draws, 0)
        return unmatched(shares.tolist(), self.usual, enough.tolist())

    def unmatched(
        self,
        examples: Sequence[Example],
        cells: Callable[[], list[list[str]]] | None = None,
        told: Collection[str] = (),
    ) -> list[Unmatched]:
        """These fields, with an example each.

        Args:
            examples: what the values of categorical columns looked like in training.
            cells: gives the text of some of these rows' categorical columns, in which hashed keys are found again.
            told: names of fields that are left out.
        """
        shares = (self._unseen / np.maximum(self._values, 1)).tolist()
        found = []
        for field in self.fields_above():
            if self.fields[field] in told:
                continue
            known = next(iter(examples[field].known), None) if field < len(examples) else None
            key = self.keys.get(field)
            text = None if key is None else text_of(key)
            if text is None and key is not None and cells:
                text = _find(cells()[field], key, self.key_seed)
            found.append(Unmatched(self.fields[field], shares[field], text, known))
        return found


def _find(cells: Sequence[str], key: int, seed: str) -> str | None:
    """The one of some cells that has a key, None if there is none."""
    places = np.flatnonzero(keys_of(cells, seed) == np.uint64(key)).tolist() if cells else []
    return cells[places[0]] if places else None
