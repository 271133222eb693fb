"""Rows a second and memory of preprocessing, beside a plain Python reader, in one run.

    python benchmarks/preprocess.py --rows 2000000
    python benchmarks/preprocess.py --data train.txt        # rows that are there already
    python benchmarks/preprocess.py --decimals              # numbers with fractions beside whole ones

Generates rows, preprocesses them with src/preprocess_data.py, and reads a part of them line by line in plain Python,
which counts categories in dicts, one process, as the public original does. Memory is that of all processes together
(proportional set size, sampled). The last line is `rows_per_s=.. ratio_to_python=.. peak_mb=..`; with --decimals it is
`parsed_rows_per_s=.. ratio_to_whole_numbers=..`: rows a second of one core that parses them, and how many times as long
the whole run takes, the faster of two runs each. That writes no result file.
"""

import argparse
import math
import re
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from benchmarks import results
from src.data.manifest import find

_PYTHON_ROWS = 100_000
_SAMPLE_S = 0.2


def plain_python(raw: Path, rows: int) -> float:
    """Rows a second of reading lines, taking logs and counting categories, in plain Python."""
    counters: list[Counter[str]] = [Counter() for _ in range(26)]
    dense: list[list[float]] = []
    begin = time.perf_counter()
    with raw.open(encoding="utf-8") as file:
        for _, line in zip(range(rows), file):
            cells = line.rstrip("\n").split("\t")
            dense.append([math.log(max(int(cell or 0), 0) + 1) for cell in cells[1:14]])
            for counter, cell in zip(counters, cells[14:]):
                counter[cell] += 1
    return len(dense) / (time.perf_counter() - begin)


def decimals(folder: Path, rows: int) -> str:
    """How numbers with fractions do beside whole ones, in words."""
    from src.rows.columns import Columns
    from src.rows.lines import parse

    subprocess.run([sys.executable, str(ROOT / "src/synthetic.py"), f"--data_path={folder}", f"--rows={rows}"],
                   check=True)  # fmt: skip
    raws = {"whole": folder / "train.txt", "decimal": folder / "decimal.txt"}
    with raws["whole"].open("rb") as source, raws["decimal"].open("wb") as target:
        for number, line in enumerate(source):
            label, *cells = line.split(b"\t")
            numbers = [
                cell and b"%b.%d" % (cell, (number + place) * 7919 % 100_003) for place, cell in enumerate(cells[:13])
            ]
            target.write(b"\t".join([label, *numbers, *cells[13:]]))
    text = raws["decimal"].read_bytes()[: 8 << 20]
    text = text[: text.rfind(b"\n") + 1]
    parsed = 0.0
    for _ in range(5):
        begin = time.process_time()
        assert not parse(text, Columns.numbered()).bad
        parsed = max(parsed, text.count(b"\n") / (time.process_time() - begin))
    seconds: dict[str, list[float]] = {name: [] for name in raws}
    for turn in range(2):
        for name, raw in raws.items():
            program = [sys.executable, str(ROOT / "src/preprocess_data.py"), f"--data_path={raw}"]
            seconds[name].append(watched([*program, f"--output_path={folder / name}", "--overwrite=True"])[0])
            print(f"{name} numbers, turn {turn}: {seconds[name][-1]:.1f} s", flush=True)
    ratio = min(seconds["decimal"]) / min(seconds["whole"])
    return f"parsed_rows_per_s={parsed:.0f} ratio_to_whole_numbers={ratio:.2f}"


def memory_kb(pid: int) -> int:
    """Proportional set size of a process and its descendants, each page counted once."""
    total = 0
    try:
        rollup = Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="ascii")
        total += int(re.search(r"^Pss:\s+(\d+)", rollup, re.MULTILINE).group(1))
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="ascii").split()
        total += sum(memory_kb(int(child)) for child in children)
    except (OSError, AttributeError):  # it ended in between
        pass
    return total


def watched(command: list[str]) -> tuple[float, float, str]:
    """Seconds, largest memory in MB, and the output of a command."""
    begin, peak_kb = time.perf_counter(), 0
    with tempfile.TemporaryFile("w+") as output:
        child = subprocess.Popen(command, stdout=output, text=True)
        while child.poll() is None:
            peak_kb = max(peak_kb, memory_kb(child.pid))
            time.sleep(_SAMPLE_S)
        seconds = time.perf_counter() - begin
        output.seek(0)
        text = output.read()
    if child.returncode:
        raise SystemExit(f"{' '.join(command)} ended with {child.returncode}")
    return seconds, peak_kb / 1024, text


def main() -> None:
    """Generate, preprocess, compare, and write the result file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=2_000_000)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--keep", type=Path, help="folder for the data folder and generated rows, which stay there")
    parser.add_argument("--decimals", action="store_true")
    arguments = parser.parse_args()
    if arguments.decimals:
        with tempfile.TemporaryDirectory() as temporary:
            print(decimals(Path(temporary), arguments.rows))
        return
    with tempfile.TemporaryDirectory() as temporary:
        folder = arguments.keep or Path(temporary)
        raw = arguments.data or folder / "train.txt"
        if not raw.is_file():
            program = [sys.executable, str(ROOT / "src/synthetic.py")]
            seconds, _, _ = watched([*program, f"--data_path={folder}", f"--rows={arguments.rows}"])
            print(f"generated {arguments.rows / seconds:.0f} rows/s", flush=True)
        program = [sys.executable, str(ROOT / "src/preprocess_data.py")]
        seconds, peak_mb, text = watched([*program, f"--data_path={raw}", f"--output_path={folder / 'dataset'}"])
        print(text, end="", flush=True)
        manifest = find(str(folder / "dataset")).manifest
        rows = sum(part.rows for part in manifest.parts.values())
        stored = sum(file.bytes for file in manifest.files if ".mindrecord" in file.name)
        python_rows_per_s = plain_python(raw, min(rows, _PYTHON_ROWS))
    ratio = rows / seconds / python_rows_per_s
    row = {
        "rows": f"{rows:,}",
        "table rows": f"{sum(manifest.table_rows):,}",
        "seconds": f"{seconds:.0f}",
        "rows/s": f"{rows / seconds:,.0f}",
        "beside plain Python": f"{ratio:.1f} x",
        "peak memory of all processes, MB": f"{peak_mb:.0f}",
        "MindRecord bytes a row": f"{stored / rows:.0f}",
    }
    results.save("preprocess_full" if rows > 40_000_000 else "preprocess", [row], report=text.splitlines())
    print(f"rows_per_s={rows / seconds:.0f} ratio_to_python={ratio:.1f} peak_mb={peak_mb:.0f}")


if __name__ == "__main__":
    main()
