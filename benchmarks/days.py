"""A model that goes on from day to day beside one trained anew on all days so far, and one that stands still.

    python benchmarks/days.py --folder=FOLDER [--rows=20000] [--days=10]      generated days, of a law that drifts
    python benchmarks/days.py --folder=FOLDER --data=train.txt [--best]       sevenths of a file of Criteo's form

A day is scored by the models of the days before it, and then trained on. All train on the same rows, the first six
sevenths of each day. Generated days are trained on anew with cpu_config.yaml as it is, which the daily loop's first day
has too; those of a file with as many epochs as the daily loop, one, and with --best by best_config.yaml too. Times are
those of the processor, so that other work on the machine hardly counts: of preprocessing and training, and of all that
the daily loop does, its evaluations and exports among it. What FOLDER holds already is not done again.
"""

import argparse
import json
import resource
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

import numpy as np

from benchmarks import results
from src.data.manifest import find
from src.days.__main__ import next_day
from src.days.model_folder import ModelFolder
from src.options import EvalOptions, PreprocessDataOptions, TrainOptions, resolve_values
from src.preprocess_data import make_data_folder
from src.run import train
from src.synthetic import day_name, generate_days
from src.training.evaluation import evaluate_checkpoint
from src.training.prepare import start

Options = dict[str, Any]
Figures = dict[str, Any]
PLAIN: Options = {"device_target": "CPU", "report": False, "compare_linear": False}
LOOP: Options = {"fail_below": -1.0}
ONCE: Options = {"epochs": 1}
SEVENTHS, FIRST_COUNTED = 7, 3


class Work:
    """What is done in a folder, each piece once.

    Args:
        folder: where its files and figures go.
    """

    def __init__(self, folder: Path):
        self.folder, self._path = folder, folder / "figures.json"
        folder.mkdir(parents=True, exist_ok=True)
        self._done: dict[str, Any] = json.loads(self._path.read_text()) if self._path.is_file() else {}

    def once(self, name: str, work: Callable[[], Any]) -> Any:
        """What a piece of work gave, now or before."""
        if name not in self._done:
            self._done[name] = work()
            self._path.write_text(json.dumps(self._done, indent=1))
        return self._done[name]

    def timed(self, name: str, work: Callable[[], Any]) -> Figures:
        """The same, with its seconds of the processor and of the clock."""

        def run() -> Figures:
            cpu, clock = cpu_s(), time.perf_counter()
            found = work()
            return {"found": found, "cpu_s": cpu_s() - cpu, "clock_s": time.perf_counter() - clock}

        return self.once(name, run)


