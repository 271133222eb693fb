"""A Parquet file's pages as Arrow's arrays, by compiled/pages.cc, in less than half of pyarrow's time.

pyarrow reads the file's footer, unpacks pages, and reads columns that are not `readable`: of lists, truth, times or
rare encodings, small groups of rows, and all where there is no compiler. Both give the same cells; but where a writer
has gone over from a dictionary to the text itself, so do the arrays.

Legend: B rows.
"""

import ctypes
import functools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from src.base.native import build, pointer

SOURCE = Path(__file__).parents[1] / "compiled/pages.cc"
_FLAGS = ("-std=c++17", "-O3", "-march=native", "-shared", "-fPIC")
_FIXED: dict[str, tuple[str, Any]] = {"INT32": ("int32", np.int32), "INT64": ("int64", np.int64),
          "FLOAT": ("float", np.float32), "DOUBLE": ("double", np.float64)}  # fmt: skip
_TEXTS = ("string", "large_string")
_CODECS = ("UNCOMPRESSED", "SNAPPY", "GZIP", "ZSTD", "BROTLI")
_ENCODINGS = {"PLAIN", "RLE", "PLAIN_DICTIONARY", "RLE_DICTIONARY"}
_PLAIN, _BY_PLACES = 0, (2, 8)  # as headers name encodings
_DATA, _DICTIONARY, _DATA_2, _RLE = 0, 2, 3, 3
_LENGTH_BYTES = 4  # that stand before each text
_HEADER_BYTES = 1 << 24  # at most, of which most are of bounds that the writer put there
_MOST_BYTES = 1 << 30  # of a column in a group, so that places within it are int32
LEAST_ROWS = 1 << 13  # of a group, on average, for which beginning with each one's columns is worth the while


@functools.cache
def _library() -> ctypes.CDLL | None:
    path = build(SOURCE, _FLAGS, "the reader of Parquet's pages", "Parquet is read by pyarrow, slower")
    if not path:
        return None
    library = ctypes.CDLL(str(path))
    for name in ("PageHeader", "PageBytes", "ReadPlaces", "ReadFixed", "ReadTexts"):
        getattr(library, name).restype = ctypes.c_int64
    return library


def _size(number: int) -> ctypes.c_int64:
    return ctypes.c_int64(number)


def readable(metadata: Any, schema: Any, places: dict[str, int], groups: Sequence[int]) -> dict[str, int]:
    """Of columns that are read here, their places among the file's own.

    Args:
        metadata, schema: of the file, as pyarrow has them.
        places: of the columns to read; of one of several, such as a struct's, any.
        groups: numbers of the groups of rows to read.
    """
    rows = sum(metadata.row_group(group).num_rows for group in groups)
    if rows < max(len(groups), 1) * LEAST_ROWS or not _library():
        return {}
    found = {}
    for name, place in places.items():
        column, kind = metadata.schema.column(place), str(schema.field(name).type)
        is_text = column.physical_type == "BYTE_ARRAY" and kind in _TEXTS
        if not is_text and kind != _FIXED.get(column.physical_type, ("",))[0]:
            continue
        flat = column.max_repetition_level == 0 and column.max_definition_level < 2
        if flat and all(_is_common(metadata.row_group(group).column(place)) for group in groups):
            found[name] = place
    return found


def _is_common(chunk: Any) -> bool:
    return (
        chunk.compression in _CODECS
        and set(chunk.encodings) <= _ENCODINGS
        and chunk.total_uncompressed_size < _MOST_BYTES
    )


@dataclass
class _Open:
    """A page that is being read.

    Attributes:
        state: what pages.cc keeps of it.
        text: its bytes, which the state points to.
        left: rows.
        size: bytes of its values.
        by_places: whether its values stand in the dictionary.
    """

    state: np.ndarray
    text: tuple[np.ndarray, ...]
    left: int
    size: int
    by_places: bool


