"""Named arrays in a file of the safetensors format, written piece by piece, and mapped into memory.

    8 bytes     H, the size of the header, little-endian
    H bytes     JSON: {NAME: {"dtype": "F32", "shape": [..], "data_offsets": [begin, end]}, ..}, and blanks behind it
    the rest    the arrays, little-endian, one behind the other

The library of the format takes all arrays at once, and tables need not fit in memory.
"""

import json
import struct
from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np

from src.base.errors import InputError
from src.base.files import MappedFile, whole_file

_SIZE = struct.Struct("<Q")
_ALIGNED = 8
_MOST_HEADER_BYTES = 100_000_000  # as the library has it
Shapes = Mapping[str, tuple[int, ...]]


def write_tensors(path: Path, shapes: Shapes, pieces: Iterable[np.ndarray]) -> None:
    """Write arrays of float32, whole or not at all.

    Args:
        path: the file.
        shapes: of the arrays by name, in their order.
        pieces: their values in that order, in pieces of any size, each asked for when its turn comes.

    Raises:
        InputError: a value is not finite.
    """
    header, place = {"__metadata__": {"format": "mindspore"}}, 0
    for name, shape in shapes.items():
        end = place + _bytes(shape)
        header[name] = {"dtype": "F32", "shape": list(shape), "data_offsets": [place, end]}  # type: ignore[dict-item]
        place = end
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % _ALIGNED)
    with whole_file(path) as file:
        file.write(_SIZE.pack(len(text)) + text)
        for piece in pieces:
            if not np.isfinite(piece).all():
                raise InputError("the network holds nan or infinity, and scores nothing: train again, with a lower lr")
            data = np.ascontiguousarray(piece, "<f4").tobytes()
            file.write(data)
            place -= len(data)
    assert place == 0, "the pieces do not make up the arrays"


class TensorFile:
    """Arrays of float32 in a file that is mapped into memory, of which no more is read than is looked at.

    Args:
        path: the file.

    Attributes:
        shapes: of the arrays, by name, in their order.

    Raises:
        InputError: it is no such file, or cut.
    """

    def __init__(self, path: Path):
        self.path = path
        self._file = MappedFile(path)
        data = self._file.data
        try:
            (size,) = _SIZE.unpack(data[: _SIZE.size])
            if size > min(len(data), _MOST_HEADER_BYTES):
                raise ValueError(f"a header of {size} bytes")
            header = json.loads(data[_SIZE.size : _SIZE.size + size])
            header.pop("__metadata__", None)
            self.shapes = {name: tuple(one["shape"]) for name, one in header.items()}
            place = 0
            for name, one in header.items():
                end = place + _bytes(self.shapes[name])
                if one["dtype"] != "F32" or one["data_offsets"] != [place, end]:
                    raise ValueError(f"{name} is {one['dtype']} at {one['data_offsets']}")
                place = end
            if _SIZE.size + size + place != len(data):
                raise ValueError(f"{len(data)} bytes")
        except (ValueError, KeyError, TypeError, AttributeError, struct.error) as error:
            raise InputError(
                f"{path} is no whole file of float32 safetensors ({error}): publish the model again"
            ) from None
        self._values = np.frombuffer(data, "<f4", place // 4, _SIZE.size + size)
        sizes = [int(np.prod(shape)) for shape in self.shapes.values()]
        self._starts = dict(zip(self.shapes, np.cumsum([0, *sizes[:-1]]).tolist()))

    def value(self, name: str) -> np.ndarray:
        """An array, which lies in the file and can't be written to.

        Raises:
            InputError: there is none of this name.
        """
        if name not in self.shapes:
            raise InputError(f"{self.path} holds no {name}: publish the model again")
        self._file.check()
        start = self._starts[name]
        return self._values[start : start + int(np.prod(self.shapes[name]))].reshape(self.shapes[name])

    def rows(self, names: Iterable[str], width: int) -> np.ndarray:
        """The rows [R, width] of several arrays that follow one another in the file, as one array.

        Raises:
            InputError: they do not, or one has another width.
        """
        names = list(names)
        parts = [self.value(name) for name in names]
        starts = [self._starts[name] for name in names]
        ends = [start + part.size for start, part in zip(starts, parts)]
        if starts[1:] != ends[:-1] or any(part.ndim != 2 or part.shape[1] != width for part in parts):
            raise InputError(f"{self.path} does not hold its tables one behind the other: publish the model again")
        return self._values[starts[0] : ends[-1]].reshape(-1, width)


def _bytes(shape: Iterable[int]) -> int:
    return int(np.prod([*shape, 4], dtype=np.int64))
