"""Runs side by side, from the reports and scores that they left."""

import html
import math
import unicodedata
import zipfile
from collections.abc import Sequence
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
from src.report.plots import Axes, Series, number, plot, shortened
from src.report.style import page, section, table
from src.report.words import ENGLISH, Words

_FIRST = ("auc", "logloss")  # of a table's metrics
_COLUMNS, _NAMES, _RUNS_BESIDE = 80, 18, 5  # of a screen: its width, that of names, and how many runs it has place for


def folder_of_run(name: str) -> Path:
    """The folder of a run that a user named, or of what it has so far."""
    folder = Path(name).parent if Path(name).name in (REPORT, REPORT_PAGE) else Path(name)
    unfinished = folder / UNFINISHED
    return unfinished if not (folder / REPORT).exists() and (unfinished / REPORT).exists() else folder


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
        folder = folder_of_run(name)
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


def metrics_table(runs: Sequence[ComparedRun], say: Words = ENGLISH, digits: int = 5) -> list[list[str]]:
    """The metrics of runs, a line a metric and a column a run, with a line of heads above."""
    names = list(dict.fromkeys([*_FIRST, *(name for run in runs for name in run.metrics)]))
    lines = [["", *(run.name for run in runs)], [say("rows"), *(number(len(run.labels)) for run in runs)]]
    lines += [[say.of(name), *(number(run.metrics.get(name), digits) for run in runs)] for name in names]
    return lines


def differences_table(runs: Sequence[ComparedRun], say: Words = ENGLISH) -> list[list[str]]:
    """How far each later run lies from the first, a line a run, with a line of heads above."""
    lines = [[say("run"), say("AUC"), say("95 %"), say("logloss"), say("95 %")]]
    for run in runs[1:]:
        found, cells = run.above(runs[0]), [run.name]
        for name in ("auc", "logloss"):
            one = found[name] if found else None
            if one is None:
                cells += [say.of("other rows"), ""]
                continue
            known = math.isfinite(one.low)  # not where all rows have one label
            span = say("{low} to {high}", low=f"{one.low:+.4f}", high=f"{one.high:+.4f}")
            cells += [f"{one.value:+.5f}", span] if known else ["-", "-"]
        lines.append(cells)
    return lines


def comparison_lines(runs: Sequence[ComparedRun]) -> list[str]:
    """Both tables for a terminal of 80 columns; of more runs than it has place for, some after the others."""
    found = []
    for start in range(0, len(runs), _RUNS_BESIDE):
        some = runs[start : start + _RUNS_BESIDE]
        found += [*_aligned(metrics_table(some), (_COLUMNS - _NAMES) // len(some) - 2), ""]
    return [*found, "differences to the first run", *_aligned(differences_table(runs), _NAMES)]


def _width(text: str) -> int:
    """The columns of a terminal that a text takes: Chinese letters take two."""
    return sum(1 + (unicodedata.east_asian_width(letter) in "WF") for letter in text)


def _cut(text: str, most: int) -> str:
    """A text shortened to what has place in so many columns of a terminal."""
    wanted = (shortened(text, letters) for letters in range(most, 0, -1))
    return next((one for one in wanted if _width(one) <= most), "")


def _aligned(lines: Sequence[Sequence[str]], most: int) -> list[str]:
    """Lines of cells of one width a column; in the first line and column names are cut to what there is place for."""
    cut = [
        [_cut(cell, most) if not row or not place else cell for place, cell in enumerate(line)]
        for row, line in enumerate(lines)
    ]
    widths = [max(_width(line[place]) for line in cut) for place in range(len(cut[0]))]
    return ["  ".join(" " * (width - _width(cell)) + cell for cell, width in zip(line, widths)) for line in cut]


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


def comparison_page(runs: Sequence[ComparedRun], language: str = "en") -> str:
    """The comparison as an HTML page, in a language of LANGUAGES."""
    say, curves = Words(language), []
    step = say("step")
    for name, shown in (("auc", say("AUC")), ("logloss", say("Logloss"))):
        series = [
            Series(run.name, [(one["step"], one[name]) for one in run.report["curves"]["evaluations"]], "dots")
            for run in runs
        ]
        title = say("{metric} while training", metric=shown)
        curves.append(plot(f"{name}-steps", title, series, Axes(step, shown)))
    losses = [Series(run.name, [point[:2] for point in run.report["curves"]["loss"]]) for run in runs]
    curves.append(plot("loss", say("Training loss"), losses, Axes(step, say("loss"))))
    options = [run.report["options"] for run in runs]
    names = [name for name in options[0] if len({str(one.get(name)) for one in options}) > 1]
    differing = [[name, *(str(one.get(name)) for one in options)] for name in names]
    metrics, apart = metrics_table(runs, say), differences_table(runs, say)
    title = say("Runs compared")
    body = f"<h1>{html.escape(title)}</h1>" + section(
        say("Metrics"), say("Metrics of each run's kept network."), table(metrics[0], metrics[1:])
    )
    intervals = say("Intervals hold 95 of 100 resamples of the rows, the same rows for both runs, and are given where "
                    "both scored the same rows.")  # fmt: skip
    body += section(say("Differences to the first run"), intervals, table(apart[0], apart[1:]))
    body += section(say("Curves"), say("Steps of runs with other batch sizes are of other lengths."),
                    f'<div class="plots">{"".join(curves)}</div>')  # fmt: skip
    body += section(say("Options that differ"), say("All others are the same."),
                    table([say("option"), *(run.name for run in runs)], differing))  # fmt: skip
    return page(title, body, say.language)
