"""Which rows are training, validation and test: by a column, by files, at random; and the order of files."""

import random

import numpy as np
import pytest
from conftest import write_raw

from src.base.errors import InputError
from src.data.encoder import load_encoder
from src.data.manifest import VOCABULARY, find
from src.dataset import batches_of
from src.preprocess_data import main
from src.rows.cells.split import PARTS, Split

SCHEMA = "label: y\ndense: [n]\ncategorical: [user, site]\nheader: true\nseparator: ','\n"
HEADER = "day,fold,user,site,n,y"


def rows_of(count=600):
    """Row number n; each day has values of site of its own, so that a split by day shows in the vocabulary."""
    rng = random.Random(2)
    rows = []
    for number in range(count):
        day = rng.randrange(1, 31)
        rows.append((f"2026-03-{day:02d}", number % 5, f"u{rng.randrange(60)}", f"s{day}", number, rng.randrange(2)))
    return rows


def preprocess(folder, *options, data_path=None):
    (folder / "s.yaml").write_text(SCHEMA)
    main([f"--data_path={data_path or folder / 'rows.csv'}", f"--output_path={folder}/data", "--record_rows=16",
          f"--schema={folder}/s.yaml", "--shard_rows=128", "--overwrite=True", *options])  # fmt: skip
    return find(str(folder / "data"))


def write(path, rows):
    return write_raw(path, [HEADER, *(",".join(map(str, row)) for row in rows)])


def numbers_in(data):
    """The row numbers of each part."""
    found = {}
    for part in data.manifest.parts:
        dense = np.concatenate([batch[0] for batch in batches_of(data, part, 50)])
        found[part] = np.rint(np.expm1(dense[:, 0])).astype(int).tolist()
    return found


PARTS_OF = {
    "day:2026-03-20,2026-03-25": lambda row: 0 if row[0] < "2026-03-20" else 1 if row[0] < "2026-03-25" else 2,
    "n:400": lambda row: 0 if row[4] < 400 else 2,
    "fold=0,1,2/3/4": lambda row: max(row[1] - 2, 0),
}


@pytest.mark.parametrize("rule", PARTS_OF)
@pytest.mark.parametrize("shuffle", [False, True])
def test_a_column_tells_the_part_of_each_row(tmp_path, rule, shuffle):
    rows = rows_of()
    write(tmp_path / "rows.csv", rows)
    data = preprocess(tmp_path, f"--split={rule}", f"--shuffle_rows={shuffle}")
    expected = {part: [row[4] for row in rows if PARTS_OF[rule](row) == place] for place, part in enumerate(PARTS)}
    found = numbers_in(data)
    if shuffle:
        assert found["train"] != expected["train"]
        found["train"].sort()
    assert found == {part: numbers for part, numbers in expected.items() if numbers}
    # The vocabulary, and what is known of its values, is learned from training rows alone.
    train = [row for row in rows if PARTS_OF[rule](row) == 0]
    assert data.manifest.table_rows == tuple(1 + len({row[place] for row in train}) for place in (2, 3))
    examples = load_encoder(data.path / VOCABULARY, data.manifest.dense).examples
    assert set(examples[1].known) <= {row[3] for row in train}


def test_a_user_is_in_one_part_at_random_by_the_seed(tmp_path):
    rows = rows_of()
    write(tmp_path / "rows.csv", rows)
    found = [numbers_in(preprocess(tmp_path, "--split=random:user", f"--seed={seed}")) for seed in (1, 1, 2)]
    assert found[0] == found[1] != found[2]
    users = [{rows[number][2] for number in numbers} for numbers in found[0].values()]
    assert len(users) == 3
    assert sum(map(len, users)) == len(set.union(*users)) == 60


@pytest.mark.parametrize("valid_fraction", [0.5, 0.0, 1.0])
def test_random_parts_have_their_shares(valid_fraction):
    split = Split.of("random:n", 1 / 7, valid_fraction, 3)
    shares = np.bincount(split._at_random(np.arange(100_000, dtype=np.uint64)), minlength=3) / 100_000
    expected = np.array([6 / 7, valid_fraction / 7, (1 - valid_fraction) / 7])
    np.testing.assert_allclose(shares, expected, atol=0.005)
    assert split.parts == tuple(part for part, share in zip(PARTS, expected) if share)


