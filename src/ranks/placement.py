"""Which rank holds which rows of the tables, what that takes in memory, and what a training step sends.

Data parallel: every rank holds every table. Hybrid parallel: each row lies on one rank; whole fields are placed, and a
field too large for a rank's share is cut into pieces of consecutive rows.

Legend: B samples of a step over all ranks, F fields, D width of a vector, N ranks, S slots: the pieces that the rank
with the most of them holds.
"""

from collections.abc import Sequence
from dataclasses import dataclass

MODES = ("none", "data", "hybrid")
_SLACK = 1.005  # a rank may hold so many times its share, rather than that a field is cut
_SMALL = 0.05  # of a rank's share: fields up to this are never cut
_VALUE = 4  # bytes of a float32 or an int32
# Of a CPU process beside its tables, as measured with batches of 256: memory of its own, and libraries' pages, which
# the processes of a machine share, MindSpore's scheduler among them.
_OWN_MB, _LIBRARIES_MB = 240, 250
_CPU_COPIES = 2  # MindSpore's collective operations on CPU send all twice, as counted at the network interface


@dataclass(frozen=True)
class Piece:
    """Rows low <= row < high of a field's table."""

    field: int
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
        table_rows: rows of each field's table.
        pieces: by rank, in the order of fields and rows.
    """

    mode: str
    table_rows: tuple[int, ...]
    pieces: tuple[tuple[Piece, ...], ...]

    @property
    def ranks(self) -> int:
        """How many ranks."""
        return len(self.pieces)

    @property
    def slots(self) -> int:
        """S."""
        return max(len(pieces) for pieces in self.pieces)

    def rows(self, rank: int) -> int:
        """Rows that a rank holds."""
        return sum(piece.rows for piece in self.pieces[rank])


def place(table_rows: Sequence[int], mode: str, ranks: int) -> Placement:
    """Place tables on ranks.

    Hybrid: each rank gets about its share of the rows and, since every slot costs a lookup a sample on every rank,
    about as many pieces as the others.

    Args:
        table_rows: rows of each field's table.
        mode: one of MODES.
        ranks: N; 1 for "none".
    """
    sizes = tuple(int(rows) for rows in table_rows)
    if mode != "hybrid":
        whole = tuple(Piece(field, 0, rows) for field, rows in enumerate(sizes))
        return Placement(mode, sizes, (whole,) * ranks)
    share = -(-sum(sizes) // ranks)
    most = int(share * _SLACK) + 1
    held: list[list[Piece]] = [[] for _ in range(ranks)]
    rows = [0] * ranks

    def hold(rank: int, piece: Piece) -> None:
        held[rank].append(piece)
        rows[rank] += piece.rows

    # First the small ones, which level the numbers of pieces and hardly count; then the others, the largest first, each
    # where there is room for all of it, or else part by part where there is most.
    small = [field for field, size in enumerate(sizes) if size <= share * _SMALL]
    for field in sorted(small, key=lambda field: -sizes[field]):
        hold(min(range(ranks), key=lambda rank: (len(held[rank]), rows[rank])), Piece(field, 0, sizes[field]))
    for field in sorted(set(range(len(sizes))) - set(small), key=lambda field: -sizes[field]):
        low = 0
        while low < sizes[field]:
            left = sizes[field] - low
            fitting = [rank for rank in range(ranks) if most - rows[rank] >= left]
            rank = min(fitting or range(ranks), key=lambda rank: rows[rank])
            high = low + min(left, most - rows[rank])
            hold(rank, Piece(field, low, high))
            low = high
    return Placement(mode, sizes, tuple(tuple(sorted(pieces, key=lambda p: (p.field, p.low))) for pieces in held))


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
    network_mb: float = 0.0,
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
    """
    spare = placement.slots if placement.mode == "hybrid" else 0  # see embedding.SplitTables
    rows = tuple(placement.rows(rank) + spare for rank in range(placement.ranks))
    table_mb = tuple(held * (emb_dim + state_values) * _VALUE / 2**20 for held in rows)
    sent = step_bytes(placement, batch_size, emb_dim, mlp_values, device)
    process_mb = _OWN_MB + _LIBRARIES_MB / (placement.ranks + (placement.ranks > 1)) if device == "CPU" else 0.0
    return Plan(rows, table_mb, tuple(mb + process_mb + network_mb for mb in table_mb), (sent,) * placement.ranks)


def received_values(placement: Placement, batch_size: int, emb_dim: int, device: str, gradients: bool) -> int:
    """Values that other ranks' samples make a rank hold for a batch of all ranks: vectors, and ids and gradients.

    Args:
        placement, batch_size, emb_dim, device: as for `plan`.
        gradients: whether it is a training step.
    """
    ranks, fields, slots = placement.ranks, len(placement.table_rows), placement.slots
    if ranks == 1:
        return 0
    found = batch_size * fields * (1 + emb_dim) if gradients else 0
    if placement.mode == "hybrid":  # looked up for all, and what comes back: of all by AllGather, else of the own ones
        returned = 1 if has_all_to_all(device) else ranks
        found += batch_size * slots * emb_dim * (1 + returned)
    return found


def step_bytes(placement: Placement, batch_size: int, emb_dim: int, mlp_values: int, device: str) -> int:
    """Bytes that a rank sends in a training step; arguments as for `plan`.

    By the ring algorithms, in which a rank sends its part of an AllGather N - 1 times, a part of an AllToAll to each of
    the others, and 2 (N - 1) / N of an AllReduce.
    """
    ranks, fields, slots = placement.ranks, len(placement.table_rows), placement.slots
    if placement.mode == "none" or ranks == 1:
        return 0
    own = -(-batch_size // ranks)
    gathered, exchanged = own * fields * (1 + emb_dim), 0  # ids and gradients
    if placement.mode == "hybrid" and has_all_to_all(device):
        gathered, exchanged = 0, own * ranks * slots * (1 + 2 * emb_dim)
    elif placement.mode == "hybrid":
        gathered += own * ranks * slots * emb_dim  # the vectors of the own slots
    values = (ranks - 1) * gathered + (ranks - 1) / ranks * exchanged
    return _sent(values, mlp_values + 1, ranks, device)  # gradients of the MLPs, and the loss


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
            f"{planned.memory_mb[rank]:,.0f} MB in all as computed, "
            f"sends {planned.bytes_per_step[rank] / 2**20:.3f} MB a step"
        )
    return lines
