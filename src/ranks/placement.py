"""Which rank holds which rows of the tables, what that takes in memory, and what a training step sends.

Data parallel: every rank holds every table. Hybrid parallel: each row lies on one rank; whole tables are placed, and
one too large for a rank's share is cut into pieces of consecutive rows.

Legend: B samples of a step over all ranks, L ids of a sample, T tables, D width of a vector, N ranks, S slots: a rank
has one for each of its pieces and each id that is of the piece's table, and all have as many as the one with the most.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

MODES = ("none", "data", "hybrid")
_SLACK = 1.005  # a rank may hold so many times its share, rather than that a table is cut
_SMALL = 0.05  # of a rank's share: tables up to this are never cut
_VALUE = 4  # bytes of a float32 or an int32
# Of a CPU process beside its tables, as measured with batches of 256: memory of its own, and libraries' pages, which
# the processes of a machine share, MindSpore's scheduler among them.
_OWN_MB, _LIBRARIES_MB = 240, 250
_CPU_COPIES = 2  # MindSpore's collective operations on CPU send all twice, as counted at the network interface


@dataclass(frozen=True)
class Piece:
    """Rows low <= row < high of a table, by its number."""

    table: int
    low: int
    high: int

    @property
    def rows(self) -> int:
        """How many."""
        return self.high - self.low


@dataclass(frozen=True)
class Placement:
    """The pieces of each rank.

    Attributes:
        mode: one of MODES.
        table_rows: rows of each table, [T].
        pieces: by rank, in the order of tables and rows.
        uses: how many of a sample's ids are of each table, [T].
    """

    mode: str
    table_rows: tuple[int, ...]
    pieces: tuple[tuple[Piece, ...], ...]
    uses: tuple[int, ...]

    @property
    def ranks(self) -> int:
        """How many ranks."""
        return len(self.pieces)

    @property
    def slots(self) -> int:
        """S."""
        return max(self.used(rank) for rank in range(self.ranks))

    @property
    def ids(self) -> int:
        """L."""
        return sum(self.uses)

    def used(self, rank: int) -> int:
        """Slots of a rank that are not empty."""
        return sum(self.uses[piece.table] for piece in self.pieces[rank])

    def rows(self, rank: int) -> int:
        """Rows that a rank holds."""
        return sum(piece.rows for piece in self.pieces[rank])


def place(table_rows: Sequence[int], mode: str, ranks: int, uses: Sequence[int] = ()) -> Placement:
    """Place tables on ranks.

    Hybrid: each rank gets about its share of the rows and, since every slot costs a lookup a sample on every rank,
    about as many slots as the others.

    Args:
        table_rows: rows of each table, [T].
        mode: one of MODES.
        ranks: N; 1 for "none".
        uses: as of `Placement`; one of each table unless given.
    """
    sizes = tuple(int(rows) for rows in table_rows)
    uses = tuple(uses) or (1,) * len(sizes)
    if mode != "hybrid":
        whole = tuple(Piece(table, 0, rows) for table, rows in enumerate(sizes))
        return Placement(mode, sizes, (whole,) * ranks, uses)
    share = -(-sum(sizes) // ranks)
    most = int(share * _SLACK) + 1
    held: list[list[Piece]] = [[] for _ in range(ranks)]
    rows, slots = [0] * ranks, [0] * ranks

    def hold(rank: int, piece: Piece) -> None:
        held[rank].append(piece)
        rows[rank] += piece.rows
        slots[rank] += uses[piece.table]

    # First the small ones, which level the numbers of slots and hardly count; then the others, the largest first, each
    # where there is room for all of it, or else part by part where there is most.
    small = [table for table, size in enumerate(sizes) if size <= share * _SMALL]
    for table in sorted(small, key=lambda table: -sizes[table]):
        hold(min(range(ranks), key=lambda rank: (slots[rank], rows[rank])), Piece(table, 0, sizes[table]))
    for table in sorted(set(range(len(sizes))) - set(small), key=lambda table: -sizes[table]):
        low = 0
        while low < sizes[table]:
            left = sizes[table] - low
            fitting = [rank for rank in range(ranks) if most - rows[rank] >= left]
            rank = min(fitting or range(ranks), key=lambda rank: rows[rank])
            high = low + min(left, most - rows[rank])
            hold(rank, Piece(table, low, high))
            low = high
    pieces = tuple(tuple(sorted(own, key=lambda piece: (piece.table, piece.low))) for own in held)
    return Placement(mode, sizes, pieces, uses)


def has_all_to_all(device: str) -> bool:
    """Whether MindSpore has the operation AlltoAll on this device; its documentation names Ascend alone."""
    return device == "Ascend"


@dataclass(frozen=True)
class Plan:
    """What a placement takes, by rank.

    Attributes:
        rows: of the tables.
        table_mb: of these rows and what the optimizer keeps for them, in MB (2^20 bytes).
        memory_mb: of all that is computed to be there at once, tables and network; on CPU of the whole process, its
            share of the shared libraries included.
        bytes_per_step: what the rank sends in a training step.
    """

    rows: tuple[int, ...]
    table_mb: tuple[float, ...]
    memory_mb: tuple[float, ...]
    bytes_per_step: tuple[int, ...]


def plan(
    placement: Placement, batch_size: int, emb_dim: int, mlp_values: int, state_values: int, device: str,
    network_mb: float = 0.0, wire_bytes: int = 0,
) -> Plan:  # fmt: skip
    """Compute what a placement takes.

    Args:
        placement: the placement.
        batch_size: B.
        emb_dim: D.
        mlp_values: values of the MLPs' parameters.
        state_values: values that are kept for a row of the tables, by the optimizer and, on Ascend, by its operators.
        device: CPU, GPU or Ascend; the last has AlltoAll, with which a rank sends only what another needs.
        network_mb: what a rank holds beside tables: MLPs, their optimizer, and the values of a batch.
        wire_bytes: of a value where ranks send by UCX; 0 where they send by MindSpore.
    """
    rows = tuple(placement.rows(rank) + _spare(placement, rank) for rank in range(placement.ranks))
    table_mb = tuple(held * (emb_dim + state_values) * _VALUE / 2**20 for held in rows)
    if wire_bytes:
        sent = ucx_step_bytes(placement, batch_size, emb_dim, mlp_values, wire_bytes)
    else:
        sent = (step_bytes(placement, batch_size, emb_dim, mlp_values, device),) * placement.ranks
    process_mb = _OWN_MB + _LIBRARIES_MB / (placement.ranks + (placement.ranks > 1)) if device == "CPU" else 0.0
    return Plan(rows, table_mb, tuple(mb + process_mb + network_mb for mb in table_mb), sent)


def _spare(placement: Placement, rank: int) -> int:
    """Rows behind a rank's pieces, empty ones among them: see embedding.SplitTables."""
    if placement.mode != "hybrid":
        return 0
    return len(placement.pieces[rank]) + placement.slots - placement.used(rank)