def test_validation_and_test_rows_may_stand_in_files_of_their_own(tmp_path):
    rows = rows_of(200)
    for name, some in (("rows.csv", rows[:150]), ("v.csv", rows[150:170]), ("t.csv", rows[170:])):
        write(tmp_path / name, some)
    own = [f"--valid_path={tmp_path}/v.csv", f"--test_path={tmp_path}/t.csv"]
    found = numbers_in(preprocess(tmp_path, *own))
    assert found == {"train": list(range(150)), "valid": list(range(150, 170)), "test": list(range(170, 200))}
    assert list(numbers_in(preprocess(tmp_path, own[1]))) == ["train", "test"]
    with pytest.raises(InputError, match="split n:5 has no effect with valid_path or test_path"):
        preprocess(tmp_path, *own, "--split=n:5")
    with pytest.raises(InputError, match="are the same file"):
        preprocess(tmp_path, f"--valid_path={tmp_path}/rows.csv")


def test_files_come_in_the_order_of_a_column(tmp_path, capfd):
    rows = sorted(rows_of(90))
    for name, some in (("b", rows[:30]), ("c", rows[30:60]), ("a", rows[60:]), ("aa", [])):
        write(tmp_path / f"raw/{name}.csv", some)
    options = {"data_path": tmp_path / "raw"}
    data = preprocess(tmp_path, "--order_by=day", **options)
    assert [number for numbers in numbers_in(data).values() for number in numbers] == [row[4] for row in rows]
    assert data.manifest.source["names"] == ["b.csv", "c.csv", "a.csv", "aa.csv"]
    assert "is read behind it" not in capfd.readouterr().err
    write(tmp_path / "raw/a.csv", [rows[0], rows[89]])
    preprocess(tmp_path, "--order_by=day", **options)
    assert "a.csv ends with day 2026-03-30, and" in capfd.readouterr().err
    with pytest.raises(InputError, match=r"order_by hour: \S+a.csv has no such column"):
        preprocess(tmp_path, "--order_by=hour", **options)


@pytest.mark.parametrize(("rule", "message"), [
    ("day", "must be of the form COLUMN:VALUE"),
    ("day:20,3", "the second bound must come behind the first one"),
    ("fold=1/1/2", "fold '1' is named twice"),
    ("hour:5", "its header has column 'hour' 0 times"),
    ("fold=0/1/2", "line 5: fold is '3', which is in no part of the split"),
    ("fold=0/1/2", "Name such values in --split, or split by another column"),
    ("fold=a/b/c", r"none of the first 40 lines is in a part of the split; line 2: fold is '0'.*\. Name such values"),
    ("day:5", "line 2: day is '2026-"),
])  # fmt: skip
def test_a_split_that_can_not_be_is_refused(tmp_path, rule, message):
    write(tmp_path / "rows.csv", rows_of(40))
    with pytest.raises(InputError, match=message):
        preprocess(tmp_path, f"--split={rule}")


def test_a_column_of_a_split_must_be_in_files_without_header_too(tmp_path):
    write_raw(tmp_path / "train.txt", ["1\t5\ta"] * 20)
    with pytest.raises(InputError, match="split: .*train.txt has no column 'day': its columns are label, I1, C1"):
        main([f"--data_path={tmp_path}", "--dense_dim=1", "--slot_dim=1", "--split=day:5"])


def test_bad_rows_are_told_once(tmp_path):
    rows = rows_of(60)
    rows[7] = (*rows[7][:5], "x")
    write(tmp_path / "rows.csv", rows)
    data = preprocess(tmp_path, "--split=fold=0,1,2/3/4", "--max_bad_rows=1")
    assert data.manifest.bad_rows == 1
    assert sum(part.rows for part in data.manifest.parts.values()) == 59
