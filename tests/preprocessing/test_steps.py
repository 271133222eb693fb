"""Shuffling by two steps, which know of each other only by the paths that they are given."""

import resource
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from conftest import write_raw
from mindspore.mindrecord import FileReader

from src.data import records
from src.data.encoder import Encoder
from src.data.parts import File
from src.data.vocabulary import HashedVocabulary
from src.dataset import batches_of
from src.preprocessing import shards, steps
from src.preprocessing.options import PreprocessingSpec
from src.preprocessing.run import preprocess
from src.preprocessing.shards import Coding, Shard
from src.preprocessing.steps import bundle_rows, bundles_of, gather_bucket, scatter_rows
from src.rows.columns import Columns
from src.rows.reader import RawInput

ROWS, SPANS = 900, 3
COLUMNS = Columns.numbered(1, 1)


@pytest.fixture(scope="module")
def shuffled(tmp_path_factory):
    """Numbers of the rows of each shard, in order, and those of each span's buckets."""
    folder = tmp_path_factory.mktemp("shuffled")
    raw = write_raw(folder / "raw.txt", [f"{row % 2}\t{row}\tc" for row in range(ROWS)])
    spans = RawInput([raw], COLUMNS, folder).spans(0, ROWS, ROWS // SPANS)
    scattered = tuple(folder / f"any{n}" for n in range(SPANS))
    coding = Coding(COLUMNS, Encoder(("I1",), HashedVocabulary(["C1"], 5)), 16, 7, scattered)
    buckets = []
    for number, span in enumerate(spans):
        assert scatter_rows([span], number, scattered[number], coding) == {"rows": ROWS // SPANS}
        bounds = np.fromfile(scattered[number], "<i8", SPANS + 1)
        rows = np.fromfile(scattered[number], np.uint8, offset=8 * (SPANS + 1)).reshape(-1, 9)
        buckets.append(np.split(numbers_of(rows[:, :4].copy().view("<f4")[:, 0]), bounds[1:-1]))
    shards = []
    for bucket in range(SPANS):
        path = folder / f"part-{bucket}.mindrecord"
        shard = Shard.of(gather_bucket(bucket, path, coding)["shard"], "train")
        packed = [records.unpack(record[records.COLUMN], 1, 1) for record in FileReader(str(path)).get_next()]
        assert [len(labels) for _, _, labels in packed[:-1]] == [16] * (len(packed) - 1)
        shards.append(numbers_of(np.concatenate([dense[:, 0] for dense, _, _ in packed])))
        np.testing.assert_array_equal(np.concatenate([labels for _, _, labels in packed]), shards[-1] % 2)
        assert (shard.rows, shard.clicks) == (len(shards[-1]), (shards[-1] % 2).sum())
        assert [file.name for file in shard.files] == [f"train/{path.name}", f"train/{path.name}.db"]
    return shards, buckets


def numbers_of(logs):
    return np.rint(np.exp(logs.astype(np.float64)) - 1).astype(int)


def test_each_row_is_in_one_shard(shuffled):
    shards, buckets = shuffled
    assert sorted(np.concatenate(shards).tolist()) == list(range(ROWS))
    for bucket, shard in enumerate(shards):
        assert sorted(shard.tolist()) == sorted(np.concatenate([of_span[bucket] for of_span in buckets]).tolist())


def test_rows_of_a_shard_come_from_all_spans_in_random_order(shuffled):
    for shard in shuffled[0]:
        assert np.bincount(shard * SPANS // ROWS, minlength=SPANS).min() > 70  # 100 expected, deviation 8
        assert abs(np.corrcoef(shard, np.arange(len(shard)))[0, 1]) < 0.2  # deviation 0.06
        assert (np.diff(shard) == 1).sum() < 5


def test_each_span_is_dealt_by_a_stream_of_its_own(shuffled):
    """Else the rows that stand at one place of their spans would always be in one shard."""
    _, buckets = shuffled
    size = ROWS // SPANS
    places = [set((of_span[0] % size).tolist()) for of_span in buckets]
    for one, other in ((0, 1), (0, 2), (1, 2)):
        assert len(places[one] & places[other]) < 60  # 33 expected, 100 if the streams were one


def test_pieces_may_be_more_than_files_may_be_open(tmp_path):
    """Of thousands of small files, or at `ulimit -n 1024`."""
    raw = write_raw(tmp_path / "raw.txt", [f"{row % 2}\t{row}\tc" for row in range(200)])
    spans = RawInput([raw], COLUMNS, tmp_path).spans(0, 200, 2)
    scattered = tuple(tmp_path / f"any{n}" for n in range(len(spans)))
    coding = Coding(COLUMNS, Encoder(("I1",), HashedVocabulary(["C1"], 5)), 16, 7, scattered)
    records.prepare()
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    used = len(list(Path("/proc/self/fd").iterdir()))
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (used + 30, before[1]))
        rows = [
            int(scatter_rows([span], number, scattered[number], coding)["rows"]) for number, span in enumerate(spans)
        ]
        shard = Shard.of(gather_bucket(3, tmp_path / "part.mindrecord", coding)["shard"], "train")
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
    assert rows == [2] * 100
    assert 0 < shard.rows < 12  # 2 expected


def test_thousands_of_pieces_are_put_together_before_each_bucket_opens_them(tmp_path, monkeypatch):
    """The shards are the same; 150 pieces of 4 rows stand for thousands, and each bucket opens 3 files."""
    raw = write_raw(tmp_path / "raw.txt", [f"{row % 2}\t{row}\tc" for row in range(600)])
    spans = RawInput([raw], COLUMNS, tmp_path).spans(0, 600, 4)
    scattered = tuple(tmp_path / f"any{n}" for n in range(len(spans)))
    apart = Coding(COLUMNS, Encoder(("I1",), HashedVocabulary(["C1"], 5)), 16, 7, scattered)
    for number, span in enumerate(spans):
        scatter_rows([span], number, scattered[number], apart)
    bundles = bundles_of(scattered)
    assert [len(files) for files in bundles] == [64, 64, 22]
    assert bundles_of(scattered[:64]) == []
    together = replace(apart, bundled=tuple(tmp_path / f"bundle{n}" for n in range(len(bundles))))
    monkeypatch.setattr(steps, "_BUNDLE_BYTES", 100)  # so that it takes several turns
    rows = [int(bundle_rows(files, path, together)["rows"]) for files, path in zip(bundles, together.bundled)]
    assert rows == [4 * 64, 4 * 64, 4 * 22]
    gathered = []
    monkeypatch.setattr(shards.records, "write", lambda path, packed, *_: gathered.append(packed))
    monkeypatch.setattr(shards.File, "of", lambda folder, path: File(path.name, 0, ""))
    for bucket in range(0, 150, 10):
        for coding in (apart, together):
            gather_bucket(bucket, tmp_path / f"part-{bucket}", coding)
    assert gathered[::2] == gathered[1::2]
    for path in scattered:
        path.unlink()
    gather_bucket(149, tmp_path / "part", together)


def test_a_run_of_many_pieces_gives_all_rows_in_another_order(tmp_path, monkeypatch):
    monkeypatch.setattr(steps, "_BUNDLED", 4)
    raw = write_raw(tmp_path / "raw.txt", [f"{row % 2}\t{row}\tc" for row in range(35)])
    options = PreprocessingSpec(shuffle_rows=True, shard_rows=2, record_rows=2)
    data = preprocess([raw], tmp_path / "data", COLUMNS, options)
    rows = numbers_of(np.concatenate([dense for dense, _, _ in batches_of(data, "train", 64)])[:, 0])
    assert sorted(rows.tolist()) == list(range(30))
    assert np.abs(np.diff(rows)).mean() > 5  # 10 expected, 1 in the file's order