def cpu_s() -> float:
    """Of this process, and of those that it has waited for."""
    used = [resource.getrusage(whose) for whose in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(one.ru_utime + one.ru_stime for one in used)


def parts_of(day: Path, folder: Path, rows: dict[str, int]) -> dict[str, Path]:
    """Files of a day's parts, of so many rows each, as the daily loop has them."""
    lines, begin, found = day.read_bytes().splitlines(keepends=True), 0, {}
    for part, count in rows.items():
        found[part] = folder / f"{day.stem}.{part}.txt"
        found[part].write_bytes(b"".join(lines[begin : begin + count]))
        begin += count
    return found


def anew(folder: Path, parts: list[dict[str, Path]], options: Options) -> None:
    """Train on the training rows of some days, choosing the network on the last one's validation rows."""
    given = {
        **options, "data_path": ",".join(str(one["train"]) for one in parts), "valid_path": str(parts[-1]["valid"]),
        "output_path": str(folder / "dataset"), "dataset_path": str(folder / "dataset"), "overwrite": True,
        "ckpt_path": str(folder / "checkpoint"), "loss_file_name": str(folder / "loss.log"),
        "eval_file_name": str(folder / "auc.log"), "metrics_file_name": str(folder / "metrics.jsonl"), "resume": False,
    }  # fmt: skip
    make_data_folder(resolve_values(PreprocessDataOptions, given, "days"))
    chosen = resolve_values(TrainOptions, given, "days")
    runtime = start(chosen.device, chosen.compute, chosen.parallel)
    train(chosen.data, chosen.network, chosen.optimization, chosen.schedule, chosen.evaluation, chosen.kept, runtime)


def scored(checkpoint: Path, day: Path, folder: Path) -> Figures:
    """AUC and logloss of all rows of a day."""
    given = {
        "data_path": str(day), "output_path": str(folder / f"scored-{day.stem}"), "vocab_path": str(checkpoint),
        "overwrite": True, "checkpoint_path": str(checkpoint), "device_target": "CPU",
    }  # fmt: skip
    data = make_data_folder(resolve_values(PreprocessDataOptions, given, "days"))
    chosen = resolve_values(EvalOptions, given, "days")
    found = evaluate_checkpoint(
        checkpoint / "dlrm.ckpt", find(str(data.path)), "test", chosen.network, start(compute=chosen.compute), 16384
    )
    assert found  # of one process
    return {name: found.metrics[name] for name in ("auc", "logloss")}


class Days:
    """Models over some days.

    Args:
        work: where they are.
        files: of the days.
        first: options of the daily loop's first day.
    """

    def __init__(self, work: Work, files: list[Path], first: Options):
        self.work, self.files, self._first = work, files, first
        self.model = ModelFolder(work.folder / "model")
        self.count = len(files) - 1  # the last day is only scored

    def daily(self) -> tuple[dict[int, Figures], float]:
        """What the daily loop scores on each day from the second, by its number from 1, and the time that it took."""
        seconds = 0.0
        for number, file in enumerate(self.files[: self.count], 1):
            flags = {**PLAIN, **LOOP, **self._first} if number == 1 else {}
            done = self.work.timed(f"daily {number}", partial(self._next, file, flags))
            seconds += done["cpu_s"]
        found = {line["day"]: line["progressive"] for line in self.model.history()[1 : self.count]}
        last = self.model.folder_of(self.count) / "checkpoint"
        found[len(self.files)] = self.work.once(
            "daily, last", lambda: scored(last, self.files[-1], self.work.folder / "daily")
        )
        return found, seconds

    def _next(self, file: Path, flags: Options) -> int:
        return int(next_day(self.model.place, str(file), flags)["day"])

    def retrained(self, name: str, options: Options, begin: int = 2) -> tuple[dict[int, Figures], float]:
        """The same of models that are trained anew on all days so far, from a day on, and the time that these took.

        Behind the first day the daily loop's model is the same.
        """
        lines, found, seconds = self.model.history(), {}, 0.0
        folder = self.work.folder / name
        folder.mkdir(exist_ok=True)
        parts = [parts_of(file, folder, line["rows"]) for file, line in zip(self.files, lines)]
        for number in range(begin, self.count + 1):
            place = folder / f"{number:04d}"
            place.mkdir(exist_ok=True)
            done = self.work.timed(f"{name} {number}", partial(anew, place, parts[:number], PLAIN | options))
            seconds += done["cpu_s"]
            behind = self.files[number]
            found[number + 1] = self.work.once(
                f"{name} {number}, scored", partial(scored, place / "checkpoint", behind, place)
            )
        return found, seconds

    def still(self) -> dict[int, Figures]:
        """The same of the model of the first day."""
        first = self.model.folder_of(1) / "checkpoint"
        return {
            number: self.work.once(f"still {number}", partial(scored, first, file, self.work.folder / "still"))
            for number, file in enumerate(self.files[1:], 2)
        }


def generated(folder: Path, rows: int, count: int) -> None:
    """Days of a law that drifts."""
    work = Work(folder / f"generated-{rows}")
    raw = work.folder / "raw"
    best = work.once("raw", lambda: [one.bayes_auc for one in generate_days(raw, count, rows=rows)])
    days = Days(work, [raw / day_name(day) for day in range(count)], {})
    daily, daily_s = days.daily()
    retrained, anew_s = days.retrained("retrained", {})
    first_s = work.timed("daily 1", dict)["cpu_s"]  # which stands for training on the first day anew, too
    still = days.still()
    table = [
        {
            "day": number, "best reachable AUC": f"{best[number - 1]:.4f}", "daily loop": f"{daily[number]['auc']:.4f}",
            "trained anew on all days before": f"{retrained[number]['auc']:.4f}",
            "first day's model": f"{still[number]['auc']:.4f}",
        }
        for number in sorted(retrained)
    ]  # fmt: skip
    below = max(retrained[number]["auc"] - daily[number]["auc"] for number in retrained)
    above = daily[count]["auc"] - still[count]["auc"]
    share = daily_s / (first_s + anew_s)
    results.save("days_synthetic", table, most_below=below, above_still=above, cpu_share=share, cpu_s=daily_s)
    print(f"most_below={below:.4f} above_still={above:.4f} cpu_share={share:.3f} cpu_s={daily_s:.0f}")


def of_file(folder: Path, data: Path, with_best: bool) -> None:
    """Sevenths of a file as days."""
    work = Work(folder / "sevenths")
    lines = data.read_bytes().splitlines(keepends=True)
    files = [work.folder / f"day-{number}.txt" for number in range(SEVENTHS)]
    for number, file in enumerate(files):
        low, high = (len(lines) * end // SEVENTHS for end in (number, number + 1))
        file.write_bytes(b"".join(lines[low:high]))
    days = Days(work, files, ONCE)
    found = {"daily loop": days.daily()[0], "trained anew, as many epochs": days.retrained("retrained", ONCE)[0]}
    if with_best:
        found["trained anew, best_config.yaml"] = days.retrained(
            "best", {"config_path": str(ROOT / "best_config.yaml")}
        )[0]
    counted = range(FIRST_COUNTED, SEVENTHS + 1)
    table = [{"day": str(number), **{name: f"{one[number]['auc']:.4f}" for name, one in found.items()}}
             for number in counted]  # fmt: skip
    means = {name: float(np.mean([one[number]["auc"] for number in counted])) for name, one in found.items()}
    table.append({"day": "mean", **{name: f"{mean:.4f}" for name, mean in means.items()}})
    results.save("days_real", table, means=means)
    print(" ".join(f"{name.replace(' ', '_')}={mean:.4f}" for name, mean in means.items()))


def main() -> None:
    """Measure as the command line says."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, required=True, help="where files go")
    parser.add_argument("--rows", type=int, default=20_000, help="of each generated day")
    parser.add_argument("--days", type=int, default=10, help="generated days")
    parser.add_argument("--data", type=Path, help="a file of Criteo's form, in order of time")
    parser.add_argument("--best", action="store_true", help="train best_config.yaml anew each day, too")
    arguments = parser.parse_args()
    if arguments.data:
        of_file(arguments.folder.absolute(), arguments.data, arguments.best)
    else:
        generated(arguments.folder.absolute(), arguments.rows, arguments.days)


if __name__ == "__main__":
    main()
