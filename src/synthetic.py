"""Criteo-shaped text with a planted, known click model: `python src/synthetic.py --data_path=./data/ --rows=300000`.

Data to try, test and time everything on without the real set. The text is in the official Criteo Kaggle format: no
header, 40 tab-separated columns, a label, 13 integers and 26 categories of 8 hex digits, both of which may be empty.
What is in the cells, and how labels are drawn, is `src/preprocessing/planted.py`'s.

Legend for the shapes below: B rows of a block, N dense features, F fields.
"""

import math
import multiprocessing
import os
import signal
import sys
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

if __name__ == "__main__":
    from src.base.stops import end_at_once

    end_at_once()

import numpy as np

from src.base.errors import InputError, naming, run
from src.base.locks import hold_folder
from src.base.workers import keep_memory
from src.options import SyntheticOptions, resolve
from src.preprocessing.options import SyntheticSpec
from src.preprocessing.planted import BLOCK_ROWS, draw, values_of

MAX_ROWS = 50_000_000
MAX_DAYS = 10_000
LOGIT_BIN = 1 / 2048  # the AUC is taken from a histogram: memory stays bounded, the error is below 1e-6
LOGIT_BINS = 2 * 16 * 2048


@dataclass(frozen=True)
class SyntheticSummary:
    """What a generated file holds: its mean label, and how well the model that drew the labels predicts them."""

    rows: int
    label_mean: float
    bayes_auc: float  # nan if all labels are alike
    bayes_logloss: float
    paths: tuple[Path, Path]  # the text; the true logits, float32 [rows]


@dataclass(frozen=True)
class Block:
    """A stretch of the file: its text, its true logits and labels, [B]."""

    text: bytes
    logits: np.ndarray
    labels: np.ndarray


def generate_days(
    folder: str | Path, days: int, *, rows: int, seed: int = 1, workers: int = 2
) -> list[SyntheticSummary]:
    """Write the rows of some days, so many of each, to day-00.txt and so on in a folder; see `generate`.

    The rows of a day depend on `rows`, `seed` and its number alone, not on how many days there are.
    """
    Path(folder).mkdir(parents=True, exist_ok=True)
    places = [Path(folder) / day_name(day) for day in range(days)]
    return [generate(place, rows=rows, seed=seed, workers=workers, day=day) for day, place in enumerate(places)]


def day_name(day: int) -> str:
    """Of the file of a day, from 0."""
    return f"day-{day:02}.txt"


def generate(path: str | Path, *, rows: int, seed: int = 1, workers: int = 2, day: int = 0) -> SyntheticSummary:
    """Write `rows` lines of text to `path`, and their true logits beside it as `<path minus suffix>.truth.npy`.

    The files depend on `rows`, `seed` and `day` alone, and the first n rows are the same for every `rows` >= n. Both
    are written under other names and renamed at the end, the text last. Raises InputError for `rows` outside
    1..50,000,000, a negative `seed` or `day`, or `workers` below 1.
    """
    for name, value, low, high in (("rows", rows, 1, MAX_ROWS), ("seed", seed, 0, 2**63), ("workers", workers, 1, 256),
                                  ("day", day, 0, MAX_DAYS)):  # fmt: skip
        if not low <= value <= high:
            raise InputError(f"{name} is {value}; it must lie between {low} and {high}")
    text_path = Path(path)
    truth_path = text_path.with_suffix(".truth.npy")
    text_part, truth_part = (p.with_name(p.name + ".part") for p in (text_path, truth_path))
    tally = Tally()
    try:
        with naming(text_path), text_part.open("wb") as text_file, truth_part.open("wb") as truth_file:
            header = {"descr": "<f4", "fortran_order": False, "shape": (rows,)}
            np.lib.format.write_array_header_1_0(truth_file, header)
            for block in _blocks(rows, seed, workers, day):
                text_file.write(block.text)
                truth_file.write(block.logits.astype("<f4").tobytes())
                tally.add(block.logits, block.labels)
        text_path.unlink(missing_ok=True)  # an older text must not stand beside the newer truth
        truth_part.replace(truth_path)
        text_part.replace(text_path)
    finally:
        text_part.unlink(missing_ok=True)
        truth_part.unlink(missing_ok=True)
    return SyntheticSummary(rows, tally.label_mean(), tally.auc(), tally.logloss(), (text_path, truth_path))


