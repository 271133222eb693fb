"""A delta at Criteo's full size, 33.8 M rows of the tables: its size, and the time until two threads score by it.

    python benchmarks/delta.py --folder=FOLDER [--table_rows=33762577] [--share=0.01] [--days=2]

Makes an export, and for each day a model of which a share of the rows is others, some of them new or dealt anew to
other categories, with a delta from the day before; FOLDER needs some 12 GB, and is emptied again. Two threads score
coded rows by the first export while the deltas are applied, one after another; all calls' scores are then compared with
those that each day's model gives alone. Beside it stands what copying on write costs: the same rows, written into a
private mapping of the table file. The last line is `delta_fraction=.. apply_s=.. mixed=..`: the largest delta's bytes
as a share of the table file's, the longest time from the call of `apply` until it returned, and how many calls gave
scores of no model.
"""

import argparse
import mmap
import multiprocessing
import shutil
import sys
import threading
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np

from benchmarks import results
from benchmarks.workers import FULL_ROWS, table_rows
from src.data.encoder import Encoder
from src.data.manifest import VOCABULARY, File, Manifest
from src.data.vocabulary import Vocabulary

WIDTH, DENSE, CALL_ROWS = 16, 13, 1500  # of which a scorer makes two batches
FIELDS = tuple(f"C{number + 1}" for number in range(26))
NEW_SHARE = 0.1  # of the rows that change, those that are new; as many are dealt anew


PATTERN = np.random.default_rng(1).normal(0, 0.05, (1 << 16, WIDTH)).astype(np.float32)


def values_of(table: int, low: int, rows: int, day: int) -> np.ndarray:
    """Some rows of a table on a day, without those that later days change."""
    return PATTERN[:rows] * np.float32(1 + 0.1 * day + 0.001 * table + 1e-9 * low)


class Day:
    """A day's model: tables as what makes them, and the vocabulary's keys.

    Args:
        total: rows of all tables on day 0.
        share: of them that change a day.
        number: of the day.
    """

    def __init__(self, total: int, share: float, number: int):
        first, rng = table_rows(total), np.random.default_rng(99)
        self.number, self.sizes = number, list(first)
        self.changes: list[list[np.ndarray]] = []  # of each day, the rows of each table that are others since
        self.keys = [np.arange(1, size, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15) for size in first]
        for day in range(1, number + 1):
            more = [int(size * share * NEW_SHARE) for size in first]
            some = [
                np.sort(rng.choice(size, int(size * share * (1 - NEW_SHARE)), replace=False, shuffle=False))
                for size in self.sizes
            ]
            self.changes.append([np.concatenate((old, np.arange(size, size + new)))
                                 for old, size, new in zip(some, self.sizes, more)])  # fmt: skip
            for table, (old, new) in enumerate(zip(some, more)):
                dealt = old[old > 0][:new] - 1
                fresh = np.arange(new + len(dealt), dtype=np.uint64) + np.uint64(day << 56)
                self.keys[table][dealt] = fresh[new:]
                self.keys[table] = np.concatenate((self.keys[table], fresh[:new]))
            self.sizes = [size + new for size, new in zip(self.sizes, more)]

    def fill(self, piece: Any, values: np.ndarray) -> None:
        """As of `whole_tables`."""
        values[:] = values_of(piece.table, piece.low, piece.rows, 0)
        for day, of_tables in enumerate(self.changes, 1):
            rows = of_tables[piece.table]
            own = rows[np.searchsorted(rows, piece.low) : np.searchsorted(rows, piece.high)]
            values[own - piece.low] = values_of(piece.table, piece.low, len(own), day)


def export_day(folder: Path, total: int, share: float, number: int) -> None:
    """Write a day's export, of the first day, or its delta and by that the export; for a process of its own."""
    from mindspore import Tensor

    from src.dlrm import DLRM
    from src.export import folder as export_folder
    from src.export.delta import write_applied
    from src.export.options import ExportSpec
    from src.model_utils.device_target import set_device
    from src.network.options import NetworkSpec

    set_device("CPU")
    day, place = Day(total, share, number), folder / "checkpoint"
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir(parents=True)
    dense = tuple(f"I{n + 1}" for n in range(DENSE))
    Encoder(dense, Vocabulary(FIELDS, day.keys), examples=()).save(place / VOCABULARY)
    manifest = Manifest(dense, FIELDS, tuple(day.sizes), {}, (File.of(place, place / VOCABULARY),), 0, {}, {})
    manifest.save(place)

    class Parts:  # a checkpoint that nobody wrote
        def check_all_read(self) -> None:
            """All was."""

    def fill_mlps(model: DLRM, _: Parts) -> None:
        rng = np.random.default_rng(number)
        for parameter in model.get_parameters():
            if not parameter.name.startswith("embedding"):
                shape = parameter.shape
                scale = np.sqrt(1 / shape[-1])
                parameter.set_data(Tensor(rng.normal(0, scale, shape).astype(np.float32)))

    export_folder.full_width = lambda *_: (Parts(), day.fill)
    export_folder.fill_mlps = fill_mlps
    of_day = export_folder.Export(place / "dlrm.ckpt", manifest, NetworkSpec(), "host")
    if number == 0:
        export_folder.write_export(of_day, ExportSpec(export_path=str(folder / "export_0")))
        return
    before, delta = str(folder / f"export_{number - 1}"), str(folder / f"delta_{number}")
    begin = time.perf_counter()
    export_folder.write_export(of_day, ExportSpec(export_path=delta, delta_from=before))
    middle = time.perf_counter()
    write_applied(ExportSpec(export_path=str(folder / f"export_{number}"), delta_from=before, apply_delta=delta))
    seconds = middle - begin, time.perf_counter() - middle
    print(f"day {number}: delta {seconds[0]:.1f} s, whole export of it {seconds[1]:.1f} s", flush=True)


