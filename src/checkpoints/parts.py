"""The parts that a checkpoint has, a file each: where they stand, and that all are there. Told without MindSpore."""

from collections.abc import Sequence
from pathlib import Path

from src.base.errors import InputError
from src.checkpoints.protobuf import CheckpointFile

PARTS = "parts"  # the entry that says how many there are


def part_of(path: Path, rank: int) -> Path:
    """Where a rank's part of a checkpoint stands; rank 0's is the checkpoint itself."""
    return path if rank == 0 else path.with_name(f"{path.stem}.rank_{rank}{path.suffix}")


def parts_of(first: CheckpointFile) -> int:
    """How many parts the checkpoint has whose first part this is."""
    return int(first.read(PARTS)[0]) if PARTS in first.shapes else 1


def identity_of(path: Path) -> str:
    """What tells a checkpoint from others: size and checksum of each of its parts, as they stand at the files' ends.

    Raises:
        InputError: as of `open_parts`.
    """
    files = open_parts(path, check=())
    return " ".join(f"{one.path.stat().st_size}-{one.written_crc}" for one in files)


def open_parts(path: Path, check: Sequence[int] | None = None) -> list[CheckpointFile]:
    """All parts of a checkpoint, the first one first.

    Args:
        path: the checkpoint, which is its first part.
        check: which of the parts get their checksums compared, by number; all unless given.

    Raises:
        InputError: a part is missing, or is no whole checkpoint file.
    """
    files = [CheckpointFile(path, check is None or 0 in check)]
    count = parts_of(files[0])
    for rank in range(1, count):
        part = part_of(path, rank)
        if not part.is_file():
            raise InputError(f"checkpoint {path} has {count} parts, and {part} is missing: put it there")
        files.append(CheckpointFile(part, check is None or rank in check))
    return files
