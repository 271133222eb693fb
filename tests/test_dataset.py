import numpy as np
import pytest
from conftest import preprocess_lines, raw_lines, write_raw

from src import dataset
from src.base.errors import InputError
from src.data import records
from src.data.encoder import load_encoder
from src.dataset import RowBatches, Rows, TrainingDataset, sample
from src.rows.columns import Columns
from src.rows.lines import parse

ROWS, RECORD_ROWS = 1000, 16
SHARD_ROWS = [320, 320, 320, 40]  # 63 records, the last one of 8 rows
DENSE_DIM, SLOT_DIM = 2, 3


def plain_rows(numbers: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Rows in which every cell tells the row's number, so that a mixed-up cell shows."""
    dense = np.stack([numbers, -numbers / 8], axis=1).astype(np.float32)
    ids = np.stack([numbers, numbers + 10_000, 7 * numbers], axis=1).astype(np.int32)
    return dense, ids, (numbers % 3 == 0).astype(np.float32)[:, None]


@pytest.fixture(scope="module")
def shards(tmp_path_factory) -> list[str]:
    """Four MindRecord files of rows 0 to 999."""
    folder, paths, first = tmp_path_factory.mktemp("shards"), [], 0
    for number, rows in enumerate(SHARD_ROWS):
        starts = range(first, first + rows, RECORD_ROWS)
        blocks = [plain_rows(np.arange(start, min(start + RECORD_ROWS, first + rows))) for start in starts]
        packed = [records.pack(dense, ids, labels[:, 0]) for dense, ids, labels in blocks]
        path = folder / f"part-{number:05d}.mindrecord"
        records.write(path, packed)
        paths.append(str(path))
        first += rows
    return paths


def make(shards: list[str], batch_size: int, **options) -> RowBatches:
    return RowBatches(Rows(shards, ROWS, DENSE_DIM, SLOT_DIM), batch_size, **options)


def numbers_of(batches) -> list[int]:
    """The rows' numbers in the order of the batches, after a look at every other cell of them."""
    numbers = []
    for dense, ids, labels in batches:
        expected = plain_rows(ids[:, 0])
        for value, plain in zip((dense, ids, labels), expected):
            assert value.dtype == plain.dtype
            np.testing.assert_array_equal(value, plain)
        numbers += ids[:, 0].tolist()
    return numbers


@pytest.mark.parametrize("window_rows", [1, 37, 1 << 16])
@pytest.mark.parametrize("batch_size", [7, 16, 128, 1000, 4096])
def test_unshuffled_rows_come_in_order_the_last_partial_batch_included(shards, batch_size, window_rows, monkeypatch):
    monkeypatch.setattr(dataset, "_WINDOW_ROWS", window_rows)
    batches = make(shards, batch_size)
    sizes = [len(ids) for _, ids, _ in batches]
    assert sizes == [batch_size] * (ROWS // batch_size) + [ROWS % batch_size] * (ROWS % batch_size > 0)
    assert len(batches) == len(sizes)
    assert numbers_of(batches) == list(range(ROWS))


@pytest.mark.parametrize("window_rows", [1, 37, 1 << 16])
@pytest.mark.parametrize("batch_size", [7, 128, 1000, 4096])
def test_drop_last_leaves_out_the_partial_batch_alone(shards, batch_size, window_rows, monkeypatch):
    monkeypatch.setattr(dataset, "_WINDOW_ROWS", window_rows)
    batches = make(shards, batch_size, drop_last=True)
    assert len(batches) == ROWS // batch_size
    assert [len(ids) for _, ids, _ in batches] == [batch_size] * len(batches)
    assert numbers_of(batches) == list(range(ROWS // batch_size * batch_size))


@pytest.mark.parametrize("window_rows", [1, 37, 100, 1 << 16])
def test_shuffled_epochs_hold_every_row_once_each_in_an_order_of_its_own(shards, window_rows, monkeypatch):
    monkeypatch.setattr(dataset, "_WINDOW_ROWS", window_rows)
    batches = make(shards, 128, shuffle=True)
    epochs = [numbers_of(batches) for _ in range(3)]
    assert [sorted(epoch) for epoch in epochs] == [list(range(ROWS))] * 3
    assert len({tuple(epoch) for epoch in [*epochs, range(ROWS)]}) == 4


def test_shuffling_follows_from_the_seed_and_the_epoch_alone(shards):
    first, same = make(shards, 128, shuffle=True, seed=5), make(shards, 50, shuffle=True, seed=5)
    epochs = [numbers_of(first) for _ in range(2)]
    assert [numbers_of(same) for _ in range(2)] == epochs
    assert numbers_of(make(shards, 128, shuffle=True, seed=6)) != epochs[0]


def test_shuffling_mixes_rows_of_records_and_shards(shards):
    batches = list(make(shards, 50, shuffle=True))
    for _, ids, _ in batches:  # 50 of 1,000 rows fall into 36 of 63 records on average
        assert len(set((ids[:, 0] // RECORD_ROWS).tolist())) >= 25
    numbers = numbers_of(batches)
    assert abs(np.corrcoef(numbers, np.arange(ROWS))[0, 1]) < 0.15  # deviation 0.03 in a random order
    neighbours = np.abs(np.diff(numbers)) == 1
    assert neighbours.sum() < 20  # 2 on average


def test_shuffling_within_small_windows_takes_records_from_everywhere(shards, monkeypatch):
    monkeypatch.setattr(dataset, "_WINDOW_ROWS", 64)
    numbers = np.array(numbers_of(make(shards, 128, shuffle=True)))
    assert abs(np.corrcoef(numbers, np.arange(ROWS))[0, 1]) < 0.5  # deviation 0.13 with 63 records
    for window in numbers[:640].reshape(10, 64):
        assert len(set((window // RECORD_ROWS).tolist())) <= 5
        assert len(set((window[:16] // RECORD_ROWS).tolist())) > 1


def test_shuffled_partial_batch_is_not_always_of_the_same_rows(shards):
    batches = make(shards, 128, shuffle=True, drop_last=True)
    left_out = [frozenset(range(ROWS)) - set(numbers_of(batches)) for _ in range(3)]
    assert [len(rows) for rows in left_out] == [ROWS % 128] * 3
    assert len(set(left_out)) == 3


def test_epoch_that_was_broken_off_does_not_touch_the_next(shards):
    batches, whole = make(shards, 128, shuffle=True), make(shards, 128, shuffle=True)
    next(iter(batches))
    numbers_of(whole)
    assert numbers_of(batches) == numbers_of(whole)


def test_training_dataset_gives_the_same_batches(shards):
    data = TrainingDataset(make(shards, 128, shuffle=True, drop_last=True))
    assert data.get_dataset_size() == ROWS // 128
    assert data.get_col_names() == ["dense", "ids", "labels"]
    iterator = data.create_tuple_iterator(num_epochs=2)
    epochs = [numbers_of([column.asnumpy() for column in batch] for batch in iterator) for _ in range(2)]
    plain = make(shards, 128, shuffle=True, drop_last=True)
    assert epochs == [numbers_of(plain) for _ in range(2)]


def test_text_to_mindrecord_to_batch_gives_the_rows_of_the_text(tiny_data):
    text = (tiny_data.path.parent / "train.txt").read_bytes()
    encoder = load_encoder(tiny_data.path / "vocabulary.npz", tiny_data.manifest.dense)
    block = parse(text, encoder.keyed(Columns.numbered()))
    dense, ids = encoder.encode(block)
    for part, (first, last) in {"train": (0, 1715), "valid": (1715, 1858), "test": (1858, 2000)}.items():
        paths, shard_rows = tiny_data.shards(part)
        assert shard_rows == ([512, 512, 512, 179] if part == "train" else [last - first])
        batches = list(RowBatches(Rows(paths, sum(shard_rows), 13, 26), 100))
        columns = [np.concatenate(column) for column in zip(*batches)]
        np.testing.assert_array_equal(columns[0], dense[first:last])
        np.testing.assert_array_equal(columns[1], ids[first:last])
        np.testing.assert_array_equal(columns[2], block.labels[first:last, None])


@pytest.mark.parametrize(("record_rows", "shard_rows"), [(1, 3), (5, 5), (4, 100)])
def test_records_and_shards_of_any_size_keep_the_order(tmp_path, record_rows, shard_rows):
    lines = raw_lines(21)
    raw = write_raw(tmp_path / "train.txt", lines)
    data = preprocess_lines(raw, tmp_path / "dataset", record_rows=record_rows, shard_rows=shard_rows)
    labels = []
    for part in ("train", "valid", "test"):
        paths, rows = data.shards(part)
        assert all(count == shard_rows for count in rows[:-1])
        for _, _, batch_labels in RowBatches(Rows(paths, sum(rows), 13, 26), 4):
            labels += batch_labels[:, 0].tolist()
    assert labels == [float(line[0]) for line in lines]


def test_data_folder_can_be_moved(tmp_path):
    raw = write_raw(tmp_path / "train.txt", raw_lines(21))
    data = preprocess_lines(raw, tmp_path / "dataset")
    paths, rows = data.shards("train")
    before = [batch[1].tolist() for batch in RowBatches(Rows(paths, sum(rows), 13, 26), 4)]
    (tmp_path / "dataset").rename(tmp_path / "moved")
    moved = [path.replace("/dataset/", "/moved/") for path in paths]
    assert [batch[1].tolist() for batch in RowBatches(Rows(moved, sum(rows), 13, 26), 4)] == before


@pytest.mark.parametrize("ranks", [1, 2, 5])
def test_ranks_get_even_parts_of_each_batch_in_their_order(shards, ranks):
    options = {"shuffle": True, "drop_last": True, "seed": 3}
    parts = [list(make(shards, 20, rank=rank, ranks=ranks, **options)) for rank in range(ranks)]
    for number, whole in enumerate(make(shards, 20, **options)):
        for place, column in enumerate(whole):
            np.testing.assert_array_equal(np.concatenate([part[number][place] for part in parts]), column)
    assert {len(part[0][0]) for part in parts} == {20 // ranks}


def side_by_side(one, of_ranks):
    """The ranks' batches and the ids of one process's, of two epochs, the second one from its middle on."""
    for step in (0, len(one) + len(one) // 2):
        for batches in (one, *of_ranks):
            batches.go_to(step)
        yield from zip(zip(*of_ranks, strict=True), [ids for _, ids, _ in one], strict=True)


@pytest.mark.parametrize("window_rows", [1, 37, 100, 1 << 16])
@pytest.mark.parametrize(("batch_size", "ranks"), [(4, 2), (48, 3), (128, 2), (1000, 4)])
def test_ranks_get_even_parts_of_the_batches_of_one_process(shards, batch_size, ranks, window_rows, monkeypatch):
    monkeypatch.setattr(dataset, "_WINDOW_ROWS", window_rows)
    options = {"shuffle": True, "drop_last": True, "seed": 4}
    one = make(shards, batch_size, **options)
    of_ranks = [make(shards, batch_size, **options, rank=rank, ranks=ranks) for rank in range(ranks)]
    for together, whole in side_by_side(one, of_ranks):
        np.testing.assert_array_equal(np.concatenate([ids for _, ids, _ in together]), whole)


def test_a_rank_takes_out_its_own_rows_alone(shards, monkeypatch):
    taken = []
    monkeypatch.setattr(dataset, "_check_ids", lambda ids, tables: taken.append(len(ids)))
    list(make(shards, 100, shuffle=True, drop_last=True, rank=1, ranks=4))
    assert sum(taken) == ROWS / 4


@pytest.mark.parametrize("ranks", [1, 2, 3, 8, 30])
@pytest.mark.parametrize("batch_size", [16, 50, 128, 1000])
def test_shares_are_the_batches_of_one_process_one_behind_the_other(shards, batch_size, ranks):
    rows = Rows(shards, ROWS, DENSE_DIM, SLOT_DIM, SHARD_ROWS)
    batches = RowBatches(rows, batch_size)
    shares = [list(batches.share(rank, ranks)) for rank in range(ranks)]
    assert max(map(len, shares)) == batches.turns(ranks)
    found = [batch for share in shares for batch in share if len(batch[0])]
    for mine, expected in zip(found, batches, strict=True):
        for column, whole in zip(mine, expected):
            np.testing.assert_array_equal(column, whole)


def test_a_share_reads_only_the_files_of_its_rows(shards, tmp_path):
    """Files that hold none of them need not be there."""
    paths = [*shards[:2], str(tmp_path / "no-such.mindrecord"), str(tmp_path / "nor-this.mindrecord")]
    batches = RowBatches(Rows(paths, ROWS, DENSE_DIM, SLOT_DIM, SHARD_ROWS), 100)
    assert numbers_of(batches.share(0, 4)) == list(range(300))


def tables_of(rows, lists=()):
    return [(name, count, name in lists) for name, count in rows.items()]


@pytest.mark.parametrize(
    ("tables", "message"),
    [
        ({"a": ROWS, "b": 11_000, "c": 6_993}, "1 of 1000 ids of c are outside its table of 6993 rows, up to 6993"),
        ({"a": 990, "b": 11_000, "c": 7_000}, "10 of 1000 ids of a are outside its table of 990 rows, up to 999"),
    ],
)
def test_ids_outside_a_table_are_counted_and_refused(shards, tables, message):
    batches = RowBatches(Rows(shards, ROWS, DENSE_DIM, SLOT_DIM, SHARD_ROWS, tables_of(tables)), ROWS)
    for read in (lambda: batches, lambda: batches.share(0, 1)):
        with pytest.raises(InputError, match=message):
            list(read())


def test_ids_within_their_tables_pass(shards):
    tables = tables_of({"a": 1000, "b": 11_000, "c": 6_994})
    batches = RowBatches(Rows(shards, ROWS, DENSE_DIM, SLOT_DIM, SHARD_ROWS, tables), 100)
    assert len(list(batches)) == 10


def test_padding_is_for_lists_alone():
    ids = np.array([[3, -1], [0, 4]], np.int32)
    dataset._check_ids(ids, tables_of({"a": 4, "b": 5}, ["b"]))
    with pytest.raises(InputError, match="1 of 2 ids of b are outside its table of 5 rows"):
        dataset._check_ids(ids, tables_of({"a": 4, "b": 5}))
    with pytest.raises(InputError, match="1 of 2 ids of b are outside its table of 5 rows"):
        dataset._check_ids(ids - np.array([[0, 1], [0, 0]], np.int32), tables_of({"a": 4, "b": 5}, ["b"]))


def test_a_sample_is_of_records_spread_evenly_in_the_order_of_the_rows(shards):
    rows = Rows(shards, ROWS, DENSE_DIM, SLOT_DIM)
    dense, ids, labels = sample(rows, ROWS)
    assert ids[:, 0].tolist() == list(range(ROWS))
    for value, plain in zip((dense, ids, labels), plain_rows(ids[:, 0])):
        np.testing.assert_array_equal(value, plain.reshape(value.shape))
    some = sample(rows, 100)[1][:, 0]
    assert 80 <= len(some) <= 100
    assert (some[0], some[-1]) == (0, ROWS - 1)
    assert (np.diff(some) > 0).all()
    assert np.diff(some).max() < 250
    np.testing.assert_array_equal(some, sample(rows, 100)[1][:, 0])


def test_a_share_of_categories_is_taken_for_unseen(tmp_path):
    """The same ones with several ranks and behind a stop, others in another epoch; no number's bucket, no padding."""
    lines = raw_lines(1200)
    columns = Columns.numbered(13, 26)
    data = preprocess_lines(write_raw(tmp_path / "train.txt", lines), tmp_path / "data", columns, numeric_buckets=4)
    plain, hidden = (
        dataset.batches_of(data, "train", 100, shuffle=True, drop_last=True, seed=3, unseen_share=share)
        for share in (0.0, 0.1)
    )
    first = [np.concatenate(column) for column in zip(*hidden)]
    second = [np.concatenate(column) for column in zip(*hidden)]
    for epoch, found in enumerate((first, second)):
        dense, ids, labels = (np.concatenate(column) for column in zip(*plain))
        np.testing.assert_array_equal(found[0], dense)
        np.testing.assert_array_equal(found[2], labels)
        changed = found[1] != ids
        assert (found[1][changed] == 0).all(), epoch
        assert not changed[:, 26:].any()
        assert 0.09 < changed[:, :26].mean() < 0.11
    ranks = [
        dataset.batches_of(data, "train", 100, shuffle=True, drop_last=True, seed=3, unseen_share=0.1, rank=r, ranks=2)
        for r in range(2)
    ]
    both = [np.concatenate(pair) for own in zip(*ranks) for pair in [[one[1] for one in own]]]
    np.testing.assert_array_equal(np.concatenate(both), first[1])
    hidden.go_to(len(hidden) + 4)
    np.testing.assert_array_equal(np.concatenate([batch[1] for batch in hidden]), second[1][400:])
    padded = np.full((500, 3), -1, np.int32)
    padded[:, 0] = 7
    chances = np.random.default_rng(1).random((500, 3), np.float32)
    assert set(np.unique(hidden._with_unseen(padded, chances)[:, 1:]).tolist()) == {-1}
