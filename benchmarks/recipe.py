"""What each ingredient of the best-known recipe adds: the recipe without it, each with several seeds.

    python benchmarks/recipe.py --data train.txt --output runs           on validation rows; --jobs 2 for two at a time
    python benchmarks/recipe.py --data train.txt --output runs --test    the recipe alone on test rows, at the very end

Rows of Criteo's format; the first six sevenths train. Runs that OUTPUT holds already are not done again. Only the whole
recipe's runs are timed; they have the machine to themselves.
"""

import argparse
import json
import sys
from functools import partial
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

import numpy as np
import yaml

from benchmarks import results
from benchmarks.search import Options, Runs, at_once, call, data_folder, key_of, train
from src.rows.text_file import LineIndex

RECIPE = ROOT / "best_config.yaml"
ORIGINAL = "the original's: SGD, one epoch"
NO_REPORT: Options = {"report": False}  # which takes longer than an epoch of so few rows
_PLAIN_EPOCHS: Options = {"reset_tables_each_epoch": None}
_ONE_EPOCH: Options = {"epochs": None, "reset_tables_each_epoch": None, "restart_lr_each_epoch": None, "lr": 0.002}
# What a row of the table leaves away (None), and what it puts in the place.
INGREDIENTS: dict[str, Options] = {
    "tables not filled anew in each epoch": _PLAIN_EPOCHS,
    "one epoch, MLPs' rate 0.002": _ONE_EPOCH,
    "dropout 0.3": {"dropout": 0.3},
    "no weight decay": {"mlp_weight_decay": None},
    "one decay at the end": {"restart_lr_each_epoch": None},
    "towers of width 16": {"emb_dim": 128, "bottom_mlp": [128, 64, 16]},
    "one tower with larger MLPs": {
        "towers": None, "emb_dim": 32, "bottom_mlp": [512, 256, 64, 32], "top_mlp": [512, 256, 1]},
    "mixed dimensions, temperature 0.1": {"mixed_dims": 0.1},
    "no buckets": {"numeric_buckets": None},
    "log without standardising, no indicators": {"numeric_transform": None, "missing_indicators": None},
    "rare values keep their rows": {"min_count": None},
    "SGD, rate 0.1": {"optimizer": None, "mlp_optimizer": None, "lr": 0.1, "table_lr": None},
}  # fmt: skip


def without(recipe: Options, changes: Options) -> Options:
    """The recipe with other values; None takes an option away."""
    return {name: value for name, value in (recipe | changes).items() if value is not None}


def table_row(name: str, runs: list[dict[str, float]], reference: list[dict[str, float]]) -> dict[str, str]:
    """Means over the seeds, the AUC's deviation, and the differences from the recipe with the same seeds."""
    row = {"recipe": name}
    for metric in ("auc", "logloss"):
        values = np.array([run[metric] for run in runs])
        row[metric] = f"{values.mean():.4f} ± {values.std(ddof=1):.4f}"
        difference = values - [run[metric] for run in reference]
        row[f"{metric} - recipe's"] = (
            "" if runs is reference else f"{difference.mean():+.4f} ± {difference.std(ddof=1):.4f}"
        )
    row["seconds a run"] = f"{np.mean([run['seconds'] for run in runs]):.0f}" if runs is reference else ""
    return row


def main() -> None:
    """Run what is missing, and write the result file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--jobs", type=int, default=1, help="runs without an ingredient at a time")
    parser.add_argument("--test", action="store_true")
    arguments = parser.parse_args()
    runs = Runs(arguments.output / "recipe.jsonl")
    recipe: Options = yaml.safe_load(RECIPE.read_text(encoding="utf-8"))
    rows, seeds = LineIndex(arguments.data).rows, range(1, arguments.seeds + 1)

    def row(options: Options, seed: int) -> dict[str, Any]:
        data = data_folder(arguments.data, arguments.output, rows, 0.5, options)
        return runs.row({"options": options, "seed": seed}, lambda: train(data, arguments.output, seed, options))

    reference = [row(recipe, seed) for seed in seeds]
    if arguments.test:
        results.save("recipe_test", [test_row(arguments.data, arguments.output, rows, recipe, list(seeds))])
        return
    others = {name: without(recipe, changes | NO_REPORT) for name, changes in INGREDIENTS.items()}
    others[ORIGINAL] = {"lr": 0.1, "eval_steps": recipe["eval_steps"]} | NO_REPORT  # the same looks at validation rows
    at_once(arguments.jobs, (partial(row, options, seed) for options in others.values() for seed in seeds))
    table = [table_row("the whole recipe", reference, reference)]
    table += [table_row(name, [row(options, seed) for seed in seeds], reference) for name, options in others.items()]
    results.save("recipe", table)
    print("\n".join(map(str, table)))


def test_row(raw: Path, output: Path, rows: int, recipe: Options, seeds: list[int]) -> dict[str, str]:
    """The recipe's metrics on the test part, means over the seeds."""
    data = data_folder(raw, output, rows, 0.5, recipe)
    found = []
    for seed in seeds:
        metrics = output / f"test-{key_of(recipe)}-{seed}.jsonl"
        metrics.unlink(missing_ok=True)
        run = output / f"run-{key_of(recipe)}-{data.name}-{seed}"
        call("eval.py", "--device_target=CPU", f"--dataset_path={data / 'test'}", f"--checkpoint_path={run}",
             f"--metrics_file_name={metrics}", f"--eval_file_name={output / 'test.log'}")  # fmt: skip
        found.append(json.loads(metrics.read_text(encoding="utf-8").splitlines()[-1]))
    row = {"recipe": "the whole recipe", "seeds": str(len(seeds))}
    for metric in ("auc", "logloss"):
        values = [line[metric] for line in found]
        row[f"test {metric}"] = f"{np.mean(values):.4f} ± {np.std(values, ddof=1):.4f}"
    return row


if __name__ == "__main__":
    main()
