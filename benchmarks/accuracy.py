"""Metrics of one epoch with several seeds, through the programs that users run.

    python benchmarks/accuracy.py                      300,000 generated rows, beside a linear model and the best AUC
    python benchmarks/accuracy.py --data FILE --lr 0.1 a raw text file in Criteo's format

The linear model is scikit-learn's logistic regression on the numbers, standardised, and the categories, hashed one-hot;
its regularisation is chosen on validation rows.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

import numpy as np
from scipy.sparse import csr_matrix, hstack
from sklearn.linear_model import LogisticRegression

from benchmarks import results
from src.data.manifest import DataFolder, find
from src.dataset import batches_of
from src.metrics.monitored import LOGGED, Metrics, measured

_BUCKETS = 1 << 18
_PARTS = ("valid", "test")


def run(program: str, *arguments: str, cwd: Path | None = None) -> None:
    """Run a program of the repository."""
    subprocess.run([sys.executable, str(ROOT / program), *arguments], check=True, cwd=cwd)


def rows_of(data: DataFolder, part: str) -> tuple[np.ndarray, ...]:
    """Dense [B, N], ids [B, F] and labels [B] of a part."""
    dense, ids, labels = (np.concatenate(column) for column in zip(*batches_of(data, part, 65536)))
    return dense, ids, labels[:, 0]


def linear_metrics(data: DataFolder) -> dict[str, Metrics]:
    """Metrics of the linear model on both parts."""
    train_dense, _, labels = rows_of(data, "train")
    mean, deviation = train_dense.mean(0), train_dense.std(0) + 1e-6

    def features(part: str) -> csr_matrix:
        dense, ids, _ = rows_of(data, part)
        fields = ids.shape[1]
        hashed = (ids.astype(np.int64) * fields + np.arange(fields)) * 0x9E3779B1 % (2**31 - 1) % _BUCKETS
        one_hot = csr_matrix((np.ones(ids.size, np.float32), hashed.reshape(-1), np.arange(0, ids.size + 1, fields)),
                             shape=(len(ids), _BUCKETS))  # fmt: skip
        return hstack([csr_matrix((dense - mean) / deviation), one_hot]).tocsr()

    x, evaluated = features("train"), {part: features(part) for part in _PARTS}
    best: dict[str, Metrics] = {}
    for strength in (0.01, 0.03, 0.1):
        model = LogisticRegression(C=strength, max_iter=1000, tol=1e-3).fit(x, labels)
        found = {part: measured(rows_of(data, part)[2], model.decision_function(evaluated[part]))
                 for part in _PARTS}  # fmt: skip
        if not best or found["valid"]["auc"] > best["valid"]["auc"]:
            best = found
    return best


def true_metrics(data: DataFolder, truth: Path) -> dict[str, Metrics]:
    """Metrics of the logits that the labels were drawn from."""
    logits, parts = np.load(truth), data.manifest.parts
    return {part: measured(rows_of(data, part)[2], logits[parts[part].first_line - 1 : parts[part].last_line])
            for part in _PARTS}  # fmt: skip


def trained_metrics(folder: Path, data: DataFolder, seed: int, more: list[str], ranks: int = 1) -> dict[str, Metrics]:
    """Metrics of one epoch of train.py with a seed, from eval.py; of several ranks in one mode or the other."""
    place, metrics_file = folder / f"seed{seed}", folder / f"seed{seed}.jsonl"
    logs = [f"--eval_file_name={place}.log", f"--metrics_file_name={metrics_file}"]
    program = ["train.py"] if ranks == 1 else ["src/launch.py", f"{ranks}"]
    run(*program, "--device_target=CPU", results.ORIGINAL, f"--dataset_path={data.path}", f"--ckpt_path={place}",
        f"--seed={seed}", f"--loss_file_name={place}.log", *logs, *more, cwd=folder)  # fmt: skip
    for part in _PARTS:
        run("eval.py", "--device_target=CPU", f"--dataset_path={data.path / part}",
            f"--checkpoint_path={place}/dlrm.ckpt", *logs)  # fmt: skip
    lines = [json.loads(line) for line in metrics_file.read_text(encoding="utf-8").splitlines()]
    return {line["part"]: {name: line[name] for name in LOGGED} for line in lines if "part" in line}


def table_row(name: str, runs: list[dict[str, Metrics]]) -> dict[str, str]:
    """A row of the table: each metric's mean over the runs, and the AUC's deviation where there are several."""
    row = {"model": name}
    for part in _PARTS:
        aucs = [run[part]["auc"] for run in runs]
        spread = f" ± {np.std(aucs, ddof=1):.4f}" if len(runs) > 1 else ""
        row[f"{part} AUC"] = f"{np.mean(aucs):.4f}{spread}"
        row[f"{part} logloss"] = f"{np.mean([run[part]['logloss'] for run in runs]):.4f}"
        row[f"{part} accuracy"] = f"{np.mean([run[part]['acc'] for run in runs]):.4f}"
    return row


def main() -> None:
    """Run all seeds and write the result file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--rows", type=int, default=300_000)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--lr", type=float, default=0.15)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if not arguments.data:
            run("src/synthetic.py", f"--data_path={folder}", f"--rows={arguments.rows}")
        run("src/preprocess_data.py", f"--data_path={arguments.data or folder}", f"--output_path={folder / 'dataset'}")
        data = find(str(folder / "dataset"))
        runs = [trained_metrics(folder, data, seed, [f"--lr={arguments.lr}"]) for seed in range(1, arguments.seeds + 1)]
        linear = linear_metrics(data)
        table = [table_row("logistic regression", [linear]),
                 table_row(f"DLRM, one epoch, {arguments.seeds} seeds", runs)]  # fmt: skip
        more = {}
        if not arguments.data:
            best = true_metrics(data, folder / "train.truth.npy")
            table.append(table_row("best reachable (the true logits)", [best]))
            more = {part: float(np.mean([run[part]["auc"] - linear[part]["auc"] for run in runs])
                                / (best[part]["auc"] - linear[part]["auc"])) for part in _PARTS}  # fmt: skip
            print("share of the way from linear to best: " + ", ".join(f"{part} {more[part]:.3f}" for part in _PARTS))
            for row, share in zip(table, ("0", f"{more['test']:.3f}", "1")):
                row["test: share of the way from linear to best"] = share
    results.save("accuracy_real" if arguments.data else "accuracy_synthetic", table, share=more)
    print("\n".join(str(row) for row in table))


if __name__ == "__main__":
    main()
