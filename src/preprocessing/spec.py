"""The options of a preprocessing run."""

from dataclasses import dataclass

from src.data.transforms import TRANSFORMS


@dataclass(frozen=True)
class Options:
    """How rows are split, coded and packed; the options of the same names."""

    train_line_count: int = 0
    valid_fraction: float = 0.5
    min_count: int = 1
    field_min_count: str = ""
    max_rows_per_field: int = 0
    hash_rows: int = 0
    vocab_scope: str = "train"
    vocab_path: str = ""
    numeric_transform: str = "log"
    missing_indicators: bool = False
    numeric_buckets: int = 0
    category_counts: bool = False
    shuffle_rows: bool = False
    seed: int = 1
    max_bad_rows: int = 0
    record_rows: int = 512
    shard_rows: int = 262_144

    @property
    def learns_from_numbers(self) -> bool:
        """Whether the values of numeric columns are counted too."""
        return TRANSFORMS[self.numeric_transform].learns or self.missing_indicators or self.numeric_buckets > 0