def calls_of(sizes: list[int]) -> list[tuple[np.ndarray, np.ndarray]]:
    """Coded rows of a few calls, that all days have."""
    rng = np.random.default_rng(5)
    return [
        (rng.random((CALL_ROWS, DENSE), np.float32),
         np.stack([rng.integers(0, size, CALL_ROWS) for size in sizes], axis=1).astype(np.int32))
        for _ in range(4)
    ]  # fmt: skip


def expected_scores(folder: Path, total: int, day: int) -> None:
    """The scores of the calls by a day's whole export, to a file; for a process of its own."""
    from src.scorer import Scorer

    scorer = Scorer(folder / f"export_{day}")
    np.save(folder / f"scores_{day}.npy", np.stack([scorer.score_ids(*call) for call in calls_of(table_rows(total))]))


def copied_on_write(table: Path, rows: np.ndarray) -> float:
    """Seconds of writing rows into a private mapping of a table file, which copies each page that is touched."""
    with table.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY) as mapped:
        values = np.frombuffer(mapped, np.float32, offset=4096)
        values = values[: len(values) // WIDTH * WIDTH].reshape(-1, WIDTH)
        begin = time.perf_counter()
        values[rows] = 1
        seconds = time.perf_counter() - begin
        del values
    return seconds


def measure(folder: Path, total: int, days: int) -> dict[str, Any]:
    """Apply the deltas while two threads score, and give what was measured."""
    from src.export.delta import Delta
    from src.scorer import Scorer

    calls = calls_of(table_rows(total))
    expected = [np.load(folder / f"scores_{day}.npy") for day in range(days + 1)]
    scorer, done, begun = Scorer(folder / "export_0"), threading.Event(), threading.Barrier(3)
    seen: list[list[tuple[float, int]]] = [[], []]

    def score(found: list[tuple[float, int]]) -> None:
        while not done.is_set():
            number, begin = len(found) % len(calls), time.perf_counter()
            scores = scorer.score_ids(*calls[number])
            seconds = time.perf_counter() - begin
            day = next((day for day in range(days + 1) if np.array_equal(scores, expected[day][number])), -1)
            found.append((seconds, day))
            if len(found) == 2 * len(calls):
                begun.wait()

    threads = [threading.Thread(target=score, args=(found,)) for found in seen]
    for thread in threads:
        thread.start()
    begun.wait()
    applied: list[float] = []
    computed: list[float] = []
    for day in range(1, days + 1):
        count, begin, own = sum(map(len, seen)), time.perf_counter(), time.thread_time()
        scorer.apply(folder / f"delta_{day}")
        applied.append(time.perf_counter() - begin)
        computed.append(time.thread_time() - own)
        while sum(map(len, seen)) < count + 4 * len(calls):  # by this day's model
            time.sleep(0.01)
    done.set()
    for thread in threads:
        thread.join()
    found = [one for of_thread in seen for one in of_thread]
    table = folder / "export_0/dlrm.tables"
    delta = Delta.load(folder / "delta_1")
    starts = np.cumsum([0, *table_rows(total)[:-1]])
    old = np.concatenate([own[own < size] + start for own, size, start in zip(delta.ids, table_rows(total), starts)])
    sizes = [sum(path.stat().st_size for path in (folder / f"delta_{day}").rglob("*")) for day in range(1, days + 1)]
    counts = {day: sum(one == day for _, one in found) for day in range(-1, days + 1)}
    return {
        "table rows": f"{total:,}", "table file, MB": f"{table.stat().st_size / 1e6:,.0f}",
        "rows that change": f"{len(np.concatenate(delta.ids)):,}",
        "delta, MB": " and ".join(f"{size / 1e6:,.1f}" for size in sizes),
        "share of the table file": f"{max(sizes) / table.stat().st_size:.2%}",
        "applied, s": " and ".join(f"{seconds:.2f}" for seconds in applied),
        "of these of a processor, s": " and ".join(f"{seconds:.2f}" for seconds in computed),
        "longest call meanwhile, ms": f"{1000 * max(seconds for seconds, _ in found[4:]):,.0f}",
        "calls by each model": " and ".join(str(counts[day]) for day in range(days + 1)), "mixed": counts[-1],
        "copied on write instead, s": f"{copied_on_write(table, old):.2f}",
        "figures": (max(sizes) / table.stat().st_size, max(applied), counts[-1]),
    }  # fmt: skip


def apart(work: Any, *arguments: Any) -> None:
    """Call a function in a process of its own, whose memory is given back."""
    process = multiprocessing.get_context("spawn").Process(target=work, args=arguments)
    process.start()
    process.join()
    if process.exitcode:
        raise RuntimeError(f"{work.__name__} ended with exit code {process.exitcode}")


def main() -> None:
    """Measure, write the result file, and print the last line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--table_rows", type=int, default=FULL_ROWS)
    parser.add_argument("--share", type=float, default=0.01)
    parser.add_argument("--days", type=int, default=2)
    options = parser.parse_args()
    folder, total = options.folder / "delta", options.table_rows
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    try:
        for day in range(options.days + 1):
            apart(export_day, folder, total, options.share, day)
            apart(expected_scores, folder, total, day)
            if day > 1:
                shutil.rmtree(folder / f"export_{day - 1}")
        row = measure(folder, total, options.days)
    finally:
        shutil.rmtree(folder)
    fraction, apply_s, mixed = row.pop("figures")
    print("\n".join(f"{name}: {value}" for name, value in row.items()))
    if total == FULL_ROWS:
        results.save("delta", [row])
    print(f"delta_fraction={fraction:.4f} apply_s={apply_s:.2f} mixed={mixed}")


if __name__ == "__main__":
    main()
