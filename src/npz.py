"""Named arrays in a .npz file that is there whole or not at all."""

import io
from pathlib import Path

import numpy as np

Arrays = dict[str, np.ndarray]


def save_arrays(path: Path, arrays: Arrays) -> None:
    """Write the arrays beside the file, uncompressed, and rename.

    Raises:
        OSError: the file can't be written; it names the file.
    """
    # In memory first: NumPy's zip writer leaves a half-open archive behind when the disk is full.
    archive = io.BytesIO()
    np.savez(archive, **arrays)
    beside = path.with_name(path.name + ".tmp")
    try:
        beside.write_bytes(archive.getbuffer())
        beside.rename(path)
    except OSError as error:
        beside.unlink(missing_ok=True)
        raise OSError(error.errno, error.strerror, str(path)) from None
