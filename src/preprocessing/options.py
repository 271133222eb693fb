"""How raw rows become a data folder, and how rows are generated."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from src.base.errors import InputError
from src.data.compiled.key_tables import table_bytes
from src.data.layout import Layout
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
from src.rows.cells.split import FORM, Split
from src.rows.columns import Columns

_RECORD_ROWS = Rule(lambda value: 0 < value <= 16384, "must lie between 1 and 16384, so that a page holds a record")
_MOST_ROWS = 2**31 - 1  # ids are int32
_NOT_ONE = Rule(
    lambda value: value == 0 or 1 < value <= _MOST_ROWS,
    f"must be 0, or at least 2 (one row is for unseen values) and at most {_MOST_ROWS} (ids are int32)",
)
_LEAST_BUCKET_ROWS = 3  # of a numeric column's field; how many there are is known when the values are counted
_MOST_RECORD_BYTES = 64 << 20
# What memory goes to, as measured: docs/memory.md
_PROGRAM_BYTES = 350 * 10**6  # with all that it imports, of all processes together
_BLOCKS_BYTES = 40 * 10**6  # of text and what is read of it, for each process
_CODED_COPIES = 9  # of a shard's rows, with memory that is free again and kept
MERGED_KEYS, _LEAST_MERGED_KEYS = 1 << 20, 1 << 16  # in memory at once, of all files
_MERGED_BYTES = 100  # of each key, all copies together
_BUCKETS = Rule(lambda value: value == 0 or 2 <= value <= 10_000, "must be 0, or lie between 2 and 10000")
_COUNTS = matching(r"([^:,]+:[1-9]\d*(,[^:,]+:[1-9]\d*)*)?", "must be of the form FIELD:COUNT,FIELD:COUNT")
LEARNED = (
    "min_count", "field_min_count", "max_rows_per_field", "hash_rows", "vocab_scope", "numeric_transform",
    "missing_indicators", "numeric_buckets", "category_counts",
)  # fmt: skip
HELD_OUT = 1 / 7  # share of the rows that is validation and test
BOUND = "max_rows_per_field"
OF_GROWTH = ("forget_after", "relearn_numbers")
OF_TRAINING = ("valid_fraction", "shuffle_rows", "split", "keep_negatives")
_SHARE = Rule(lambda value: 0 < value <= 1, "must lie above 0, and at most be 1")
_DATA_PATH = "folder of origin_data/train.txt or train.txt, or the raw file itself; several with commas between"


@dataclass(frozen=True)
class RawSpec:
    """Which raw files are read, what their columns are, and where the data folder goes."""

    data_path: str = option("./data/", _DATA_PATH, NOT_EMPTY)
    output_path: str = option("", "data folder to write; without it <data_path>/dataset")
    overwrite: bool = option(False, "whether earlier results may be replaced")
    dense_dim: int = option(13, "numeric columns", NOT_NEGATIVE)
    slot_dim: int = option(26, "categorical columns", NOT_NEGATIVE)
    guess_schema: str = option("", "YAML file to write a schema to that is guessed from the raw file; no more is done")
    valid_path: str = option("", "raw files of validation rows, as for data_path, whose rows then are all for training")
    test_path: str = option("", "the same of test rows")
    order_by: str = option("", "column whose value in each file's first row gives the order of the files")
    schema: str = option("", "YAML file of the raw files' columns; see docs/data.md")
    stage_path: str = option(
        "./data/stage", "folder for copies of what data_path, valid_path and test_path name in an object storage, and "
        "for a data folder that goes to an output_path there", NOT_EMPTY,
    )  # fmt: skip

    def __post_init__(self) -> None:
        if self.schema and not (is_default(self, "dense_dim") and is_default(self, "slot_dim")):
            raise InputError("dense_dim and slot_dim have no effect with schema, which names the columns: drop them")
        if self.schema and self.guess_schema:
            raise InputError("guess_schema and schema contradict each other: drop one of them")
        if not self.dense_dim + self.slot_dim:
            raise InputError("dense_dim and slot_dim are both 0, which leaves nothing to learn from: give one of them")


@dataclass(frozen=True)
class PreprocessingSpec:
    """How rows are split, coded and packed."""

    train_line_count: int = option(0, "rows to read from the raw file, 0 for all", NOT_NEGATIVE)
    valid_fraction: float = option(0.5, "share of the last seventh that is validation", FRACTION)
    split: str = option(
        "", "column that tells a row's part, as day:20,22 (validation and test begin there), fold=0,1/2/3 (values of "
        "train/valid/test) or random:user (at random, one value in one part); without it the last lines are held out",
        Rule(lambda value: not value or FORM.fullmatch(value) is not None,
             "must be of the form COLUMN:VALUE,VALUE, COLUMN=VALUES/VALUES/VALUES or random:COLUMN"),
    )  # fmt: skip
    min_count: int = option(1, "occurrences in training a category needs for a row", POSITIVE)
    field_min_count: str = option("", "the same for single fields, such as C3:10,C12:5", _COUNTS)
    max_rows_per_field: int = option(
        0, "rows that a table has at most, the most frequent ones; 0 for no bound", _NOT_ONE
    )
    hash_rows: int = option(0, "hash categories to tables of so many rows instead of a vocabulary, 0 for no", _NOT_ONE)
    vocab_scope: str = option(
        "train", "rows that give vocabulary and statistics (all: leaky, as the original)", one_of(("train", "all"))
    )
    vocab_path: str = option(
        "", "data or checkpoint folder whose vocabulary codes the rows, all for the test part unless it grows"
    )
    grow: bool = option(
        False, "whether the vocabulary at vocab_path gets rows for new values of these training rows; its other values "
        "keep theirs",
    )  # fmt: skip
    forget_after: int = option(
        0, "growths in none of which a value comes behind which its row becomes free, for new values, 0 for never",
        NOT_NEGATIVE,
    )  # fmt: skip
    relearn_numbers: bool = option(
        False, "whether a growth learns what numbers and frequencies become anew, instead of keeping the old one's"
    )
    numeric_transform: str = option(
        "log", "what becomes of a number x: log(x + 1), the same standardised, its rank among training rows, or for "
        "negative numbers too sign(x) log(|x| + 1)",
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
    keep_negatives: float = option(
        1.0, "share of the training rows without a click that is kept; scores still are of all rows", _SHARE
    )
    seed: int = option(1, "seed of everything random", NOT_NEGATIVE)
    max_bad_rows: int = option(0, "bad rows to skip into a reject file", NOT_NEGATIVE)
    record_rows: int = option(512, "rows packed in a MindRecord record", _RECORD_ROWS)
    shard_rows: int = option(262_144, "rows in a MindRecord file", POSITIVE)
    memory_mb: int = option(
        0, "MB of memory that all processes together may take; refused where it can't do; 0 for no bound", NOT_NEGATIVE
    )

    def __post_init__(self) -> None:
        if self.hash_rows and (self.min_count > 1 or self.field_min_count or self.max_rows_per_field):
            raise InputError("hash_rows has no vocabulary to shorten: drop min_count and the like")
        if self.hash_rows and self.category_counts:
            raise InputError("category_counts needs a vocabulary, which hash_rows does without: drop one of them")
        if self.vocab_path:
            learned = [name for name in LEARNED if not (self.grow and name == BOUND)]
            refuse_changed(self, learned, "with vocab_path, whose encoder is taken: drop it")
        if self.vocab_path and not self.grow:
            refuse_changed(self, OF_TRAINING, "with vocab_path, which makes all rows the test part: drop it")
        if self.grow and not self.vocab_path:
            raise InputError("grow needs a vocab_path, the data or checkpoint folder that it grows from: give it")
        if not self.grow:
            refuse_changed(self, OF_GROWTH, "without grow: drop it")
        if self.part_rule:
            self.part_rule.check()
            if self.part_rule.kind != "random":
                refuse_changed(self, ["valid_fraction"], f"with split {self.split}, which names all parts: drop it")
        if self.shard_rows % self.record_rows:
            raise InputError(f"shard_rows {self.shard_rows} must be a multiple of record_rows {self.record_rows}")

    @property
    def part_rule(self) -> Split | None:
        """What split says."""
        return Split.of(self.split, HELD_OUT, self.valid_fraction, self.seed) if self.split else None

    def check_columns(self, columns: Columns) -> None:
        """Refuse what these columns rule out.

        Raises:
            InputError: more rows of tables than ids can tell apart, a record too large, a field that is not there, or
                fields that share a table and whose categories are not kept alike.
        """
        dense, categorical, layout = columns.dense, columns.categorical, Layout.of(columns)
        of_buckets = [_LEAST_BUCKET_ROWS] * len(dense) if self.numeric_buckets else []
        check_table_rows([self.hash_rows] * len(set(layout.tables)) + of_buckets)
        if unknown := set(self.least_counts) - set(categorical):
            raise InputError(
                f"field_min_count: there is no field {min(unknown)!r}: the fields are {', '.join(categorical)}"
            )
        least = [self.least_counts.get(name, self.min_count) for name in categorical]
        for name, own, of_table in zip(categorical, least, layout.of_fields(layout.of_tables(least))):
            if own != of_table:
                raise InputError(
                    f"field_min_count: {name} has {own} and a field that it shares its table with {of_table}: give all "
                    f"fields of a table the same"
                )
        self.check_record(self.row_values(columns))

    def row_values(self, columns: Columns) -> int:
        """Numbers and ids of a coded row, at most."""
        dense, categorical = len(columns.dense), len(columns.categorical)
        inputs = dense * (1 + self.missing_indicators) + categorical * self.category_counts
        return inputs + Layout.of(columns).ids + dense * (self.numeric_buckets > 0)

    def check_record(self, values: int) -> None:
        """Refuse records of rows of so many values that are too large.

        Raises:
            InputError: they are.
        """
        most = _MOST_RECORD_BYTES // (4 * values + 1)
        if self.record_rows > most:
            raise InputError(
                f"record_rows {self.record_rows}: with rows of {values} values, a record would be larger than "
                f"{_MOST_RECORD_BYTES >> 20} MiB: give at most {max(most, 1)}"
            )

    def recorded(self, trained: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """What a manifest keeps of them; where an encoder is taken, with the options by which it was learned.

        Args:
            trained: those in the manifest beside that encoder.
        """
        by = self.adopted(trained) if trained else self
        of_encoder = {name: getattr(by, name) for name in LEARNED if name in (trained or ())}
        found = asdict(self) | of_encoder | {"vocab_path": Path(self.vocab_path).name}
        del found["memory_mb"]  # which decides nothing
        if is_default(self, "keep_negatives"):
            del found["keep_negatives"]  # as data folders had it before there was sampling
        return found

    def adopted(self, trained: Mapping[str, Any]) -> "PreprocessingSpec":
        """These options with those by which an encoder was learned in place of vocab_path and its like.

        Args:
            trained: those in the manifest beside that encoder.
        """
        learned = {name: trained[name] for name in LEARNED if name in trained}
        bound = {BOUND: self.max_rows_per_field} if self.max_rows_per_field else {}
        taken = {"vocab_path": "", "grow": False, "forget_after": 0, "relearn_numbers": False}
        return replace(self, **learned | bound | taken)

    @property
    def least_counts(self) -> dict[str, int]:
        """What field_min_count says of each field that it names."""
        pairs = [pair.rpartition(":") for pair in self.field_min_count.split(",") if pair]
        return {name: int(least) for name, _, least in pairs}

    def merged_keys(self, workers: int) -> int:
        """Counted keys that each of so many processes that merge them may have in memory at once."""
        if not self.memory_mb:
            return MERGED_KEYS
        of_each = self.memory_mb * 10**6 - _PROGRAM_BYTES
        return min(MERGED_KEYS, max(_LEAST_MERGED_KEYS, of_each // workers // _MERGED_BYTES))

    def check_memory(self, fields: int, values: int, workers: int, table_rows: int = 0) -> None:
        """Refuse a bound on memory that so many processes can't keep to.

        Args:
            fields: categorical columns of the raw rows.
            values: numbers and ids of a coded row.
            workers: how many processes share the work.
            table_rows: rows of all tables of a vocabulary, as soon as they are known.

        Raises:
            InputError: they can't; it says what they need.
        """
        counting = self.shard_rows * 16 * fields + _BLOCKS_BYTES
        coding = self.shard_rows * _CODED_COPIES * 4 * values
        merging = _LEAST_MERGED_KEYS * _MERGED_BYTES
        processes = _PROGRAM_BYTES + workers * max(counting, coding, merging)
        needed = -(-(processes + table_bytes(table_rows)) // 10**6)
        if not self.memory_mb or needed <= self.memory_mb:
            return
        advice = "a smaller --shard_rows, or fewer processes"
        if table_rows:
            advice = "--min_count, --max_rows_per_field or --hash_rows for smaller tables, or " + advice
        of_tables = f" and {table_rows} rows of tables" if table_rows else ""
        raise InputError(
            f"memory_mb {self.memory_mb} is too little: {workers} processes with shard_rows {self.shard_rows}"
            f"{of_tables} need some {needed}: give that, {advice}"
        )

    @property
    def learns_from_numbers(self) -> bool:
        """Whether the values of numeric columns are counted too."""
        return TRANSFORMS[self.numeric_transform].learns or self.missing_indicators or self.numeric_buckets > 0


def check_table_rows(table_rows: Sequence[int]) -> None:
    """Refuse tables that are too large for ids of type int32, which count the rows of all fields.

    Raises:
        InputError: they are; it says what they would take.
    """
    if (rows := sum(table_rows)) > _MOST_ROWS:
        raise InputError(
            f"the tables of {len(table_rows)} fields would have {rows} rows, which take {64 * rows / 1e9:.0f} GB where "
            f"each has 16 numbers, and ids (int32) reach to {_MOST_ROWS}: give a smaller --hash_rows, or bound them "
            f"with --max_rows_per_field or --min_count"
        )


@dataclass(frozen=True)
class SyntheticSpec:
    """Which rows are generated, and where they go."""

    data_path: str = option("./data/", _DATA_PATH, NOT_EMPTY)
    rows: int = option(300_000, "rows to generate, of each day if there are days", POSITIVE)
    days: int = option(
        0, "days, a file each, in which values come and go and the law drifts; 0 for one file without days",
        NOT_NEGATIVE,
    )  # fmt: skip
    seed: int = option(1, "seed of everything random", NOT_NEGATIVE)
    overwrite: bool = option(False, "whether earlier results may be replaced")
