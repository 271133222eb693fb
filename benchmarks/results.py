"""Result files of the benchmarks, and tables made from them: `python benchmarks/results.py` rewrites these.

A result file holds the command, the machine, and rows of a table. A file of READMES names one between two comments,
`<!-- results: NAME -->` and `<!-- end -->`; what stands between them is made here. With the first cells of rows behind
the name, as in `<!-- results: NAME | one row | another -->`, it has those rows alone, and with columns behind these, as
in `<!-- results: NAME | one row ; one column ; another -->`, those columns; a sentence in place of the table, of the
first row's figures, by `<!-- results: NAME : It took {seconds} s. -->`. A file whose name ends with _CN has the words
of translations.yaml.
"""

import argparse
import json
import os
import platform
import re
import sys
from collections.abc import Mapping, Sequence
from datetime import date
from importlib.metadata import version
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from src.base.machine import processor

# The public original's recipe on a CPU, for benchmarks whose figures are of it.
ORIGINAL = f"--config_path={ROOT / 'npu_config.yaml'}"
FOLDER = Path(__file__).resolve().parent / "results"
TRANSLATIONS = Path(__file__).resolve().parent / "translations.yaml"
READMES = tuple(
    ROOT / name
    for name in ("README.md", "README_CN.md", "benchmarks/README.md", "docs/training.md", "docs/export.md",
                 "docs/ascend.md", "docs/reference.md", "docs/cpu_ranks.md")
)  # fmt: skip
_PLACE = re.compile(r"(<!-- results: (\w+)((?: \| .*?)?)((?: ; .*?)?)((?: : .*?)?) -->\n).*?(<!-- end -->)", re.DOTALL)
# Of a cell that says the same in all languages: figures with signs, units and ranges, and names of files.
_SAME = re.compile(r"[\d\s.,:+\-±%x()e]*|[\w.]+\.\w+|\w{1,5}\d+")


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


def _words(text: str, known: Mapping[str, str]) -> str:
    """A title or a cell in another language, whose words are all known; figures stay."""
    if _SAME.fullmatch(text):
        return text
    try:
        return known[text]
    except KeyError:
        raise KeyError(f"{TRANSLATIONS.name} has no {text!r}") from None


def _source(content: Mapping[str, Any], known: Mapping[str, str]) -> str:
    """The line below a table: command, machine and date."""
    if not known:
        return f"`{content['command']}` on {content['machine']}, {content['date']}."
    name, cores, memory, _ = content["machine"].rsplit(", ", 3)
    facts = {"processor": name, "cores": cores.split()[0], "memory": memory, "date": content["date"]}
    return known["source"].format(command=content["command"], **facts)


def _loaded(name: str, chinese: bool) -> tuple[dict[str, Any], dict[str, str]]:
    """What stands in a result file, and the words of the other language; none for English."""
    content = json.loads((FOLDER / f"{name}.json").read_text(encoding="utf-8"))
    return content, yaml.safe_load(TRANSLATIONS.read_text(encoding="utf-8")) if chinese else {}


def table_of(name: str, rows: Sequence[str] = (), columns: Sequence[str] = (), chinese: bool = False) -> str:
    """A result file as a Markdown table, with its command and machine below.

    Args:
        name: of the result file.
        rows: first cells of the rows that the table has; none for all rows.
        columns: names of the columns that it has; none for all.
        chinese: whether its words are those of translations.yaml.

    Raises:
        KeyError: a row or a column is not there, or a word is not translated.
    """
    content, known = _loaded(name, chinese)
    table = content["table"]
    by_first: dict[str, list[dict[str, Any]]] = {}
    for row in table:
        by_first.setdefault(str(next(iter(row.values()))), []).append(row)
    chosen = [row for cell in rows for row in by_first[cell]] or table
    cells = [list(columns or table[0])]
    cells += [[str(row[column]) for column in cells[0]] for row in chosen]
    if chinese:
        cells = [[_words(cell, known) for cell in line] for line in cells]
    lines = ["| " + " | ".join(line) + " |" for line in cells]
    lines.insert(1, "|" + "---|" * len(cells[0]))
    return "\n".join([*lines, "", _source(content, known), ""])


def sentence_of(name: str, template: str, chinese: bool = False) -> str:
    """Figures of a result file's first row in a sentence, with its command and machine behind.

    Args:
        name: of the result file.
        template: the sentence, with columns' names in braces.
        chinese: whether command and machine are told in Chinese.

    Raises:
        KeyError: a column is not there.
    """
    content, known = _loaded(name, chinese)
    space = "" if chinese else " "
    return f"{template.format_map(content['table'][0])}{space}{_source(content, known)}\n"


def with_tables(text: str, chinese: bool = False) -> str:
    """A README's text with every table and sentence made anew."""

    def filled(place: re.Match[str]) -> str:
        rows, columns = place[3].split(" | ")[1:], place[4].split(" ; ")[1:]
        sentence = place[5].removeprefix(" : ")
        made = sentence_of(place[2], sentence, chinese) if sentence else table_of(place[2], rows, columns, chinese)
        return place[1] + made + place[6]

    return _PLACE.sub(filled, text)


def is_chinese(path: Path) -> bool:
    """Whether a file is in Chinese, by its name."""
    return path.stem.endswith("_CN")


if __name__ == "__main__":
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    for readme in READMES:
        text = with_tables(readme.read_text(encoding="utf-8"), is_chinese(readme))
        readme.write_text(text, encoding="utf-8")
