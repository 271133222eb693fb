"""MindSpore's checkpoint files, value by value, so that memory never holds more than what is asked for.

`mindspore.load_checkpoint` takes the files that are written here, but holds a file twice, and `save_checkpoint` a copy
of the largest value; tables of gigabytes need better. A file is a protobuf message (mindspore/train/checkpoint.proto,
protobuf.dev/programming-guides/encoding):

    Checkpoint   value        1, repeated: one or more for each entry, which join to its content
    Value        tag          1, the entry's name
                 tensor       2
    TensorProto  dims         1, repeated: of the whole entry
                 tensor_type  2, such as Float32
                 content      3

Behind it stand `crc_num` and ten bytes, the CRC-32 of all before, which load_checkpoint(crc_check=True) compares.
"""

import os
import zlib
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

import numpy as np

from src.base.errors import InputError
from src.base.events import happens
from src.base.files import MappedFile, whole_file

_TYPES = {"Float32": np.dtype("<f4"), "Int32": np.dtype("<i4")}
_CRC = b"crc_num"
_CRC_BYTES = 10
_CHUNK = 64 << 20  # bytes of a value that are one message
_LENGTH = 2  # protobuf's wire type of what has a length: text, bytes, messages


def write(path: Path, entries: Iterable[tuple[str, np.ndarray]], sync: bool = True) -> None:
    """Write a checkpoint file, whole or not at all.

    Args:
        path: the file.
        entries: names and values, float32 or int32, each of which is asked for when its turn comes.
        sync: whether it must be on the disk when this returns.

    Raises:
        OSError: the file can't be written; it names the file.
    """
    with whole_file(path, sync) as file:
        crc = 0
        for name, values in entries:
            for part in _messages(name, values):
                crc = zlib.crc32(part, crc)
                file.write(part)
            happens("an entry of a checkpoint is written")
        file.write(_CRC + crc.to_bytes(_CRC_BYTES, "big"))


def _messages(name: str, values: np.ndarray) -> Iterable[bytes | memoryview]:
    kind = next(kind for kind, dtype in _TYPES.items() if dtype == values.dtype)
    dims = b"".join(b"\x08" + _varint(size) for size in values.shape)
    content = np.ascontiguousarray(values).reshape(-1).view(np.uint8).data
    for start in range(0, len(content), _CHUNK):
        chunk = content[start : start + _CHUNK]
        head = dims + _with_length(2, kind.encode()) + b"\x1a" + _varint(len(chunk))
        tag = _with_length(1, name.encode())
        tensor = b"\x12" + _varint(len(head) + len(chunk)) + head
        yield b"\x0a" + _varint(len(tag) + len(tensor) + len(chunk)) + tag + tensor
        yield chunk


def _with_length(number: int, content: bytes) -> bytes:
    return bytes([number << 3 | _LENGTH]) + _varint(len(content)) + content


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    return bytes([*out, value])


@dataclass
class _Entry:
    shape: tuple[int, ...]
    dtype: np.dtype
    pieces: list[tuple[int, int]] = field(default_factory=list)  # place in the file and bytes, in order


