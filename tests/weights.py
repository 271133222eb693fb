"""Rows with weights, and what training on some of their negatives should come to."""

import math
import random

from conftest import preprocess_lines, write_raw

from src.rows.columns import Columns

COLUMNS = Columns(("x",), ("a", "b"), "y", weight="w")
SCHEMA = "label: y\nweight: w\ndense: [x]\ncategorical: [a, b]\n"


def weighted_lines(rows, seed=3, base=-2.5):
    """Lines of label, weight, a number and two categories, which say how likely a click is; some of no weight."""
    rng, lines = random.Random(seed), []
    for _ in range(rows):
        a, b, x = rng.randrange(4), rng.randrange(6), rng.randrange(10)
        chance = 1 / (1 + math.exp(-(base + 1.2 * (a == 0) - (b == 1) + 0.2 * x)))
        weight = rng.choice([0, 1, 1, 2, 7]) if a < 3 else round(rng.expovariate(1), 3)
        lines.append(f"{int(rng.random() < chance)}\t{weight}\t{x}\ta{a}\tb{b}")
    return lines


def weighted_data(folder, rows=2000, **options):
    """A data folder of such rows, and beside it the raw file and the schema."""
    (folder / "schema.yaml").write_text(SCHEMA)
    raw = write_raw(folder / "rows.txt", weighted_lines(rows))
    return preprocess_lines(raw, folder / "dataset", COLUMNS, **options)
