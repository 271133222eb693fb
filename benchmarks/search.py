"""Search for a recipe on rolling folds of the training rows: random options, successive halving, any time again.

    python benchmarks/search.py --data train.txt --output runs                    the whole search
    python benchmarks/search.py --data train.txt --output runs --trials 40 --space my_space.yaml --jobs 2

The rows that a later `preprocess_data.py` makes validation and test of, the last seventh, are never read. What is left
is T rows; fold k trains on the first six sevenths of the first 5/7 T, 6/7 T or T of them, and validates on the seventh
behind, as time goes on. Every trial runs on the first fold; the best share by AUC goes on to the next, and so on.

The space (`search_space.yaml`) maps options of preprocess_data.py or train.py to lists of values, of which a trial
draws one each; a value that is a mapping sets several options together. `base` is what all trials share, and is the
first of them; the changes of it that `start` lists come next, and then the drawn ones. A row a run
goes to OUTPUT/runs.jsonl; the same command goes on from there. At the end all trials become the table of
`results/search.json`, those that went furthest first. With --jobs runs share out the cores.
"""

import argparse
import hashlib
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

import numpy as np
import yaml

from benchmarks import results
from src.model_utils.options import options_of
from src.options import PROGRAMS
from src.preprocessing.source import split
from src.rows.text_file import LineIndex

FOLDS = (5, 6, 7)  # sevenths of the training rows that a fold takes
REFUSED = 2  # exit code of a program that says what is wrong with its input
Options = dict[str, Any]
_preprocessing = threading.Lock()


class RefusedError(Exception):
    """Options that do not go together, or a training that diverged."""


def key_of(options: Options) -> str:
    """A short name of a set of options."""
    return hashlib.sha256(json.dumps(options, sort_keys=True).encode()).hexdigest()[:10]


def flags_of(options: Options, program: str) -> list[str]:
    """The options that a program reads, as flags."""
    known = options_of(PROGRAMS.programs[program])
    return [f"--{name}={str(value).replace(' ', '')}" for name, value in options.items() if name in known]


def call(program: str, *flags: str) -> str:
    """Run a program of the repository; its output, which is shown where it fails."""
    done = subprocess.run([sys.executable, str(ROOT / program), *flags], capture_output=True, text=True, check=False)
    if done.returncode:
        said = (done.stderr or done.stdout).strip().splitlines() or [f"exit code {done.returncode}"]
        # 2 says that the options are wrong; whatever else ends a program may not do so the next time.
        raise (RefusedError if done.returncode == REFUSED else RuntimeError)(f"{program} {' '.join(flags)}: {said[-1]}")
    return done.stdout


def data_folder(raw: Path, folder: Path, rows: int, valid_fraction: float, options: Options) -> Path:
    """The data folder of the first rows with the options of preprocessing; made once."""
    chosen = flags_of(options, "preprocess_data")
    path = folder / f"data-{key_of({'rows': rows, 'valid': valid_fraction, 'flags': chosen})}"
    with _preprocessing:
        if not (path / "manifest.json").is_file():
            call("src/preprocess_data.py", f"--data_path={raw}", f"--output_path={path}", f"--train_line_count={rows}",
                 f"--valid_fraction={valid_fraction}", *chosen)  # fmt: skip
    return path


def at_once(jobs: int, works: Iterable[Callable[[], Any]]) -> list[Any]:
    """What each of the works returns; `jobs` of them run at a time, each on its share of the cores."""
    cores = sorted(os.sched_getaffinity(0))
    shares = [cores[job::jobs] or cores for job in range(jobs)]
    # Affinity is a thread's own, and what the thread starts inherits it.
    with ThreadPoolExecutor(jobs, initializer=lambda: os.sched_setaffinity(0, shares.pop())) as pool:
        return list(pool.map(lambda work: work(), works))


def train(data: Path, folder: Path, seed: int, options: Options) -> dict[str, float]:
    """One training run: the metrics of the network that train.py keeps, and its seconds."""
    place = folder / f"run-{key_of(options)}-{data.name}-{seed}"
    logs = [f"--{log}_file_name={place}.{log}" for log in ("loss", "eval", "metrics")]
    begin = time.perf_counter()
    Path(f"{place}.metrics").unlink(missing_ok=True)
    call("train.py", "--device_target=CPU", results.ORIGINAL, f"--dataset_path={data}", f"--ckpt_path={place}",
         f"--seed={seed}", "--compare_linear=False", "--overwrite=True", *logs,
         *flags_of(options, "train"))  # fmt: skip
    seconds = time.perf_counter() - begin
    lines = [json.loads(line) for line in Path(f"{place}.metrics").read_text(encoding="utf-8").splitlines()]
    evaluations = [line for line in lines if line["kind"] == "eval"]
    kept = next(line for line in evaluations if line["step"] == lines[-1]["best_step"])
    return {name: kept[name] for name in ("auc", "logloss", "acc", "step")} | {"seconds": round(seconds, 1)}


