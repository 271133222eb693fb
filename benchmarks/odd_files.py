"""Odd inputs through the whole chain: preprocessing, training, evaluation, export, and scoring in Python and in C++.

    python benchmarks/odd_files.py              all cases of odd_cases.py and odd_columns.py
    python benchmarks/odd_files.py --quick      a few of them; within 30 s
    python benchmarks/odd_files.py --only=gzip  those whose name holds this
    python benchmarks/odd_files.py --jobs=N     so many at once, by default as many as there are processors

Each case is `right`: all programs saw the rows that were written, and gave the same scores by every door; or `refused`:
one line, exit code 2; or a FAULT: anything else, be it an accepted input that must not be, other rows, a traceback, a
crash or a hang. The last line is `cases=N right=.. refused=.. faults=..`, and the exit code is 1 unless
all cases are right or refused.
"""

import argparse
import contextlib
import functools
import gc
import json
import os
import subprocess
import sys
import tempfile
import threading
import traceback
from collections import Counter, deque
from collections.abc import Callable, Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from benchmarks import odd_cases, odd_columns
from benchmarks.odd_cases import Input, Row

PROGRAM = ROOT / "ascend310_infer/out/main"
CASES = odd_cases.CASES | odd_columns.CASES
QUICK = ("one line that is not utf-8", "semicolons and header", "changed gzip", "tar.gz", "7 rows", "number '1e39'",
         "one file twice", "columns with names of the program's", "files of one name")  # fmt: skip
SECONDS = 400  # for a case; a longer one hangs
_CPU = "--device_target=CPU"
_NETWORK = ("--emb_dim=4", "--bottom_mlp=[4]", "--top_mlp=[1]")
_EVALUATED = "--eval_batch_size=64"  # the default has a room for 16,384 rows, which take gigabytes of 300 fields


def run_case(make: Callable[[], Input], program: Path | None) -> tuple[str, str]:
    """Verdict and reason of a case, in the working folder."""
    from src.base.errors import InputError

    try:
        made = make()
        go(made, program)
    except (InputError, OSError) as error:
        line = str(error)
        return (
            ("refused", line) if (line and isinstance(error, InputError)) or error.filename else ("FAULT", repr(error))
        )
    except AssertionError as error:
        return "FAULT", f"wrong: {error}"
    except BaseException as error:
        last = traceback.extract_tb(error.__traceback__)[-1]
        return "FAULT", f"{Path(last.filename).name} line {last.lineno}: {error!r}"
    return ("FAULT", "wrong: it was accepted") if made.rows is not None and not made.rows else ("right", "")


def go(made: Input, program: Path | None) -> None:
    """Take an input through all programs, and compare what they saw.

    Raises:
        AssertionError: it is not what was written, or not the same by every door.
    """
    import eval as eval_program
    import export as export_program
    import train as train_program
    from src import preprocess_data
    from src.data.manifest import find

    if made.schema:
        Path("schema.yaml").write_text(json.dumps(made.schema), encoding="utf-8")
    schema = ["--schema=schema.yaml"] if made.schema else ["--dense_dim=2", "--slot_dim=3"]
    records = ["--record_rows=16", "--shard_rows=64", "--output_path=data"]
    preprocess_data.main([f"--data_path={made.path}", *schema, *records, *made.options])
    data = find("data")
    if made.rows is not None:
        check_data(data, made.rows, made.columns)
    import_the_rest()
    small = [*_NETWORK, "--batch_size=8", _EVALUATED]
    train_program.main([_CPU, "--dataset_path=data", *small, "--lr=0.3", "--report=False"])
    part = "test" if "test" in data.manifest.parts else "train"
    eval_program.main([_CPU, f"--dataset_path=data/{part}", _EVALUATED])
    export_program.main([_CPU, "--table_placement=host"])
    check_scores(made, program)


