"""Rows a second and memory of preprocessing, beside a pipeline of polars of equal output, in one run.

    python benchmarks/preprocess.py --rows 2000000
    python benchmarks/preprocess.py --data train.txt        # rows that are there already
    python benchmarks/preprocess.py --decimals              # numbers with fractions beside whole ones
    python benchmarks/preprocess.py --forms [--before DIR]  # Parquet beside text, and this beside another checkout

Generates rows, preprocesses them with src/preprocess_data.py, and with benchmarks/polars_rows.py, in turns, of which
the fastest count; the rows of both must be the same. Of more than --polars_rows, the first ones are given to polars,
which holds all in memory, and are not compared. Memory is that of all processes together (proportional set size,
sampled). The last line is `rows_per_s=.. ratio_to_polars=.. peak_mb=..`; with --decimals it is
`parsed_rows_per_s=.. ratio_to_whole_numbers=..`: rows a second of one core that parses them, and how many times as long
the whole run takes, the faster of two runs each; with --forms it is `parquet_to_text=.. text_to_before=..
parsed_parquet_to_text=.. parsed_text_to_before=..`: how many times the processor time of one the other takes, of whole
runs and of reading alone, by the best of some turns in which all take theirs. These write no result file.
"""

import argparse
import itertools
import math
import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from benchmarks import polars_rows, results
from src.data.manifest import find

_FULL_BYTES = 8 << 30
_SAMPLE_S = 0.2


def generated(folder: Path, rows: int) -> Path:
    """A file of generated rows."""
    subprocess.run([sys.executable, str(ROOT / "src/synthetic.py"), f"--data_path={folder}", f"--rows={rows}"],
                   check=True)  # fmt: skip
    return folder / "train.txt"


def decimals(folder: Path, rows: int) -> str:
    """How numbers with fractions do beside whole ones, in words."""
    from src.rows.columns import Columns
    from src.rows.lines import parse

    raws = {"whole": generated(folder, rows), "decimal": folder / "decimal.txt"}
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


_READ = """
import sys, time
sys.path.insert(0, "")
raw, text = sys.argv[1:]
begin = time.process_time()
if text == "before":
    from src.criteo import Columns, parse
    with open(raw, "rb") as file:
        begin, rest = time.process_time(), b""
        while chunk := file.read(8 << 20):
            whole, _, rest = (rest + chunk).rpartition(b"\\n")
            parse(whole + b"\\n", Columns.numbered())
else:
    from pathlib import Path
    from src.base.workers import keep_memory
    from src.rows.columns import Columns
    from src.rows.reader import RawInput
    keep_memory()
    rows = RawInput([Path(raw)], Columns.numbered(), Path("."))
    begin = time.process_time()
    for span in rows.spans(0, rows.rows, 1 << 18):
        for _ in rows.read(span):
            pass
print(time.process_time() - begin)
"""


def write_parquet(raw: Path, target: Path) -> None:
    """The rows of plain text as pandas writes them."""
    import pandas as pd

    names = ["label", *(f"I{place + 1}" for place in range(13)), *(f"C{place + 1}" for place in range(26))]
    kinds = {name: str if name.startswith("C") else "Int64" for name in names}
    pd.read_csv(raw, sep="\t", names=names, dtype=kinds).to_parquet(target, index=False)


def forms(folder: Path, raw: Path, before: Path | None, turns: int) -> str:
    """How Parquet does beside plain text, and this program beside another checkout's, in words."""
    write_parquet(raw, folder / "rows.parquet")
    runs = {"text": (ROOT, raw), "parquet": (ROOT, folder / "rows.parquet")} | (
        {"before": (before, raw)} if before else {}
    )
    best: dict[str, list[float]] = {name: [math.inf] * 3 for name in runs}
    for turn in range(turns):
        for name, (root, rows) in runs.items():
            reading = subprocess.run([sys.executable, "-c", _READ, str(rows), name], cwd=root, check=True, text=True,
                                     stdout=subprocess.PIPE).stdout  # fmt: skip
            begin, used = time.perf_counter(), os.times()
            subprocess.run([sys.executable, str(root / "src/preprocess_data.py"), f"--data_path={rows}",
                            f"--output_path={folder / name}", "--overwrite=True"],
                           cwd=root, check=True, stdout=subprocess.DEVNULL)  # fmt: skip
            wall_s, now = time.perf_counter() - begin, os.times()
            processor_s = now.children_user + now.children_system - used.children_user - used.children_system
            found = [processor_s, float(reading.split()[-1]), wall_s]
            best[name] = [min(pair) for pair in zip(best[name], found)]
            print(f"{name}, turn {turn}: {found[0]:.2f} s of processor time, {found[2]:.1f} s in all; "
                  f"{found[1]:.2f} s to read alone", flush=True)  # fmt: skip
    text = best["text"]
    said = [f"parquet_to_text={best['parquet'][0] / text[0]:.3f}"]
    said += [f"text_to_before={text[0] / best['before'][0]:.3f}"] if before else []
    said += [f"parsed_parquet_to_text={best['parquet'][1] / text[1]:.3f}"]
    said += [f"parsed_text_to_before={text[1] / best['before'][1]:.3f}"] if before else []
    return " ".join(said)


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


