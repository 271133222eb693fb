"""Checks of how categories are written: values that training knew otherwise."""

import re
from collections import Counter
from collections.abc import Callable, Sequence

import numpy as np

from src.data.known_values import warning
from src.data.vocabulary import UNSEEN, Vocabulary
from src.doctor.check import Check, Found, some_of
from src.doctor.checks.columns import FIELD_MOVED
from src.doctor.evidence import Evidence
from src.rows.keys import keys_of, text_of

_LOOKED_AT = 5_000  # cells, and values of the vocabulary
_HALF = 0.5  # of the unknown values that must become known
_NEARLY_ALL = 0.9  # of the values, which another hash makes unknown; a new shop or town makes but some
_LONGEST = 40
Change = Callable[[str], str]


def _mojibake(wrong: str, right: str) -> Change:
    def change(text: str) -> str:
        try:
            return text.encode(wrong).decode(right)
        except UnicodeError:
            return text

    return change


def _of_hex(text: str) -> str:
    return str(int(text, 16)) if re.fullmatch(r"[0-9a-fA-F]{1,16}", text) else text


def _to_hex(text: str) -> str:
    return f"{int(text):08x}" if re.fullmatch(r"\d{1,19}", text) else text


# What was done to values, in words, and what undoes it.
_CHANGES: tuple[tuple[str, Change], ...] = (
    ("in upper case, expected lower", str.lower),
    ("in lower case, expected upper", str.upper),
    ("with blanks around them", str.strip),
    ("between quotation marks", lambda text: text.strip("\"'")),
    ("with .0 behind them, as pandas writes whole numbers", lambda text: text.removesuffix(".0")),
    ("without the .0 that training had", lambda text: text + ".0"),
    ("with zeros in front", lambda text: text.lstrip("0") or "0"),
    ("as hexadecimal numbers, expected decimal", _of_hex),
    ("as decimal numbers, expected hexadecimal", _to_hex),
    ("with 0x in front", lambda text: text.removeprefix("0x")),
    ("with a mark for missing ones, expected an empty cell",
     lambda text: "" if text in ("\\N", "NULL", "null", "nan", "NaN", "NA", "None", "<NA>", "-") else text),
)  # fmt: skip
_ENCODINGS = (
    ("gb18030 read as latin-1", _mojibake("latin-1", "gb18030")),
    ("utf-8 read as latin-1", _mojibake("latin-1", "utf-8")),
    ("utf-8 read as gb18030", _mojibake("gb18030", "utf-8")),
    ("utf-8 read as cp1252", _mojibake("cp1252", "utf-8")),
)


def _learned_changes(unknown: Sequence[str], known: Sequence[str]) -> list[tuple[str, Change]]:
    """Changes that depend on the values: zeros, and texts that all have in front or behind."""
    found: list[tuple[str, Change]] = []
    if width := max((len(text) for text in known if text.isdigit()), default=0):
        words = "as numbers, without the zeros in front that training had"
        found.append((words, lambda text: text.removesuffix(".0").zfill(width)))
    for one, other, words in ((unknown, known, "with {!r}"), (known, unknown, "without {!r}")):
        front, behind = _common_begin(one), _common_begin([text[::-1] for text in one])[::-1]
        adds = one is known
        if front and not all(text.startswith(front) for text in other):
            found.append((words.format(front) + " in front", _front(front, adds)))
        if behind and not all(text.endswith(behind) for text in other):
            found.append((words.format(behind) + " behind", _behind(behind, adds)))
    return found


def _common_begin(texts: Sequence[str]) -> str:
    first, last = min(texts, default=""), max(texts, default="")
    same = next(
        (place for place, pair in enumerate(zip(first, last)) if pair[0] != pair[1]), min(len(first), len(last))
    )
    return first[:same]


def _front(text: str, adds: bool) -> Change:
    return (lambda value: text + value) if adds else (lambda value: value.removeprefix(text))


