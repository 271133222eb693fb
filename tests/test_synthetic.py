"""Tests of the generated Criteo-shaped data: the format, the promises on determinism, and the planted truth."""

import re
from pathlib import Path

import numpy as np
import pytest

from src import synthetic
from src.base.errors import InputError
from src.base.locks import hold_folder
from src.preprocessing import planted

LINE = re.compile(r"[01](\t(\d+)?)(\t(-[12]|\d+)?)(\t(\d+)?){11}(\t([0-9a-f]{8})?){26}")
ROWS = 40_000  # three blocks, the last one cut


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> synthetic.SyntheticSummary:
    return synthetic.generate(tmp_path_factory.mktemp("made") / "train.txt", rows=ROWS, workers=1)


@pytest.fixture(scope="module")
def cells(made: synthetic.SyntheticSummary) -> np.ndarray:
    return np.array([line.split("\t") for line in made.paths[0].read_text().split("\n")[:-1]])


@pytest.fixture(scope="module")
def truth(made: synthetic.SyntheticSummary) -> np.ndarray:
    return np.load(made.paths[1])


def auc_by_pairs(labels: np.ndarray, scores: np.ndarray) -> float:
    """The definition: every (click, no click) pair counts 1, or a half if tied."""
    others = np.sort(scores[labels == 0])
    clicks = scores[labels == 1]
    return float(
        (np.searchsorted(others, clicks, "left") + np.searchsorted(others, clicks, "right")).mean() / 2 / len(others)
    )


def test_every_line_is_in_the_official_format(made: synthetic.SyntheticSummary):
    text = made.paths[0].read_text()
    assert text.endswith("\n")
    lines = text[:-1].split("\n")
    assert len(lines) == ROWS
    assert all(LINE.fullmatch(line) for line in lines)


def test_negative_integers_are_a_few_of_i2(cells: np.ndarray):
    negative = np.char.startswith(cells, "-").mean(0)
    assert np.flatnonzero(negative).tolist() == [2]
    assert negative[2] == pytest.approx(planted.SHARE_BELOW[1, 0], abs=0.01)
    assert 0 < (cells[:, 2] == "-2").sum() < 0.01 * ROWS


def test_text_prints_the_drawn_values(cells: np.ndarray):
    dense, ranks, _, labels = planted.draw(1, 0, 500)
    assert cells[:500, 0].tolist() == [str(label) for label in labels]
    for column, numbers in enumerate(dense, 1):
        assert cells[:500, column].tolist() == ["" if n == planted.NO_NUMBER else str(n) for n in numbers]
    for field, rank in enumerate(ranks):
        texts = cells[:500, 14 + field]
        assert ((texts == "") == (rank < 0)).all()
        assert len(set(zip(texts, rank))) == len(set(texts)) == len(set(rank))


@pytest.mark.parametrize("number", [0, 7, 10, 9_999, 10_000, 10_203, 2_499_999, 99_999_999, -1, -2])
def test_integers_print_as_python_prints_them(number: int):
    dense = np.full((13, 1), number)
    line = synthetic.format_text(np.array([1], np.uint8), dense, np.full((26, 1), -1)).decode()
    assert line == "\t".join(["1", *[str(number)] * 13, *[""] * 26]) + "\n"


def test_codes_do_not_collide_within_a_field():
    ranks = np.concatenate((np.arange(300_000), 2**32 - 1 - np.arange(300_000)))
    for field in (0, 25):
        assert len(np.unique(synthetic._scramble(field, ranks))) == len(ranks)


def test_workers_do_not_change_the_files(tmp_path: Path):
    rows = 8 * planted.BLOCK_ROWS + 5  # blocks for two workers; few would be made without any
    one = synthetic.generate(tmp_path / "one.txt", rows=rows, workers=1)
    more = synthetic.generate(tmp_path / "more.txt", rows=rows, workers=3)
    assert one.paths[0].read_bytes() == more.paths[0].read_bytes()
    assert one.paths[1].read_bytes() == more.paths[1].read_bytes()
    assert (one.label_mean, one.bayes_auc, one.bayes_logloss) == (more.label_mean, more.bayes_auc, more.bayes_logloss)


