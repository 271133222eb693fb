"""Nothing is learned from rows that measure: another test part leaves all that a run learns as it is."""

import json

import numpy as np
import pytest
from conftest import CPU, ORIGINAL, SMALL, files_of, preprocess_lines, raw_lines, write_raw
from test_encoder import ALL, EVERY, rows_of

import export as export_program
import train as train_program
from src.base.sealed import read_facts
from src.data.manifest import VOCABULARY, find
from src.preprocess_data import main as preprocess_main
from src.scorer import Scorer


def scrambled(lines, count):
    """The last lines, so many, with other labels, numbers and categories, some of them new."""
    kept = len(lines) - count
    others = raw_lines(count, seed=99)
    flipped = [f"{1 - int(line[0])}\t-77\t1e9\t{line[2:].replace('0', '7')}" for line in others]
    return lines[:kept] + ["\t".join(line.split("\t")[:40]) for line in flipped]


@pytest.mark.parametrize("options", [{}, *EVERY, {**EVERY[1], "shuffle_rows": True, "max_rows_per_field": 9}])
def test_inputs_are_learned_from_training_rows(tmp_path, options):
    lines = raw_lines(420)
    found = []
    for name, written in (("one", lines), ("two", scrambled(lines, 60))):
        raw = write_raw(tmp_path / name / "train.txt", written)
        data = preprocess_lines(raw, tmp_path / name / "dataset", shard_rows=128, **options)
        found.append([(data.path / VOCABULARY).read_bytes(), files_of(data.path, "train"), rows_of(data)])
    (encoder, train, rows), (other_encoder, other_train, other_rows) = found
    assert encoder == other_encoder
    assert list(train) == [f"train/part-0000{shard}.mindrecord{end}" for shard in range(3) for end in ("", ".db")]
    assert train == other_train
    for mine, other in zip(rows, other_rows):
        assert mine[:360].tobytes() == other[:360].tobytes()
        assert (mine[360:] != other[360:]).any()


def learned(folder, lines):
    """What the programs learn from raw lines, with all that looks at validation rows; and the scrambled part's AUC."""
    write_raw(folder / "train.txt", lines)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        options = {"numeric_transform": "quantile", **ALL, "min_count": 2}
        preprocess_main(["--data_path=train.txt", *(f"--{name}={value}" for name, value in options.items())])
        train_program.main([CPU, ORIGINAL, "--dataset_path=dataset", *SMALL, "--batch_size=32", "--epochs=8",
                            "--lr=0.3", "--eval_steps=7", "--early_stopping=3", "--average_share=0.5",
                            "--label_smoothing=0.05", "--dropout=0.1", "--reset_tables_each_epoch=True"])  # fmt: skip
        export_program.main([CPU, "--export_path=export", "--calibrate=True", "--dataset_path=dataset",
                             "--table_placement=host", "--table_type=int8"])  # fmt: skip
    runs = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return {
        "encoder": (folder / "dataset" / VOCABULARY).read_bytes(),
        "records": files_of(folder / "dataset", "train", "valid"),
        "network": (folder / "checkpoint/dlrm.ckpt").read_bytes(),
        "evaluations": [(line["step"], line["auc"], line["logloss"]) for line in runs if line["kind"] == "eval"],
        "end": [(line["steps"], line["best_step"], line["ended_by"]) for line in runs if line["kind"] == "end"],
        "calibration": read_facts(folder / "export/dlrm.model", "model")["calibration"],
        "tables": (folder / "export/dlrm.tables").read_bytes(),
        "scores": Scorer(folder / "export").score_lines(raw_lines(50, seed=7), has_labels=True).tolist(),
    }


@pytest.fixture(scope="module")
def of_all(tmp_path_factory):
    """A folder of a run on 1,400 lines, these lines, and what it learned. Do not change its files."""
    folder, lines = tmp_path_factory.mktemp("one"), raw_lines(1400)
    return folder, lines, learned(folder, lines)


def test_another_test_part_changes_nothing_that_a_run_learns(of_all, tmp_path):
    """Vocabulary, scaling, buckets, counts, weights, averages, the step kept, the early end, and the calibration."""
    folder, lines, one = of_all
    two = learned(tmp_path, scrambled(lines, 100))
    parts = [find(str(place / "dataset")).manifest.parts["test"] for place in (folder, tmp_path)]
    assert [(part.first_line, part.last_line) for part in parts] == [(1301, 1400)] * 2
    assert files_of(folder / "dataset", "test") != files_of(tmp_path / "dataset", "test")
    ((steps, best_step, why),) = one["end"]
    assert best_step < steps < 8 * 37
    assert why.startswith("early_stopping")
    assert {name: one[name] == two[name] for name in one} == dict.fromkeys(one, True)


def test_another_validation_part_changes_what_it_chooses(of_all, tmp_path):
    """The test above could not fail otherwise."""
    _, lines, one = of_all
    two = learned(tmp_path, lines[:1200] + raw_lines(100, seed=99) + lines[1300:])
    same = {name for name in one if one[name] == two[name]}
    assert "encoder" in same
    assert not same & {"records", "evaluations", "calibration", "scores"}
    assert np.isfinite([auc for _, auc, _ in two["evaluations"]]).all()
