"""The C++ program on the CPU beside PyTorch, and what it costs to load, in one run.

    pip install -r benchmarks/requirements.txt
    python benchmarks/inference.py           33,762,577 table rows, all of Criteo's
    python benchmarks/inference.py --quick   1,000,000; within 60 s on 2 cores, and writes no result files
    python benchmarks/inference.py --raw_row the first raw row alone, with a vocabulary of all of Criteo's keys

Requests of random rows, ids by Zipf's law, which come again, so that their pages of the tables are in memory. Both
sides answer as many, and times are their medians, lookups included. PyTorch gets its tensors ready made; it is the
fastest of eager, frozen TorchScript and, but for --quick, torch.compile. Loading is that of a process that scores one
row and ends, its files in the system's cache. A raw row is coded by a vocabulary with a key for each table row, in a
Python process of its own, which checks the vocabulary first. The last line is `p50_ms_batch_1=.. rows_per_s_16384=..
ratio_to_torch_16384=.. load_s=.. raw_row_s=.. raw_row_mb=..`, all with tables on the host and one thread.
"""

import argparse
import multiprocessing
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

import numpy as np

from benchmarks import results
from benchmarks.workers import FULL_ROWS, SMALL_ROWS, Worker, make_batches, table_rows
from src.base.sealed import read_facts
from src.export.exported import DESCRIPTION
from src.export.scored_files import RowFiles, RowSource

REQUESTS = {1: 2000, 64: 150, 1024: 24, 16384: 4}  # rows of a request, and requests of a turn
KINDS = {"host, fp32": ("host", "fp32"), "host, fp16": ("host", "fp16"), "host, int8": ("host", "int8"),
         "graph": ("graph", "fp32")}  # fmt: skip
PROGRAM = ROOT / "ascend310_infer/out/main"


def make_encoder(place: Path, total: int) -> None:
    """A vocabulary for tables of `total` rows, and the manifest beside it; for a process of its own."""
    from src.data.encoder import Encoder
    from src.data.manifest import VOCABULARY, Manifest
    from src.data.parts import File
    from src.data.vocabulary import Vocabulary

    rows = table_rows(total)
    fields, dense = (tuple(f"{kind}{n + 1}" for n in range(count)) for kind, count in (("C", len(rows)), ("I", 13)))
    # Distinct keys, in any order.
    keys = [np.arange(1, own, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15) for own in rows]
    Encoder(dense, Vocabulary(fields, keys)).save(place / VOCABULARY)
    Manifest(dense, fields, rows, {}, (File.of(place, place / VOCABULARY),), 0, {}, {}).save(place)


def make_exports(folder: Path, total: int, kinds: list[str]) -> None:
    """A network with tables of `total` rows at their initial values, exported in each way; for a process of its own."""
    import export
    from src.checkpoints import checkpoint
    from src.data.manifest import MANIFEST, Manifest
    from src.dlrm import DLRM
    from src.model_utils.device_target import set_device
    from src.network.embedding import EmbeddingTables, initial_rows
    from src.network.options import NetworkSpec

    set_device("CPU")
    place = folder / "checkpoint"
    place.mkdir()
    make_encoder(place, total)
    manifest = Manifest.load(place / MANIFEST)
    tables = EmbeddingTables(manifest.table_rows, initial_rows(manifest.table_rows, 16, 1))
    checkpoint.save(DLRM(13, tables, NetworkSpec()), manifest.fields, place / "dlrm.ckpt")
    for kind in kinds:
        placement, table_type = KINDS[kind]
        export.main(["--device_target=CPU", f"--checkpoint_path={place}", f"--export_path={folder / kind}",
                     f"--table_placement={placement}", f"--table_type={table_type}"])  # fmt: skip
    (place / "dlrm.ckpt").unlink()


