"""Options that have no effect, or ask for too much, are refused before a row is read."""

import numpy as np
import pytest
from conftest import preprocess_lines, write_raw

from src.base.errors import InputError
from src.data.transforms import TRANSFORMS
from src.options import PreprocessDataOptions, resolve
from src.preprocess_data import main
from src.preprocessing.options import PreprocessingSpec, check_table_rows
from src.rows.columns import Columns

OF_TRAINING = {"valid_fraction": 0.2, "shuffle_rows": True}
OF_THE_VOCABULARY = {
    "min_count": 2, "field_min_count": "C1:2", "max_rows_per_field": 9, "hash_rows": 9, "vocab_scope": "all",
    "numeric_transform": "signed_log", "missing_indicators": True, "numeric_buckets": 4, "category_counts": True,
}  # fmt: skip
ROWS = [f"{row % 2}\t{row - 50}\t{'ab'[row % 2]}" for row in range(100)]


@pytest.mark.parametrize(("name", "value"), [*OF_TRAINING.items(), *OF_THE_VOCABULARY.items()])
def test_an_option_without_effect_beside_a_known_vocabulary_is_refused(name, value):
    with pytest.raises(InputError, match=rf"^{name} \S+ has no effect with vocab_path, w.*: drop it"):
        PreprocessingSpec(vocab_path="model", **{name: value})


def test_more_hashed_ids_than_int32_has_are_refused_where_options_are_read():
    with pytest.raises(InputError, match=r"--hash_rows is 4000000000: it must be .* at most 2147483647 \(ids are in"):
        resolve(PreprocessDataOptions, ["--hash_rows=4000000000"])


def test_tables_that_ids_can_not_count_are_refused_with_what_they_would_take(tmp_path):
    write_raw(tmp_path / "train.txt", ["not even a row"])
    message = "the tables of 26 fields would have 2600000000 rows, which take 166 GB where each has 16 numbers, and ids"
    with pytest.raises(InputError, match=message):
        main([f"--data_path={tmp_path}", "--hash_rows=100000000"])
    check_table_rows([2**30, 2**30 - 1])
    with pytest.raises(InputError):
        check_table_rows([2**30, 2**30])


@pytest.mark.parametrize("more", [{}, {"numeric_buckets": 5, "missing_indicators": True, "category_counts": True}])
def test_records_too_large_for_mindrecord_are_refused_before_the_rows_are_read(tmp_path, more):
    raw = write_raw(tmp_path / "train.txt", ["not even a row"])
    with pytest.raises(InputError, match=r"record_rows 16384: with rows of \d+ values, a record .*: give at most \d+"):
        preprocess_lines(raw, tmp_path / "d", Columns.numbered(600, 1500), record_rows=16384, shard_rows=16384, **more)


def test_a_field_that_is_not_there_is_told_before_the_rows_are_read(tmp_path):
    raw = write_raw(tmp_path / "train.txt", ["not even a row"])
    with pytest.raises(InputError, match=r"field_min_count: there is no field 'C9': the fields are C1"):
        preprocess_lines(raw, tmp_path / "d", Columns.numbered(1, 1), field_min_count="C9:2")


@pytest.mark.parametrize(
    ("transform", "advice"), [("log", True), ("standard_log", True), ("signed_log", False), ("quantile", False)]
)
def test_negative_numbers_are_counted_and_told(tmp_path, capfd, transform, advice):
    write_raw(tmp_path / "train.txt", ROWS)
    main([f"--data_path={tmp_path}", "--dense_dim=1", "--slot_dim=1", f"--numeric_transform={transform}"])
    told = "negative numbers: I1 50"
    told += f"; {transform} makes 0 of them, --numeric_transform=signed_log keeps them apart" if advice else ""
    assert told in capfd.readouterr().out.splitlines()
    assert '"negative": {\n  "I1": 50\n }' in (tmp_path / "dataset/manifest.json").read_text()


def test_signed_log_tells_numbers_apart_on_both_sides():
    numbers = np.array([[-9.0, -1.0, 0.0, 1.0, 9.0, np.nan]], np.float32).T
    inputs = TRANSFORMS["signed_log"](numbers, [()])
    np.testing.assert_allclose(inputs[:, 0], [-np.log(10), -np.log(2), 0, np.log(2), np.log(10), 0], rtol=1e-6)


def test_a_file_with_the_right_number_of_columns_is_not_said_to_have_another(tmp_path):
    raw = write_raw(tmp_path / "train.txt", [f"{row % 2}.0\t5\ta" for row in range(20)])
    with pytest.raises(InputError) as raised:
        preprocess_lines(raw, tmp_path / "d", Columns.numbered(1, 1))
    assert "line 1: label is '0.0', which is not 0 or 1 (a schema says which labels are clicks" in str(raised.value)
    assert "--dense_dim" not in str(raised.value)


def test_a_bound_on_memory_that_can_not_be_kept_is_refused_with_what_is_needed():
    """Before rows are counted by the options alone, and once the vocabulary is known by its tables too."""
    spec = PreprocessingSpec(memory_mb=1000)
    spec.check_memory(26, 39, workers=2)
    spec.check_memory(26, 39, workers=2, table_rows=10_000_000)
    with pytest.raises(InputError, match=r"memory_mb 1000 is too little: 64 processes with shard_rows 262144 need "):
        spec.check_memory(26, 39, workers=64)
    with pytest.raises(InputError, match=r"and 40000000 rows of tables need some 14\d\d: give that, --min_count, "):
        spec.check_memory(26, 39, workers=2, table_rows=40_000_000)
    PreprocessingSpec().check_memory(26, 39, workers=64, table_rows=10**9)


def test_less_memory_is_less_at_once_in_merging():
    sizes = [PreprocessingSpec(memory_mb=memory).merged_keys(4) for memory in (0, 400, 600, 800, 10_000)]
    assert sizes == [1 << 20, 125_000, 625_000, 1 << 20, 1 << 20]


def test_a_run_that_can_not_keep_to_its_memory_ends_before_rows_are_counted(tmp_path):
    raw = write_raw(tmp_path / "raw.txt", ROWS)
    with pytest.raises(InputError, match="memory_mb 100 is too little: .* need some "):
        preprocess_lines(raw, tmp_path / "d", Columns.numbered(1, 1), memory_mb=100)
    assert not (tmp_path / "d").exists()
