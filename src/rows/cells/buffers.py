"""The buffers of Arrow's arrays, by compiled/arrow.cc, or in NumPy and Python, ten times slower, without a compiler.

Legend: B values.
"""

import ctypes
import functools
from pathlib import Path
from typing import Any

import numpy as np

from src.base.native import build, pointer
from src.rows.keys import PAD
from src.rows.text import is_utf8, number_text

SOURCE = Path(__file__).parents[1] / "compiled/arrow.cc"
_FLAGS = ("-std=c++17", "-O3", "-march=native", "-fno-trapping-math", "-shared", "-fPIC")
_LARGEST = float(np.finfo(np.float32).max)
_LONGEST = 32  # bytes of a number's text


@functools.cache
def _library() -> ctypes.CDLL | None:
    path = build(SOURCE, _FLAGS, "the reader of Arrow's buffers", "Arrow's values are read by NumPy, slower")
    if not path:
        return None
    library = ctypes.CDLL(str(path))
    library.Floats.restype = library.Texts.restype = library.CountPlaces.restype = ctypes.c_int64
    return library


def _places(array: Any) -> tuple[Any, ...]:
    """Of an array of numbers: the letter and bytes of their type, their place in memory, which are there, how many."""
    kind = np.dtype(array.type.to_pandas_dtype())
    valid, values = array.buffers()
    bits = valid.address if valid is not None and array.null_count else None
    first = (values.address if values is not None else 0) + array.offset * kind.itemsize
    return (
        ord(kind.kind), kind.itemsize, ctypes.c_void_p(first), ctypes.c_void_p(bits), ctypes.c_int64(array.offset),
        ctypes.c_int64(len(array)),
    )  # fmt: skip


def values_of(array: Any) -> np.ndarray:
    """The values of an array of numbers, float64 [B], nan for a missing one."""
    values: np.ndarray = array.to_numpy(zero_copy_only=False).astype(np.float64)
    return values


def floats_of(array: Any) -> tuple[np.ndarray, np.ndarray]:
    """The same as float32 [B], never -0, and which of them are beyond that, [B] bool."""
    numbers, wrong = np.empty(len(array), np.float32), np.empty(len(array), bool)
    library = _library()
    if library and library.Floats(*_places(array), pointer(numbers), pointer(wrong)) >= 0:
        return numbers, wrong
    values = values_of(array)
    wrong = np.abs(values) > _LARGEST
    return np.where(wrong, 0, values).astype(np.float32) + np.float32(0), wrong


def texts_of(array: Any) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The texts of an array of numbers, as `text.number_text` has them, nothing for a missing one or nan.

    Returns:
        Bytes, with PAD before and behind the texts, and each text's first byte, and the one behind it, int64 [B].
    """
    ends = np.empty(len(array), np.int64)
    if library := _library():
        text = np.empty(2 * PAD + _LONGEST * len(array), np.uint8)
        size = library.Texts(*_places(array), ctypes.c_void_p(text.ctypes.data + PAD), pointer(ends))
        if size >= 0:
            text[:PAD] = text[PAD + size : 2 * PAD + size] = 0
            return text[: 2 * PAD + size], np.append(0, ends[:-1])[: len(ends)] + PAD, ends + PAD
    is_float = np.dtype(array.type.to_pandas_dtype()).kind == "f"
    values = list(array.to_numpy(zero_copy_only=False)) if is_float else array.to_pylist()
    missing = (np.isnan(values_of(array)) if is_float else array.is_null().to_numpy(zero_copy_only=False)).tolist()
    texts = ["" if none else number_text(str(value)) for value, none in zip(values, missing)]
    stops = np.cumsum([PAD, *map(len, texts)])
    return np.frombuffer(bytes(PAD) + "".join(texts).encode() + bytes(PAD), np.uint8), stops[:-1], stops[1:]


def places_of(places: Any, most: int) -> np.ndarray:
    """Which of so many values an array of whole numbers names, int32 [B]; the one behind the last for a missing one."""
    if library := _library():
        found = np.empty(len(places), np.int32)
        if library.Places(*_places(places), ctypes.c_int64(most), pointer(found)):
            return found
    numbers = numbers_of(places)
    return np.where(numbers < 0, most, numbers).astype(np.int32)


def count_places(places: np.ndarray, values: int) -> tuple[np.ndarray, np.ndarray]:
    """Which of so many values occur at places [B] int32, in the order of their first ones, and how often each does."""
    if not (library := _library()):
        found, firsts, counts = np.unique(places, return_index=True, return_counts=True)
        order = np.argsort(firsts)
        return found[order], counts[order]
    counts, order = np.zeros(values, np.int64), np.empty(values, np.int32)
    size = library.CountPlaces(pointer(places), ctypes.c_int64(len(places)), pointer(counts), pointer(order))
    return order[:size], counts[order[:size]]


def put_places(places: np.ndarray, values: np.ndarray, target: np.ndarray) -> None:
    """Set the numbers of an int32 array, [B] of any stride, to what stands at places [B] int32 among values int32."""
    if not (library := _library()):
        target[:] = values[places]
        return
    stride = ctypes.c_int64(target.strides[0] // target.itemsize)
    library.PutPlaces(pointer(places), ctypes.c_int64(len(places)), pointer(values), stride, pointer(target))


def numbers_of(places: Any) -> np.ndarray:
    """The whole numbers of an array, int64 [B], -1 for a missing one."""
    numbers: np.ndarray = places.cast("int64").fill_null(-1).to_numpy(zero_copy_only=False)
    return numbers


def is_plain(text: np.ndarray) -> bool:
    """Whether bytes are UTF-8 without control characters."""
    library = _library()
    if library and library.IsPlain(pointer(text), ctypes.c_int64(len(text))):
        return True
    return is_utf8(text.tobytes()) and not bool((text < ord("\t")).any())
