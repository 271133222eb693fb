"""Named arrays in a .npz file that is there whole or not at all."""

import io
from pathlib import Path

import numpy as np

from src.base.files import whole_file

Arrays = dict[str, np.ndarray]


def save_arrays(path: Path, arrays: Arrays) -> None:
    """Write the arrays beside the file, uncompressed, and rename.

    Raises:
        OSError: the file can't be written; it names the file.
    """
    # In memory first: NumPy's zip writer leaves a half-open archive behind when the disk is full.
    archive = io.BytesIO()
    np.savez(archive, **arrays)
    with whole_file(path) as file:
        file.write(archive.getbuffer())
