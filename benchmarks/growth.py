"""What grows with rows and ranks, and where each limit comes: in one table, by measuring what fits here, and planning.

    python benchmarks/growth.py             1, 2, 4 and 8 ranks on this machine, and plans up to 540 million rows
    python benchmarks/growth.py --plan      the plans alone

Memory and bytes of ranks on this machine are measured as in parallel.py; more ranks than cores have no speed worth
telling. All else is planned, by the functions behind --plan_only, for tables of Criteo's proportions, rowwise Adagrad,
and 16,384 samples a step. A step's time is computed of planned bytes and operations, and the figures of a card below,
which are no measurements: it says what the limit is, not how fast a card is.
"""

import argparse
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

# MindSpore is imported by processes of its own alone, as in parallel.py.
from benchmarks import parallel, results
from benchmarks.parallel import MLP_VALUES, WIDTH, own_process
from benchmarks.workers import FLOP_A_SAMPLE, SMALL_ROWS, table_rows
from src.ranks.options import ucx_folder
from src.ranks.placement import Placement, place, plan, received_values

MILLION = 1_000_000
PLANNED_ROWS = (1 * MILLION, 34 * MILLION, 180 * MILLION, 540 * MILLION)
RANKS, HOSTS_RANKS = (1, 2, 4, 8), (8, 64)
BATCH = 16384
_MOST_NUMBERS = 2**31 - 1  # of an int32: ids of a table, and rows that a rank holds
_SAMPLE_VALUES = 3000  # of a sample in the network, about, and as many of gradients


@dataclass(frozen=True)
class Card:
    """What computes a rank: memory in MB, operations and bytes a second, of its memory and to others."""

    name: str
    memory_mb: int
    flop_s: float
    memory_bytes_s: float
    network_bytes_s: float


# 32 GB, a quarter of 256 TFLOP/s in float16, HBM at 1 TB/s of which random rows get a quarter, and 30 GB/s between the
# cards of a host or 12.5 GB/s (100 Gbit/s) between hosts.
ASCEND = Card("Ascend, one host", 32 * 1024, 64e12, 0.25e12, 30e9)
ASCEND_HOSTS = Card("Ascend, several hosts", 32 * 1024, 64e12, 0.25e12, 12.5e9)


