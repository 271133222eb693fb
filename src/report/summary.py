"""The table at the end of the quickstart: `python src/report/summary.py RUN_FOLDER RAW_FILE`.

Reads what the programs left in the run's folder; where the rows were generated, the best reachable AUC is that of
the true logits on the same test rows.
"""

import itertools
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

if __name__ == "__main__":
    from src.base.stops import end_at_once

    end_at_once()

import numpy as np

from src.base.errors import InputError, run
from src.base.logs import figure, speed, warn
from src.data.manifest import find
from src.metrics.binary import auc


def reachable_auc(folder: Path, raw: Path, truth: Path) -> float:
    """AUC of the true logits on the test rows of the run in `folder`; labels come from the generated lines."""
    data = find(str(folder / "dataset"))
    if data.manifest.bad_rows:
        raise InputError(f"{truth} counts all rows, {data.path} lacks {data.manifest.bad_rows} bad ones: mend them")
    part = data.manifest.parts["test"]
    lines = slice(part.first_line - 1, part.last_line)
    with raw.open("rb") as file:
        labels = np.array([line[:1] == b"1" for line in itertools.islice(file, lines.start, lines.stop)])
    return auc(labels, np.load(truth, mmap_mode="r")[lines])


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """The lines of a file of metrics; those that a full disk or a kill has cut are passed over, and told."""
    found, cut = [], []
    for number, line in enumerate(path.read_text(encoding="utf-8", errors="replace").splitlines(), 1):
        try:
            found.append(dict(json.loads(line)))
        except (ValueError, TypeError):
            cut.append(number)
    if cut:
        warn(f"{path}: {len(cut)} lines are cut and passed over, such as line {cut[0]}")
    return found


def rows_of_report(folder: Path, raw: Path) -> list[tuple[str, str]]:
    """Name and value of each line of the table."""
    lines = read_metrics(folder / "metrics.jsonl")
    test = next((line for line in reversed(lines) if line.get("kind") == "eval" and "part" in line), None)
    end = next((line for line in reversed(lines) if line.get("kind") == "end"), None)
    if test is None or end is None:
        missing = "training that ended (train.py)" if end is None else "evaluation of a checkpoint (eval.py)"
        raise InputError(f"{folder / 'metrics.jsonl'} tells of no {missing}: run it, with its logs in {folder}")
    truth = raw.with_suffix(".truth.npy")
    best = figure(reachable_auc(folder, raw, truth), 4) if truth.is_file() else "not known for these rows"
    return [
        ("AUC", f"{figure(test['auc'], 4)} on {test['rows']} test rows"),
        ("best AUC reachable", best),
        ("logloss", f"{test['logloss']:.4f}"),
        ("accuracy", f"{test['acc']:.4f}"),
        ("training", f"{speed(end['samples_per_s'])}, {end['steps']} steps"),
        ("peak memory", f"{end['peak_memory_mb']:.0f} MB"),
        ("raw rows", str(raw)),
        ("data folder", str(folder / "dataset")),
        ("checkpoint", str(folder / "checkpoint" / "dlrm.ckpt")),
        ("logs", ", ".join(str(folder / name) for name in ("loss.log", "auc.log", "acc.log", "metrics.jsonl"))),
    ]


def main(argv: Sequence[str]) -> None:
    """Print the table of a run."""
    if len(argv) != 2:
        raise InputError(f"{len(argv)} arguments instead of 2: python src/report/summary.py RUN_FOLDER RAW_FILE")
    for name, value in rows_of_report(Path(argv[0]), Path(argv[1])):
        print(f"{name:<20}{value}")


if __name__ == "__main__":
    run(main, usage=__doc__)