def _behind(text: str, adds: bool) -> Change:
    return (lambda value: value + text) if adds else (lambda value: value.removesuffix(text))


def _known_texts(evidence: Evidence, place: int) -> list[str]:
    """Frequent values of training, as text."""
    encoder = evidence.trained.encoder
    found = [text for text in encoder.examples[place].known if len(text) < _LONGEST]
    if isinstance(encoder.vocabulary, Vocabulary):
        keys = encoder.vocabulary.keys_of(place)[:_LOOKED_AT].tolist()
        found += [text for key in keys if (text := text_of(key))]
    return list(dict.fromkeys(found))


def _unknown_texts(evidence: Evidence, place: int) -> list[str]:
    """Texts of cells whose values are not known, as often as they come."""
    texts = evidence.raw.texts[place][:_LOOKED_AT] if evidence.raw and evidence.raw.texts else []
    return [text for text, known in zip(texts, _are_known(evidence, place, texts)) if not known]


def _are_known(evidence: Evidence, place: int, texts: Sequence[str]) -> np.ndarray:
    vocabulary = evidence.trained.encoder.vocabulary
    if not len(texts):
        return np.zeros(0, bool)
    known: np.ndarray = vocabulary.ids_of(place, keys_of(texts, vocabulary.key_seed)) != UNSEEN
    return known


def _respelled(evidence: Evidence, changes: Sequence[tuple[str, Change]], learned: bool) -> dict[str, tuple[str, str]]:
    """Fields whose unknown values mostly become known by a change: its words, and an example."""
    found: dict[str, tuple[str, str]] = {}
    if not isinstance(evidence.trained.encoder.vocabulary, Vocabulary):
        return found
    for name in evidence.unexplained(list(evidence.categories)):
        place = evidence.categories[name]
        unknown = _unknown_texts(evidence, place)
        if name not in {one.field for one in evidence.unmatched} and not _many(evidence, place, unknown):
            continue
        own = [*changes, *(_learned_changes(unknown, _known_texts(evidence, place)) if learned else ())]
        shares = []
        for _, change in own:
            shares.append(float(np.mean(_are_known(evidence, place, [change(text) for text in unknown]))))
        if shares and max(shares) > _HALF:
            words, change = own[int(np.argmax(shares))]
            text = next(text for text in unknown if change(text) != text)
            found[name] = words, f"{text[:_LONGEST]!r} is {change(text)[:_LONGEST]!r} in training"
    return found


def _many(evidence: Evidence, place: int, unknown: Sequence[str]) -> bool:
    """Whether a third more of a field's values are unknown than among training's later rows."""
    assert evidence.raw
    texts = len(evidence.raw.texts[place][:_LOOKED_AT]) if evidence.raw.texts else 0
    parts = evidence.trained.manifest.parts.items()
    usual = max((part.unseen_share[place] for part_name, part in parts if part_name != "train"), default=0.0)
    return texts >= _LEAST_ROWS and len(unknown) / texts > usual + _MORE


def _decoded(evidence: Evidence) -> Found | None:
    found = _respelled(evidence, _ENCODINGS, learned=False)
    if not found:
        return None
    words, example = next(iter(found.values()))
    return Found(
        f"values of {some_of(list(found))} look like {words}: {example}",
        f"say encoding: {words.split(' ')[0]} in a schema, then {evidence.code_by_schema}",
        tuple(found),
    )


def _spelled(evidence: Evidence) -> Found | None:
    found = _respelled(evidence, _CHANGES, learned=True)
    if not found:
        return None
    words = Counter(words for words, _ in found.values()).most_common(1)[0][0]
    names = [name for name, (own, _) in found.items() if own == words]
    others = [f"{name} {own}" for name, (own, _) in found.items() if own != words]
    return Found(
        f"values of {some_of(names)} are written {words}: {found[names[0]][1]}"
        f"{'; and ' + some_of(others) if others else ''}",
        f"write them as training's rows were, in what exports the rows, then {evidence.code_again}",
        tuple(found),
    )