class Runs:
    """A file with a row for each run that was done; each is kept as soon as it ends."""

    def __init__(self, path: Path):
        self.path, self.writing = path, threading.Lock()
        path.parent.mkdir(parents=True, exist_ok=True)
        lines = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
        self.done = {key_of(run["of"]): run for run in map(json.loads, lines)}

    def row(self, of: Options, do: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        """The row of a run, which is done unless it was before; `of` tells it from all others."""
        key = key_of(of)
        if key not in self.done:
            row = {"of": of, **do()}
            with self.writing, self.path.open("a", encoding="utf-8") as file:
                self.done[key] = row
                file.write(json.dumps(row) + "\n")
                print(json.dumps(row), flush=True)
        return self.done[key]


class Search:
    """Trials on the folds of a raw file."""

    def __init__(self, raw: Path, folder: Path):
        self.raw, self.folder, self.runs = raw, folder, Runs(folder / "runs.jsonl")
        train_rows = split(LineIndex(raw).rows, 0.5)["train"][1]
        self.rows = {fold: train_rows * fold // 7 for fold in FOLDS}

    def run(self, options: Options, fold: int, seed: int) -> dict[str, Any]:
        """The row of a run."""

        def do() -> dict[str, Any]:
            data = data_folder(self.raw, self.folder, self.rows[fold], 1.0, options)
            try:
                return train(data, self.folder, seed, options)
            except RefusedError as error:
                return {"auc": 0.0, "error": str(error)}

        return self.runs.row({"options": options, "fold": fold, "seed": seed}, do)

    def halve(self, trials: list[Options], keep: float, seeds: Sequence[int], jobs: int) -> list[tuple[int, Options]]:
        """Successive halving over the folds: each trial with the number of folds that it ran on, best first."""
        trials = list(trials)
        out: list[tuple[int, Options]] = []
        for number, fold in enumerate(FOLDS, 1):
            at_once(jobs, (partial(self.run, options, fold, seed) for options in trials for seed in seeds))
            trials.sort(key=lambda options: -np.mean(self.values(options, "auc", FOLDS[:number], seeds)))
            going_on = round(len(trials) * keep) or 1 if number < len(FOLDS) else 0
            out = [(number, options) for options in trials[going_on:]] + out
            trials = trials[:going_on]
        return out

    def values(self, options: Options, metric: str, folds: Sequence[int], seeds: Sequence[int]) -> list[float]:
        """A metric of a trial's runs; where one was refused, an AUC of 0, and nothing that is a number else."""
        return [self.run(options, fold, seed).get(metric, np.nan) for fold in folds for seed in seeds]

    def table_row(self, folds: int, options: Options, base: Options, seeds: Sequence[int]) -> dict[str, str]:
        """A trial's row of the result table."""
        changes = {name: value for name, value in options.items() if base.get(name) != value}
        row = {"what differs from the base": json.dumps(changes)[1:-1].replace('"', "") or "nothing"}
        for metric, name in (("auc", "AUC"), ("logloss", "logloss")):
            for fold in FOLDS:
                mean = np.mean(self.values(options, metric, [fold], seeds)) if fold in FOLDS[:folds] else None
                row[f"{name}, fold {fold}"] = "" if mean is None else f"{mean:.4f}"
        return row


def draw(space: Options, number: int, seed: int) -> list[Options]:
    """A number of trials, no two alike: the space's base, its starts, and then some with a value of every entry."""
    entries = {name: values for name, values in space.items() if name not in ("base", "start")}
    base = space.get("base", {})
    rng = np.random.default_rng(seed)
    trials: list[Options] = []
    for changes in [{}, *space.get("start", ())]:
        if base | changes not in trials:
            trials.append(base | changes)
    for _ in range(100 * number):  # a small space has fewer
        if len(trials) >= number:
            break
        drawn = dict(base)
        for name, values in entries.items():
            value = values[rng.integers(len(values))]
            drawn |= value if isinstance(value, dict) else {name: value}
        if drawn not in trials:
            trials.append(drawn)
    return trials[:number]


def main() -> None:
    """Search, and write the table of trials."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--space", type=Path, default=ROOT / "benchmarks/search_space.yaml")
    parser.add_argument("--trials", type=int, default=24)
    parser.add_argument("--keep", type=float, default=0.5, help="share of the trials that goes on to the next fold")
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--seed", type=int, default=1, help="of the drawing")
    parser.add_argument("--jobs", type=int, default=1, help="runs at a time")
    arguments = parser.parse_args()
    space = yaml.safe_load(arguments.space.read_text(encoding="utf-8"))
    trials = draw(space, arguments.trials, arguments.seed)
    search, seeds = Search(arguments.data, arguments.output), range(1, arguments.seeds + 1)
    found = search.halve(trials, arguments.keep, seeds, arguments.jobs)
    table = [search.table_row(folds, options, trials[0], seeds) for folds, options in found]
    results.save("search", table)
    print("\n".join(map(str, table)))


if __name__ == "__main__":
    main()
