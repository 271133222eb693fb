"""Rows without a numeric column, or without a categorical one, through all programs; and rows of many columns."""

import importlib.util
import random
from pathlib import Path

import numpy as np
import pytest
from conftest import CPU, ORIGINAL, write_raw
from program_310 import scored
from runs import rows_of
from sklearn.metrics import roc_auc_score

import eval as eval_program
import export as export_program
import preprocess as preprocess_program
import train as train_program
from src.base.errors import InputError
from src.checkpoints import checkpoint
from src.data.manifest import NO_CATEGORY, NO_NUMBER, Manifest
from src.dlrm import mlp_values
from src.network.options import NetworkSpec
from src.preprocess_data import main as preprocess_data
from src.scorer import Scorer

ROWS, CLICKS = 1400, (0.1, 0.9)
NETWORK = NetworkSpec(emb_dim=4, bottom_mlp=(8, 4), top_mlp=(8, 1))


def lines_of(dense_dim, slot_dim):
    """A click follows from whether the first two columns are alike; best_auc says how well that tells it."""
    rng = random.Random(dense_dim)
    lines, chances, labels = [], [], []
    for _ in range(ROWS):
        codes = [rng.randrange(3) for _ in range(dense_dim + slot_dim)]
        chances.append(CLICKS[codes[0] == codes[1]])
        labels.append(int(rng.random() < chances[-1]))
        cells = [str(code * code * 7) if place < dense_dim else f"v{code}" for place, code in enumerate(codes)]
        lines.append("\t".join([str(labels[-1]), *cells]))
    return lines, np.array(labels), np.array(chances)


@pytest.mark.parametrize(("dense_dim", "slot_dim"), [(0, 3), (3, 0)])
def test_rows_of_one_kind_of_column_run_through_all_programs(program, here, dense_dim, slot_dim):
    lines, labels, chances = lines_of(dense_dim, slot_dim)
    raw = write_raw(Path("rows.txt"), lines)
    preprocess_data([f"--data_path={raw}", "--output_path=data", f"--dense_dim={dense_dim}", f"--slot_dim={slot_dim}",
                     "--record_rows=64", "--min_count=1"])  # fmt: skip
    network = ["--emb_dim=4", "--bottom_mlp=[8,4]", "--top_mlp=[8,1]"]
    train_program.main([CPU, ORIGINAL, "--dataset_path=data", *network, "--batch_size=32", "--epochs=8", "--lr=0.5",
                        "--table_lr=2", "--eval_steps=1000"])  # fmt: skip
    eval_program.main([CPU, "--dataset_path=data/test"])
    assert rows_of("metrics.jsonl", "eval")[-1]["auc"] > 0.75
    manifest = Manifest.load(Path("data/manifest.json"))
    assert (manifest.inputs == (NO_NUMBER,), manifest.fields == (NO_CATEGORY,)) == (dense_dim == 0, slot_dim == 0)
    model = checkpoint.load(Path("checkpoint/dlrm.ckpt"), manifest, NETWORK)
    assert sum(value.size for value in model.mlp_parameters()) == mlp_values(dense_dim, slot_dim, NETWORK)
    found = []
    for placement in ("graph", "host"):
        export_program.main([CPU, f"--export_path={placement}", f"--table_placement={placement}"])
        scorer = Scorer(placement)
        found.append(scorer.score_lines(lines, has_labels=True))
        found.append(scorer.score(scorer.read_csv(raw, has_labels=True)))
        preprocess_program.main(["--dataset_path=rows.txt", f"--export_path={placement}", "--overwrite=True"])
        found.append(scored(program, placement, Path("preprocess_Result")))
    for scores in found:
        np.testing.assert_allclose(scores, found[0], rtol=0, atol=1e-6)
    assert roc_auc_score(labels, found[0]) > roc_auc_score(labels, chances) - 0.02


def test_a_thousand_columns_are_coded_as_few_are(here):
    rng = np.random.default_rng(1)
    cells = rng.integers(0, 3, (40, 1000)).astype(str)
    write_raw(Path("rows.txt"), ["\t".join(["1", *row]) for row in cells])
    preprocess_data(["--data_path=rows.txt", "--output_path=data", "--dense_dim=0", "--slot_dim=1000",
                     "--record_rows=8", "--shard_rows=16"])  # fmt: skip
    manifest = Manifest.load(Path("data/manifest.json"))
    assert manifest.fields == tuple(f"C{number}" for number in range(1, 1001))
    distinct = [len(set(column[: manifest.parts["train"].rows])) for column in cells.T]
    assert manifest.table_rows == tuple(1 + count for count in distinct)


def test_no_column_at_all_is_refused(here):
    with pytest.raises(InputError, match="dense_dim and slot_dim are both 0"):
        preprocess_data(["--dense_dim=0", "--slot_dim=0"])


SCHEMA = """
label: clicked
positive: ["yes"]
header: true
separator: ";"
decimal: ","
missing: ["n/a"]
dense: [price, {name: seen, as: timestamp}]
categorical: [site, city]
"""


def csv_of(rows=400):
    """As a spreadsheet writes it; a click follows from site and city."""
    rng = random.Random(6)
    lines = ["clicked;site;price;city;seen"]
    for _ in range(rows):
        site, city = rng.choice("ab"), rng.choice(['"New ""York"""', '"a;b\nc"', "n/a"])
        clicked = "yes" if rng.random() < (0.9 if (site == "a") == (city == "n/a") else 0.1) else "no"
        seen = f"2026-03-{rng.randrange(1, 29):02d} {rng.randrange(24):02d}:00:00"
        lines.append(f"{clicked};{site};{rng.choice(['1,5', 'n/a', '2000,25'])};{city};{seen}")
    return lines


def test_rows_in_other_forms_are_scored_alike_by_all_programs(program, here):
    lines = csv_of()
    Path("rows.csv").write_bytes(("\ufeff" + "\r\n".join(lines) + "\r\n\r\n").encode())
    Path("s.yaml").write_text(SCHEMA)
    preprocess_data(["--data_path=rows.csv", "--output_path=data", "--schema=s.yaml", "--record_rows=32"])
    train_program.main([CPU, ORIGINAL, "--dataset_path=data", "--emb_dim=4", "--bottom_mlp=[8,4]", "--top_mlp=[8,1]",
                        "--batch_size=32", "--epochs=3", "--lr=0.3", "--eval_steps=1000"])  # fmt: skip
    export_program.main([CPU])
    scorer = Scorer("export")
    found = [scorer.score_lines(Path("rows.csv"), has_labels=True), scorer.score_lines(lines, has_labels=True)]
    frame = scorer.read_csv("rows.csv", has_labels=True)
    found.append(scorer.score(frame))
    without = [line.partition(";")[2] for line in lines]  # the label stands in front
    write_raw(Path("new.csv"), without)
    found.append(scorer.score_lines(Path("new.csv")))
    preprocess_program.main(["--dataset_path=new.csv", "--export_path=export", "--has_labels=False"])
    found.append(scored(program, "export", Path("preprocess_Result")))
    if importlib.util.find_spec("pyarrow"):
        frame.drop(columns="clicked").to_parquet("new.parquet")
        found.append(scorer.score_lines(Path("new.parquet")))
    assert len(found[0]) == 400
    assert len(np.unique(found[0])) > 4
    for scores in found[1:]:
        np.testing.assert_allclose(scores, found[0], rtol=0, atol=1e-6)
