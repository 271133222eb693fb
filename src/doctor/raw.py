"""Raw rows as they are written: read in one pass by a model's encoder, with what can't be read, and text of the first
ones."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from tempfile import TemporaryDirectory

from src.base.errors import InputError
from src.data.encoder import Encoder
from src.data.known_values import Unmatched, Unseen, usual_shares
from src.data.manifest import Manifest
from src.doctor.gathering import Gathered, Gathering
from src.rows.block import BadRow, first_categories
from src.rows.columnar import kind_of
from src.rows.columns import Columns
from src.rows.reader import RawInput
from src.rows.unpacking import first_bytes

_BEGIN_BYTES, _TEXT_BYTES = 1 << 20, 1 << 20
_KEPT_BAD = 1000


@dataclass
class RawRows:
    """Raw rows.

    Attributes:
        raws: the files.
        columns: what they are said to hold.
        begin: the first bytes of the first file, unpacked; none of a file that is not text.
        lines: rows and bad rows.
        bad, last_bad, bad_rows: the first rows that can't be used, the last one, and how many they are.
        texts: cells of the first rows, of each categorical column.
        gathered: the rows, None if there are none.
        unmatched: fields with far more values that training did not have than is usual.
        error: why the files can't be read; "" if they can.
        ends_packed: whether that is because what they are packed in ends too early.
    """

    raws: Sequence[Path]
    columns: Columns
    begin: bytes = b""
    lines: int = 0
    bad: list[BadRow] = field(default_factory=list)
    last_bad: BadRow | None = None
    bad_rows: int = 0
    texts: list[list[str]] = field(default_factory=list)
    gathered: Gathered | None = None
    unmatched: list[Unmatched] = field(default_factory=list)
    error: str = ""
    ends_packed: bool = False


def read(raws: Sequence[Path], columns: Columns, encoder: Encoder, manifest: Manifest) -> RawRows:
    """Read raw files, whose columns must be those of the encoder; what is wrong with them is no error.

    Args:
        raws: the files.
        columns: what they are said to hold.
        encoder, manifest: that the model was trained with.
    """
    found = RawRows(raws, columns)
    unseen = Unseen(manifest.fields, usual_shares(manifest), encoder.vocabulary.key_seed, manifest.layout)
    gathering = Gathering()
    try:
        begin = first_bytes(raws[0], _BEGIN_BYTES)
        found.begin = b"" if kind_of(begin) else begin
        with TemporaryDirectory() as folder:
            raw_input = RawInput(raws, encoder.keyed(replace(columns, split=None)), Path(folder))
            spans = raw_input.spans(0, raw_input.rows, max(raw_input.rows, 1))
            for block in (block for span in spans for block in raw_input.read(span)):
                _note_bad(found, block.bad)
                dense, ids = encoder.encode(block)
                gathering.add(dense, ids, block.labels, block.numbers, block.keys, block.weights)
                unseen.add(ids, block)
            found.texts = first_categories(spans[:1], raw_input.columns[0], _TEXT_BYTES)
    except InputError as error:
        found.error, found.ends_packed = str(error), isinstance(error.__context__, EOFError)
        return found
    found.gathered = gathering.end()
    found.lines = gathering.rows + found.bad_rows
    found.unmatched = unseen.unmatched(encoder.examples)
    return found


def _note_bad(found: RawRows, bad: Sequence[BadRow]) -> None:
    found.bad += bad[: _KEPT_BAD - len(found.bad)]
    found.bad_rows += len(bad)
    found.last_bad = bad[-1] if bad else found.last_bad