def _hashed(evidence: Evidence) -> Found | None:
    shares = {one.field: one.share for one in evidence.unmatched}
    left = evidence.unexplained([name for name, share in shares.items() if share > _NEARLY_ALL])
    alike = []
    for name in left:
        place = evidence.categories.get(name)
        if place is None:
            continue
        unknown, known = _unknown_texts(evidence, place), _known_texts(evidence, place)
        if unknown and _forms(unknown) & _forms(known) == _forms(unknown) and _HEX in _kinds(unknown):
            alike.append(name)
    if not alike:
        return None
    return Found(
        f"values of {some_of(alike)} look like training's, and {max(shares[name] for name in alike):.0%} of them are "
        f"others: {_unknown_texts(evidence, evidence.categories[alike[0]])[0]!r} where training had "
        f"{_known_texts(evidence, evidence.categories[alike[0]])[0]!r}",
        f"hash values by the function and the seed that training's rows were hashed by, then {evidence.code_again}",
        tuple(alike),
    )


_HEX = "hex"


def _kinds(texts: Sequence[str]) -> set[str]:
    return {
        _HEX if all(re.fullmatch(r"[0-9a-f]{6,}|[0-9A-F]{6,}|-?\d{5,}", text) for text in texts if text) else "text"
    }


def _forms(texts: Sequence[str]) -> set[tuple[int, bool, bool]]:
    """The lengths of texts to the nearest power of two, and which letters they have."""
    return {(len(text).bit_length(), text.upper() != text, text.lower() != text) for text in texts if text}


def _unseen(evidence: Evidence) -> Found | None:
    left = [one for one in evidence.unmatched if one.field not in evidence.explained]
    line = warning(f"{evidence.part or 'raw'} rows", left)
    if not line:
        return None
    remedy = f"write values as in training, then {evidence.code_again}"
    if evidence.raw is None:
        remedy = (
            f"python -m src.doctor --checkpoint={evidence.trained.folder} --data_path=RAW_FILE, which sees the text"
        )
    return Found(line.partition(": ")[2], remedy, tuple(one.field for one in left))


def _moved(evidence: Evidence) -> Found | None:
    moved = {name: evidence.drift.columns[name] for name in evidence.unexplained(list(evidence.categories))}
    found = {name: one for name, one in moved.items() if one.beyond(FIELD_MOVED)}
    if not found:
        return None
    worst = sorted(found, key=lambda name: -found[name].psi)
    shown = some_of([f"{name} {found[name].psi:.2f}" for name in worst])
    return Found(
        f"categories are distributed otherwise than in training, PSI {shown}, expected below {FIELD_MOVED:g}",
        f"are they of the same site, and hashed as then? If so, train again with these rows; else "
        f"{evidence.code_again}",
        tuple(worst),
    )


_LEAST_ROWS, _MORE = 100, 0.3
_UNMATCHED = "no value known, or ten times more unknown than in other later rows (src/data/known_values.py)"
_TEXT = ("raw rows", "rows")
CHECKS = (
    Check("another encoding of values", "unknown values, decoded otherwise",
          f"{_UNMATCHED}, and more than half of them become known", _TEXT, _decoded),
    Check("another spelling", "unknown values, written otherwise: case, prefix, zeros, .0, quotes, blanks",
          f"{_UNMATCHED}, and more than half of them become known", _TEXT, _spelled),
    Check("another hashing", "unknown values that have the form of known ones", "nearly no value known", _TEXT,
          _hashed),
    Check("unknown values", "shares of values that training did not have", _UNMATCHED, ("rows",), _unseen),
    Check("moved categories", "shares of each field's values (PSI)",
          f"PSI of {FIELD_MOVED:g}, beyond what one of a million samples has: twice what is much for numbers, since "
          f"what is shown changes; the fields of Criteo's last day moved by at most 0.06",
          ("rows", "coding", "training rows"), _moved),
)  # fmt: skip
