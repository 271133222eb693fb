"""Named arrays in a .npz file that is there whole or not at all."""

import contextlib
import errno
import functools
import io
import math
import mmap
import os
import re
import struct
import tempfile
import zipfile
import zlib
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from src.base.errors import InputError
from src.base.files import MappedFile, whole_file

Arrays = dict[str, np.ndarray]
_LOCAL_HEADER = struct.Struct("<26x2H")  # of a member of a zip file: sizes of its name and of the extra field
_MAGIC = b"\x93NUMPY\x01\x00"  # of an .npy file; behind it are two bytes for the header's size, and the header
_PLAIN = re.compile(
    rb"{'descr': '([<>|][a-zA-Z]\d+)', 'fortran_order': (True|False), 'shape': \((|\d+,|\d+(?:, \d+)+)\), } *\n"
)
_DAMAGED = (zipfile.BadZipFile, struct.error, ValueError, EOFError)  # what reading such a file may raise
_FILES_KNOWN = 512
_SMALL_BYTES, _AT_ONCE_BYTES = 1 << 16, 1 << 20  # of an array, of a file


def save_arrays(path: Path, arrays: Arrays | Iterable[tuple[str, np.ndarray]], sync: bool = False) -> None:
    """Write the arrays as a `whole_file`, uncompressed; names may be any that differ in a zip file.

    They are written one after the other, so that of those that are made meanwhile no two need be there at once.

    Raises:
        OSError: the file can't be written; it names the file.
    """
    pairs = arrays.items() if isinstance(arrays, dict) else arrays
    small = isinstance(arrays, dict) and sum(np.asanyarray(array).nbytes for array in arrays.values()) <= _AT_ONCE_BYTES
    # np.savez takes names as keyword arguments, of which some are its own.
    with whole_file(path, sync) as written:
        target = io.BytesIO() if small else written  # the format goes back in the file for each array
        with zipfile.ZipFile(target, "w") as archive:
            for name, array in pairs:
                with archive.open(zipfile.ZipInfo(f"{name}.npy"), "w", force_zip64=True) as member:
                    np.lib.format.write_array(member, np.asanyarray(array), allow_pickle=False)
                page_out(np.asanyarray(array))
        if isinstance(target, io.BytesIO):
            written.write(target.getbuffer())


def scratch_array(folder: Path, kind: Any, size: int) -> np.ndarray:
    """An array of zeros in a file without a name in a folder, which goes with it; so it need not fit in memory.

    A small one is in memory.
    """
    if size * np.dtype(kind).itemsize <= _SMALL_BYTES:
        return np.zeros(size, kind)
    with tempfile.TemporaryFile(dir=folder) as file:
        return np.memmap(file, kind, "w+", shape=(size,))


def page_out(array: np.ndarray) -> None:
    """Let the pages of an array that lies in a mapped file be in the file alone until they are looked at again."""
    base: Any = array
    while isinstance(base, np.ndarray):
        base = base.base
    base = base.obj if isinstance(base, memoryview) else base
    if isinstance(base, mmap.mmap):
        base.madvise(mmap.MADV_DONTNEED)


def _damaged(path: Path) -> InputError:
    return InputError(f"{path} is damaged: remove it, and start again")


@dataclass(frozen=True)
class StoredArray:
    """An array of one dimension in a file that `save_arrays` wrote.

    Attributes:
        path: the file.
        kind: of its values.
        begin: the first one's byte in the file.
        size: how many there are.
        head, whole: the CRC-32 of what stands before the values in the array's part of the file, and of the part.
    """

    path: Path
    kind: np.dtype
    begin: int
    size: int
    head: int
    whole: int

    def read(self, first: int = 0, end: int | None = None) -> np.ndarray:
        """Its values from `first` up to, not including, `end`, else to the last; the file is open meanwhile alone.

        Raises:
            InputError: all are read, and they are not what was written.
            OSError: the file has become shorter.
        """
        end = self.size if end is None else end
        descriptor = os.open(self.path, os.O_RDONLY)
        try:
            size = self.kind.itemsize
            data = os.pread(descriptor, (end - first) * size, self.begin + first * size)
        finally:
            os.close(descriptor)
        if len(data) != (end - first) * size:
            raise OSError(errno.EIO, "the file has become shorter", str(self.path))
        if (first, end) == (0, self.size) and zlib.crc32(data, self.head) != self.whole:
            raise _damaged(self.path)
        return np.frombuffer(data, self.kind)