@functools.cache
def import_the_rest() -> None:
    """Import what comes behind preprocessing; MindSpore collects garbage before each compilation: spare it all that."""
    import src.run
    import src.scorer  # noqa: F401

    gc.collect()
    gc.freeze()


def check_data(data, rows: Sequence[Row], columns: tuple[tuple[str, ...], tuple[str, ...]]) -> None:
    """Compare a data folder with plain loops over the rows."""
    import math

    import numpy as np

    from src.data.encoder import load_encoder
    from src.data.manifest import VOCABULARY
    from src.dataset import batches_of
    from src.rows.keys import key_of

    parts = data.manifest.parts
    coded = [batch for part in ("train", "valid", "test") if part in parts for batch in batches_of(data, part, 64)]
    dense, ids, labels = (np.concatenate(column) for column in zip(*coded))
    assert len(ids) == len(rows), f"{len(ids)} rows in place of {len(rows)}"
    assert labels[:, 0].tolist() == [float(row.label) for row in rows], "other labels"
    logs = [[math.log1p(max(float(cell or 0), 0)) for cell in row.numbers] for row in rows]
    assert np.allclose(dense, np.array(logs).reshape(dense.shape), rtol=1e-5, atol=1e-6), "other numbers"
    train = parts["train"].rows
    seed = load_encoder(data.path / VOCABULARY, data.manifest.dense).vocabulary.key_seed
    for field in range(len(columns[1])):
        counted = Counter(row.texts[field] for row in rows[:train])
        order = sorted(counted, key=lambda text: (-counted[text], key_of(text, seed)))
        expected = [order.index(row.texts[field]) + 1 if row.texts[field] in counted else 0 for row in rows]
        assert ids[:, field].tolist() == expected, f"other ids in {columns[1][field]!r}"


def check_scores(made: Input, program: Path | None) -> None:
    """Compare the scores of the same rows by all doors."""
    import numpy as np
    import pandas as pd

    import postprocess as postprocess_program
    import preprocess as preprocess_program
    from src.export.scored_files import RowFiles, Scores
    from src.scorer import Scorer

    scorer = Scorer("export")
    preprocess_program.main([f"--dataset_path={made.path}", *made.options])
    rows = RowFiles.load(Path("preprocess_Result"))
    read = {
        name: np.concatenate(
            [np.fromfile(rows.path / name / file, kind).reshape(count, -1) for file, count in rows.files]
        )
        for name, kind in (("dense", "<f4"), ("ids", "<i4"))
    }
    scores = scorer.score_ids(read["dense"], read["ids"])
    assert made.rows is None or len(scores) == len(made.rows), "other rows scored"
    if not made.options:
        paths = [Path(made.path)] if Path(made.path).is_file() else [Path(name) for name in made.path.split(",")]
        by_file = np.concatenate([scorer.score_lines(path, has_labels=True) for path in paths if path.stat().st_size])
        assert alike(by_file, scores), "score_lines(path) differs"
        frames = [scorer.read_csv(path, has_labels=True) for path in paths if path.stat().st_size and not made.columnar]
        assert not frames or alike(np.concatenate([scorer.score(frame) for frame in frames]), scores), (
            "read_csv differs"
        )
    if made.rows is not None:
        names = [*scorer.columns.dense, *scorer.columns.categorical]
        cells = pd.DataFrame([[*row.numbers, *row.texts] for row in made.rows], columns=names)
        assert alike(scorer.score(cells), scores), "a DataFrame differs"
    if program:
        command = [program, "--model=export/dlrm.mindir", "--input=preprocess_Result", "--device_type=CPU"]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"the C++ program: {done.stderr}"
        found = Scores.load(Path("result_Files"), rows).values
        assert alike(found, scores, 1e-5), "the C++ program differs"
        postprocess_program.main([])
        table = pd.read_csv("scores.csv")
        assert len(table) == len(scores), "other rows in scores.csv"


