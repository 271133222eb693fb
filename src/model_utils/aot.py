"""Operators of a compiled library as MindSpore's primitives."""

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import mindspore as ms
from mindspore import ops

from src.model_utils import CPU_THREADS

# What the user allows: os.environ does not show that MindSpore sets the variable to 1. Processes that this one starts
# have this from it, as they may have MindSpore's.
os.environ.setdefault(CPU_THREADS, os.environ.get("OMP_NUM_THREADS", ""))

FLAGS = ("-std=c++17", "-O3", "-march=native", "-ffp-contract=off", "-fno-math-errno", "-shared", "-fPIC", "-pthread",
         "-Wl,-z,nodelete", "-Wl,--no-undefined")  # fmt: skip
"""Of the compiler, for such a library.

No fused multiply-add but where the source asks for one: results round as those of MindSpore's operators do. Never
unloaded: MindSpore does that with the last graph that calls an operator, while what the library began goes on.
"""


def operator(
    library: Path, name: str, shape: Callable[..., Any], dtypes: Sequence[Any] = (), whole: Sequence[int] = ()
) -> ops.Custom:
    """An operator with outputs of these types, or one of float32.

    Its inputs are float32, but int32 at the places in `whole`; others are a TypeError, since the library reads memory
    as it is told to.

    Args:
        library: the compiled library.
        name: of its function.
        shape: gives an output's shape from the shapes of the inputs, or a tuple of them, and refuses what the library
            would read or write wrongly.
        dtypes, whole: see above.
    """
    results = tuple(dtypes) if len(dtypes) > 1 else ms.float32

    def result_types(*given: Any) -> Any:
        for place, dtype in enumerate(given):
            wanted = ms.int32 if place in whole else ms.float32
            if f"[{wanted}]" not in f"[{dtype}]":  # Float32, Tensor[Float32] or Ref[Tensor[Float32]]
                raise TypeError(f"{name}: input {place} is {dtype}; it must be {wanted}")
        return results

    return ops.Custom(f"{library}:{name}", out_shape=shape, out_dtype=result_types, func_type="aot")
