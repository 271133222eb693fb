"""Do scores of a model on some negatives mean clicks of the full data? `python benchmarks/negatives.py`

Generates rows whose chances of a click are known, preprocesses them with and without --keep_negatives=0.1, trains on
both with cpu_config.yaml and several seeds, on the sampled ones also with averaged weights, and tells the mean score of
the held-out rows, of which all negatives are there, over the mean of their chances, from eval.py. The last line is
`sampled=.. ± .. averaged=.. ± .. unsampled=.. ± ..`: means over the seeds and their standard errors. It writes no
result file.

    --rows=N    rows to generate, 1,500,000 by default
    --seeds=N   trainings of each, 3 by default
    --keep=R    the share of negatives that are kept, 0.1 by default
"""

import argparse
import json
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

import numpy as np

from benchmarks.accuracy import run
from src.data.manifest import DataFolder, find

_PARTS = ("valid", "test")
# What a training is called in the last line, which rows it has, and its options.
_KINDS: tuple[tuple[str, str, list[str]], ...] = (
    ("sampled", "some", []),
    ("averaged", "some", ["--average_share=0.06"]),
    ("unsampled", "all", []),
)


def planted_mean(data: DataFolder, truth: Path) -> float:
    """Mean chance of a click of the held-out rows, which come last."""
    logits = np.load(truth, mmap_mode="r")[data.manifest.parts["valid"].first_line - 1 :]
    return float((1 / (1 + np.exp(-logits.astype(np.float64)))).mean())


def measured(data: DataFolder, place: Path, seed: int, options: list[str]) -> tuple[float, float]:
    """Mean score of the held-out rows after a training, and the test part's AUC.

    Args:
        data: the data folder.
        place: where the checkpoint goes, which must not be there yet.
        seed: of the training.
        options: of train.py.
    """
    metrics = place.with_suffix(".jsonl")
    logs = [f"--eval_file_name={place}.log", f"--metrics_file_name={metrics}"]
    run("train.py", "--device_target=CPU", f"--dataset_path={data.path}", f"--ckpt_path={place}", f"--seed={seed}",
        f"--loss_file_name={place}.log", "--do_eval=False", *logs, *options)  # fmt: skip
    for part in _PARTS:
        run("eval.py", "--device_target=CPU", f"--dataset_path={data.path / part}", f"--checkpoint_path={place}", *logs)
    lines = [json.loads(line) for line in metrics.read_text(encoding="utf-8").splitlines()]
    of_part = {line["part"]: line for line in lines if "part" in line}
    parts = data.manifest.parts
    clicks = sum(of_part[part]["calibration"] * parts[part].label_mean * parts[part].rows for part in _PARTS)
    return clicks / sum(parts[part].rows for part in _PARTS), of_part["test"]["auc"]


def main() -> None:
    """Run all seeds and print what they give."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1_500_000)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--keep", type=float, default=0.1)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        run("src/synthetic.py", f"--data_path={folder}", f"--rows={arguments.rows}")
        for place, options in ((folder / "some", [f"--keep_negatives={arguments.keep}"]), (folder / "all", [])):
            run("src/preprocess_data.py", f"--data_path={folder}", f"--output_path={place}", *options)
        ratios: dict[str, list[float]] = {}
        for kind, place, options in _KINDS:
            data = find(str(folder / place))
            planted = planted_mean(data, folder / "train.truth.npy")
            seeds = range(1, arguments.seeds + 1)
            found = [measured(data, folder / f"{kind}{seed}", seed, options) for seed in seeds]
            ratios[kind] = [mean / planted for mean, _ in found]
            print({
                "training rows": f"{data.manifest.parts['train'].rows:,}",
                "negatives kept": f"{arguments.keep if place == 'some' else 1}",
                "options": " ".join(options),
                "held-out rows": f"{sum(data.manifest.parts[part].rows for part in _PARTS):,}",
                "mean score over planted chances": said(ratios[kind]),
                "of each seed": " ".join(f"{ratio:.3f}" for ratio in ratios[kind]),
                "test AUC": f"{np.mean([auc for _, auc in found]):.4f}",
            }, flush=True)  # fmt: skip
    print(" ".join(f"{kind}={said(found)}" for kind, found in ratios.items()))


def said(values: list[float]) -> str:
    """A mean and its standard error."""
    error = np.std(values, ddof=1) / np.sqrt(len(values)) if len(values) > 1 else 0.0
    return f"{np.mean(values):.4f} ± {error:.4f}"


if __name__ == "__main__":
    main()
