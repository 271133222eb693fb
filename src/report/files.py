"""A run's report while the run goes on, when it ends, and when it fails: report.json, and report.html made of it.

    unfinished/report.json, report.html              what is known so far, at each evaluation and each save
    checkpoint/report.json, report.html, scores.npz  of a run that ended well

The curves of a run that was stopped come back from its report.json.
"""

import contextlib
import json
import math
import platform
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from importlib.metadata import version
from os import cpu_count
from pathlib import Path
from typing import Any

import numpy as np

from src.base.errors import InputError
from src.base.files import whole_file
from src.base.logs import MetricsFile, warn
from src.base.machine import processor
from src.base.npz import save_arrays
from src.checkpoints.evaluated import evaluations_of, keep_evaluation
from src.checkpoints.names import CHECKPOINT, REPORT, REPORT_PAGE, SCORES
from src.report.page import run_page

VERSION = 1
_CURVE_POINTS = 1000
_RATE_POINTS = 200
_KEPT_POINTS = 4 * _CURVE_POINTS


@dataclass(frozen=True)
class Scored:
    """Rows that the network has scored: labels [B] and logits [B], and weights [B] if they have some."""

    labels: np.ndarray
    logits: np.ndarray
    weights: np.ndarray | None = None


def machine() -> dict[str, Any]:
    """Versions, processor and cores."""
    return {
        "python": platform.python_version(),
        **{name: version(name) for name in ("mindspore", "numpy", "pandas")},
        "system": f"{platform.system()} {platform.machine()}",
        "processor": processor(),
        "cores": cpu_count(),
    }