def planned(placement: Placement, card: Card, states: int = 1) -> dict[str, Any]:
    """What a plan says of the rank with the most, and the parts of a step's time in ms that follow from it.

    Args:
        placement: of the tables.
        card: of each rank.
        states: values that the optimizer keeps for a row.
    """
    ranks, own = placement.ranks, -(-BATCH // placement.ranks)
    values = received_values(placement, BATCH, WIDTH, "Ascend", True) + own * 2 * _SAMPLE_VALUES + 2 * MLP_VALUES
    found = plan(placement, BATCH, WIDTH, MLP_VALUES, states, "Ascend", values * 4 / 2**20)
    looked_up = own * placement.ids if placement.mode != "hybrid" else BATCH * placement.slots
    if placement.mode == "data":  # each rank updates the rows of all
        looked_up = BATCH * placement.ids
    return {
        "memory_mb": max(found.memory_mb), "bytes": max(found.bytes_per_step),
        "MLPs": own * FLOP_A_SAMPLE / card.flop_s * 1e3,
        "rows": looked_up * 4 * (3 * WIDTH + 2 * states) / card.memory_bytes_s * 1e3,  # read, and updated
        "messages": max(found.bytes_per_step) / card.network_bytes_s * 1e3 if ranks > 1 else 0.0,
    }  # fmt: skip


def most_rows(mode: str, ranks: int, fits: Callable[[Placement], bool]) -> int:
    """The most rows, in millions, of tables of Criteo's proportions that some ranks can hold."""
    low, high = 1, 1 << 18
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if fits(place(table_rows(middle * MILLION), mode, ranks)) else (low, middle)
    return low


def measured_rows(quick_rows: int) -> Iterator[dict[str, Any]]:
    """Of ranks on this machine: what a step takes of memory and sends, beside what is planned."""
    rows = table_rows(quick_rows)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        data = own_process(parallel.random_data, folder / "rows", rows, parallel.STEPS)
        for ranks in RANKS:
            mode = "none" if ranks == 1 else "hybrid"
            found = parallel.run(folder / f"ranks{ranks}", data, mode, ranks, "sgd")
            assert found
            expected = plan(place(rows, mode, ranks), parallel.BATCH, WIDTH, MLP_VALUES, 0, "CPU",
                            wire_bytes=4 if ucx_folder() else 0)  # fmt: skip
            sent = sum(expected.bytes_per_step) / ranks
            yield {
                "what": "measured on CPU", "rows": f"{sum(rows) / MILLION:,.0f} M", "ranks": ranks, "mode": mode,
                "MB of a rank": f"{found.memory_mb:,.0f} (planned {max(expected.memory_mb):,.0f})",
                "MB a step and rank": f"{found.bytes_per_step / 2**20:.3f} (planned {sent / 2**20:.3f})",
                "computed ms of a step: MLPs, rows, messages": "", "limit": "",
            }  # fmt: skip


def planned_rows() -> Iterator[dict[str, Any]]:
    """Of ranks with a card each, by planning."""
    for millions in PLANNED_ROWS:
        rows = table_rows(millions)
        for ranks in (*RANKS, HOSTS_RANKS[-1]):
            for mode in ("none",) if ranks == 1 else ("data", "hybrid"):
                card = ASCEND if ranks <= HOSTS_RANKS[0] else ASCEND_HOSTS
                found = planned(place(rows, mode, ranks), card)
                parts = {name: found[name] for name in ("MLPs", "rows", "messages")}
                limit = "memory: it does not fit" if found["memory_mb"] > card.memory_mb else max(parts, key=parts.get)
                yield {
                    "what": card.name, "rows": f"{millions / MILLION:,.0f} M", "ranks": ranks, "mode": mode,
                    "MB of a rank": f"{found['memory_mb']:,.0f}",
                    "MB a step and rank": f"{found['bytes'] / 2**20:.2f}",
                    "computed ms of a step: MLPs, rows, messages":
                        " + ".join(f"{value:.2f}" for value in parts.values()) + f" = {sum(parts.values()):.2f}",
                    "limit": limit,
                }  # fmt: skip


def limits() -> Iterator[dict[str, Any]]:
    """How many rows fit."""
    for ranks in HOSTS_RANKS:
        card = ASCEND if ranks <= HOSTS_RANKS[0] else ASCEND_HOSTS
        for mode in ("data", "hybrid"):
            for states, optimizer in ((0, "sgd"), (1, "rowwise_adagrad"), (2 * WIDTH, "adam")):

                def numbered(placement: Placement) -> bool:
                    of_ranks = [placement.rows(rank) for rank in range(placement.ranks)]
                    return max(*placement.table_rows, *of_ranks) <= _MOST_NUMBERS

                def fits(placement: Placement, states: int = states, card: Card = card) -> bool:
                    return numbered(placement) and planned(placement, card, states)["memory_mb"] <= card.memory_mb

                most = most_rows(mode, ranks, fits)
                more = place(table_rows((most + 1) * MILLION), mode, ranks)
                yield {
                    "what": f"most rows, {optimizer}", "rows": f"{most:,} M", "ranks": ranks, "mode": mode,
                    "MB of a rank": f"{card.memory_mb:,}", "MB a step and rank": "",
                    "computed ms of a step: MLPs, rows, messages": "",
                    "limit": "memory" if numbered(more) else "2^31 ids of the largest table",
                }  # fmt: skip


def main() -> None:
    """Measure and plan, and write the result file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--plan", action="store_true")
    arguments = parser.parse_args()
    table = [] if arguments.plan else list(measured_rows(SMALL_ROWS))
    table += [*planned_rows(), *limits()]
    for row in table:
        print(" | ".join(str(cell) for cell in row.values()))
    results.save("growth_plan" if arguments.plan else "growth", table)


if __name__ == "__main__":
    main()
