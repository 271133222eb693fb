"""What several test files share: raw text of our own, and a small data folder that a model can learn from."""

import gc

gc.disable()  # until all tests are there: a sixth of the time of importing MindSpore

import fcntl
import os
import random
import shutil
import signal
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import graphs
import mindspore as ms
import program_310
import pytest
from hypothesis import settings

from src.data.manifest import DataFolder, find
from src.engines.engine import Engine
from src.network.compiled import CompiledOperators, operators_for
from src.network.operators import Operators
from src.network.stock import STOCK
from src.preprocessing.options import PreprocessingSpec
from src.preprocessing.run import preprocess
from src.rows.columns import Columns

ROOT = Path(__file__).resolve().parents[1]
CPU = "--device_target=CPU"
ORIGINAL = f"--config_path={ROOT / 'npu_config.yaml'}"  # the public original's recipe, on whatever device
SMALL = ["--emb_dim=8", "--bottom_mlp=[16,8]", "--top_mlp=[32,1]", "--eval_batch_size=64"]
RUN = [CPU, ORIGINAL, *SMALL, "--batch_size=32", "--epochs=4", "--lr=0.3", "--log_steps=20", "--eval_steps=30"]

ms.set_context(mode=ms.GRAPH_MODE)
ms.set_device("CPU")  # before any test computes, after which it can't be set

settings.register_profile("repeatable", deadline=None, derandomize=True, database=None)
settings.load_profile("repeatable")