class RunReport(MetricsFile):
    """The metrics file of a run, which also keeps what goes through it and writes the report of the run so far.

    A context: an error within, or Ctrl-C, leaves a report that says so.

    Args:
        path, run: as for `MetricsFile`.
        folder: of the unfinished run.
        facts: of the run, in JSON's types: "options", "data", "machine" and "steps".
        rates: gives the learning rates of the MLPs and of the tables in a step, from 1.
        writes: whether this process writes files; one of several ranks does.
    """

    def __init__(
        self, path: str, run: str, folder: Path, facts: dict[str, Any],
        rates: Callable[[int], tuple[float, float]], writes: bool = True,
    ):  # fmt: skip
        super().__init__(path, run)
        self.folder, self.facts, self.rates, self.writes = folder, facts, rates, writes
        self.losses: list[list[Any]] = []  # step, mean loss since the one before, samples a second
        self.evaluations: list[dict[str, Any]] = []
        self.step, self.missing_until = 0, 0
        self.changes: list[dict[str, Any]] = []  # of options, and steps back
        self.past_rates: list[list[float]] = []  # before the last of these

    def __enter__(self) -> "RunReport":
        return self

    def __exit__(self, kind: Any, error: BaseException | None, *more: Any) -> None:
        super().__exit__(kind, error, *more)
        if error is not None:
            with contextlib.suppress(OSError):  # such as of a full disk, which may be the error itself
                self.save("stopped" if isinstance(error, KeyboardInterrupt) else "failed", error=_line_of(error))

    def go_on_from(self, step: int) -> None:
        """Take over the curves of a run that was stopped, up to the step that it goes on from."""
        self.step = step
        try:
            old = load_report(self.folder)["curves"]
        except InputError:
            self.missing_until = step
            return
        self.losses = [point for point in old["loss"] if point[0] <= step]
        self.evaluations = [point for point in old["evaluations"] if point["step"] <= step]
        self.missing_until = old["missing_until"]
        self.changes = old.get("changes", [])
        self.past_rates = [point for point in old["rate"] if point[0] <= step]

    def write(self, kind: str, **values: Any) -> None:
        """Append a line to the metrics file, and keep what belongs to the curves."""
        super().write(kind, **values)
        self.step = max(self.step, values.get("step", 0))
        if kind == "loss":
            mean = values.get("mean_loss", values["loss"])
            self.losses.append([values["step"], mean, values["samples_per_s"]])
            if len(self.losses) > _KEPT_POINTS:
                self.losses = joined(self.losses, _KEPT_POINTS // 2)
        elif kind == "eval":
            self.evaluations.append(values)
            self.save("unfinished")
        elif kind == "resume":
            changes = values["changes"]
            self.changes += [{"step": values["step"], "what": what} for what in changes]
            if not self.changes:
                self.past_rates = []
        elif kind == "back":
            self._go_back(values["step"], values["to"], f"{values['why']}: back to here, with {values['rates']}")

    def _go_back(self, step: int, to: int, what: str) -> None:
        """Forget what came behind a step that the run went back to, before it gets other rates."""
        self.past_rates = [point for point in self._rate_curve(step) if point[0] <= to]
        self.changes.append({"step": to, "what": what})
        self.losses = [point for point in self.losses if point[0] <= to]
        self.evaluations = [point for point in self.evaluations if point["step"] <= to]
        self.step = to

    def _rate_curve(self, last: int) -> list[list[float]]:
        past = self.past_rates[-1][0] if self.past_rates else 0
        steps = np.unique(np.linspace(1, last, _RATE_POINTS).astype(int)).tolist()
        return self.past_rates + [[step, *self.rates(step)] for step in steps if step > past]

    def save(self, state: str, **more: Any) -> None:
        """Write the report as it stands, of a run in this state.

        Args:
            state: "finished", "unfinished", "stopped" or "failed".
            more: what else goes into it.
        """
        if not self.writes:
            return
        curves = {
            "loss": joined(self.losses, _CURVE_POINTS) if state == "finished" else self.losses,
            "evaluations": self.evaluations,
            "rate": self._rate_curve(max(self.step, 1)),
            "missing_until": self.missing_until,
            "loss_of": "means",  # since the point before; without this, as it was at first, of single batches
            "changes": self.changes,
        }
        written = f"{datetime.now():%Y-%m-%d %H:%M:%S}"
        content = {"version": VERSION, "run": self.run, "state": state, "step": self.step, "written": written,
                   **self.facts, "curves": curves, **more}  # fmt: skip
        content = without_nan(content)
        for name, text in ((REPORT, json.dumps(content)), (REPORT_PAGE, run_page(content))):
            with whole_file(self.folder / name) as file:
                file.write(text.encode())

    def finish(
        self, training: dict[str, Any], scored: Scored | None, evaluation: dict[str, Any],
        learned: dict[str, Any] | None = None,
    ) -> None:  # fmt: skip
        """Write the report of a run that ended well.

        Args:
            training: steps done, step of the kept network, throughput and memory.
            scored: the kept network's scores of the evaluation rows, None without any.
            evaluation: from `content.evaluation_content`.
            learned: from `Learned.content`, None without an evaluation.
        """
        if not self.writes:
            return
        if scored:
            save_arrays(self.folder / SCORES, {
                "labels": scored.labels.astype(np.uint8), "logits": scored.logits,
                "rows_identity": np.array(evaluation["rows_identity"]),
                **({} if scored.weights is None else {"weights": scored.weights}),
            })  # fmt: skip
            for follower in self.followers:
                follower.scored(training["kept_step"], evaluation["part"], scored.labels, scored.logits)
        self.save("finished", training=training, evaluation=evaluation, learned=learned)


def page_again(folder: Path, language: str = "") -> Path:
    """Write the page of a run anew, of its report and what eval.py found since; returns its path.

    Args:
        folder: the checkpoint's.
        language: unless given, that of the run.

    Raises:
        InputError: there is no report, or one of the files is damaged.
        OSError: the folder can't be written.
    """
    content, page = load_report(folder), folder / REPORT_PAGE
    checkpoint = folder / CHECKPOINT
    later = evaluations_of(checkpoint) if checkpoint.is_file() else []
    with whole_file(page) as file:
        file.write(run_page(content, later, language).encode())
    return page


def take_up(checkpoint: Path, evaluation: dict[str, Any]) -> None:
    """Keep an evaluation beside its checkpoint, and let the report's page show it; a folder that can't be written, or a
    report that can't be read, is told and no more.

    Args:
        checkpoint: the file.
        evaluation: from `content.later_content`.
    """
    try:
        keep_evaluation(checkpoint, evaluation)
        if checkpoint.name == CHECKPOINT and (checkpoint.parent / REPORT).is_file():
            page_again(checkpoint.parent)
    except OSError as error:
        warn(f"{error.filename or checkpoint.parent}: {error.strerror}: the report will not show this evaluation")
    except InputError as error:
        warn(f"the report does not show this evaluation: {error}")


def forget(folder: Path) -> None:
    """Remove the report of the run so far."""
    for name in (REPORT, REPORT_PAGE, SCORES):
        (folder / name).unlink(missing_ok=True)


def load_report(folder: Path) -> dict[str, Any]:
    """The content of a folder's report.json.

    Raises:
        InputError: there is none, or it is not of this version.
    """
    path = folder / REPORT
    try:
        content = dict(json.loads(path.read_text(encoding="utf-8")))
    except FileNotFoundError:
        raise InputError(f"{folder} holds no {REPORT}: name a folder that train.py --report=True wrote") from None
    except (TypeError, ValueError) as error:
        raise InputError(f"{path} is no report of a run ({error}): train the run again") from None
    if content.get("version") != VERSION:
        raise InputError(f"{path} is of another version of this program: train the run again")
    return content


def joined(points: Sequence[list[Any]], most: int) -> list[list[Any]]:
    """At most so many points [step, mean loss, samples/s], each of the steps since the one before.

    Two, four, eight or so on that follow one another become one, of all of their steps; the last one ends where it did.
    """
    every = 1
    while len(points) > most * every:
        every *= 2
    begins = range(-(-len(points) // every) * -every + len(points), len(points), every)
    return [_joined(points, max(begin, 0), begin + every) for begin in begins]


def _joined(points: Sequence[list[Any]], begin: int, end: int) -> list[Any]:
    if end - begin == 1:
        return points[begin]
    own = np.array(points[begin:end], np.float64)
    steps = np.maximum(np.diff(own[:, 0], prepend=points[begin - 1][0] if begin else 0), 1)
    known = own[:, 2] > 0
    speed = steps[known].sum() / (steps[known] / own[known, 2]).sum() if known.any() else math.nan
    return [points[end - 1][0], float(np.average(own[:, 1], weights=steps)), float(speed)]


def without_nan(value: Any) -> Any:
    """The same with None for numbers that are not finite, which JSON has not."""
    if isinstance(value, dict):
        return {key: without_nan(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [without_nan(one) for one in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _line_of(error: BaseException) -> str:
    if isinstance(error, KeyboardInterrupt):
        return "stopped by the keyboard or a signal"
    text = " ".join(str(error).split())
    return text if isinstance(error, InputError) else f"{type(error).__name__}: {text}"
