"""What the loop of days does beside what the programs' own options say."""

from dataclasses import dataclass

from src.model_utils.options import NOT_NEGATIVE, POSITIVE, option
from src.report.options import FAIL_BELOW


@dataclass(frozen=True)
class DaySpec:
    """How a model goes on with a day's rows, and when the earlier one stays in use."""

    fail_below: float = option(
        0.01, "how far the new model's monitored metric may be worse than the earlier one's, on the day's held-out "
        "rows, for it to be taken into use; -1 for any", FAIL_BELOW,
    )  # fmt: skip
    day_epochs: int = option(1, "epochs of each day behind the first one", POSITIVE)
    delta: bool = option(False, "whether a delta, which makes the new export of the earlier one, is written too")
    keep_days: int = option(0, "newest days whose folders are kept, beside the one in use; 0 for all", NOT_NEGATIVE)
    retry: bool = option(False, "whether files whose model was refused may be trained on once more")
