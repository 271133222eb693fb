"""Operators compiled for the CPU from cpu_kernels.cc, which take the place of several of MindSpore's at a time.

They are built on first use with the machine's own C++ compiler, and kept in build/. Without a compiler, and on Ascend
and GPU, MindSpore's operators do the same work; tests compare the two. benchmarks/train_step.py shows what they gain.

Legend: B batch, F fields, D width of a vector, P pairs of vectors, O outputs of a layer, R rows of all tables.
"""

import hashlib
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mindspore as ms
from mindspore import Parameter, Tensor, nn, ops

SOURCE = Path(__file__).with_name("cpu_kernels.cc")
BUILD = Path(__file__).resolve().parents[1] / "build"
# No fused multiply-add but where the source asks for one: updates round as MindSpore's operators do.
_FLAGS = ("-std=c++17", "-O3", "-march=native", "-ffp-contract=off", "-fno-math-errno", "-shared", "-fPIC", "-pthread")
_WIDTHS = (16, 32, 64, 128)


class Kernels:
    """The operators of a compiled library; each method gives one as a primitive for a cell to call.

    Args:
        library: the compiled library.
    """

    def __init__(self, library: Path):
        self.library = library

    def _operator(self, name: str, shape: Callable[..., Any], outputs: int = 1) -> ops.Custom:
        """`shape` gives an output's shape from the shapes of the inputs, or a tuple of them; all are float32."""
        dtypes = ms.float32 if outputs == 1 else (ms.float32,) * outputs
        return ops.Custom(f"{self.library}:{name}", out_shape=shape, out_dtype=lambda *_: dtypes, func_type="aot")

    def lookup(self) -> ops.Custom:
        """(table [R, D], rows [B, F] int32) to vectors [B, F, D]; a row outside the table is an error."""
        return self._operator("Lookup", lambda table, rows: [*rows, table[1]])

    @staticmethod
    def can_interact(width: int) -> bool:
        """Whether there is an interaction operator for vectors of this width D."""
        return width in _WIDTHS

    def interaction(self, pairs: int) -> tuple[ops.Custom, ops.Custom]:
        """(bottom [B, D], vectors [B, F, D]) to [B, D + P], and (bottom, vectors, gradient) to both gradients."""
        return (
            self._operator("Interaction", lambda bottom, _: [bottom[0], bottom[1] + pairs]),
            self._operator("InteractionGrad", lambda bottom, vectors, _: (bottom, vectors), 2),
        )

    def bias_relu(self) -> tuple[ops.Custom, ops.Custom]:
        """Both in place: (product [B, O], bias [O]) to [1], and (gradient, result) to the gradient of the bias [O]."""
        return (
            self._operator("BiasRelu", lambda *_: [1]),
            self._operator("BiasReluGrad", lambda gradient, _: [gradient[1]]),
        )

    def table_update(self, rule: str) -> ops.Custom:
        """(table, rows [B, F], gradients [B, F, D], rate, constants [6], states...) to [1]; updates in place.

        Args:
            rule: SGD, Adagrad, RowwiseAdagrad or Adam.
        """
        return self._operator(f"Table{rule}", lambda *_: [1])

    def dense_update(self, rule: str) -> ops.Custom:
        """(rate, constants [6], values..., gradients..., first states..., second states...) to [1]; in place.

        Args:
            rule: SGD, Adagrad or Adam.
        """
        return self._operator(f"Dense{rule}", lambda *_: [1])


class Branch(nn.Cell):
    """Gives its input back, behind a branch that is never taken, which makes the graph faster.

    On a machine of two cores MindSpore runs a graph without branches and of at most 100 operators on the thread that
    calls it, which then spins while both threads of a matrix product need a core each; the compiled operators make
    graphs that small. With a branch they run on the runtime's own thread: in 0.7 times the time.

    Inputs and outputs: a tensor.
    """

    def __init__(self) -> None:
        super().__init__()
        self.never = Parameter(Tensor(False), name="never", requires_grad=False)

    def construct(self, x):
        if self.never:
            x = x + x
        return x


def load() -> Kernels | None:
    """The kernels, compiled if this source has not been compiled for this processor yet.

    Returns None, and says why in one line, where they can't be had.
    """
    compiler = shutil.which(os.environ.get("CXX", "g++"))
    if not compiler:
        _tell("there is no C++ compiler; install g++ (or name one in CXX)")
        return None
    library = BUILD / f"cpu_kernels-{_fingerprint(compiler)}.so"
    if not library.exists():
        beside = library.with_suffix(f".{os.getpid()}.tmp")
        try:
            BUILD.mkdir(exist_ok=True)
            print("compiling the CPU operators, once for this machine", flush=True)
            subprocess.run([compiler, *_FLAGS, "-o", beside, SOURCE], check=True, capture_output=True, text=True)
            beside.rename(library)
        except OSError as error:
            _tell(f"{BUILD} can't be written ({error.strerror})")
            return None
        except subprocess.CalledProcessError as error:
            _tell(f"{compiler} can't compile {SOURCE}: {(error.stderr.strip() or '?').splitlines()[0]}")
            return None
        finally:
            beside.unlink(missing_ok=True)
    return Kernels(library)


def _tell(reason: str) -> None:
    print(f"CPU operators of MindSpore alone, slower than the compiled ones: {reason}", file=sys.stderr, flush=True)


def _fingerprint(compiler: str) -> str:
    """Of all that the library depends on: source, flags, compiler and the processor's instructions."""
    processor = [line for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines() if "flags" in line]
    version = subprocess.run([compiler, "--version"], capture_output=True, check=False).stdout
    parts = (SOURCE.read_bytes(), " ".join(_FLAGS).encode(), version, "".join(processor[:1]).encode())
    return hashlib.sha256(b"\0".join(parts)).hexdigest()[:16]