def test_seed_decides_the_rows(tmp_path: Path, made: synthetic.SyntheticSummary):
    again = synthetic.generate(tmp_path / "again.txt", rows=ROWS, seed=1)
    other = synthetic.generate(tmp_path / "other.txt", rows=ROWS, seed=2)
    assert again.paths[0].read_bytes() == made.paths[0].read_bytes()
    assert other.paths[0].read_bytes() != made.paths[0].read_bytes()


@pytest.mark.parametrize("rows", [1, 999, planted.BLOCK_ROWS, planted.BLOCK_ROWS + 1])
def test_shorter_file_is_a_prefix(tmp_path: Path, made: synthetic.SyntheticSummary, truth: np.ndarray, rows: int):
    shorter = synthetic.generate(tmp_path / "train.txt", rows=rows)
    text = shorter.paths[0].read_bytes()
    assert text.count(b"\n") == rows == shorter.rows
    assert made.paths[0].read_bytes().startswith(text)
    np.testing.assert_array_equal(np.load(shorter.paths[1]), truth[:rows])


def test_one_row_has_no_auc(tmp_path: Path):
    summary = synthetic.generate(tmp_path / "one", rows=1)
    assert np.isnan(summary.bayes_auc)
    assert summary.label_mean in (0, 1)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["one", "one.truth.npy"]


def test_shares_of_empty_cells(cells: np.ndarray):
    expected = np.zeros(39)
    for share, columns in planted.MISSING:
        expected[list(columns)] = share
        assert (cells[:, 1 + np.array(columns)] == "").all(1).mean() == pytest.approx(share, abs=0.01)  # together
    np.testing.assert_allclose((cells[:, 1:] == "").mean(0), expected, atol=0.01)


def test_integers_follow_the_shares_below_the_edges(cells: np.ndarray):
    for column in range(13):
        values = cells[:, 1 + column]
        values = values[values != ""].astype(np.int64)
        below = [(values < edge).mean() for edge in planted.EDGES]
        np.testing.assert_allclose(below, planted.SHARE_BELOW[column], atol=0.02)


def test_fields_are_long_tailed_or_small_as_the_real_ones(cells: np.ndarray):
    distinct = [len(set(cells[:, 14 + field]) - {""}) for field in range(26)]
    assert distinct[8] == distinct[19] == 3
    # A uniform sample of 40,000 real rows holds 20,556, 12,669 and 17,938 values of these three.
    assert distinct[2] == pytest.approx(20_556, rel=0.15)
    assert distinct[3] == pytest.approx(12_669, rel=0.15)
    assert distinct[20] == pytest.approx(17_938, rel=0.15)
    _, counts = np.unique(cells[:, 16], return_counts=True)
    assert (counts == 1).sum() > 0.8 * distinct[2]
    assert counts.max() > 0.02 * ROWS


def test_label_mean_is_that_of_criteo(made: synthetic.SyntheticSummary, cells: np.ndarray):
    assert made.label_mean == pytest.approx(0.2568, abs=0.01)
    assert made.label_mean == (cells[:, 0] == "1").mean()


def test_labels_follow_the_truth(cells: np.ndarray, truth: np.ndarray):
    assert truth.shape == (ROWS,)
    assert truth.dtype == np.float32
    labels = cells[:, 0] == "1"
    probability = 1 / (1 + np.exp(-truth.astype(np.float64)))
    for part in np.array_split(np.argsort(truth), 20):
        p = probability[part]
        deviation = np.sqrt((p * (1 - p)).sum())
        assert abs(labels[part].sum() - p.sum()) < 4 * deviation


def test_truth_depends_on_the_values_in_the_row_alone(truth: np.ndarray):
    dense, ranks, logits, _ = planted.draw(1, 0, 100)
    np.testing.assert_array_equal(logits, truth[:100])
    for row in (0, 41, 99):
        alone = planted.planted_logits(dense[:, row : row + 1], ranks[:, row : row + 1])
        assert alone[0] == pytest.approx(float(logits[row]), abs=1e-5)


def test_rare_values_carry_no_signal():
    dense, ranks, logits, _ = planted.draw(1, 0, 2_000)
    rare = ranks > planted.HOT
    np.testing.assert_array_equal(planted.planted_logits(dense, np.where(rare, ranks + 1, ranks)), logits)
    assert rare.mean() > 0.3