# What each of three processes begins with, of two cores: tests that wait for other processes; those of forked ones,
# for which stopping.py has a parent, one in each process that asks; those of graphs, which have most in common.
HANDS = (
    ("ranks", "export", "publishing", "model_utils", "base"),
    ("engines", "preprocessing", "data", "rows", "days"),
    ("training", "network", "checkpoints", "doctor", "report", "metrics"),
)


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    """Each of several processes begins to collect at another place: one compiles a file of tests for all of them."""
    if "PYTEST_XDIST_WORKER" not in os.environ or config.args != config.getini("testpaths"):
        return
    found = [path for path in (ROOT / "tests").iterdir() if path.is_dir() or path.name.startswith("test_")]
    places = sorted(str(path) for path in found if path.name != "__pycache__")
    number = int(os.environ["PYTEST_XDIST_WORKER"].removeprefix("gw"))
    begin = number * len(places) // int(os.environ["PYTEST_XDIST_WORKER_COUNT"])
    config.args = places[begin:] + places[:begin]


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """As many hands of whole files as there are processes, of about as many tests: each process begins with one hand.

    Files of few tests come first in their folder: these take long, and no process should be left alone with one.
    """
    files: dict[Path, list[pytest.Item]] = {}
    for item in items:
        files.setdefault(item.path, []).append(item)
    places = {folder: (hand, place) for hand, names in enumerate(HANDS) for place, folder in enumerate(names)}
    hands: list[list[pytest.Item]] = [[] for _ in range(int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1")))]

    def place(path: Path) -> tuple[int, int, int, Path]:
        return *places.get(path.parent.name, (len(HANDS), 0)), len(files[path]), path

    for path in sorted(files, key=place):
        hand, *_ = place(path)
        own = hands[hand % len(hands)] if hand < len(HANDS) else min(hands, key=len)
        own.extend(files[path])
    items[:] = [item for hand in hands for item in hand]


def pytest_collection_finish() -> None:
    """MindSpore collects garbage before each compilation: spare it all modules, a third of the processor time here."""
    gc.freeze()
    gc.enable()
    gc.set_threshold(20_000, 20, 50)  # as in programs


def pytest_unconfigure() -> None:
    """Or Python goes over all objects again to end."""
    gc.freeze()


graphs.share()


@pytest.fixture
def own_graphs():
    """Cells share no graphs with others, see graphs.py."""
    with graphs.apart():
        yield


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working folder."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def interrupting():
    """SIGINT and SIGTERM interrupt, as `errors.run` has it, also where the tests run in the background of a script."""
    numbers = (signal.SIGINT, signal.SIGTERM)
    before = {number: signal.signal(number, signal.default_int_handler) for number in numbers}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def raw_lines(rows: int, seed: int = 1) -> list[str]:
    """Lines of Criteo's format, without line ends: about one in three is a click, mostly where C1 and C2 say so.

    C1 to C5 have 4 values, the others 12; C3 and C12 have a tail of values that seldom come twice; a tenth of the
    categories and a fifth of the numbers are missing; numbers go down to -2.
    """
    rng = random.Random(seed)
    lines = []
    for _ in range(rows):
        numbers = ["" if rng.random() < 0.2 else str(int(rng.paretovariate(0.7)) - 3) for _ in range(13)]
        codes = [rng.randrange(4 if field < 5 else 12) for field in range(26)]
        cells = ["" if rng.random() < 0.1 else f"{16 * field + code:08x}" for field, code in enumerate(codes)]
        for field in (2, 11):
            if rng.random() < 0.5:
                cells[field] = f"{rng.randrange(1 << 28, 1 << 32):08x}"
        click = rng.random() < (0.8 if codes[0] == 0 or codes[1] == 0 else 0.05)
        lines.append("\t".join([str(int(click)), *numbers, *cells]))
    return lines


def write_raw(path: Path, lines: Sequence[str]) -> Path:
    """Write the lines to a file, making its folder, and return the path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(line + "\n" for line in lines), encoding="utf-8", newline="")
    return path


def files_of(folder: Path, *parts: str) -> dict[str, bytes]:
    """Contents of the files in the folder's parts, by part/name."""
    files = [path for part in parts for path in sorted((folder / part).glob("*")) if path.is_file()]
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def preprocess_lines(
    raw: Path,
    folder: Path,
    columns: Columns | None = None,
    *,
    train_line_count: int = 0,
    overwrite: bool = False,
    engine: Engine | None = None,
    **options: Any,
) -> DataFolder:
    """Preprocess a raw file, with small records and shards unless the options say otherwise."""
    chosen = PreprocessingSpec(
        **({"record_rows": 64, "shard_rows": 512, "train_line_count": train_line_count} | options)
    )
    return preprocess([raw], folder, columns or Columns.numbered(), chosen, overwrite, engine=engine)


@pytest.fixture(scope="session")
def made_once(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, Callable[[Path], object]], Path]:
    """Folders that all processes of a test run share: made_once(name, make) calls make(folder) in the first that asks.

    Another process waits meanwhile. Where `make` fails, the next that asks tries again.
    """
    base = tmp_path_factory.getbasetemp()
    root = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base

    def folder_of(name: str, make: Callable[[Path], object]) -> Path:
        folder, whole = root / f"shared_{name}", root / f"shared_{name}.whole"
        with (root / f"shared_{name}.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not whole.exists():
                shutil.rmtree(folder, ignore_errors=True)
                folder.mkdir()
                make(folder)
                whole.touch()
        return folder

    return folder_of


@pytest.fixture(scope="session")
def tiny_data(made_once) -> DataFolder:
    """2,000 rows: 1,715 to train in 4 shards, 143 to validate, 142 to test. Do not change its files."""
    folder = made_once(
        "tiny", lambda folder: preprocess_lines(write_raw(folder / "train.txt", raw_lines(2000)), folder / "dataset")
    )
    return find(str(folder / "dataset"))


@pytest.fixture(scope="session")
def compiled(made_once) -> CompiledOperators:
    """The compiled operators; the tests need a C++ compiler."""
    made_once("compiled", lambda _: operators_for("CPU", True))  # the library, in build/
    found = operators_for("CPU", True)
    assert isinstance(found, CompiledOperators), "install g++"
    return found


@pytest.fixture(params=["stock", "compiled"])
def operators(request: pytest.FixtureRequest, compiled: CompiledOperators) -> Operators:
    """Both ways to compute: by MindSpore's operators alone, and with the compiled ones."""
    return compiled if request.param == "compiled" else STOCK


@pytest.fixture(scope="session")
def run_folder(tiny_data: DataFolder, made_once) -> Path:
    """The folder of a run of train.py, 4 epochs of 53 steps with a small network. Do not change its files."""

    def make(folder: Path) -> None:
        import train

        with pytest.MonkeyPatch.context() as patch:
            patch.chdir(folder)
            train.main([f"--dataset_path={tiny_data.path}", *RUN])

    return made_once("run", make)


@pytest.fixture(scope="session")
def exports(run_folder: Path, made_once) -> dict[str, Path]:
    """The run's model, exported for batches of 8 rows: tables on the host, by type, and in the graph."""
    kinds = {"graph": "graph", "fp32": "host", "fp16": "host", "int8": "host"}

    def make(folder: Path) -> None:
        import export

        for name, placement in kinds.items():
            more = [] if placement == "graph" else [f"--table_type={name}"]
            export.main([CPU, f"--checkpoint_path={run_folder}/checkpoint", f"--export_path={folder / name}",
                         f"--table_placement={placement}", "--export_batch_size=8", *more])  # fmt: skip

    folder = made_once("exports", make)
    return {name: folder / name for name in kinds}


@pytest.fixture(scope="session")
def coded(exports: dict[str, Path], made_once) -> Path:
    """203 rows in raw.txt, and in rows/ as preprocess.py codes them for the C++ program. Do not change its files."""

    def make(folder: Path) -> None:
        import preprocess

        lines = raw_lines(203, seed=11)
        lines[5] = "0" + "\t" * 39
        lines[6] = "\t".join([*lines[6].split("\t")[:38], "never seen", "neither"])
        text = "\r\n".join(lines)  # and no end of the last line
        (folder / "raw.txt").write_text(text, newline="")
        preprocess.main([f"--dataset_path={folder}/raw.txt", f"--export_path={exports['fp32']}",
                         f"--preprocess_path={folder}/rows"])  # fmt: skip

    return made_once("coded", make)


def _build(*options: str) -> Path:
    """The C++ program, really built with MindSpore Lite's libraries.

    These are fetched once. Where that is not possible, DLRM_OFFLINE=1 skips the tests that need them.
    """
    command = ["bash", str(ROOT / "ascend310_infer/build.sh"), "--cpu", *options]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if "can't be fetched from PyPI" in done.stderr and os.environ.get("DLRM_OFFLINE") == "1":
        pytest.skip(f"MindSpore Lite is not to be had: {done.stderr.splitlines()[-1]}")
    assert done.returncode == 0, f"{done.stderr}\n(where there is no network, DLRM_OFFLINE=1 skips this)"
    return Path(done.stdout.splitlines()[-1].partition(" ")[2])  # built, or unchanged


@pytest.fixture(scope="session")
def program(made_once) -> Path:
    """The C++ program as users get it."""
    folder = made_once("program", lambda folder: (folder / "path").write_text(str(_build())))
    return Path((folder / "path").read_text())


@pytest.fixture(scope="session")
def scored_once(program: Path, exports: dict[str, Path], coded: Path, made_once) -> Callable[[str], Path]:
    """Where the C++ program left its scores of the coded rows: scored_once(kind) is the folder of one export's.

    It had no further options. Do not change its files.
    """

    def make(kind: str, folder: Path) -> None:
        done = program_310.run(program, f"--model={exports[kind]}/dlrm.mindir", f"--input={coded}/rows",
                               "--device_type=CPU", f"--output={folder}")  # fmt: skip
        assert (done.returncode, done.stderr) == (0, "")

    return lambda kind: made_once(f"scored_{kind}", lambda folder: make(kind, folder))


@pytest.fixture(scope="session")
def sanitized_program(made_once) -> Path:
    """The C++ program with the address and undefined behaviour sanitizers."""
    folder = made_once("sanitized", lambda folder: (folder / "path").write_text(str(_build("--sanitize"))))
    return Path((folder / "path").read_text())