def alike(found, scores, tolerance: float = 1e-6) -> bool:
    """Whether scores are the same but for rounding, which depends on the size of a batch."""
    return len(found) == len(scores) and bool((abs(found - scores) <= tolerance).all())


def verdict_of(name: str, folder: Path, program: Path | None) -> tuple[str, str]:
    """Verdict and reason of a case by its name, in this process and a folder of its own, where it then works."""
    place = folder / f"{list(CASES).index(name):03d}"
    place.mkdir()
    os.chdir(place)
    return run_case(CASES[name], program)


def work(folder: Path, program: Path | None) -> None:
    """A process of its own: take each case that is named on standard input through the chain, and tell of it."""
    told = os.fdopen(os.dup(1), "w")
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    for line in sys.stdin:
        verdict, reason = verdict_of(json.loads(line), folder, program)
        print(json.dumps([verdict, reason]), file=told, flush=True)


class Worker(threading.Thread):
    """Takes case after case to a process, and to another one if that dies or hangs."""

    def __init__(self, left: "deque[str]", folder: Path, program: Path | None):
        super().__init__()
        self.left, self.command = left, [sys.executable, __file__, f"--folder={folder}", f"--program={program or ''}"]
        self.verdicts: dict[str, tuple[str, str]] = {}

    def run(self) -> None:
        while self.left:
            pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
            with subprocess.Popen(self.command, **pipes, text=True) as process:
                with contextlib.suppress(IndexError):  # none is left
                    while process.poll() is None:
                        self.take(self.left.popleft(), process)
                process.kill()

    def take(self, name: str, process: "subprocess.Popen[str]") -> None:
        timer = threading.Timer(SECONDS, process.kill)
        timer.start()
        try:
            verdict, reason = _answer(name, process)
        finally:
            timer.cancel()
        self.verdicts[name] = verdict, reason
        print(f"{verdict:8} {name}{': ' if reason else ''}{reason}", flush=True)


def _answer(name: str, process: "subprocess.Popen[str]") -> tuple[str, str]:
    """What a process says of a case; one that says nothing is ended."""
    assert process.stdin
    assert process.stdout
    line = ""
    try:
        print(json.dumps(name), file=process.stdin, flush=True)
        line = process.stdout.readline()
    except OSError:  # it has died behind its last verdict
        with contextlib.suppress(OSError):
            process.stdin.close()  # with the name in it, which nobody will read
    if line.endswith("\n"):
        verdict, reason = json.loads(line)
        return verdict, reason
    process.kill()
    process.wait()
    return "FAULT", "the process died or hung"


def main(argv: Sequence[str]) -> int:
    """Run the cases that the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--only", default="")
    parser.add_argument("--jobs", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--program", default=str(PROGRAM), help="the C++ program; empty for none")
    parser.add_argument("--folder", help=argparse.SUPPRESS)
    given = parser.parse_args(argv)
    program = Path(given.program).resolve() if given.program else None  # each case has a working folder of its own
    if given.folder:
        work(Path(given.folder), program)
        return 0
    if program == PROGRAM and not PROGRAM.is_file():
        subprocess.run(["bash", str(ROOT / "ascend310_infer/build.sh"), "--cpu"], check=True)
    if program and not program.is_file():
        parser.error(f"--program {given.program} is no file: build it, or leave the option away")
    names = [name for name in (QUICK if given.quick else CASES) if given.only in name]
    with tempfile.TemporaryDirectory(prefix="odd_files") as folder:
        left = deque(names)
        workers = [Worker(left, Path(folder), program) for _ in range(min(given.jobs, len(names)))]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
    verdicts = Counter(verdict for worker in workers for verdict, _ in worker.verdicts.values())
    print(f"cases={len(names)} right={verdicts['right']} refused={verdicts['refused']} faults={verdicts['FAULT']}")
    return int(verdicts["right"] + verdicts["refused"] != len(names))  # a case without a verdict is a fault as well


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
