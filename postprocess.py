"""Scores to metrics and a table of scores: `python postprocess.py --result_path=result_Files`."""

if __name__ == "__main__":
    from src.base.stops import end_at_once

    end_at_once()

import csv
import io
from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO

import numpy as np

from src.base.errors import InputError, run
from src.options import PostprocessOptions, resolve

_ROWS = 65_536  # as text at once


def write_table(file: BinaryIO, columns: dict[str, np.ndarray]) -> None:
    """Write columns [B], `row` among them, as CSV under their names; nine digits tell all that a float32 is."""
    text = io.TextIOWrapper(file, "utf-8", "surrogateescape", newline="")  # names may be no UTF-8
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    for low in range(0, len(columns["row"]), _ROWS):
        parts = [column[low : low + _ROWS] for column in columns.values()]
        writer.writerows(zip(*([f"{one:.9g}" for one in part.tolist()] if part.dtype.kind == "f" else part.tolist()
                               for part in parts)))  # fmt: skip
    text.detach()


def main(argv: Sequence[str]) -> None:
    """Write the score of each row in the rows' order, and where labels are known, accuracy, AUC and logloss."""
    options = resolve(PostprocessOptions, argv)
    spec, logs = options.result, options.logs
    # Imported here, so that a mistake on the command line does not wait for them.
    from src.base.files import whole_file
    from src.base.logs import MetricsFile, append_line, evaluation_line, open_logs
    from src.export.scored_files import RowFiles, Scores, logits_of
    from src.metrics.monitored import measured

    rows = RowFiles.load(Path(spec.preprocess_path))
    scores = Scores.load(Path(spec.result_path), rows)
    names, labels, weights = rows.names(), rows.labels() if rows.has_labels else None, rows.weights()
    table = {"file": names, "row": rows.numbers(), "score": scores.values, "label": labels, "weight": weights}
    path = Path(spec.scores_path)
    if path.is_dir():
        raise InputError(f"scores_path {path} is a folder: name a file")
    path.parent.mkdir(parents=True, exist_ok=True)
    with whole_file(path) as file:
        write_table(file, {name: column for name, column in table.items() if column is not None})
    print(f"{path}: {rows.rows} scores, mean {scores.values.mean():.6f}")
    if labels is None:
        print("the labels of these rows are not known, so there are no metrics")
        return
    open_logs(logs.eval_file_name, logs.metrics_file_name)
    if weights is not None:
        print(f"weighted by column {rows.weight}: the metrics are weighted means")
        if not weights.any():
            raise InputError(f"all weights of column {rows.weight} are 0, so there are no metrics: mend it")
    metrics = measured(labels, logits_of(scores.values), weights)
    line = evaluation_line(metrics, scores.seconds)
    append_line(logs.eval_file_name, line + (f"; model {spec.model}" if spec.model else ""))
    MetricsFile(logs.metrics_file_name, spec.result_path).write(
        "infer", rows=rows.rows, **metrics, eval_s=scores.seconds, **({"model": spec.model} if spec.model else {})
    )
    print(line)


if __name__ == "__main__":
    run(main)
