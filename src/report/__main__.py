"""Runs side by side: `python -m src.report RUN_A RUN_B ... [--output=comparison.html] [--fail_below=0.001]`.

Each RUN is a checkpoint folder of train.py, or the report in it. With --fail_below=X the exit code is 1 if the AUC of
any later run, less that of the first, is below -X. Of a single RUN the page is written anew, with what eval.py found
since, and in the --language that is given.
"""

import sys
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

if __name__ == "__main__":
    from src.base.stops import end_at_once

    end_at_once()

from src.base.errors import InputError, run
from src.base.files import whole_file
from src.options import ReportOptions, resolve
from src.report.compare import ComparedRun, comparison_lines, comparison_page, failures, folder_of_run
from src.report.files import page_again


def main(argv: Sequence[str]) -> int:
    """Compare, or renew a page; 0, or 1 if a run is worse than allowed."""
    folders = [word for word in argv if not word.startswith("-")]
    spec = resolve(ReportOptions, [word for word in argv if word.startswith("-")]).compare
    if len(folders) == 1:
        page = page_again(folder_of_run(folders[0]), spec.language)
        print(f"report: {page}")
        return 0
    if not folders:
        raise InputError(
            "no run given: python -m src.report RUN_A RUN_B ... --OPTION=VALUE; of one the page is renewed"
        )
    runs = [ComparedRun.load(folder) for folder in folders]
    print("\n".join(comparison_lines(runs)))
    if spec.output:
        path = Path(spec.output)
        path.parent.mkdir(parents=True, exist_ok=True)
        with whole_file(path) as file:
            file.write(comparison_page(runs, spec.language).encode())
        print(f"comparison: {path}")
    wrong = failures(runs, spec.fail_below) if spec.fail_below >= 0 else []
    for reason in wrong:
        print(f"worse: {reason}")
    return 1 if wrong else 0


if __name__ == "__main__":
    run(main)