def test_summary_scores_the_truth(made: synthetic.SyntheticSummary, cells: np.ndarray, truth: np.ndarray):
    labels = (cells[:, 0] == "1").astype(np.int64)
    logits = truth.astype(np.float64)
    assert made.bayes_auc == pytest.approx(auc_by_pairs(labels, truth), abs=1e-5)
    assert made.bayes_logloss == pytest.approx(np.mean(np.log1p(np.exp(logits)) - labels * logits))
    assert 0.82 < made.bayes_auc < 0.88


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"rows": 0}, "rows is 0"),
        ({"rows": synthetic.MAX_ROWS + 1}, "rows is 50000001"),
        ({"rows": 5, "seed": -1}, "seed is -1"),
        ({"rows": 5, "workers": 0}, "workers is 0"),
    ],
)
def test_values_out_of_range_are_refused(tmp_path: Path, options: dict, message: str):
    with pytest.raises(ValueError, match=message):
        synthetic.generate(tmp_path / "train.txt", **options)
    assert not list(tmp_path.iterdir())


def test_a_failure_leaves_no_file_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def fail(*_):
        raise RuntimeError("broken")

    monkeypatch.setattr(synthetic, "format_text", fail)
    with pytest.raises(RuntimeError, match="broken"):
        synthetic.generate(tmp_path / "train.txt", rows=10)
    assert not list(tmp_path.iterdir())


def test_two_runs_do_not_write_one_file(tmp_path: Path):
    with (
        hold_folder(tmp_path / "train.txt.writing", "x"),
        pytest.raises(InputError, match=r"train.txt: another run"),
    ):
        synthetic.main([f"--data_path={tmp_path}", "--rows=10"])
    synthetic.main([f"--data_path={tmp_path}", "--rows=10"])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["train.truth.npy", "train.txt"]


def test_days_bring_other_values_and_another_law(tmp_path, capsys):
    """The plain rows on day 0; a model that stands still falls behind the best one from day to day."""
    folder = tmp_path / "days"
    synthetic.main([f"--data_path={folder}", "--rows=3000", "--days=3", "--seed=4"])
    assert capsys.readouterr().out.count(" have AUC 0.8") == 3
    synthetic.main([f"--data_path={tmp_path / 'plain.txt'}", "--rows=3000", "--seed=4"])
    assert (folder / "day-00.txt").read_bytes() == (tmp_path / "plain.txt").read_bytes()
    again = synthetic.generate_days(tmp_path / "again", 2, rows=3000, seed=4)
    for summary in again:
        assert summary.paths[0].read_bytes() == (folder / summary.paths[0].name).read_bytes()
    with pytest.raises(InputError, match="is one file, and days 2 get one each: name a folder"):
        synthetic.main([f"--data_path={tmp_path / 'plain.txt'}", "--days=2"])
    behind = []
    for day in (0, 4, 9):
        dense, ranks, logits, labels = planted.draw(1, 0, 16384, day)
        best, still = synthetic.Tally(), synthetic.Tally()
        best.add(logits, labels)
        still.add(planted.planted_logits(dense, ranks), labels)
        assert 0.83 < best.auc() < 0.87
        behind.append(best.auc() - still.auc())
    assert behind[0] == 0 < 0.005 < behind[1] < behind[2]
    assert behind[2] > 0.05


def test_values_live_for_some_days_and_are_never_another_s():
    ranks = np.tile(np.arange(2000), (26, 1))
    before = planted.values_of(ranks, 0)
    assert np.array_equal(before, ranks)
    changed = []
    for day in range(1, 12):
        values = planted.values_of(ranks, day)
        assert all(len(set(of_field.tolist())) == 2000 for of_field in values)
        changed.append((values != before).mean(axis=0))
        before = values
    shares = np.array(changed)
    assert 0.18 < shares[:, planted.HOT :].mean() < 0.22  # a life of 5 days
    assert 0.02 < shares[:, 1 : planted.HOT].mean() < 0.07  # of 24
    assert shares[:, 0].mean() < 0.02
    assert (planted.values_of(np.full((26, 1), -1), 5) == -1).all()
