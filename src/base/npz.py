"""Named arrays in a .npz file that is there whole or not at all."""

import errno
import io
import mmap
import os
import struct
import tempfile
import zipfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from src.base.files import MappedFile, whole_file

Arrays = dict[str, np.ndarray]
_LOCAL_HEADER = struct.Struct("<26x2H")  # of a member of a zip file: sizes of its name and of the extra field


def save_arrays(path: Path, arrays: Arrays | Iterable[tuple[str, np.ndarray]], sync: bool = False) -> None:
    """Write the arrays as a `whole_file`, uncompressed; names may be any that differ in a zip file.

    They are written one after the other, so that of those that are made meanwhile no two need be there at once.

    Raises:
        OSError: the file can't be written; it names the file.
    """
    pairs = arrays.items() if isinstance(arrays, dict) else arrays
    # np.savez takes names as keyword arguments, of which some are its own.
    with whole_file(path, sync) as written, zipfile.ZipFile(written, "w") as archive:
        for name, array in pairs:
            with archive.open(zipfile.ZipInfo(f"{name}.npy"), "w", force_zip64=True) as member:
                np.lib.format.write_array(member, np.asanyarray(array), allow_pickle=False)
            page_out(np.asanyarray(array))


def scratch_array(folder: Path, kind: Any, size: int) -> np.ndarray:
    """An array of zeros in a file without a name in a folder, which goes with it; so it need not fit in memory."""
    if not size:
        return np.zeros(0, kind)
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

    def read(self, first: int, end: int) -> np.ndarray:
        """Its values from `first` up to, not including, `end`; the file is open meanwhile alone."""
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
    """The arrays of one dimension of a file that `save_arrays` wrote, none of which is read."""
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


def mapped_arrays(file: MappedFile) -> Arrays:
    """The arrays of a file that `save_arrays` wrote, in its order.

    They lie in the mapped file, so that only what is looked at is read. They can't be written to, and need not be
    aligned.
    """
    found: Arrays = {}
    with file.path.open("rb") as opened, zipfile.ZipFile(opened) as archive:
        for member in archive.infolist():
            start = member.header_offset + _LOCAL_HEADER.size
            start += sum(_LOCAL_HEADER.unpack_from(file.data, member.header_offset))
            found[member.filename.removesuffix(".npy")] = _array_at(file.data, start)
    return found


def _array_at(mapped: mmap.mmap, start: int) -> np.ndarray:
    """The array whose .npy file begins at a byte."""
    header: Any = io.BytesIO(mapped[start : start + 65536])
    shape, fortran, kind = _header_of(header)
    count = int(np.prod(shape))
    array = np.frombuffer(mapped, kind, count, start + header.tell())
    return array.reshape(shape, order="F" if fortran else "C")


def _header_of(file: Any) -> tuple[tuple[int, ...], bool, np.dtype]:
    """Of an .npy file that stands at its beginning: shape, whether in Fortran's order, kind of the values."""
    version = np.lib.format.read_magic(file)
    read = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
    header: tuple[tuple[int, ...], bool, np.dtype] = read[version](file)
    return header
