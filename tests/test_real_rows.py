"""Real Criteo rows, from where they lie beside the repository, against what their README says."""

import hashlib
import lzma
import os
import subprocess

import numpy as np
import pandas as pd
import pytest
from conftest import CPU, ORIGINAL, ROOT, preprocess_lines, write_raw
from runs import METRIC_LINE

import eval as eval_program
import export
import train
from src import preprocess_data, table_accuracy
from src.data.manifest import find
from src.data.vocabulary import count
from src.rows.columns import Columns
from src.rows.keys import text_of
from src.rows.text_file import LineIndex
from src.scorer import Scorer

SAMPLE = ROOT.parent / "shared" / "criteo" / "uniform_137139.tsv.xz"
ROWS = 137_139
DISTINCT = {"C3": 61_763, "C12": 56_396, "C21": 52_249, "C16": 46_381, "C4": 32_222, "C9": 3}
MISSING = {"I12": 76.5, "C22": 76.1, "I1": 45.1, "I10": 45.1, "C19": 44.2, "C20": 44.2, "C25": 44.2, "C26": 44.2}
COLUMNS = Columns.numbered()

pytestmark = pytest.mark.skipif(not SAMPLE.is_file(), reason=f"the real rows are not there: {SAMPLE}")


@pytest.fixture(scope="module")
def raw(tmp_path_factory):
    """The unpacked sample."""
    path = tmp_path_factory.mktemp("real") / "train.txt"
    path.write_bytes(lzma.decompress(SAMPLE.read_bytes()))
    return path


@pytest.fixture(scope="module")
def cells(raw) -> pd.DataFrame:
    """All cells as text, read by pandas."""
    return pd.read_csv(raw, sep="\t", header=None, names=list(COLUMNS.names), dtype=str, keep_default_na=False)


@pytest.fixture(scope="module")
def parsed(raw):
    """Labels, numbers and keys as the parser sees them."""
    index = LineIndex(raw)
    blocks = [block for span in index.spans(0, index.rows, 50_000) for block in span.blocks(COLUMNS)]
    assert [row for block in blocks for row in block.bad] == []
    return (
        np.concatenate([block.labels for block in blocks]),
        np.concatenate([block.numbers for block in blocks]),
        np.concatenate([block.keys for block in blocks], axis=1),
    )


def test_sample_is_the_one_described(raw):
    assert hashlib.md5(raw.read_bytes()).hexdigest() == "3ad32774a7337418a9122ac1b2fceaaf"
    assert LineIndex(raw).rows == ROWS


def test_labels_and_numbers_equal_those_of_pandas(parsed, cells):
    labels, found, _ = parsed
    np.testing.assert_array_equal(labels, cells["label"].astype(int))
    numbers = cells[list(COLUMNS.dense)].replace("", "nan").astype(np.float32)
    np.testing.assert_array_equal(found, numbers)
    assert round(labels.mean(), 5) == 0.25677
    assert numbers["I2"].min() == -2


def test_keys_equal_the_text_of_pandas(parsed, cells):
    keys = parsed[2]
    for name, field_keys in zip(COLUMNS.categorical, keys):
        codes, distinct = pd.factorize(field_keys)
        texts = np.array([text_of(key) for key in distinct])
        np.testing.assert_array_equal(texts[codes], cells[name])


def test_distinct_categories(parsed):
    counts = dict(zip(COLUMNS.categorical, count(parsed[2])))
    distinct = {name: int((keys != 0).sum()) for name, (keys, _) in counts.items()}
    assert {name: distinct[name] for name in DISTINCT} == DISTINCT
    assert sum(distinct.values()) == 316_179
    assert all(totals.sum() == ROWS for _, totals in counts.values())


def test_missing_cells(parsed, cells):
    missing = dict(zip(COLUMNS.categorical, (parsed[2] == 0).mean(axis=1)))
    assert round(100 * np.mean(list(missing.values())), 1) == 11.0
    missing |= (cells[list(COLUMNS.dense)] == "").mean().to_dict()
    assert round(100 * np.mean([missing[name] for name in COLUMNS.dense]), 1) == 20.7
    assert {name: round(100 * missing[name], 1) for name in MISSING} == MISSING


