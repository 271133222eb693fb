"""What smaller table files cost: `python src/table_accuracy.py --dataset_path=dataset/test --device_target=CPU`.

Evaluates a checkpoint with its tables rounded as `export.py --table_type=fp16` and `int8` store them, beside fp32.
"""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

if __name__ == "__main__":
    from src.base.stops import end_at_once

    end_at_once()

import numpy as np

from src.base.errors import run
from src.checkpoints.checkpoint import check_encoder
from src.checkpoints.names import file_of
from src.checkpoints.stored import open_changed
from src.data.manifest import DataFolder, find
from src.dataset import batches_of
from src.export.options import TABLE_TYPES
from src.export.table_file import decode_rows, encode_rows, row_bytes
from src.metrics.monitored import Metrics, measured
from src.model_utils.device_target import set_device
from src.network.options import NetworkSpec
from src.options import TableAccuracyOptions, resolve
from src.training.evaluation import score


@dataclass(frozen=True)
class Rounded:
    """What a type of table file gives on the rows of a part.

    Attributes:
        table_type: of TABLE_TYPES.
        share: its bytes a row, beside fp32's.
        metrics: over the rows.
        largest_difference: of a score, from that of fp32.
    """

    table_type: str
    share: float
    metrics: Metrics
    largest_difference: float


def rounded(vectors: np.ndarray, table_type: str) -> np.ndarray:
    """Vectors [n, D] as a table file of this type gives them back."""
    return decode_rows(encode_rows(vectors, table_type), table_type)


def compare(path: Path, data: DataFolder, part: str, batch_size: int, network: NetworkSpec) -> list[Rounded]:
    """Evaluate a checkpoint with each type of table file.

    Args:
        path: the checkpoint.
        data, part: the rows.
        batch_size: rows at once.
        network: its shape.
    """
    found: list[Rounded] = []
    exact = np.zeros(0)
    for table_type in TABLE_TYPES:
        model = open_changed(path, data.manifest, network, partial(rounded, table_type=table_type))
        labels, logits, *weights = score(model, batches_of(data, part, batch_size), batch_size)
        scores = 1 / (1 + np.exp(-logits.astype(np.float64)))
        exact = exact if len(exact) else scores
        share = row_bytes(table_type, network.emb_dim) / row_bytes("fp32", network.emb_dim)
        difference = float(np.abs(scores - exact).max())
        found.append(Rounded(table_type, share, measured(labels, logits, *weights), difference))
    return found


def table_of(found: Sequence[Rounded]) -> list[dict[str, str]]:
    """The results as rows of named, shown values."""
    first = found[0].metrics
    return [
        {
            "table type": one.table_type,
            "size": f"{one.share:.2f}",
            "AUC": f"{one.metrics['auc']:.6f}",
            "AUC - fp32's": f"{one.metrics['auc'] - first['auc']:+.1e}",
            "logloss": f"{one.metrics['logloss']:.6f}",
            "logloss - fp32's": f"{one.metrics['logloss'] - first['logloss']:+.1e}",
            "largest difference of a score": f"{one.largest_difference:.1e}",
        }
        for one in found
    ]


def evaluate(argv: Sequence[str]) -> list[Rounded]:
    """Compare what the command line names."""
    options = resolve(TableAccuracyOptions, argv)
    data = find(options.score.dataset_path)
    part = data.part_to_score()
    path = file_of(options.score.checkpoint_path)
    check_encoder(path, data)
    set_device(options.device.device_target, options.device.device_id)
    print(f"{part}: {data.manifest.parts[part].rows} rows{data.manifest.weighting}")
    return compare(path, data, part, options.score.eval_batch_size, options.network)


def main(argv: Sequence[str]) -> None:
    """Print a line for each type."""
    table = table_of(evaluate(argv))
    for row in [{name: name for name in table[0]}, *table]:
        print("  ".join(f"{value:>{max(12, len(name))}}" for name, value in row.items()))


if __name__ == "__main__":
    run(main)
