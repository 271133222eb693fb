"""The recipe of cpu_config.yaml on a table of a user's own."""

import json
from pathlib import Path

import numpy as np
from conftest import CPU, preprocess_lines, write_raw
from scipy.sparse import hstack
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.preprocessing import OneHotEncoder, StandardScaler

import eval as eval_program
import train as train_program
from src.dataset import batches_of
from src.rows.columns import Columns

VALUES = (5, 12, 40, 150, 600, 3000)  # of each field


def own_table(rows):
    """Lines whose click is a matter of what each value adds alone: 4 numbers, and 6 fields, the later ones rare."""
    world, rng = np.random.default_rng(7), np.random.default_rng(1)
    effects, weights = [world.normal(0, 0.9, values) for values in VALUES], world.normal(0, 0.6, 4)
    places = [(values * rng.random(rows) ** (1 if values < 100 else 3)).astype(int) for values in VALUES]
    numbers = np.exp(rng.normal(0, 1.2, (4, rows))).round(2)
    logits = sum(effect[place] for effect, place in zip(effects, places)) + weights @ np.log1p(numbers)
    clicks = rng.random(rows) < 1 / (1 + np.exp(1.2 + logits.mean() - logits))
    cells = zip(clicks.astype(int), *numbers, *([f"v{one}" for one in place] for place in places))
    return ["\t".join(map(str, line)) for line in cells]


def test_it_learns_20_000_rows_as_well_as_one_hot_logistic_regression(here):
    data = preprocess_lines(write_raw(here / "own.txt", own_table(20_000)), here / "dataset", Columns.numbered(4, 6))
    train_program.main([CPU, "--dataset_path=dataset", "--report=False", "--compare_linear=False"])
    eval_program.main([CPU, "--dataset_path=dataset"])
    found = json.loads(Path("metrics.jsonl").read_text().splitlines()[-1])
    parts = [[np.concatenate(column) for column in zip(*batches_of(data, part, 4096))] for part in ("train", "test")]
    scaler, encoder = StandardScaler().fit(parts[0][0]), OneHotEncoder(handle_unknown="ignore").fit(parts[0][1])
    (x, y), (test_x, test_y) = (
        (hstack([scaler.transform(dense), encoder.transform(ids)]).tocsr(), labels[:, 0])
        for dense, ids, labels in parts
    )
    linear = LogisticRegression(solver="liblinear").fit(x, y)
    expected = roc_auc_score(test_y, linear.decision_function(test_x))
    assert (found["part"], found["rows"], expected > 0.8) == ("test", 1428, True)
    assert found["auc"] > expected - 0.02
