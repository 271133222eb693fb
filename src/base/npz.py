"""Named arrays in a .npz file that is there whole or not at all."""

import errno
import functools
import io
import lzma
import math
import mmap
import os
import re
import struct
import tempfile
import zipfile
import zlib
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from src.base.files import MappedFile, whole_file

Arrays = dict[str, np.ndarray]
_LOCAL_HEADER = struct.Struct("<26x2H")  # of a member of a zip file: sizes of its name and of the extra field
_MEMBERS_FROM_END = -12  # where a zip file without a comment says how many members it has
_MAGIC = b"\x93NUMPY\x01\x00"  # of an .npy file; behind it are two bytes for the header's size, and the header
_PLAIN = re.compile(
    rb"{'descr': '([<>|][a-zA-Z]\d+)', 'fortran_order': (True|False), 'shape': \(((?:\d+, )*\d+)?,?\), } *\n"
)
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


def is_whole(path: Path) -> bool:
    """Whether a file is as `save_arrays` wrote it, as far as its arrays' checksums tell; all of it is read."""
    try:
        with path.open("rb") as file, zipfile.ZipFile(file) as archive:
            file.seek(_MEMBERS_FROM_END, os.SEEK_END)  # damage may hide members that follow
            return int.from_bytes(file.read(2), "little") == len(archive.infolist()) and archive.testzip() is None
    except (zipfile.BadZipFile, zlib.error, lzma.LZMAError, struct.error, EOFError, OSError, RuntimeError, ValueError):
        return False  # whatever a damaged header leads to


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


@dataclass(frozen=True)
class StoredArray:
    """An array of one dimension in a file that `save_arrays` wrote.

    Attributes:
        path: the file.
        kind: of its values.
        begin: the first one's byte in the file.
        size: how many there are.
    """

    path: Path
    kind: np.dtype
    begin: int
    size: int

    def read(self, first: int = 0, end: int | None = None) -> np.ndarray:
        """Its values from `first` up to, not including, `end`, else to the last; the file is open meanwhile alone."""
        end = self.size if end is None else end
        descriptor = os.open(self.path, os.O_RDONLY)
        try:
            size = self.kind.itemsize
            data = os.pread(descriptor, (end - first) * size, self.begin + first * size)
        finally:
            os.close(descriptor)
        if len(data) != (end - first) * size:
            raise OSError(errno.EIO, "the file has become shorter", str(self.path))
        return np.frombuffer(data, self.kind)


def stored_arrays(path: Path) -> dict[str, StoredArray]:
    """The arrays of one dimension of a file that `save_arrays` wrote, none of which is read.

    A process looks at a file once for as long as it stays: to find its arrays takes longer than to read small ones.
    """
    file = path.stat()
    return _stored(path, file.st_ino, file.st_size, file.st_mtime_ns).copy()


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
                found[member.filename.removesuffix(".npy")] = StoredArray(path, kind, file.tell(), shape[0])
    return found


def mapped_arrays(file: MappedFile, names: Collection[str] | None = None) -> Arrays:
    """The arrays of a file that `save_arrays` wrote, in its order; all, or those of some names.

    They lie in the mapped file, so that only what is looked at is read. They can't be written to, and need not be
    aligned.
    """
    found: Arrays = {}
    with file.path.open("rb") as opened, zipfile.ZipFile(opened) as archive:
        for member in archive.infolist():
            name = member.filename.removesuffix(".npy")
            if names is None or name in names:
                start = member.header_offset + _LOCAL_HEADER.size
                start += sum(_LOCAL_HEADER.unpack_from(file.data, member.header_offset))
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
        kind, fortran, sizes = plain.groups()
        shape = tuple(map(int, sizes.split(b", "))) if sizes else ()
        return shape, fortran == b"True", np.dtype(kind.decode())
    file.seek(begin)
    version = np.lib.format.read_magic(file)
    read = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
    header: tuple[tuple[int, ...], bool, np.dtype] = read[version](file)
    return header
