"""How raw rows become a data folder, and how rows are generated."""

from dataclasses import dataclass

from src.base.errors import InputError
from src.data.transforms import TRANSFORMS
from src.model_utils.options import (
    FRACTION,
    NOT_EMPTY,
    NOT_NEGATIVE,
    POSITIVE,
    Rule,
    is_default,
    matching,
    one_of,
    option,
    refuse_changed,
)

_RECORD_ROWS = Rule(lambda value: 0 < value <= 16384, "must lie between 1 and 16384, so that a page holds a record")
_NOT_ONE = Rule(lambda value: value == 0 or value > 1, "must be 0, or at least 2: one row is for unseen values")
_BUCKETS = Rule(lambda value: value == 0 or 2 <= value <= 10_000, "must be 0, or lie between 2 and 10000")
_COUNTS = matching(r"([^:,]+:[1-9]\d*(,[^:,]+:[1-9]\d*)*)?", "must be of the form FIELD:COUNT,FIELD:COUNT")
_LEARNED = ("numeric_transform", "missing_indicators", "numeric_buckets", "category_counts")
_DATA_PATH = "folder of origin_data/train.txt or train.txt, or the raw file itself; several with commas between"


@dataclass(frozen=True)
class RawSpec:
    """Which raw files are read, what their columns are, and where the data folder goes."""

    data_path: str = option("./data/", _DATA_PATH, NOT_EMPTY)
    output_path: str = option("", "data folder to write; without it <data_path>/dataset")
    overwrite: bool = option(False, "whether earlier results may be replaced")
    dense_dim: int = option(13, "numeric columns", POSITIVE)
    slot_dim: int = option(26, "categorical columns", POSITIVE)
    schema: str = option("", "YAML file of the raw files' columns; see src/data/schema.py")

    def __post_init__(self) -> None:
        if self.schema and not (is_default(self, "dense_dim") and is_default(self, "slot_dim")):
            raise InputError("dense_dim and slot_dim have no effect with schema, which names the columns: drop them")


@dataclass(frozen=True)
class PreprocessingSpec:
    """How rows are split, coded and packed."""

    train_line_count: int = option(0, "rows to read from the raw file, 0 for all", NOT_NEGATIVE)
    valid_fraction: float = option(0.5, "share of the last seventh that is validation", FRACTION)
    min_count: int = option(1, "occurrences in training a category needs for a row", POSITIVE)
    field_min_count: str = option("", "the same for single fields, such as C3:10,C12:5", _COUNTS)
    max_rows_per_field: int = option(
        0, "rows that a table has at most, the most frequent ones; 0 for no bound", _NOT_ONE
    )
    hash_rows: int = option(0, "hash categories to tables of so many rows instead of a vocabulary, 0 for no", _NOT_ONE)
    vocab_scope: str = option(
        "train", "rows that give vocabulary and statistics (all: leaky, as the original)", one_of(("train", "all"))
    )
    vocab_path: str = option("", "data or checkpoint folder whose vocabulary codes the rows, all for the test part")
    numeric_transform: str = option(
        "log", "what becomes of a number x: log(x + 1), the same standardised, or its rank among training rows",
        one_of(TRANSFORMS),
    )  # fmt: skip
    missing_indicators: bool = option(
        False, "whether each numeric column with empty cells has an input more, which is 1 for them"
    )
    numeric_buckets: int = option(
        0, "buckets of about as many rows that make a field more of each numeric column, 0 for no", _BUCKETS
    )
    category_counts: bool = option(
        False, "whether each field has a numeric input more: how frequent the category was in training"
    )
    shuffle_rows: bool = option(False, "whether training rows are written in random order")
    seed: int = option(1, "seed of everything random", NOT_NEGATIVE)
    max_bad_rows: int = option(0, "bad rows to skip into a reject file", NOT_NEGATIVE)
    record_rows: int = option(512, "rows packed in a MindRecord record", _RECORD_ROWS)
    shard_rows: int = option(262_144, "rows in a MindRecord file", POSITIVE)

    def __post_init__(self) -> None:
        if self.hash_rows and (self.min_count > 1 or self.field_min_count or self.max_rows_per_field):
            raise InputError("hash_rows has no vocabulary to shorten: drop min_count and the like")
        if self.vocab_path and (self.hash_rows or self.shuffle_rows):
            raise InputError("vocab_path codes rows for the test part as they are: drop hash_rows and shuffle_rows")
        if self.hash_rows and self.category_counts:
            raise InputError("category_counts needs a vocabulary, which hash_rows does without: drop one of them")
        if self.vocab_path:
            refuse_changed(self, _LEARNED, "with vocab_path, whose encoder is taken: drop it")
        if self.shard_rows % self.record_rows:
            raise InputError(f"shard_rows {self.shard_rows} must be a multiple of record_rows {self.record_rows}")

    @property
    def learns_from_numbers(self) -> bool:
        """Whether the values of numeric columns are counted too."""
        return TRANSFORMS[self.numeric_transform].learns or self.missing_indicators or self.numeric_buckets > 0


@dataclass(frozen=True)
class SyntheticSpec:
    """Which rows are generated, and where they go."""

    data_path: str = option("./data/", _DATA_PATH, NOT_EMPTY)
    rows: int = option(300_000, "rows to generate", POSITIVE)
    seed: int = option(1, "seed of everything random", NOT_NEGATIVE)
    overwrite: bool = option(False, "whether earlier results may be replaced")