class CheckpointFile:
    """A checkpoint file that is there; values are read when they are asked for.

    Args:
        path: the file.
        check: whether to compare its checksum, for which it is read once.

    Attributes:
        shapes: of the entries, by name.
        written_crc: the checksum that stands at its end, in hex; "" of a file that has none.

    Raises:
        InputError: it is no checkpoint, or a damaged one.
    """

    def __init__(self, path: Path, check: bool = True):
        self.path = path
        self._entries: dict[str, _Entry] = {}
        self._mapped: MappedFile | None = None
        with path.open("rb") as file:
            end = file.seek(0, os.SEEK_END)
            has_crc = end >= len(_CRC) + _CRC_BYTES and _at(file, end - 17, len(_CRC)) == _CRC
            end -= 17 if has_crc else 0
            written = int.from_bytes(_at(file, end + len(_CRC), _CRC_BYTES), "big") if has_crc else 0
            self.written_crc = f"{written:08x}" if has_crc else ""
            if has_crc and check and _crc(file, end) != written:
                raise self._damaged("its checksum differs")
            try:
                place = 0
                while place < end:
                    place = self._scan(file, place, end)
            except (IndexError, KeyError, UnicodeDecodeError, ValueError) as error:
                raise self._damaged(repr(error)) from None
        for name, entry in self._entries.items():
            if sum(size for _, size in entry.pieces) != _bytes(entry.shape, entry.dtype):
                raise self._damaged(f"{name} is not whole")
        if not self._entries:
            raise self._damaged("it is empty")
        self.shapes = {name: entry.shape for name, entry in self._entries.items()}

    def read(
        self, name: str, low: int = 0, high: int | None = None, target: np.ndarray | None = None
    ) -> np.ndarray:  # fmt: skip
        """Rows low <= row < high of an entry's first axis, or all of it; into a contiguous target if there is one.

        Raises:
            KeyError: there is no such entry.
        """
        entry = self._entries[name]
        rows = entry.shape[0] if entry.shape else 1
        high = rows if high is None else high
        row_bytes = _bytes(entry.shape[1:], entry.dtype)
        values = (
            np.empty((high - low, *entry.shape[1:]) if entry.shape else (), entry.dtype) if target is None else target
        )
        memory = values.reshape(-1).view(np.uint8).data
        begin, position = low * row_bytes, 0
        with self.path.open("rb") as file:
            for place, size in entry.pieces:
                first, last = max(begin, position), min(begin + len(memory), position + size)
                if first < last:
                    file.seek(place + first - position)
                    if file.readinto(memory[first - begin : last - begin]) != last - first:
                        raise self._damaged("it has become shorter")
                position += size
        return values

    def rows(self, name: str, numbers: np.ndarray) -> np.ndarray:
        """Rows of these numbers of an entry's first axis, [n, ...], of the file as it is mapped into memory: no page of
        it is read that has none of them.

        Raises:
            KeyError: there is no such entry. InputError: the file changed since it was first looked up in.
        """
        if self._mapped is None:
            self._mapped = MappedFile(self.path)
        self._mapped.check()
        entry, numbers = self._entries[name], numbers.astype(np.int64)
        row_bytes = _bytes(entry.shape[1:], entry.dtype)
        found = np.empty((len(numbers), row_bytes), np.uint8)
        ends = np.cumsum([size for _, size in entry.pieces])
        first, last = (np.searchsorted(ends, numbers * row_bytes + place, "right") for place in (0, row_bytes - 1))
        for number in np.unique(first).tolist():
            (place, size), begin = entry.pieces[number], int(ends[number]) - entry.pieces[number][1]
            low = -(-begin // row_bytes)  # of the rows that are whole in this piece
            whole = (begin + size) // row_bytes - low
            own = (first == number) & (last == number)
            stored = np.frombuffer(
                self._mapped.data, np.uint8, max(whole, 0) * row_bytes, place + low * row_bytes - begin
            ).reshape(-1, row_bytes)  # fmt: skip
            found[own] = stored[numbers[own] - low]
        for across in np.flatnonzero(first != last).tolist():
            row = self.read(name, int(numbers[across]), int(numbers[across]) + 1)
            found[across] = row.reshape(-1).view(np.uint8)
        return found.view(entry.dtype).reshape(len(numbers), *entry.shape[1:])

    def _scan(self, file: BinaryIO, place: int, end: int) -> int:
        """Note the value at `place`; returns where the next one begins."""
        key, place = _read_varint(file, place)
        length, place = _read_varint(file, place)
        stop = place + length
        if key != 0x0A or stop > end:
            raise ValueError(f"no value at byte {place}")
        name, shape, dtype = "", [], None
        while place < stop:
            key, place = _read_varint(file, place)
            if key == 0x12:  # the tensor, whose fields follow
                _, place = _read_varint(file, place)
                while place < stop:
                    key, place = _read_varint(file, place)
                    size, place = _read_varint(file, place)
                    if key == 0x08:
                        shape.append(size)
                    elif key == 0x12:
                        dtype = _TYPES[_at(file, place, size).decode()]
                        place += size
                    elif key == 0x1A and place + size <= stop and dtype:
                        entry = self._entries.setdefault(name, _Entry(tuple(shape), dtype))
                        entry.pieces.append((place, size))
                        place += size
                    else:
                        raise ValueError(f"field {key} at byte {place}")
            elif key == 0x0A:
                size, place = _read_varint(file, place)
                name = _at(file, place, size).decode()
                place += size
            else:
                raise ValueError(f"field {key} at byte {place}")
        return stop

    def _damaged(self, reason: str) -> InputError:
        return InputError(f"{self.path} is not a MindSpore checkpoint, or a damaged one ({reason}): name one that "
                          f"train.py wrote")  # fmt: skip


def _bytes(shape: Iterable[int], dtype: np.dtype) -> int:
    return int(np.prod([*shape, dtype.itemsize], dtype=np.int64))


def _at(file: BinaryIO, place: int, size: int) -> bytes:
    if size > 1 << 16:
        raise ValueError(f"a name of {size} bytes")
    file.seek(place)
    return file.read(size)


def _read_varint(file: BinaryIO, place: int) -> tuple[int, int]:
    """The number at `place`, and where it ends."""
    content, value = _at(file, place, 10), 0
    for i in range(10):
        value |= (content[i] & 127) << 7 * i
        if content[i] < 128:
            return value, place + i + 1
    raise ValueError(f"no number at byte {place}")


def _crc(file: BinaryIO, end: int) -> int:
    file.seek(0)
    crc, left = 0, end
    while left and (chunk := file.read(min(left, 1 << 20))):
        crc, left = zlib.crc32(chunk, crc), left - len(chunk)
    return crc