def beside_polars(raw: Path, folder: Path, most_rows: int, turns: int) -> dict[str, str]:
    """The figures of both programs, by the fastest of some turns, as the cells of a table; of polars a word at last."""
    ours, theirs = [math.inf], [math.inf]
    peaks: list[float] = []
    for turn in range(turns):
        program = [sys.executable, str(ROOT / "src/preprocess_data.py"), f"--data_path={raw}", "--overwrite=True"]
        seconds, peak_mb, text = watched([*program, f"--output_path={folder / 'dataset'}"])
        ours, peaks = [*ours, seconds], [*peaks, peak_mb]
        print(text, end="", flush=True)
        if turn == 0:
            manifest = find(str(folder / "dataset")).manifest
            rows = sum(part.rows for part in manifest.parts.values())
            if whole := rows <= most_rows:
                some = raw
            else:
                some = folder / "some.txt"
                with raw.open("rb") as source, some.open("wb") as target:
                    target.writelines(itertools.islice(source, most_rows))
        program = [sys.executable, str(ROOT / "benchmarks/polars_rows.py"), str(some), str(folder / "polars")]
        seconds, polars_mb, _ = watched(program)
        theirs.append(seconds)
        if turn == 0 and whole:
            polars_rows.check(folder / "polars", folder / "dataset")
        print(f"turn {turn}: {ours[-1]:.1f} s and {peak_mb:.0f} MB, polars {seconds:.1f} s and {polars_mb:.0f} MB of "
              f"{min(rows, most_rows)} rows", flush=True)  # fmt: skip
    stored = sum(file.bytes for file in manifest.files if ".mindrecord" in file.name)
    rows_per_s, polars_rows_per_s = rows / min(ours), min(rows, most_rows) / min(theirs)
    return {
        "rows": f"{rows:,}",
        "table rows": f"{sum(manifest.table_rows):,}",
        "seconds": f"{min(ours):.0f}",
        "rows/s": f"{rows_per_s:,.0f}",
        "polars' rows/s": f"{polars_rows_per_s:,.0f} of {min(rows, most_rows):,} rows, {polars_mb:.0f} MB",
        "peak memory of all processes, MB": f"{max(peaks):.0f}",
        "MindRecord bytes a row": f"{stored / rows:.0f}",
        "report": text,
        "said": f"rows_per_s={rows_per_s:.0f} ratio_to_polars={rows_per_s / polars_rows_per_s:.2f} "
        f"peak_mb={max(peaks):.0f}",
    }


def main() -> None:
    """Generate, preprocess, compare, and write the result file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=2_000_000)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--keep", type=Path, help="folder for the data folder and generated rows, which stay there")
    parser.add_argument("--decimals", action="store_true")
    parser.add_argument("--forms", action="store_true")
    parser.add_argument("--before", type=Path, help="another checkout, of 4353fc0 or near it, for --forms")
    parser.add_argument("--turns", type=int, default=0, help="0 for 3, and 1 of full size")
    parser.add_argument("--polars_rows", type=int, default=4_000_000, help="rows that polars is given at most")
    arguments = parser.parse_args()
    if arguments.forms:
        with tempfile.TemporaryDirectory() as temporary:
            raw = arguments.data or generated(Path(temporary), arguments.rows)
            print(forms(Path(temporary), raw.resolve(), arguments.before, arguments.turns or 3))
        return
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
        size = raw.stat().st_size
        row = beside_polars(raw, folder, arguments.polars_rows, arguments.turns or (1 if size > _FULL_BYTES else 3))
    text, said = row.pop("report"), row.pop("said")
    is_full = size > _FULL_BYTES
    results.save("preprocess_full" if is_full else "preprocess", [row], report=text.splitlines())
    print(said)


if __name__ == "__main__":
    main()
