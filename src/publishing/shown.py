"""The report's page as others may see it: without the names of this machine's folders and of raw files."""

import re
from collections.abc import Sequence
from dataclasses import fields
from typing import Any

from src.network.options import ComputeSpec, NetworkSpec
from src.report.page import run_page
from src.training.options import DataSpec, EvaluationSpec, OptimizationSpec, ScheduleSpec

_SHOWN = (NetworkSpec, ComputeSpec, DataSpec, OptimizationSpec, ScheduleSpec, EvaluationSpec)
_PLACES = ("dataset_path", "from_checkpoint")  # options of these that are a place
_SHOWN_OF_DATA = ("parts", "bad_rows", "vocabulary_sha256", "dense", "table_rows", "weighted_by", "negatives")
_SHOWN_OF_PREPROCESSING = (
    "split", "min_count", "max_rows_per_field", "hash_rows", "numeric_transform", "missing_indicators",
    "numeric_buckets", "category_counts", "shuffle_rows",
)  # fmt: skip


def shown_options(options: dict[str, Any]) -> dict[str, Any]:
    """Of a run's options those that tell how it was trained, and not where its files are."""
    names = {one.name for spec in _SHOWN for one in fields(spec)} - set(_PLACES)
    return {name: value for name, value in options.items() if name in names}


def split_without_values(split: str) -> str:
    """How rows were split, without the values of a column by which it was: these are categories as others are."""
    if not split or split.startswith("random:"):
        return split
    return f"by column {re.split('[:=]', split)[0]}"


def without_values(content: Any) -> Any:
    """A report or an evaluation where each split tells no values of its column.

    Nor is there the checksum of the checkpoint's vocabulary, by which who guesses all values sees that they are right.
    """
    if isinstance(content, dict):
        return {
            name: split_without_values(one) if name == "split" and isinstance(one, str) else without_values(one)
            for name, one in content.items()
            if name != "vocabulary_sha256"
        }
    return [without_values(one) for one in content] if isinstance(content, list) else content


def page_for_others(report: dict[str, Any], evaluations: Sequence[dict[str, Any]]) -> str:
    """The page of a run's report and of later evaluations."""
    data = report["data"]
    kept = {name: data[name] for name in _SHOWN_OF_DATA if name in data}
    own = {name: value for name, value in data["preprocessing"].items() if name in _SHOWN_OF_PREPROCESSING}
    options = shown_options(report["options"])
    return run_page(report | {"options": options, "data": kept | {"source": {}, "preprocessing": own}}, evaluations)
