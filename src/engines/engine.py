"""What maps a pure step over its pieces, and its two makers.

Steps are the same for all engines; none knows which one does it.
"""

import contextlib
import importlib.util
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

from src.base.errors import InputError
from src.base.workers import run_here, run_parallel
from src.engines.options import EngineSpec

REQUIREMENTS = "requirements-cluster.txt"
_LITTLE_BYTES = 4 << 20  # of files to read: less is done before other processes have begun


class Engine(Protocol):
    """Who does the pieces of a step.

    Attributes:
        is_forked: whether workers have what this process has in memory, and end with it. Others get values by files,
            several may do one piece, and they may outlive this process: so they leave results aside, and who asked for
            these puts them in their place.
        workers: processes of this machine among them, 0 for one a core.
    """

    is_forked: bool
    workers: int

    def begin(self, folder: Path, reads: Sequence[Path]) -> None:
        """See that the workers are fit for a run.

        Args:
            folder: for the run's own files, which is there and is held by this process.
            reads: all files that steps read beside it.

        Raises:
            InputError: one is not, or there is none.
        """

    def map(
        self, what: str, function: Callable[..., Any], work: Sequence[tuple[Any, ...]], sizes: Sequence[int],
        unit: str, shared: tuple[Any, ...] = (), follows: Sequence[bool] = (), needs: str = "",
    ) -> Iterator[Any]:  # fmt: skip
        """The results of function(*arguments, *shared) for each of the arguments, in any order, as they come.

        Args:
            what, function, work, sizes, unit, shared, follows: as of `run_parallel`.
            needs: the package that workers must have for it; "" for none.

        Raises:
            InputError: what the function raises, or workers were lost too often.
        """


class Local:
    """Forked processes of this machine; this process, where there is little to read.

    Args:
        workers: how many at most, 0 for one a core, or none where there is little to read.
    """

    is_forked = True

    def __init__(self, workers: int = 0):
        self.workers, self._here = workers, False

    def begin(self, folder: Path, reads: Sequence[Path]) -> None:
        """See `Engine`; they see what this process sees."""
        self._here = not self.workers and sum(path.stat().st_size for path in reads) < _LITTLE_BYTES

    def map(
        self, what: str, function: Callable[..., Any], work: Sequence[tuple[Any, ...]], sizes: Sequence[int],
        unit: str, shared: tuple[Any, ...] = (), follows: Sequence[bool] = (), needs: str = "",
    ) -> Iterator[Any]:  # fmt: skip
        """See `Engine`."""
        if self._here:
            return run_here(what, function, work, sizes, unit, shared)
        return run_parallel(what, function, work, sizes, unit, shared, follows, self.workers)


@contextlib.contextmanager
def engine_of(spec: EngineSpec) -> Iterator[Engine]:
    """The engine that options name, which ends with the block.

    Raises:
        InputError: it is not installed, or its scheduler is not there.
    """
    if spec.engine == "local":
        yield Local(spec.workers)
        return
    if importlib.util.find_spec("distributed") is None:
        raise InputError(f"engine dask needs distributed, not installed: pip install -r {REQUIREMENTS}")
    from src.engines.over_dask import dask_engine

    with dask_engine(spec.scheduler, spec.workers) as engine:
        yield engine
