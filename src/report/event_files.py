"""TensorBoard's event files of a run, by tensorboardX: losses, rates and metrics, and at its end the scores.

FOLDER/2026-01-31T10-00-00/events.out.tfevents...  a run, in a folder of its name
"""

from collections.abc import Callable, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from src.base.errors import InputError, naming
from src.metrics.binary import scores_of
from src.metrics.curves import reliability

REQUIREMENTS = "requirements-tensorboard.txt"
_BINS = 40


def check_libraries(folder: str) -> None:
    """Refuse event files in a folder where their libraries are missing.

    Raises:
        InputError: they are.
    """
    missing = [name for name in ("tensorboardX", "matplotlib") if find_spec(name) is None]
    if missing:
        raise InputError(
            f"tensorboard {folder} needs {' and '.join(missing)}, not installed: pip install -r {REQUIREMENTS}"
        )


class EventFiles:
    """What follows a `MetricsFile` and writes the same as events.

    Where a run goes on, or back to an earlier step, TensorBoard forgets what came behind it.

    Args:
        folder: of all runs; each has a folder of its own there.
        run: its name.
        options: of the run, which become a text.
        rates: gives the learning rates of the MLPs and of the tables in a step, from 1.
        first_step: done before.

    Raises:
        InputError: libraries are missing.
        OSError: the folder can't be made.
    """

    def __init__(
        self, folder: str, run: str, options: Mapping[str, Any], rates: Callable[[int], tuple[float, float]],
        first_step: int,
    ):  # fmt: skip
        self.folder, self.rates = Path(folder) / run.replace(":", "-"), rates
        check_libraries(folder)
        with naming(self.folder):
            self.folder.mkdir(parents=True, exist_ok=True)
        self.writer = self._begin(first_step)
        lines = ["| option | value |", "|---|---|", *(f"| {name} | {value} |" for name, value in options.items())]
        self.writer.add_text("options", "\n".join(lines), first_step)

    def _begin(self, done: int) -> Any:
        from tensorboardX import SummaryWriter

        # A number of its own, for names have the time in seconds, and the same name would be written anew.
        number = len(list(self.folder.iterdir()))
        return SummaryWriter(str(self.folder), purge_step=done + 1 if done else None, filename_suffix=f".{number}")

    def follow(self, kind: str, values: Mapping[str, Any]) -> None:
        """Take a line of the metrics file."""
        if kind == "loss":
            step = values["step"]
            values = {**values, "loss": values.get("mean_loss", values.get("loss"))}
            found = {f"train/{name}": values.get(name) for name in ("loss", "samples_per_s", "skipped_updates")}
            found |= dict(zip(("rate/mlps", "rate/tables"), self.rates(step)))
        elif kind == "eval":
            step, part = values["step"], values["part"]
            found = {f"{part}/{name}": value for name, value in values.items() if name not in ("epoch", "step", "part")}
        else:
            if kind == "back":
                self.writer.close()
                self.writer = self._begin(values["to"])
            return
        for tag, value in found.items():
            if value is not None and np.isfinite(value):
                self.writer.add_scalar(tag, value, step)
        if kind == "eval":
            self.writer.flush()

    def scored(self, step: int, part: str, labels: np.ndarray, logits: np.ndarray) -> None:
        """Take the kept network's scores of a part's rows: labels [B] and logits [B]."""
        scores, edges = scores_of(logits), np.linspace(0, 1, _BINS + 1)
        for name, chosen in (("clicks", labels > 0.5), ("others", labels <= 0.5)):
            if chosen.any():
                self.writer.add_histogram(f"{part}/scores_of_{name}", scores[chosen], step, edges)
        self.writer.add_pr_curve(f"{part}/precision_and_recall", labels, scores, step)
        self.writer.add_figure(f"{part}/reliability", _reliability_figure(labels, scores), step)

    def close(self) -> None:
        """Write what is left."""
        self.writer.close()


def _reliability_figure(labels: np.ndarray, scores: np.ndarray) -> Any:
    """Mean label over mean score, of bins of equal numbers of rows."""
    from matplotlib.figure import Figure  # not pyplot, which keeps figures and may look for a screen

    bins = reliability(labels, scores)
    figure = Figure(figsize=(5, 5), layout="constrained")
    axes = figure.subplots()
    most = float(max(bins.score.max(), bins.label.max())) * 1.05 or 1.0
    axes.plot([0, most], [0, most], color="0.7", label="calibrated")
    axes.plot(bins.score, bins.label, "o-", label="this run")
    axes.set(xlabel="mean score", ylabel="share of clicks", xlim=(0, most), ylim=(0, most))
    axes.legend()
    return figure
