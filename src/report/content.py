"""What a report says of the network that a run keeps: metrics, curves, fields, and which columns it needs.

Legend: B rows, N numeric columns, F fields, L ids of a row.
"""

import hashlib
import itertools
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import PurePath
from typing import Any

import numpy as np

from src.data.known_values import unmatched_of, warning
from src.data.manifest import VOCABULARY, DataFolder
from src.dataset import Batch, RowBatches
from src.dlrm import DLRM
from src.metrics.binary import auc, mean, scores_of
from src.metrics.bootstrap import Interval, intervals
from src.metrics.curves import curves, histogram, quality, reliability
from src.metrics.monitored import MONITORED
from src.metrics.slices import field_slices
from src.ranks.group import Ranks
from src.report.files import Scored, without_nan
from src.training.evaluation import finite_score, rows_of_graph

_SLICED_ROWS = 1 << 20


class _Kept:
    """Lets batches through and keeps every so manieth row of their dense values and ids, for a second look."""

    def __init__(self, batches: RowBatches):
        self.batches, self.every = batches, -(-batches.rows // _SLICED_ROWS)
        kept = -(-batches.rows // self.every)
        self.dense = np.empty((kept, batches.source.dense_dim), np.float32)
        self.ids = np.empty((kept, batches.source.slot_dim), np.int32)

    def __iter__(self) -> Iterator[Batch]:
        done = 0
        for batch in self.batches:
            first, end = -done % self.every, done + len(batch[0])
            places = slice(-(-done // self.every), -(-end // self.every))
            self.dense[places], self.ids[places] = batch[0][first :: self.every], batch[1][first :: self.every]
            done = end
            yield batch


def evaluation_content(
    model: DLRM, data: DataFolder, part: str, batches: RowBatches, ranks: Ranks, *, importance_rows: int, seed: int
) -> tuple[Scored, dict[str, Any]]:  # fmt: skip
    """Scores of a part's rows, and what the report says of them; all ranks call this together.

    Args:
        model: with the values that are kept.
        data: the data folder.
        part, batches: the rows, in their order.
        ranks: of the run; the content is rank 0's, others get an empty one.
        importance_rows: on how many rows at most columns are shuffled, 0 for none.
        seed: of the shuffling and of resampling.
    """
    kept, batch_size = _Kept(batches), rows_of_graph(batches, batches.batch_size)  # as the training's evaluations
    scored = Scored(*finite_score(model, kept, batch_size, ranks))
    labels, logits, weights = scored.labels, scored.logits, scored.weights
    dense, ids = kept.dense, kept.ids
    some, manifest = slice(None, None, kept.every), data.manifest
    content: dict[str, Any] = {}
    if importance_rows:
        sample = Sample(dense, ids, labels[some], None if weights is None else weights[some])
        found = importance(model, sample, batch_size, ranks, importance_rows, seed)
        names = (*manifest.inputs, *manifest.fields)
        content["importance"] = {"rows": min(importance_rows, len(ids)), "auc_drop": dict(zip(names, found))}
    if ranks.rank:
        return scored, {}
    content |= part_content(data, part, scored) | score_content(scored, seed)
    content["sliced_every"] = kept.every
    leading = manifest.layout.leading(ids, manifest.table_rows)
    few = None if weights is None else weights[some]
    content["fields"] = field_slices(labels[some], logits[some], leading, manifest.fields, few)
    for field, rows in zip(content["fields"], manifest.table_rows):
        field["table_rows"] = rows
    return scored, content


def part_content(data: DataFolder, part: str, scored: Scored) -> dict[str, Any]:
    """Which rows were scored."""
    facts = {"part": part, "rows_identity": rows_identity(data, part, scored)}
    return facts | ({"weighted_by": f"column {data.manifest.weight}"} if data.manifest.weight else {})


def later_content(data: DataFolder, part: str, scored: Scored, spans: dict[str, Interval]) -> dict[str, Any]:
    """What an evaluation of a checkpoint leaves beside it: which rows it scored, and what their scores say.

    Args:
        data, part: the rows.
        scored: their scores.
        spans: from `intervals`, of these scores.
    """
    manifest, rows = data.manifest, data.manifest.parts[part]
    source = {
        "names": [PurePath(name).name for name in manifest.source.get("names", [])],
        "lines": [rows.first_line, rows.last_line],
        "split": str(manifest.options.get("split", "")),
    }
    written = {"written": f"{datetime.now():%Y-%m-%d %H:%M:%S}", "source": source}
    found = written | part_content(data, part, scored) | score_content(scored, spans=spans)
    return dict(without_nan(found))


def score_content(scored: Scored, seed: int = 1, spans: dict[str, Interval] | None = None) -> dict[str, Any]:
    """What labels, logits and weights alone say; spans are the intervals, where these are known, else seed draws."""
    labels, logits, weights = scored.labels, scored.logits, scored.weights
    scores = scores_of(logits)
    spans = spans or intervals(labels, logits, seed=seed, weights=weights)
    monitored = {name: one.value(labels, logits, weights) for name, one in MONITORED.items()}
    bins = reliability(labels, scores, weights=weights)
    return {
        "rows": len(labels),
        "label_mean": mean(labels, weights),
        "score_mean": mean(scores, weights),
        "metrics": monitored | quality(labels, logits, weights),
        "intervals": {name: asdict(one) for name, one in spans.items()},
        **curves(labels, logits, weights=weights),
        "reliability": {name: values.tolist() for name, values in vars(bins).items()},
        "histogram": histogram(labels, scores, weights=weights),
    }


@dataclass(frozen=True)
class Sample:
    """Rows: dense [B, N], ids [B, L], labels [B], and weights [B] if they have some."""

    dense: np.ndarray
    ids: np.ndarray
    labels: np.ndarray
    weights: np.ndarray | None = None

    def some(self, rows: int, seed: int) -> "Sample":
        """At most so many of them, by chance."""
        if len(self.labels) <= rows:
            return self
        chosen = np.sort(np.random.default_rng([seed, 0]).choice(len(self.labels), rows, replace=False))
        weights = None if self.weights is None else self.weights[chosen]
        return Sample(self.dense[chosen], self.ids[chosen], self.labels[chosen], weights)


def importance(
    model: DLRM, sample: Sample, batch_size: int, ranks: Ranks, rows: int, seed: int
) -> list[float]:  # fmt: skip
    """How much AUC the network loses when a column's values are shuffled among the rows, for N + F columns.

    Lists stay whole.

    All copies of the rows are one stream of full batches, so that nothing is compiled anew nor scored in vain, and
    ranks share it. N + F times the rows are scored.

    Args:
        model: the network.
        sample: the rows.
        batch_size: rows that the graph is compiled for.
        ranks: of the run.
        rows: how many of B are taken, by chance.
        seed: of the choice, and of the shuffling of each column.
    """
    sample = sample.some(rows, seed)
    dense, ids, labels = sample.dense, sample.ids, sample.labels
    layout = model.tables.layout
    columns = dense.shape[1] + layout.fields

    def copies() -> Iterator[tuple[np.ndarray, np.ndarray]]:
        yield dense, ids
        for column in range(columns):
            order = np.random.default_rng([seed, 1 + column]).permutation(len(labels))
            field = column - dense.shape[1]
            values = (dense if field < 0 else ids).copy()
            first, size = (column, 1) if field < 0 else (layout.starts[field], layout.sizes[field])
            values[:, first : first + size] = values[order, first : first + size]
            yield (values, ids) if field < 0 else (dense, values)

    _, logits = finite_score(model, _rebatched(copies(), batch_size), batch_size, ranks)
    areas = [auc(labels, part, sample.weights) for part in np.split(logits, columns + 1)]
    return [areas[0] - area for area in areas[1:]]


def _rebatched(parts: Iterable[tuple[np.ndarray, np.ndarray]], size: int) -> Iterator[Batch]:
    """Parts of any number of rows as batches of one size, the last one of what is left; labels are all 0."""
    dense: list[np.ndarray] = []
    ids: list[np.ndarray] = []
    for values, codes in itertools.chain(parts, [(None, None)]):
        if values is not None and codes is not None:
            dense.append(values)
            ids.append(codes)
        all_dense, all_ids = np.concatenate(dense), np.concatenate(ids)
        whole = len(all_ids) if values is None else len(all_ids) // size * size
        for start in range(0, whole, size):
            batch = all_dense[start : start + size], all_ids[start : start + size]
            yield *batch, np.zeros((len(batch[1]), 1), np.float32)
        dense, ids = [all_dense[whole:]], [all_ids[whole:]]


def rows_identity(data: DataFolder, part: str, scored: Scored) -> str:
    """A checksum of which raw rows these are, however they were coded: their lines, labels, and weights if any."""
    rows = data.manifest.parts[part]
    facts = f"{rows.first_line} {rows.last_line} {rows.rows} ".encode()
    weights = b"" if scored.weights is None else scored.weights.astype("<f4").tobytes()
    return hashlib.sha256(facts + np.packbits(scored.labels > 0.5).tobytes() + weights).hexdigest()


def data_content(data: DataFolder) -> dict[str, Any]:
    """Which data a run used."""
    manifest = data.manifest
    parts = {
        name: {"rows": part.rows, "first_line": part.first_line, "last_line": part.last_line,
               "label_mean": part.label_mean}
        for name, part in manifest.parts.items()
    }  # fmt: skip
    told = [warning(f"{name} rows", unmatched_of(manifest, name)) for name in manifest.parts if name != "train"]
    return {
        "folder": str(data.path),
        "source": {key: value for key, value in manifest.source.items() if key != "columns"},
        "parts": parts,
        "bad_rows": manifest.bad_rows,
        "vocabulary_sha256": manifest.sha256(VOCABULARY),
        "preprocessing": manifest.options,
        "dense": list(manifest.inputs),
        "table_rows": dict(zip(manifest.tables, manifest.rows_of_tables)),
        **({"weighted_by": f"column {manifest.weight}"} if manifest.weight else {}),
        **({"negatives": asdict(manifest.negatives)} if manifest.negatives else {}),
    } | ({"warnings": [line for line in told if line]} if any(told) else {})