@pytest.fixture(scope="module")
def dataset(raw, tmp_path_factory):
    """The sample's data folder."""
    folder = tmp_path_factory.mktemp("data") / "dataset"
    preprocess_data.main([f"--data_path={raw}", f"--output_path={folder}"])
    return folder


def test_preprocessing_splits_as_described_and_learns_from_training_rows_alone(dataset, cells):
    data = find(str(dataset))
    bounds = {name: (part.first_line - 1, part.last_line - 1) for name, part in data.manifest.parts.items()}
    assert bounds == {"train": (0, 117_547), "valid": (117_548, 127_343), "test": (127_344, 137_138)}
    assert {name: part.rows for name, part in data.manifest.parts.items()} == {
        "train": 117_548,
        "valid": 9_796,
        "test": 9_795,
    }
    train = cells.iloc[:117_548]
    assert data.manifest.table_rows == tuple(train[name].nunique() + 1 for name in COLUMNS.categorical)
    for part in data.manifest.parts.values():
        rows = cells.iloc[part.first_line - 1 : part.last_line]
        assert part.label_mean == pytest.approx((rows["label"] == "1").mean())
        unseen = [(~rows[name].isin(train[name].unique())).mean() for name in COLUMNS.categorical]
        assert part.unseen_share == pytest.approx(unseen)


def test_vocabulary_of_all_rows_holds_every_category(raw, cells, tmp_path):
    data = preprocess_lines(raw, tmp_path / "dataset", record_rows=512, shard_rows=65_536, vocab_scope="all")
    assert find(str(tmp_path / "dataset")) == data
    with_missing = sum((cells[name] == "").any() for name in COLUMNS.categorical)
    assert sum(data.manifest.table_rows) == 316_179 + with_missing + 26
    assert not any(share for part in data.manifest.parts.values() for share in part.unseen_share)


@pytest.fixture(scope="module")
def trained(dataset, tmp_path_factory):
    """A folder with the sample's data folder, the checkpoint of one epoch, eval.py's log, and an export."""
    folder = tmp_path_factory.mktemp("trained")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        os.symlink(dataset, "dataset")
        train.main([CPU, ORIGINAL, "--dataset_path=dataset", "--do_eval=False"])
        eval_program.main(
            [CPU, "--dataset_path=dataset/test", "--checkpoint_path=checkpoint", "--eval_file_name=eval.log"]
        )
        export.main([CPU, "--checkpoint_path=checkpoint", "--table_placement=host"])
    return folder


def test_chain_on_raw_rows_gives_the_metrics_of_eval(program, raw, trained, monkeypatch):
    monkeypatch.chdir(trained)
    lines = raw.read_text().splitlines()[-9795:]
    write_raw(trained / "new.txt", lines)
    command = ["bash", str(ROOT / "scripts/run_infer_310.sh"), "export/dlrm.mindir", "new.txt", "y"]
    subprocess.run(command, check=True, env=os.environ | {"DEVICE_TYPE": "CPU"}, stdout=subprocess.DEVNULL)
    line, _, model = (trained / "acc.log").read_text().splitlines()[-1].partition("; model ")
    assert model == "export/dlrm.mindir"
    found = METRIC_LINE.fullmatch(line)
    expected = METRIC_LINE.fullmatch((trained / "eval.log").read_text().splitlines()[-1])
    for metric, value in expected.groupdict().items():
        assert float(found[metric]) == pytest.approx(float(value), abs=1e-6)
    scores = np.loadtxt("scores.csv", delimiter=",", skiprows=1)[:, 1]
    assert np.abs(scores - Scorer("export").score_lines(lines, has_labels=True)).max() < 1e-5


def test_smaller_table_files_keep_the_auc(trained, monkeypatch, capsys):
    monkeypatch.chdir(trained)
    table_accuracy.main([CPU, "--dataset_path=dataset/test", "--checkpoint_path=checkpoint"])
    lines = capsys.readouterr().out.splitlines()
    part, _, *rows = [line for line in lines if not line.startswith("compiling")]
    assert part == "test: 9795 rows"
    fp32, fp16, int8 = (float(row.split()[2]) for row in rows)
    assert abs(fp16 - fp32) < 1e-5
    assert abs(int8 - fp32) < 5e-4
