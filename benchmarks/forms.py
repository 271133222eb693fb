"""Click logs as people have them, through the whole chain: `python benchmarks/forms.py`.

Each form of forms_of.py is written with a planted law, preprocessed with its one schema file, trained on with
the default recipe for a CPU, evaluated and exported; its test rows, written again without labels, are scored by the C++
program and in Python. A form is right where

- both give the same scores, to 1e-5, and these the AUC of eval.py,
- the AUC of the test rows is within 0.01 of the best reachable: that of the chances by which their labels were drawn.

The last line is `forms=N right=N`, and the exit code is 1 unless they are equal.

    --rows=N        rows of each form, 50,000 by default
    --only=TEXT     forms alone whose name has this text; writes no result file
    --folder=FOLDER where files stay; by default they are removed
"""

import argparse
import contextlib
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

import numpy as np

from benchmarks import results
from benchmarks.forms_of import FORMS, Form

ROWS, NEAR, ALIKE = 50_000, 0.01, 1e-5
NETWORK = ("--emb_dim=16", "--bottom_mlp=[64,16]", "--top_mlp=[64,32,1]")
_CPU = "--device_target=CPU"


def run_form(form: Form, rows: int, program: Path, *options: str) -> dict[str, Any]:
    """Take a form through all programs in the working folder, which must be empty, and tell what came of it.

    Args:
        form: what to write.
        rows: how many.
        program: the C++ program.
        options: of train.py, beside the default recipe's.
    """
    import eval as eval_program
    import export as export_program
    import postprocess as postprocess_program
    import preprocess as preprocess_program
    import train as train_program
    from src import preprocess_data
    from src.data.manifest import find
    from src.export.scored_files import RowFiles, Scores
    from src.metrics.binary import auc
    from src.scorer import Scorer

    made = form.make(rows)
    data_path = form.write(made.frame, "rows")
    schema = [f"--schema={form.schema_file(Path('schema.yaml'))}"] if form.schema else []
    preprocess_data.main([f"--data_path={data_path}", *schema, "--output_path=data", *form.options])
    train_program.main([_CPU, "--dataset_path=data", *NETWORK, "--report=False", "--eval_batch_size=1024", *options])
    eval_program.main([_CPU, "--dataset_path=data/test", "--eval_batch_size=1024"])
    evaluated = json.loads(Path("metrics.jsonl").read_text(encoding="utf-8").splitlines()[-1])
    export_program.main([_CPU, "--export_batch_size=256"])
    test = form.test_rows(made, find("data").manifest.parts["test"].rows)
    new = form.write(made.frame.iloc[test].drop(columns=form.label), "new")
    in_python = Scorer("export").score_lines(Path(new))
    preprocess_program.main([f"--dataset_path={new}", "--export_path=export", "--has_labels=False"])
    command = [program, "--model=export/dlrm.mindir", "--input=preprocess_Result", "--device_type=CPU"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise AssertionError(f"the C++ program: {done.stderr}")
    in_cpp = Scores.load(Path("result_Files"), RowFiles.load(Path("preprocess_Result"))).values
    postprocess_program.main([])
    labels, count = made.labels[test].astype(np.float32), len(test)
    weights = None if made.weights is None else made.weights[test]
    if not len(in_python) == len(in_cpp) == len(Path("scores.csv").read_text().splitlines()) - 1 == count:
        raise AssertionError(f"{count} rows, of which {len(in_python)} and {len(in_cpp)} were scored")
    logits = np.log(in_python.astype(np.float64) / (1 - in_python.astype(np.float64)))
    return {
        "rows": rows, "test_rows": count, "auc": evaluated["auc"], "best": auc(labels, made.chances[test], weights),
        "auc_of_scores": auc(labels, logits, weights), "apart": float(np.abs(in_cpp - in_python).max()),
    }  # fmt: skip


def faults_of(found: dict[str, Any]) -> list[str]:
    """What of `run_form` is not as it must be."""
    below, differs = found["best"] - found["auc"], abs(found["auc"] - found["auc_of_scores"])
    return [
        *([f"AUC {below:.4f} below the best"] if not below < NEAR else []),
        *([f"C++ and Python differ by {found['apart']:.1e}"] if not found["apart"] < ALIKE else []),
        *([f"AUC of the scores differs by {differs:.1e} from eval.py's"] if not differs < 1e-4 else []),
    ]


def _row(name: str, found: dict[str, Any], faults: Sequence[str]) -> dict[str, str]:
    return {
        "form": name, "rows": f"{found['rows']:,}", "test rows": f"{found['test_rows']:,}",
        "test AUC": f"{found['auc']:.4f}", "best reachable": f"{found['best']:.4f}",
        "below the best": f"{found['best'] - found['auc']:+.4f}",
        "largest difference of C++ and Python": f"{found['apart']:.1e}", "right": "no" if faults else "yes",
    }  # fmt: skip


def main(argv: Sequence[str]) -> int:
    """Run the forms that the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=ROWS)
    parser.add_argument("--only", default="")
    parser.add_argument("--folder", type=Path)
    arguments = parser.parse_args(argv)
    done = subprocess.run(["bash", str(ROOT / "ascend310_infer/build.sh"), "--cpu"], check=False)
    if done.returncode:
        return done.returncode
    program, table = ROOT / "ascend310_infer/out/main", []
    forms = [form for form in FORMS if arguments.only.lower() in form.name.lower()]
    with contextlib.ExitStack() as stack:
        scratch = arguments.folder or Path(stack.enter_context(tempfile.TemporaryDirectory()))
        for number, form in enumerate(forms):
            folder = scratch.absolute() / f"{number:02d}"
            folder.mkdir(parents=True)
            os.chdir(folder)
            with Path("output.log").open("w", encoding="utf-8") as log, contextlib.redirect_stdout(log):
                found = run_form(form, arguments.rows, program)
            faults = faults_of(found)
            table.append(_row(form.name, found, faults))
            print(", ".join(f"{key} {value}" for key, value in table[-1].items()), *faults, sep="; ", flush=True)
        os.chdir(ROOT)
    right = sum(row["right"] == "yes" for row in table)
    if not arguments.only:
        results.save("forms", table)
    print(f"forms={len(table)} right={right}")
    return int(right < len(table))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
