"""Who does the work of preprocessing."""

from dataclasses import dataclass

from src.base.errors import InputError
from src.model_utils.options import NOT_NEGATIVE, matching, one_of, option

ENGINES = ("local", "dask")


@dataclass(frozen=True)
class EngineSpec:
    """Which processes share the work."""

    engine: str = option("local", "local: processes of this machine; dask: workers of Dask", one_of(ENGINES), free=True)
    scheduler: str = option(
        "", "address of a Dask scheduler, tcp://HOST:PORT; without it engine dask starts workers on this machine",
        matching(r"|[a-z]+://\S+", "must be an address such as tcp://HOST:8786"), free=True,
    )  # fmt: skip
    workers: int = option(
        0, "processes of this machine that share the work; 0 for one a core, or the program alone below 4 MiB to read",
        NOT_NEGATIVE, free=True,
    )  # fmt: skip

    def __post_init__(self) -> None:
        if self.scheduler and self.engine != "dask":
            raise InputError(f"scheduler {self.scheduler} has no effect with engine {self.engine}: give --engine=dask")
        if self.scheduler and self.workers:
            raise InputError(
                f"workers {self.workers} has no effect with scheduler {self.scheduler}, which has its own: drop one"
            )
