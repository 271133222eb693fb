"""Named arrays in a .npz file that is there whole or not at all."""

import io
import mmap
import struct
import zipfile
from pathlib import Path
from typing import Any

import numpy as np

from src.base.files import MappedFile, whole_file

Arrays = dict[str, np.ndarray]
_LOCAL_HEADER = struct.Struct("<26x2H")  # of a member of a zip file: sizes of its name and of the extra field


def save_arrays(path: Path, arrays: Arrays, sync: bool = False) -> None:
    """Write the arrays as a `whole_file`, uncompressed; names may be any that differ in a zip file.

    Raises:
        OSError: the file can't be written; it names the file.
    """
    # In memory first: NumPy's zip writer leaves a half-open archive behind when the disk is full.
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as file:  # np.savez takes names as keyword arguments, of which some are its own
        for name, array in arrays.items():
            with file.open(zipfile.ZipInfo(f"{name}.npy"), "w", force_zip64=True) as member:
                np.lib.format.write_array(member, np.asanyarray(array), allow_pickle=False)
    with whole_file(path, sync) as written:
        written.write(archive.getbuffer())


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
    version = np.lib.format.read_magic(header)
    read = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
    shape, fortran, kind = read[version](header)
    count = int(np.prod(shape))
    array = np.frombuffer(mapped, kind, count, start + header.tell())
    return array.reshape(shape, order="F" if fortran else "C")
