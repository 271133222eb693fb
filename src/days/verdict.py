"""What came of a day: how both models did on its rows, how these have moved, and which model stays in use."""

import math
from dataclasses import asdict
from datetime import datetime
from typing import Any

import numpy as np

from src.base.errors import InputError
from src.data.counted import Growth
from src.data.manifest import DataFolder, Manifest, find, is_data_folder
from src.dataset import batches_of, sample
from src.days.day import HELD_OUT, Day
from src.days.model_folder import ACCEPTED, REFUSED, Line
from src.metrics.binary import mean
from src.metrics.bootstrap import differences
from src.metrics.drift import ColumnRows, drift
from src.metrics.monitored import MONITORED, Metrics, measured
from src.report.plots import number
from src.training.evaluation import Scores

_MOST_ROWS = 50_000  # of each day that drift is measured by


def line_of(day: Day) -> Line:
    """The history's line of a day that has been scored by both models.

    Raises:
        InputError: the models can't be compared on its held-out rows.
    """
    monitor = day.recipe.trains(day.folder, day.folder, day.earlier_checkpoint).evaluation.monitor
    manifest = day.data.manifest
    after = _metrics(day.scores("after"), monitor)
    line: Line = {
        "day": day.number, "name": day.folder.name, "time": f"{datetime.now():%Y-%m-%dT%H:%M:%S}",
        "earlier": day.earlier.name if day.earlier else None, "files": [asdict(file) for file in day.files],
        "rows": {name: part.rows for name, part in manifest.parts.items()}, "label_mean": _label_mean(day),
        "state": ACCEPTED, "reason": "", "monitor": monitor, "after": after,
        "table_rows": dict(zip(manifest.tables, manifest.rows_of_tables)),
        "growth": _growth(manifest), "unseen_after": _unseen(manifest, HELD_OUT),
    }  # fmt: skip
    if not day.earlier:
        return line
    before, whole = day.held_out_before(), day.scores("before")
    weights = before[2] if before[2:] else None
    apart = differences(before[0], before[1], day.scores("after")[1], weights=weights)
    line |= {
        "progressive": _metrics(whole, monitor), "before": _metrics(before, monitor),
        "difference": {name: [_known(one.value), _known(one.low), _known(one.high)] for name, one in apart.items()},
        "unseen_before": _unseen(day.known.manifest, "test"), **_drift(day),
    }  # fmt: skip
    line["reason"] = worse(monitor, line["before"], after, day.recipe.spec.fail_below)
    line["state"] = REFUSED if line["reason"] else ACCEPTED
    return line


def worse(monitor: str, before: Metrics, after: Metrics, fail_below: float) -> str:
    """Why a model may not take an earlier one's place, by the metrics of both on the same rows; "" if it may.

    Raises:
        InputError: the rows have no such metric.
    """
    if fail_below < 0:
        return ""
    one, old, new = MONITORED[monitor], before[monitor], after[monitor]
    if old is None or new is None:
        raise InputError(
            f"fail_below: the held-out rows are of one label, and have no {one.shown}: give -1, or more rows"
        )
    if one.worse_by(new, old) <= fail_below:
        return ""
    return (
        f"{one.shown} {number(new, 5)} of the new model is more than {fail_below:g} "
        f"{'below' if one.rises else 'above'} {number(old, 5)} of the earlier one"
    )


def _metrics(scores: Scores, monitor: str) -> dict[str, Any]:
    labels, logits, *others = scores
    found = measured(labels, logits, others[0] if others else None, monitor=monitor)
    return {"rows": len(labels), **{name: _known(value) for name, value in found.items()}}


def _known(value: float) -> float | None:
    return None if math.isnan(value) else value  # as JSON knows no nan


def _label_mean(day: Day) -> float:
    """Of all rows; of the held-out ones where only some without a click train."""
    if day.earlier:
        labels, _, *weights = day.scores("before")
        return mean(labels, weights[0] if weights else None)
    manifest = day.data.manifest
    parts = [part for name, part in manifest.parts.items() if name != "train" or not manifest.negatives]
    return float(np.average([part.label_mean for part in parts], weights=[part.rows for part in parts]))


def _unseen(manifest: Manifest, part: str) -> dict[str, float]:
    """The share of unseen values of each field."""
    return dict(zip(manifest.fields, manifest.parts[part].unseen_share))


def _growth(manifest: Manifest) -> dict[str, int]:
    """What became of the tables' rows, of all tables together."""
    tables = Growth.of(manifest).tables.values()
    return {what: sum(one[what] for one in tables) for what in ("new", "dealt", "freed", "free")}


def _drift(day: Day) -> dict[str, Any]:
    """How far the day's rows have moved from those of the day of the earlier model: PSI by column, and label means.

    Nothing where that day's rows are gone.
    """
    assert day.earlier
    place = day.earlier / "dataset"
    if not is_data_folder(place):
        return {}
    earlier = find(str(place))
    trained = HELD_OUT if earlier.manifest.negatives else "train"  # of which the others are a choice of rows
    found = drift(_column_rows(earlier, trained), _column_rows(day.known, "test"))
    return {
        "psi": {name: one.psi for name, one in found.columns.items()},
        "moved": [name for name, one in found.columns.items() if one.beyond()],
        "label_mean_earlier": found.old_mean,
    }


def _column_rows(data: DataFolder, part: str) -> ColumnRows:
    manifest = data.manifest
    dense, ids, labels, *weights = sample(batches_of(data, part, 1).source, _MOST_ROWS)
    leading = manifest.layout.leading(ids, manifest.table_rows)
    return ColumnRows(
        {name: dense[:, place] for place, name in enumerate(manifest.inputs)},
        {name: leading[:, place] for place, name in enumerate(manifest.categorical)},
        labels,
        weights[0] if weights else None,
    )
