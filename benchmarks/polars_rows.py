"""Rows of Criteo's format coded by polars, to hold preprocessing against: `python benchmarks/polars_rows.py RAW OUT`.

Its output has the content of a data folder that src/preprocess_data.py makes by default: a Parquet file a part with
labels, log(x + 1) of the numbers, and ids of the categories by falling frequency in training, ties as there. It leaves
out what else that program does: bad rows end the run untold, nothing is kept to go on from after a kill, or to grow
from, there are no checksums, and rows are not packed for training. All rows are in memory at once.
"""

import argparse
import sys
from pathlib import Path

DENSE = [f"I{place}" for place in range(1, 14)]
CATEGORICAL = [f"C{place}" for place in range(1, 27)]
RARE = 0  # the id of what training did not have


def parts_of(rows: int) -> dict[str, tuple[int, int]]:
    """First row and number of rows of each part: the last seventh is validation and test."""
    held_out = rows // 7
    valid = int(held_out / 2 + 0.5)
    train = rows - held_out
    return {"train": (0, train), "valid": (train, valid), "test": (train + valid, held_out - valid)}


def preprocess(raw: Path, folder: Path, min_count: int) -> None:
    """Read, learn a vocabulary, code, and write."""
    import polars as pl

    kinds = {"label": pl.UInt8} | dict.fromkeys(DENSE, pl.Int32) | dict.fromkeys(CATEGORICAL, pl.Categorical)
    rows = pl.read_csv(raw, separator="\t", has_header=False, new_columns=list(kinds), schema=kinds, quote_char=None)
    parts = parts_of(len(rows))
    training = rows.slice(*parts["train"])
    coded = [
        rows.select(
            "label", *(pl.col(name).fill_null(0).clip(0).cast(pl.Float32).log1p().alias(name) for name in DENSE)
        )
    ]
    for name in CATEGORICAL:
        own = pl.col(name)
        ids = (
            training.lazy().group_by(name).len().filter(pl.col("len") >= min_count)
            # Among equally frequent ones text goes by its last byte first.
            .sort(-pl.col("len").cast(pl.Int64), own.cast(pl.String).str.reverse())
            .with_row_index("id", RARE + 1).select(name, pl.col("id").cast(pl.Int32))
        )  # fmt: skip
        found = rows.lazy().select(name).join(ids, on=name, how="left", nulls_equal=True, maintain_order="left")
        coded.append(found.select(pl.col("id").fill_null(RARE).alias(name)).collect())
        rows, training = rows.drop(name), training.drop(name)
    whole = pl.concat(coded, how="horizontal")
    folder.mkdir(parents=True, exist_ok=True)
    for part, (first, size) in parts.items():
        whole.slice(first, size).write_parquet(folder / f"{part}.parquet", compression="uncompressed", statistics=False)


def check(folder: Path, data_folder: Path) -> None:
    """Refuse to go on where the rows of the two outputs differ: ids by a bit, numbers by more than float32 rounds."""
    import numpy as np
    import polars as pl

    from src.data.manifest import find
    from src.dataset import batches_of

    data = find(str(data_folder))
    for part, kept in data.manifest.parts.items():
        rows = pl.read_parquet(folder / f"{part}.parquet")
        assert len(rows) == kept.rows, (part, len(rows), kept.rows)
        done = 0
        for dense, ids, labels in batches_of(data, part, 1 << 16):
            own = rows.slice(done, len(labels))
            done += len(labels)
            np.testing.assert_array_equal(ids, own.select(CATEGORICAL).to_numpy())
            np.testing.assert_array_equal(labels.ravel(), own["label"].to_numpy())
            np.testing.assert_allclose(dense, own.select(DENSE).to_numpy(), rtol=1e-6)


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("raw", type=Path)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--min_count", type=int, default=1)
    arguments = parser.parse_args()
    preprocess(arguments.raw, arguments.folder, arguments.min_count)
