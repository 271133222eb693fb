"""Runs side by side, from the reports and scores that they left."""

import math
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from src.base.errors import InputError
from src.base.locks import is_held
from src.checkpoints.names import LOCK, REPORT, REPORT_PAGE, SCORES, UNFINISHED
from src.metrics.bootstrap import Interval, differences
from src.metrics.monitored import MONITORED
from src.report.files import load_report
from src.report.plots import Axes, Series, number, plot
from src.report.style import page, section, table

_FIRST = ("auc", "logloss")  # of a table's metrics


@dataclass(frozen=True)
class ComparedRun:
    """A run that ended: its folder as the user named it, report, labels, logits, and which rows these are of; and the
    weights of these, if they have some."""

    name: str
    report: dict[str, Any]
    labels: np.ndarray
    logits: np.ndarray
    rows_identity: str
    weights: np.ndarray | None = None

    @classmethod
    def load(cls, name: str) -> "ComparedRun":
        """Read a run's folder, which its report may stand for.

        Raises:
            InputError: there is no report, or none of an evaluation, or the scores are missing or damaged.
        """
        folder = Path(name).parent if Path(name).name in (REPORT, REPORT_PAGE) else Path(name)
        if not (folder / REPORT).exists() and (folder / UNFINISHED / REPORT).exists():
            folder /= UNFINISHED
        report = load_report(folder)
        if not report.get("evaluation"):
            state = "at work" if is_held(folder / LOCK) else report["state"]
            raise InputError(
                f"{folder} holds a run that is {state} and was not evaluated at its end: let it end, with "
                f"--do_eval=True"
            )
        try:
            with np.load(folder / SCORES) as arrays:
                labels, logits, identity = (arrays[key] for key in ("labels", "logits", "rows_identity"))
                weights = arrays.get("weights")
        except (OSError, EOFError, ValueError, KeyError, zipfile.BadZipFile):
            raise InputError(f"{folder / SCORES} is missing or damaged: train the run again") from None
        if str(identity) != report["evaluation"]["rows_identity"]:
            raise InputError(f"{folder / SCORES} is of another run than its report: train the run again")
        return cls(name, report, labels.astype(np.float32), logits, str(identity), weights)

    @property
    def metrics(self) -> dict[str, float]:
        """Metrics of the kept network."""
        found: dict[str, float] = self.report["evaluation"]["metrics"]
        return found

    @property
    def monitor(self) -> str:
        """Name of the metric that chose the network."""
        return str(self.report["options"].get("monitor", "auc"))  # which older runs do not name

    def above(self, first: "ComparedRun") -> dict[str, Interval] | None:
        """Differences of AUC and logloss to the first run with paired intervals; None if the rows are others."""
        if self.rows_identity != first.rows_identity:
            return None
        return differences(self.labels, first.logits, self.logits, weights=self.weights)


def compared(runs: list[ComparedRun]) -> tuple[list[str], list[list[str]]]:
    """Heads and rows of the table: a row a run; differences are those to the first."""
    names = list(dict.fromkeys([*_FIRST, *(name for run in runs for name in run.metrics)]))
    heads = ["run", "rows", *names, "AUC - first's", "95 %", "logloss - first's", "95 %"]
    rows = []
    for run in runs:
        cells = [run.name, number(len(run.labels)), *(number(run.metrics.get(name), 5) for name in names)]
        found = run.above(runs[0]) if run is not runs[0] else None
        if found:
            for name in ("auc", "logloss"):
                one = found[name]
                known = math.isfinite(one.low)  # not where all rows have one label
                cells += [f"{one.value:+.5f}", f"{one.low:+.5f} to {one.high:+.5f}"] if known else ["-", "-"]
        else:
            cells += ["", "", "", ""] if run is runs[0] else ["other rows"] * 4
        rows.append(cells)
    return heads, rows


def failures(runs: list[ComparedRun], fail_below: float) -> list[str]:
    """What is wrong with each later run that is worse than the first by more than fail_below.

    By the metric that chose the first run's network, as it is, not its interval. A run that has none fails.

    Raises:
        InputError: a run was measured on other rows than the first, or the first has no such metric.
    """
    name, found = runs[0].monitor, []
    one, first = MONITORED[name], runs[0].metrics[name]
    if first is None:
        raise InputError(f"fail_below: {runs[0].name} has no {one.shown} to compare with: its rows are of one label")
    for run in runs[1:]:
        if run.rows_identity != runs[0].rows_identity:
            raise InputError(
                f"fail_below compares runs on the same rows, and {run.name} was measured on others than "
                f"{runs[0].name}: train both on the same data folder"
            )
        value = run.metrics.get(name)
        if value is None:
            found.append(f"{run.name}: it has no {one.shown}, and {runs[0].name} has {number(first, 6)}")
        elif one.worse_by(value, first) > fail_below:
            found.append(f"{run.name}: {one.shown} {number(value, 6)}, more than {fail_below:g} "
                         f"{'below' if one.rises else 'above'} {number(first, 6)} of {runs[0].name}")  # fmt: skip
    return found


def comparison_page(runs: list[ComparedRun]) -> str:
    """The comparison as an HTML page."""
    curves = []
    for name, shown in (("auc", "AUC"), ("logloss", "Logloss")):
        series = [
            Series(run.name, [(one["step"], one[name]) for one in run.report["curves"]["evaluations"]], "dots")
            for run in runs
        ]
        curves.append(plot(f"{name}-steps", f"{shown} while training", series, Axes("step", shown)))
    losses = [Series(run.name, [point[:2] for point in run.report["curves"]["loss"]]) for run in runs]
    curves.append(plot("loss", "Training loss", losses, Axes("step", "loss")))
    text = (
        "Metrics of each run's kept network. Differences are those to the first run; their intervals hold 95 of 100 "
        "resamples of the rows, the same rows for both runs, and are given where both scored the same rows."
    )
    options = [run.report["options"] for run in runs]
    names = [name for name in options[0] if len({str(one.get(name)) for one in options}) > 1]
    differing = [[name, *(str(one.get(name)) for one in options)] for name in names]
    body = "<h1>Runs compared</h1>" + section("Metrics", text, table(*compared(runs)))
    body += section("Curves", "Steps of runs with other batch sizes are of other lengths.",
                    f'<div class="plots">{"".join(curves)}</div>')  # fmt: skip
    body += section("Options that differ", "All others are the same.",
                    table(["option", *(run.name for run in runs)], differing))  # fmt: skip
    return page("Runs compared", body)
