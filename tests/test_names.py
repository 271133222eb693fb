"""Columns of any name go the whole way from raw text to the scores of both programs."""

import json

import numpy as np
import pandas as pd
import pytest
from conftest import CPU, write_raw
from program_310 import scored

import eval as eval_program
import export as export_program
import preprocess as preprocess_program
import train as train_program
from src import preprocess_data as preprocess_data_program
from src.scorer import Scorer

CATEGORICAL = [
    "file", "/inputs/x", "/names", "names", "/hash_rows", "/keys/0", "x", "x.npy", "a@b", '"q"', " blank ", "漢字",
    "é" * 100, "l" * 200, "a.b/../c\\d", "#", "1", "<b>&amp;", "key: value", "{}", "%s", "it's", "null",
]  # fmt: skip
DENSE = ["self", "file ", "arrays", "数", "-1", "$(x)", "tables"]


def text_of(rows):
    rng = np.random.default_rng(1)
    values = rng.integers(0, 5, (rows, len(CATEGORICAL)))
    numbers = rng.integers(0, 9, (rows, len(DENSE)))
    labels = (values[:, 0] + rng.random(rows) > 3).astype(int)
    return [
        "\t".join([str(label), *map(str, number), *(f"v{value}" for value in row)])
        for label, number, row in zip(labels, numbers, values)
    ]


@pytest.mark.parametrize("more", [["--hash_rows=20"], ["--category_counts=True", "--numeric_buckets=3"]])
def test_columns_of_any_name_go_the_whole_way(program, tmp_path, monkeypatch, more):
    monkeypatch.chdir(tmp_path)
    names = {"label": "label ", "dense": DENSE, "categorical": CATEGORICAL}
    (tmp_path / "schema.yaml").write_text(json.dumps(names, ensure_ascii=False), encoding="utf-8")
    lines = text_of(140)
    write_raw(tmp_path / "train.txt", lines)
    preprocess_data_program.main(["--data_path=train.txt", "--schema=schema.yaml", *more])
    small = ["--emb_dim=4", "--bottom_mlp=[4]", "--top_mlp=[1]"]
    train_program.main([CPU, "--dataset_path=dataset", *small, "--batch_size=20", "--lr=0.3"])
    eval_program.main([CPU, "--dataset_path=dataset"])
    export_program.main([CPU])
    scorer = Scorer("export")
    assert scorer.columns.categorical == tuple(CATEGORICAL)
    expected = scorer.score_lines(lines, has_labels=True)
    assert len(np.unique(expected)) > 50
    cells = pd.DataFrame([line.split("\t") for line in lines], columns=["label ", *DENSE, *CATEGORICAL])
    assert np.array_equal(scorer.score(cells), expected)
    preprocess_program.main(["--dataset_path=train.txt"])
    found = scored(program, tmp_path / "export/dlrm.mindir", tmp_path / "preprocess_Result")
    assert found == pytest.approx(expected, abs=1e-5)