def received_values(
    placement: Placement, batch_size: int, emb_dim: int, device: str, gradients: bool, ucx: bool = False
) -> int:
    """Values that other ranks' samples make a rank hold for a batch of all ranks: vectors, and ids and gradients.

    Args:
        placement, batch_size, emb_dim, device: as for `plan`.
        gradients: whether it is a training step.
        ucx: whether ranks send by UCX.
    """
    ranks, ids, slots = placement.ranks, placement.ids, placement.slots
    if ranks == 1:
        return 0
    if ucx:
        return _received_by_ucx(placement, batch_size, emb_dim, gradients)
    found = batch_size * ids * (1 + emb_dim) if gradients else 0
    if placement.mode == "hybrid":  # looked up for all, and what comes back: of all by AllGather, else of the own ones
        returned = 1 if has_all_to_all(device) else ranks
        found += batch_size * slots * emb_dim * (1 + returned)
    return found


def step_bytes(placement: Placement, batch_size: int, emb_dim: int, mlp_values: int, device: str) -> int:
    """Bytes that a rank sends in a training step; arguments as for `plan`.

    By the ring algorithms, in which a rank sends its part of an AllGather N - 1 times, a part of an AllToAll to each of
    the others, and 2 (N - 1) / N of an AllReduce.
    """
    ranks, ids, slots = placement.ranks, placement.ids, placement.slots
    if placement.mode == "none" or ranks == 1:
        return 0
    own = -(-batch_size // ranks)
    gathered, exchanged = own * ids * (1 + emb_dim), 0  # ids and gradients
    if placement.mode == "hybrid" and has_all_to_all(device):
        gathered, exchanged = 0, own * ranks * slots * (1 + 2 * emb_dim)
    elif placement.mode == "hybrid":
        gathered += own * ranks * slots * emb_dim  # the vectors of the own slots
    values = (ranks - 1) * gathered + (ranks - 1) / ranks * exchanged
    return _sent(values, mlp_values + 1, ranks, device)  # gradients of the MLPs, and the loss


def distinct_rows(pieces: Sequence[Piece], placement: Placement, samples: int) -> float:
    """How many distinct rows of some pieces so many samples ask for, on average where all rows come equally often.

    Where some come more often than others there are fewer.
    """
    found = 0.0
    for piece in pieces:
        size, draws = placement.table_rows[piece.table], samples * placement.uses[piece.table]
        found += piece.rows * -math.expm1(draws * math.log1p(-1 / size)) if size > 1 else piece.rows
    return found


def most_distinct(pieces: Sequence[Piece], placement: Placement, samples: int) -> int:
    """The same, at most."""
    return sum(min(piece.rows, samples * placement.uses[piece.table]) for piece in pieces)


def ucx_step_bytes(
    placement: Placement, batch_size: int, emb_dim: int, mlp_values: int, wire_bytes: int
) -> tuple[int, ...]:
    """Bytes that each rank sends in a training step by UCX, as if all rows of a table came equally often.

    Of a row that a rank's samples ask for, its number, its vector and its gradient travel once; of the MLPs' gradients,
    a part to each rank, which sends the sum back to all. Arguments as for `plan`.
    """
    ranks, own = placement.ranks, -(-batch_size // placement.ranks)
    if ranks == 1:
        return (0,)
    found = [distinct_rows(pieces, placement, own) for pieces in placement.pieces]
    averaged = 2 * (ranks - 1) / ranks * mlp_values * wire_bytes + (ranks - 1) * _VALUE  # the loss as float32
    row = _VALUE + emb_dim * wire_bytes
    if placement.mode == "data":
        return tuple(round((ranks - 1) * rows * row + averaged) for rows in found)
    return tuple(
        round((sum(found) - rows) * row + (ranks - 1) * rows * emb_dim * wire_bytes + averaged) for rows in found
    )


def _received_by_ucx(placement: Placement, batch_size: int, emb_dim: int, gradients: bool) -> int:
    """As `received_values`, of the rank with the most."""
    ranks, own = placement.ranks, -(-batch_size // placement.ranks)
    most = [most_distinct(pieces, placement, own) for pieces in placement.pieces]
    found = own * placement.ids + sum(most)  # which id is which row, and these
    if placement.mode == "data":
        return found + (ranks + 1) * max(most) * (1 + emb_dim) * 2 if gradients else 0
    found += sum(most) * emb_dim + ranks * max(most) * (1 + emb_dim)  # vectors from others and for them
    return found + (ranks * max(most) * (1 + emb_dim) if gradients else 0)  # gradients from them; those for them reuse


def _sent(values: float, reduced: int, ranks: int, device: str) -> int:
    copies = _CPU_COPIES if device == "CPU" else 1
    return round(copies * _VALUE * (values + 2 * (ranks - 1) / ranks * reduced))


def plan_lines(placement: Placement, planned: Plan, optimizer: str, batch_size: int) -> list[str]:
    """A plan for people: a line for each rank."""
    total = sum(placement.table_rows)
    lines = [f"{placement.mode}, {placement.ranks} ranks, {total:,} rows, {optimizer}, {batch_size} samples a step"]
    for rank in range(placement.ranks):
        lines.append(
            f"rank {rank}: {len(placement.pieces[rank])} pieces, {planned.rows[rank]:,} rows, "
            f"{planned.table_mb[rank]:,.1f} MB of tables and optimizer, "
            f"{planned.memory_mb[rank]:,.1f} MB in all as computed, "
            f"sends {planned.bytes_per_step[rank] / 2**20:.3f} MB a step"
        )
    return lines
