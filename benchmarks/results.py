"""Result files of the benchmarks, and tables made from them: `python benchmarks/results.py` rewrites these.

A result file holds the command, the machine, and rows of a table. A file of READMES names one between two comments,
`<!-- results: NAME -->` and `<!-- end -->`; what stands between them is made here. With the first cells of rows behind
the name, as in `<!-- results: NAME | one row | another -->`, it has those rows alone.
"""

import argparse
import json
import os
import platform
import re
import sys
from collections.abc import Sequence
from datetime import date
from importlib.metadata import version
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from src.base.machine import processor

# The public original's recipe on a CPU, for benchmarks whose figures are of it.
ORIGINAL = f"--config_path={ROOT / 'npu_config.yaml'}"
FOLDER = Path(__file__).resolve().parent / "results"
READMES = tuple(
    ROOT / name
    for name in ("README.md", "benchmarks/README.md", "docs/training.md", "docs/export.md", "docs/ascend.md")
)
_PLACE = re.compile(r"(<!-- results: (\w+)((?: \| .*?)?) -->\n).*?(<!-- end -->)", re.DOTALL)


def machine() -> str:
    """Processor, cores that this process may use, and memory."""
    memory_gb = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return f"{processor()}, {len(os.sched_getaffinity(0))} cores, {memory_gb:.0f} GiB, no accelerator"


def save(name: str, table: Sequence[dict[str, Any]], **more: Any) -> None:
    """Write a result file: the table's rows, each a column name to a shown value, and other figures."""
    words = [word.rsplit("/", 1)[-1] for word in sys.argv[1:]]  # where files lay on this machine is nobody's concern
    content = {
        "command": " ".join(["python", os.path.relpath(sys.argv[0], ROOT), *words]),
        "machine": machine(),
        "date": f"{date.today()}",
        "versions": {package: version(package) for package in ("mindspore", "numpy")}
        | {"python": platform.python_version()},
        "table": list(table),
        **more,
    }
    FOLDER.mkdir(exist_ok=True)
    beside = FOLDER / f"{name}.json.tmp"
    beside.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    beside.rename(FOLDER / f"{name}.json")


def table_of(name: str, chosen: Sequence[str] = ()) -> str:
    """A result file as a Markdown table, with its command and machine below; of the rows with chosen first cells."""
    content = json.loads((FOLDER / f"{name}.json").read_text(encoding="utf-8"))
    by_name = {str(next(iter(row.values()))): row for row in content["table"]}
    rows = [by_name[cell] for cell in chosen] or content["table"]
    columns = list(rows[0])
    lines = ["| " + " | ".join(columns) + " |", "|" + "---|" * len(columns)]
    lines += ["| " + " | ".join(str(row[column]) for column in columns) + " |" for row in rows]
    return "\n".join([*lines, "", f"`{content['command']}` on {content['machine']}, {content['date']}.", ""])


def with_tables(text: str) -> str:
    """A README's text with every table made anew."""
    return _PLACE.sub(lambda place: place[1] + table_of(place[2], place[3].split(" | ")[1:]) + place[4], text)


if __name__ == "__main__":
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    for readme in READMES:
        readme.write_text(with_tables(readme.read_text(encoding="utf-8")), encoding="utf-8")