def first_raw_row(export: Path) -> tuple[float, float]:
    """Seconds until a raw row is coded by an exported vocabulary, once all is imported, and the MB that this takes."""
    from src.data.encoder import load_encoder
    from src.data.manifest import MANIFEST, VOCABULARY, Manifest
    from src.rows.columns import Columns
    from src.rows.lines import parse

    parse(b"", Columns.numbered())
    before, begin = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.perf_counter()
    manifest = Manifest.load(export / MANIFEST)
    manifest.verify(export, [VOCABULARY])
    line = b"0" + b"\t5" * len(manifest.dense) + b"\t68fd1e64" * len(manifest.categorical)
    encoder = load_encoder(export / VOCABULARY, manifest.dense)
    encoder.encode(parse(line, encoder.keyed(manifest.columns())))
    seconds = time.perf_counter() - begin
    return seconds, (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024


def measured_raw_row(place: Path) -> str:
    """What `first_raw_row` takes when the vocabulary is in the system's cache, in words."""
    in_own_process(first_raw_row, place)
    seconds, mb = in_own_process(first_raw_row, place)
    return f"raw_row_s={seconds:.2f} raw_row_mb={mb:.0f}"


def in_own_process(function: Any, *arguments: Any) -> Any:
    """What a function returns in a process that is gone afterwards, with the memory it took."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(function, arguments)


def make_rows(folder: Path, export: Path, total: int, batch: int, requests: int) -> Path:
    """Random rows for so many requests, of which a few come again and again."""
    vocabulary = read_facts(export / f"dlrm{DESCRIPTION}", "model")["vocabulary"][0][0]
    rows = table_rows(total)
    batches = make_batches(rows, batch, "skewed", min(requests, max(1, 8192 // batch)))
    chosen = [batches[index % len(batches)] for index in range(requests)]
    path = folder / f"rows-{batch}-{requests}"
    if path.is_dir():
        return path
    path.mkdir()
    blocks = ((dense, ids, labels[:, 0].astype(np.uint8)) for dense, ids, labels in chosen)
    RowFiles.write(path, RowSource(blocks), rows, vocabulary, True)
    return path


def score(export: Path, rows: Path, batch: int, threads: int) -> dict[str, float]:
    """Score rows with the C++ program: what it reports, and its own seconds, `process_s`."""
    with tempfile.TemporaryDirectory() as output:
        begin = time.perf_counter()
        subprocess.run([str(PROGRAM), f"--model={export}", f"--input={rows}", f"--output={output}", "--device_type=CPU",
                        f"--batch_size={batch}", f"--threads={threads}"],
                       check=True, stdout=subprocess.DEVNULL)  # fmt: skip
        seconds = time.perf_counter() - begin
        lines = (Path(output) / "time_Result/test_perform_static.txt").read_text(encoding="ascii").splitlines()
    return {name: float(value) for name, value in (line.split(": ") for line in lines)} | {"process_s": seconds}


def size_mb(export: Path) -> float:
    """Bytes of a graph and its tables."""
    kept = [path for path in export.rglob("*") if path.is_file() and path.suffix not in (".npz", ".json")]
    return sum(path.stat().st_size for path in kept) / 1e6


def loading(folder: Path, total: int, kinds: list[str], turns: int) -> list[dict[str, Any]]:
    """A row of the table for each way to hold the tables."""
    one = make_rows(folder, folder / kinds[0], total, 1, 1)
    found: dict[str, list[dict[str, float]]] = {kind: [] for kind in kinds}
    for turn in range(turns + 1):  # the first one fills the system's cache
        for kind in kinds:
            found[kind].append(score(folder / kind, one, 1, 1))
            print(f"loading {kind}, turn {turn}: {found[kind][-1]['process_s']:.2f} s", flush=True)
    table = []
    for kind, runs in found.items():
        median = {name: float(np.median([run[name] for run in runs[1:]])) for name in runs[0]}
        above = median["peak_memory_mb"] - median["table_memory_mb"]
        table.append({"tables": kind, "table rows": f"{total:,}", "MB on disk": f"{size_mb(folder / kind):,.0f}",
                      "whole process, s": f"{median['process_s']:.2f}",
                      "until the first score, s": f"{median['first_score_s']:.2f}",
                      "peak memory above the table's pages, MB": f"{above:,.0f}"})  # fmt: skip
    return table


def speed(folder: Path, total: int, kinds: list[str], threads: int, forms: list[str], turns: int) -> list[dict]:
    """A row of the table for each batch: the program with tables in each place, and each form of PyTorch, in turns."""
    workers = {form: Worker(form) for form in forms}
    table = []
    try:
        for worker in workers.values():
            worker.ask(lay_out=table_rows(total), threads=threads)
        for batch, requests in REQUESTS.items():
            rows = make_rows(folder, folder / kinds[0], total, batch, requests)
            times: dict[str, list[float]] = {name: [] for name in (*kinds, *forms)}
            for turn in range(turns):
                for kind in kinds:
                    times[kind].append(score(folder / kind, rows, batch, threads)["p50_ms"])
                for form in forms:
                    times[form].append(workers[form].ask(batch=batch, ids="skewed", steps=requests)["p50_ms"])
                shown = ", ".join(f"{name} {values[-1]:.3f} ms" for name, values in times.items())
                print(f"{threads} threads, batch {batch}, turn {turn}: {shown}", flush=True)
            ms = {name: np.array(values) for name, values in times.items()}
            best = np.min([ms[form] for form in forms], axis=0)
            row = {"batch": batch, "threads": threads, "table rows": f"{total:,}"}
            row |= {f"C++, {kind}, p50 ms": f"{np.median(ms[kind]):.3f}" for kind in kinds}
            row |= {f"PyTorch {form}, p50 ms": f"{np.median(ms[form]):.3f}" for form in forms}
            row["rows/s, C++, host"] = f"{batch / np.median(ms[kinds[0]]) * 1e3:,.0f}"
            row["ratio to the fastest of PyTorch"] = f"{np.median(best / ms[kinds[0]]):.2f}"
            table.append(row)
    finally:
        for worker in workers.values():
            worker.close()
    return table


def main() -> None:
    """Measure, write the result files, and print the last line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--raw_row", action="store_true")
    given = parser.parse_args()
    quick = given.quick
    if given.raw_row:
        with tempfile.TemporaryDirectory() as name:
            in_own_process(make_encoder, Path(name), FULL_ROWS)
            print(measured_raw_row(Path(name)))
        return
    total, turns = (SMALL_ROWS, 2) if quick else (FULL_ROWS, 3)
    subprocess.run(["bash", str(ROOT / "ascend310_infer/build.sh"), "--cpu"], check=True)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        kinds = ["host, fp32", "graph"] if quick else list(KINDS)
        in_own_process(make_exports, folder, total, kinds)
        raw_row = measured_raw_row(folder / kinds[0])
        loads = loading(folder, total, kinds, 2)
        forms = ["eager", "script"] if quick else ["eager", "script", "compiled"]
        measured = kinds if quick else [kind for kind in kinds if kind != "graph"]
        speeds = speed(folder, total, measured, 1, forms, turns)
        if not quick:
            results.save("inference_loading", loads)
            speeds += speed(folder, total, measured, 2, forms, turns)
            results.save("inference", speeds)
    by_batch = {row["batch"]: row for row in speeds if row["threads"] == 1}
    print(f"p50_ms_batch_1={by_batch[1]['C++, host, fp32, p50 ms']}",
          f"rows_per_s_16384={by_batch[16384]['rows/s, C++, host'].replace(',', '')}",
          f"ratio_to_torch_16384={by_batch[16384]['ratio to the fastest of PyTorch']}",
          f"load_s={loads[0]['whole process, s']} {raw_row}")  # fmt: skip


if __name__ == "__main__":
    main()