class PagedColumn:
    """A column's cells in a group of rows, one behind the other.

    Args:
        file: all bytes of the file, uint8.
        metadata, group, place: as pyarrow has them, and numbers of the group and the column.
        coded: whether cells of text are to stand in a dictionary where the file has them so.

    Raises:
        ValueError: the file is damaged; pyarrow's own errors are such, too.
    """

    def __init__(self, file: np.ndarray, metadata: Any, group: int, place: int, coded: bool):
        import pyarrow as pa

        chunk, column = metadata.row_group(group).column(place), metadata.schema.column(place)
        self._file, self._name, self._coded = file, column.path, coded
        self._has_levels, self._left = column.max_definition_level, chunk.num_values
        kind, self._type = _FIXED.get(chunk.physical_type, ("string", None))  # None for text
        self._arrow = pa.type_for_alias(kind)
        self._codec = None if chunk.compression == "UNCOMPRESSED" else pa.Codec(chunk.compression.lower())
        begins = (chunk.dictionary_page_offset if chunk.has_dictionary_page else None, chunk.data_page_offset)
        self._at = min(begin for begin in begins if begin)
        self._dictionary: Any = None  # the values, a pyarrow.Array of text or an array of numbers
        self._page: _Open | None = None

    def read(self, rows: int) -> Any:
        """The next cells, a pyarrow.Array [B] of numbers, of text, or of int32 places in a dictionary of text."""
        import pyarrow as pa

        pieces = []
        while rows:
            if not self._page or not self._page.left:
                self._page = self._next_page()
            own = min(rows, self._page.left)
            pieces.append(self._piece(self._page, own))
            rows -= own
        if len({piece.type for piece in pieces}) > 1:
            pieces = [piece.dictionary_decode() if pa.types.is_dictionary(piece.type) else piece for piece in pieces]
        return pieces[0] if len(pieces) == 1 else _joined(pieces)

    def _piece(self, page: _Open, rows: int) -> Any:
        """So many cells of a page."""
        if self._type is not None:
            return self._numbers(page, rows)
        return self._coded_texts(page, rows) if page.by_places else self._texts(page, rows)

    def _numbers(self, page: _Open, rows: int) -> Any:
        values, dictionary = np.empty(rows, self._type), self._dictionary if page.by_places else None
        about = values.itemsize, pointer(dictionary), _size(0 if dictionary is None else len(dictionary))
        bits, missing = self._read("ReadFixed", page, rows, *about, values)
        return self._array(self._arrow, rows, bits, missing, values)

    def _coded_texts(self, page: _Open, rows: int) -> Any:
        import pyarrow as pa

        places = np.empty(rows, np.int32)
        bits, missing = self._read("ReadPlaces", page, rows, _size(len(self._dictionary)), places)
        places = self._array(pa.int32(), rows, bits, missing, places)
        found = pa.DictionaryArray.from_arrays(places, self._dictionary, safe=False)
        return found if self._coded else found.dictionary_decode()

    def _texts(self, page: _Open, rows: int) -> Any:
        offsets, text = np.empty(rows + 1, np.int32), np.empty(page.size, np.uint8)
        bits, missing = self._read("ReadTexts", page, rows, offsets, text)
        size = int(offsets[-1])
        page.size -= size + _LENGTH_BYTES * (rows - missing)
        return self._array(self._arrow, rows, bits, missing, offsets, text[:size])

    def _read(self, what: str, page: _Open, rows: int, *arguments: Any) -> tuple[np.ndarray, int]:
        """A bit for each of some rows of a page, and how many have no value; their values go to the arrays given."""
        bits = np.empty((rows + 7) // 8, np.uint8)
        places = [pointer(one) if isinstance(one, np.ndarray) else one for one in arguments]
        missing = getattr(_library(), what)(pointer(page.state), _size(rows), pointer(bits), *places)
        if missing < 0:
            raise self._damaged()
        page.left -= rows
        return bits, missing

    @staticmethod
    def _array(kind: Any, rows: int, bits: np.ndarray, missing: int, *values: np.ndarray) -> Any:
        import pyarrow as pa

        buffers = [pa.py_buffer(one) for one in values]
        return pa.Array.from_buffers(kind, rows, [pa.py_buffer(bits) if missing else None, *buffers], missing)

    def _next_page(self) -> _Open:
        """The next page with rows; a dictionary before it is read."""
        library, head = _library(), np.empty(9, np.int64)
        assert library, "columns are readable"
        while self._left > 0:
            rest = self._file[self._at :]
            size = library.PageHeader(pointer(rest), _size(min(len(rest), _HEADER_BYTES)), pointer(head))
            kind, unpacked, packed, values, encoding, levels, repeated, of_levels, is_packed = head.tolist()
            if size < 0 or not 0 <= packed <= len(rest) - size or not 0 <= unpacked < _MOST_BYTES:
                raise self._damaged()
            body = rest[size : size + packed]
            self._at += size + packed
            if kind == _DICTIONARY and self._dictionary is None:
                self._dictionary = self._dictionary_of(self._unpacked(body, unpacked), values, encoding)
            elif kind in (_DICTIONARY, _DATA, _DATA_2):
                if (
                    kind == _DICTIONARY
                    or not 0 <= values <= self._left
                    or (kind == _DATA and self._has_levels and levels != _RLE)
                ):
                    raise self._damaged()
                self._left -= values
                if kind == _DATA:
                    parts = self._parts(self._unpacked(body, unpacked))
                else:
                    parts = self._parts_2(body, unpacked, max(repeated, 0), max(of_levels, 0), is_packed != 0)
                if values:
                    return self._opened(parts, values, encoding)
        raise self._damaged()

    def _unpacked(self, body: np.ndarray, size: int) -> np.ndarray:
        if not self._codec:
            return body
        if not size:
            return body[:0]
        text = np.frombuffer(self._codec.decompress(body, decompressed_size=size), np.uint8)
        if len(text) != size:
            raise self._damaged()
        return text

    def _parts(self, text: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Levels and values of a page of the first kind."""
        if not self._has_levels:
            return text[:0], text
        size = int.from_bytes(text[:4].tobytes(), "little")
        if len(text) < 4 or size > len(text) - 4:
            raise self._damaged()
        return text[4 : 4 + size], text[4 + size :]

    def _parts_2(
        self, body: np.ndarray, unpacked: int, repeated: int, size: int, is_packed: bool
    ) -> tuple[np.ndarray, np.ndarray]:
        """The same of the second kind, of which levels are never packed."""
        end = repeated + size
        if end > min(len(body), unpacked):
            raise self._damaged()
        values = self._unpacked(body[end:], unpacked - end) if is_packed else body[end:]
        return body[repeated:end], values

    def _opened(self, parts: tuple[np.ndarray, np.ndarray], rows: int, encoding: int) -> _Open:
        library, (levels, values) = _library(), parts
        assert library, "columns are readable"
        by_places = encoding in _BY_PLACES
        if not (by_places or encoding == _PLAIN) or (by_places and self._dictionary is None):
            raise self._damaged()
        state = np.empty(library.PageBytes(), np.uint8)
        known = library.OpenPage(
            pointer(state), pointer(levels), _size(len(levels)), pointer(values),
            _size(len(values)), _size(rows), self._has_levels, int(by_places),
        )  # fmt: skip
        if not known:
            raise self._damaged()
        return _Open(state, parts, rows, len(values), by_places)

    def _dictionary_of(self, text: np.ndarray, values: int, encoding: int) -> Any:
        """The values of a dictionary's page."""
        if encoding not in (_PLAIN, *_BY_PLACES) or not 0 <= values <= len(text):
            raise self._damaged()
        if self._type is not None:
            size = values * np.dtype(self._type).itemsize
            if size > len(text):
                raise self._damaged()
            return np.frombuffer(text[:size].tobytes(), self._type)
        has_levels, self._has_levels = self._has_levels, 0
        try:
            return self._piece(self._opened((text[:0], text), values, _PLAIN), values)
        finally:
            self._has_levels = has_levels

    def _damaged(self) -> ValueError:
        return ValueError(f"a page of column {self._name!r} does not hold what it says")


def _joined(pieces: Sequence[Any]) -> Any:
    """Cells of pages of one kind."""
    import pyarrow as pa

    if not pa.types.is_dictionary(pieces[0].type):
        return pa.concat_arrays(pieces)
    places = pa.concat_arrays([piece.indices for piece in pieces])
    return pa.DictionaryArray.from_arrays(places, pieces[0].dictionary, safe=False)


def batches_of(
    file: np.ndarray, metadata: Any, group: int, columns: dict[str, int], coded: Sequence[str], names: Sequence[str],
    others: Iterator[Any] | None, rows: int,
) -> Iterator[Any]:  # fmt: skip
    """A group of rows as pyarrow.RecordBatches.

    Args:
        file, metadata, group: as of `PagedColumn`.
        columns: those that are read here, as `readable` gives them.
        coded: names of those whose text is to stand in a dictionary where it does in the file.
        names: of all columns to give, in their order.
        others: batches of those that are not read here, if there are some.
        rows: of a batch, at most, where there are no others.

    Raises:
        ValueError: the file is damaged.
    """
    import pyarrow as pa

    paged = {
        name: PagedColumn(file, metadata, group, columns[name], name in coded) for name in names if name in columns
    }
    left = metadata.row_group(group).num_rows
    while left > 0:
        own, there = min(left, rows), {}
        if others:
            if (batch := next(others, None)) is None:
                raise ValueError(f"group {group} lacks {left} rows")
            own, there = batch.num_rows, dict(zip(batch.schema.names, batch.columns))
        there |= {name: column.read(own) for name, column in paged.items()}
        yield pa.RecordBatch.from_arrays([there[name] for name in names], names=list(names))
        left -= own