def _blocks(rows: int, seed: int, workers: int, day: int) -> Iterator[Block]:
    """Yield the blocks of a file in order, made by `workers` processes that run only a few blocks ahead."""
    count = math.ceil(rows / BLOCK_ROWS)
    jobs = ((seed, index, min(BLOCK_ROWS, rows - index * BLOCK_ROWS), day) for index in range(count))
    workers = min(workers, count // 4)  # a process costs more to start than a few blocks do
    if workers < 2:
        yield from (make_block(*job) for job in jobs)
        return
    # Spawned, since the caller may hold threads (MindSpore does) that a fork would copy in mid-flight.
    with ProcessPoolExecutor(workers, multiprocessing.get_context("spawn"), _start_worker) as pool:
        waiting: deque[Future[Block]] = deque()
        for job in jobs:
            waiting.append(pool.submit(make_block, *job))
            if len(waiting) > 4 * workers:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()


def _start_worker() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent is stopped by it and says so
    keep_memory()


def make_block(seed: int, index: int, rows: int, day: int = 0) -> Block:
    """Make the first `rows` rows of block `index` of a day."""
    dense, ranks, logits, labels = draw(seed, index, rows, day)
    return Block(format_text(labels, dense, values_of(ranks, day)), logits, labels)


def _number_texts() -> np.ndarray:
    """Four bytes each, zero bytes where nothing is printed: 0..9999 flush right, 0..9999 padded, empty, -2, -1."""
    numbers = [f"{n:>4}".replace(" ", "\0") for n in range(10_000)] + [f"{n:04}" for n in range(10_000)]
    return np.frombuffer("".join([*numbers, "\0\0\0\0", "\0\0-2", "\0\0-1"]).encode(), "<u4")


def _hex_texts() -> np.ndarray:
    """The four hex digits of each 16-bit number, as four bytes."""
    return np.frombuffer("".join(f"{n:04x}" for n in range(1 << 16)).encode(), "<u4")


NUMBER_TEXT, HEX_TEXT = _number_texts(), _hex_texts()
CELL = np.dtype([("text", "<u8"), ("end", "u1")])
LINE = np.dtype([("label", "u1"), ("end", "u1"), ("cells", CELL, (39,))])


def format_text(labels: np.ndarray, dense: np.ndarray, ranks: np.ndarray) -> bytes:
    """The lines of a block: cells of eight bytes with zero bytes for what is not printed, which are deleted at last."""
    lines = np.empty(len(labels), LINE)
    lines["label"] = labels + ord("0")
    lines["end"] = ord("\t")
    lines["cells"]["end"] = ord("\t")
    lines["cells"]["end"][:, -1] = ord("\n")
    text = lines["cells"]["text"]
    for column, numbers in enumerate(dense):
        high = np.maximum(numbers, 0) // 10_000
        low = numbers - high * 10_000 + 10_000 * (high > 0)  # padded below a high half
        # Negative numbers, NO_NUMBER among them, count from the table's end.
        text[:, column] = _join(NUMBER_TEXT[high] * (high > 0).astype("<u4"), NUMBER_TEXT[low])
    for field, rank in enumerate(ranks):
        codes = _scramble(field, rank)
        text[:, 13 + field] = np.where(rank < 0, 0, _join(HEX_TEXT[codes >> 16], HEX_TEXT[codes & 0xFFFF]))
    return lines.tobytes().translate(None, b"\0")


def _join(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Four bytes and the four behind them, as one number of the type <u8."""
    return first.astype("<u8") | second.astype("<u8") << np.uint64(32)


def _scramble(field: int, rank: np.ndarray) -> np.ndarray:
    """A 32-bit code for each rank, without a collision in a field: odd products and xor-shifts can be undone."""
    x = rank.astype(np.uint32) + np.uint32((field + 1) * 0x9E3779B1 % 2**32)
    for shift, factor in ((16, 0x7FEB352D), (15, 0x846CA68B)):
        x ^= x >> np.uint32(shift)
        x *= np.uint32(factor)
    return x ^ (x >> np.uint32(16))


class Tally:
    """Running sums over the blocks, in their order: rows, clicks, log loss and a histogram of logits by label."""

    def __init__(self) -> None:
        self.rows = 0
        self.loss = 0.0
        self.histogram = np.zeros((2, LOGIT_BINS), np.int64)

    def add(self, logits: np.ndarray, labels: np.ndarray) -> None:
        """Count the logits [B] and labels [B] of one more block."""
        x = logits.astype(np.float64)
        self.rows += len(x)
        self.loss += float((np.logaddexp(0, x) - x * labels).sum())
        bins = np.clip(x / LOGIT_BIN + LOGIT_BINS // 2, 0, LOGIT_BINS - 1).astype(np.int64)
        for label in (0, 1):
            self.histogram[label] += np.bincount(bins[labels == label], minlength=LOGIT_BINS)

    def label_mean(self) -> float:
        """Share of clicks."""
        return float(self.histogram[1].sum() / self.rows)

    def logloss(self) -> float:
        """Mean log loss, in nats."""
        return self.loss / self.rows

    def auc(self) -> float:
        """Share of (click, no click) pairs in the right order, half a pair for a tie, which the same bin is."""
        negatives, positives = self.histogram.astype(np.float64)
        pairs = negatives.sum() * positives.sum()
        return float(positives @ (np.cumsum(negatives) - negatives / 2) / pairs) if pairs else math.nan


def main(argv: Sequence[str]) -> None:
    """Generate rows as the command line says, to <data_path>/train.txt or to data_path itself if it ends in .txt.

    Those of days go to files in data_path.
    """
    spec = resolve(SyntheticOptions, argv).synthetic
    path = Path(spec.data_path)
    if spec.days and path.suffix == ".txt":
        raise InputError(f"data_path {path} is one file, and days {spec.days} get one each: name a folder")
    days: list[int | None] = list(range(spec.days)) or [None]
    files = [path / day_name(day) if day is not None else path for day in days]
    if not spec.days and path.suffix != ".txt":
        files = [path / "train.txt"]
    for day, file in zip(days, files):
        _write(file, spec, day)


def _write(path: Path, spec: SyntheticSpec, day: int | None) -> None:
    """Generate the rows of a file, and say what they hold."""
    lock = path.with_name(path.name + ".writing")
    with hold_folder(lock, str(path)):
        try:
            if path.exists() and not spec.overwrite:
                raise InputError(f"{path} exists: name another --data_path, or replace it with --overwrite=True")
            workers = len(os.sched_getaffinity(0))
            summary = generate(path, rows=spec.rows, seed=spec.seed, workers=workers, day=day or 0)
        finally:
            lock.rmdir()
    print(
        f"{summary.rows} rows in {summary.paths[0]}, label mean {summary.label_mean:.4f}; the true logits, in "
        f"{summary.paths[1]}, have AUC {summary.bayes_auc:.4f} and logloss {summary.bayes_logloss:.4f}"
    )


if __name__ == "__main__":
    run(main)