def stored_arrays(path: Path) -> dict[str, StoredArray]:
    """The arrays of one dimension of a file that `save_arrays` wrote, none of which is read.

    A process looks at a file once for as long as it stays: to find its arrays takes longer than to read small ones.

    Raises:
        InputError: it is no such file, or was cut.
    """
    file = path.stat()
    try:
        return _stored(path, file.st_ino, file.st_size, file.st_mtime_ns).copy()
    except _DAMAGED:
        raise _damaged(path) from None


@functools.lru_cache(maxsize=_FILES_KNOWN)
def _stored(path: Path, *_state: int) -> dict[str, StoredArray]:
    found: dict[str, StoredArray] = {}
    with path.open("rb") as file, zipfile.ZipFile(file) as archive:
        for member in archive.infolist():
            file.seek(member.header_offset)
            start = member.header_offset + _LOCAL_HEADER.size
            start += sum(_LOCAL_HEADER.unpack(file.read(_LOCAL_HEADER.size)))
            file.seek(start)
            shape, _, kind = _header_of(file)
            if len(shape) == 1:
                begin = file.tell()
                file.seek(start)
                head = zlib.crc32(file.read(begin - start))
                name = member.filename.removesuffix(".npy")
                found[name] = StoredArray(path, kind, begin, shape[0], head, member.CRC)
    return found


def whole_arrays(path: Path, names: Sequence[str]) -> list[np.ndarray]:
    """Some of the arrays of a file that `save_arrays` wrote, in the order of the names.

    Raises:
        InputError: it is no such file, or was cut, or they are not what was written.
    """
    try:
        arrays = mapped_arrays(MappedFile(path), names, checked=True)
    except _DAMAGED:
        raise _damaged(path) from None
    return [np.array(arrays[name]) for name in names]


def mapped_arrays(file: MappedFile, names: Collection[str] | None = None, checked: bool = False) -> Arrays:
    """The arrays of a file that `save_arrays` wrote, in its order.

    They lie in the mapped file, so that only what is looked at is read. They can't be written to, and need not be
    aligned.

    Args:
        file: the file.
        names: of the arrays, None for all.
        checked: whether they are read now, all of them.

    Raises:
        ValueError: they are checked, and one is not what was written.
    """
    found: Arrays = {}
    with file.path.open("rb") as opened, zipfile.ZipFile(opened) as archive:
        for member in archive.infolist():
            name = member.filename.removesuffix(".npy")
            if names is None or name in names:
                start = member.header_offset + _LOCAL_HEADER.size
                start += sum(_LOCAL_HEADER.unpack_from(file.data, member.header_offset))
                if checked and zlib.crc32(file.data[start : start + member.file_size]) != member.CRC:
                    raise ValueError(f"{file.path} has other values of {name} than were written")
                found[name] = _array_at(file.data, start)
    return found


def _array_at(mapped: mmap.mmap, start: int) -> np.ndarray:
    """The array whose .npy file begins at a byte."""
    header: Any = io.BytesIO(mapped[start : start + 65536])
    shape, fortran, kind = _header_of(header)
    array = np.frombuffer(mapped, kind, math.prod(shape), start + header.tell())
    return array.reshape(shape, order="F" if fortran else "C")


def _header_of(file: Any) -> tuple[tuple[int, ...], bool, np.dtype]:
    """Of an .npy file that stands at its beginning: shape, whether in Fortran's order, kind of the values."""
    begin, head = file.tell(), file.read(len(_MAGIC) + 2)
    # NumPy has Python's parser read it, which takes most of the time that a file of small arrays needs.
    plain = head.startswith(_MAGIC) and _PLAIN.fullmatch(file.read(int.from_bytes(head[len(_MAGIC) :], "little")))
    if plain:
        text, fortran, sizes = plain.groups()
        with contextlib.suppress(TypeError):  # there is no such kind, which NumPy tells as all that is wrong
            kind = np.dtype(text.decode())
            return tuple(map(int, sizes.rstrip(b",").split(b", "))) if sizes else (), fortran == b"True", kind
    file.seek(begin)
    version = np.lib.format.read_magic(file)
    read = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
    header: tuple[tuple[int, ...], bool, np.dtype] = read[version](file)
    return header
