"""What an export changed since an earlier one, in a small folder; and exports that an earlier one becomes by it.

delta/dlrm.delta       the checksums of the earlier and of the later export, and the files with theirs
delta/dlrm.after       the later export's description, to the byte
delta/dlrm.mindir      its graph
delta/manifest.json    its columns of raw rows
delta/dlrm.tables      a table file of the rows that differ in any bit, or are new
delta/dlrm.rows        their ids, each table's own, rising, uint32, table by table
delta/dlrm.encoder     what its vocabulary changed, if anything; see changed_encoder.py

Rows, vocabulary and graph belong together: they come in one folder, which fits that one earlier export alone, and none
of it is taken where anything is damaged. ascend310_infer/src/delta.cc reads the same.
"""

import shutil
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from src.base.errors import InputError
from src.base.events import happens
from src.base.files import MappedFile, link_or_copy, whole_folder
from src.base.npz import Arrays, mapped_arrays, save_arrays
from src.base.sealed import Facts, read_facts, seal_of, write_facts
from src.data.manifest import MANIFEST, VOCABULARY, Manifest
from src.export.changed_encoder import EncoderChange, write_change
from src.export.exported import (
    DELTA,
    DESCRIPTION,
    ExportFolder,
    Identity,
    check_export_place,
    checksum,
    is_delta,
    sized_file,
)
from src.export.layered_tables import LayeredTables
from src.export.options import ExportSpec
from src.export.table_file import CHUNK_ROWS, TableFile, Tables, TableWriter

_AFTER, _ENCODER, _ROWS, _TABLES = ".after", ".encoder", ".rows", ".tables"
_AGAIN = "make the delta again"


def check_alike(old: ExportFolder, manifest: Manifest, width: int, table_type: str) -> Tables:
    """The tables of an earlier export, from which a delta can lead to a model of these facts.

    Raises:
        InputError: none can.
    """
    whole = "export the model whole"
    if old.table is None:
        raise InputError(
            f"delta_from {old.path} has its tables in the graph, and a delta changes those of a file: {whole}, with "
            f"--table_placement=host if deltas are to follow"
        )
    facts = {
        "numeric inputs": (old.manifest.inputs, manifest.inputs),
        "fields": (old.manifest.fields, manifest.fields),
        "lists and shared tables": (old.manifest.layout, manifest.layout),
        "width of the vectors": (old.width, width),
        "table_type": (old.table.table_type, table_type),
    }
    for name, (before, now) in facts.items():
        if before != now:
            remedy = f"give --table_type={before}" if name == "table_type" else whole
            raise InputError(f"delta_from {old.path} has other {name} than the model: {before} and {now}: {remedy}")
    for name, before, now in zip(manifest.tables, old.table.table_rows, manifest.rows_of_tables):
        if now < before:
            raise InputError(f"delta_from {old.path} has {before} rows for {name}, and the model {now}: {whole}")
    return old.table


def write_changed_rows(
    folder: Path, name: str, old: Tables, table_rows: Sequence[int], rows: Iterable[np.ndarray]
) -> tuple[int, str]:
    """Write the rows that are not as in the earlier tables, and their ids.

    Args:
        folder, name: where they go.
        old: the earlier tables.
        table_rows: rows of each table, none fewer than of the earlier ones.
        rows: all rows as a table file holds them, in pieces, none of which is of several tables.

    Returns:
        Bytes and identity of the table file that holds all rows.
    """
    whole = TableWriter(table_rows, old.width, old.table_type)
    pieces = iter(rows)
    with (folder / f"{name}{_TABLES}").open("wb") as file, (folder / f"{name}{_ROWS}").open("wb") as ids_file:
        changed, counts = TableWriter(table_rows, old.width, old.table_type, file), []
        for size, before, start in zip(table_rows, old.table_rows, old.starts):
            done = count = 0
            while done < size:
                piece = next(pieces)
                known = max(min(len(piece), before - done), 0)
                differs = np.ones(len(piece), bool)
                differs[:known] = (old.encoded(np.arange(done, done + known) + start) != piece[:known]).any(axis=1)
                ids = np.flatnonzero(differs)
                ids_file.write((ids + done).astype("<u4").tobytes())
                changed.add(piece[ids])
                whole.add(piece)
                done, count = done + len(piece), count + len(ids)
            counts.append(count)
        changed.finish(counts)
    return whole.finish()


def finish_delta(folder: Path, name: str, old: ExportFolder, manifest: Manifest, vocabulary: Path) -> None:
    """Write what is left of a delta, of which description, graph, manifest and rows are there.

    Args:
        folder, name: where it is.
        old: the earlier export.
        manifest: the later one's.
        vocabulary: file of the later encoder.
    """
    description = folder / f"{name}{_AFTER}"
    lines: list[tuple[object, ...]] = []
    if manifest.sha256(VOCABULARY) != old.vocabulary:
        encoder = folder / f"{name}{_ENCODER}"
        write_change(encoder, *(mapped_arrays(MappedFile(path)) for path in (old.path / VOCABULARY, vocabulary)))
        lines.append(("encoder", encoder.name))
    facts = read_facts(description, "model")
    table = TableFile(folder / f"{name}{_TABLES}")
    new = seal_of(description), manifest.sha256(VOCABULARY), facts["table"][0][2]
    files = [path for path in sorted(folder.rglob("*")) if path.is_file() and path != table.path]
    happens("a delta is to be sealed")
    write_facts(folder / f"{name}{DELTA}", "delta", [
        ("old", *old.identity), ("new", *new), ("description", description.name),
        ("rows", f"{name}{_ROWS}"), ("table", table.path.name, table.path.stat().st_size, table.identity), *lines,
        *(("file", path.relative_to(folder).as_posix(), path.stat().st_size, checksum(path)) for path in files),
    ])  # fmt: skip


def description_of_delta(name: str) -> str:
    """The file of the later export's description."""
    return f"{name}{_AFTER}"


@dataclass(frozen=True)
class Delta:
    """A delta that is there whole.

    Attributes:
        path: the folder.
        old, new: the export that it changes, and the one that this becomes.
        description: file of the later one's.
        table, ids: the rows that change or are new, and which ones these are, of each table.
        encoder: what becomes of the encoder; None where that stays.
    """

    path: Path
    old: Identity
    new: Identity
    description: Path
    table: TableFile
    ids: tuple[np.ndarray, ...]
    encoder: EncoderChange | None

    @classmethod
    def load(cls, path: Path) -> "Delta":
        """Read and check all of a delta's folder.

        Raises:
            InputError: there is none, or it is damaged.
        """
        found = sorted(path.glob(f"*{DELTA}"))
        if len(found) != 1 or not is_delta(path):
            raise InputError(f"{path} is no delta: name the --export_path of an export.py with --delta_from")
        facts = read_facts(found[0], "delta")
        try:
            return cls._of_facts(path, facts)
        except (KeyError, IndexError, ValueError) as error:
            if isinstance(error, InputError):
                raise
            raise InputError(f"{found[0]} is not as this version of the program writes it: {_AGAIN}") from None

    @classmethod
    def _of_facts(cls, folder: Path, facts: Facts) -> "Delta":
        for name, size, crc in facts["file"]:
            if checksum(sized_file(folder, name, int(size), _AGAIN)) != crc:
                raise InputError(f"{folder / name} is damaged (its checksum differs): {_AGAIN}")
        listed = {name for name, _, _ in facts["file"]}
        named = {key: folder / name for key in ("description", "rows", "encoder") for (name,) in facts.get(key, [])}
        if not {path.name for path in named.values()} <= listed:
            raise InputError(f"{folder} names a file that it has no checksum of: {_AGAIN}")
        ((name, size, identity),) = facts["table"]
        table = TableFile(sized_file(folder, name, int(size), _AGAIN))
        table.check()
        rows = np.fromfile(named["rows"], "<u4").astype(np.int64)
        if table.identity != identity or len(rows) != sum(table.table_rows):
            raise InputError(f"{table.path} is of another delta: {_AGAIN}")
        ids = tuple(np.split(rows, np.cumsum(table.table_rows)[:-1]))
        encoder = named.get("encoder")
        return cls(
            folder, _identity(facts["old"]), _identity(facts["new"]), named["description"], table, ids,
            EncoderChange(encoder, mapped_arrays(MappedFile(encoder))) if encoder else None,
        )  # fmt: skip

    @property
    def words(self) -> str:
        """How much changes."""
        facts = read_facts(self.description, "model")
        size = sum(path.stat().st_size for path in self.path.rglob("*") if path.is_file())
        whole = int(facts["table"][0][1])
        rows = sum(rows_of_tables(facts))
        return (
            f"{sum(self.table.table_rows):,} of {rows:,} rows; the delta takes {size / 1e6:,.1f} MB, the table file "
            f"{whole / 1e6:,.1f}"
        )

    def applied(self, model: ExportFolder) -> ExportFolder:
        """The later export, of the earlier one, which stays as it is; its vocabulary is no file.

        Raises:
            InputError: this is a delta of another export, or contradicts itself.
        """
        if model.identity != self.old:
            raise InputError(
                f"{self.path} changes another export than {model.path}: it is of {' '.join(self.old)}, and this one is "
                f"{' '.join(model.identity)}: apply the deltas in the order in which they were made"
            )
        table_rows = rows_of_tables(read_facts(self.description, "model"))
        assert model.table is not None
        self._check_ids(model.table, table_rows)
        later = ExportFolder.described_by(
            self.description, LayeredTables.of(model.table).changed_by(self.table, self.ids, table_rows)
        )
        if later.identity != self.new:
            raise InputError(f"{self.description} is of another delta: {_AGAIN}")
        check_alike(model, later.manifest, later.width, self.table.table_type)
        return later

    def _check_ids(self, old: Tables, table_rows: tuple[int, ...]) -> None:
        """Refuse ids that are none, or do not give a row to each new one."""
        if not len(self.ids) == len(table_rows) == len(old.table_rows) or self.table.width != old.width:
            raise InputError(f"{self.table.path} has other tables than the model: {_AGAIN}")
        for own, before, now in zip(self.ids, old.table_rows, table_rows):
            rising = len(own) == 0 or (own[-1] < now and (np.diff(own) > 0).all())
            if not rising or now < before or (own >= before).sum() != now - before:
                raise InputError(f"{self.path}: the rows that change contradict the model's {now}: {_AGAIN}")


def rows_of_tables(facts: Facts) -> tuple[int, ...]:
    """Rows of each table, of a description."""
    rows = {int(line[2]) if len(line) > 2 else place: int(line[1]) for place, line in enumerate(facts["field"])}
    return tuple(rows[table] for table in sorted(rows))


def _identity(lines: Sequence[tuple[str, ...]]) -> Identity:
    ((description, vocabulary, table),) = lines
    return description, vocabulary, table


class Followed:
    """A folder in which folders of deltas are put, whole, by renaming.

    Args:
        path: the folder, which need not be there yet.
    """

    def __init__(self, path: Path):
        self.path = path
        self._known: dict[tuple[Path, int, int], Identity | None] = {}  # by file, and what it was when it was read

    def next_of(self, model: Identity) -> Path | None:
        """The folder of a delta that changes a model, if there is one; files that were read are not read again."""
        known = {}
        for path in sorted(self.path.glob(f"*/*{DELTA}")):
            try:
                state = path.stat()
                key = path, state.st_ino, state.st_mtime_ns
                known[key] = self._known[key] if key in self._known else _identity(read_facts(path, "delta")["old"])
            except (InputError, KeyError, ValueError, OSError):  # gone, or damaged
                known[key] = None
        self._known = known
        return next((path.parent for (path, _, _), old in known.items() if old == model), None)

    def refuse(self, folder: Path) -> None:
        """Pass over a delta from now on, unless another is put in its place."""
        self._known |= {key: None for key in self._known if key[0].parent == folder}


def write_applied(spec: ExportSpec) -> None:
    """Write the export that an earlier one becomes by deltas to export_path, as export.py had written it whole.

    Raises:
        InputError: a delta is damaged, or of another export, or something is in the place that may not be replaced.
    """
    deltas = [Delta.load(Path(path)) for path in spec.apply_delta.split(",")]
    model = ExportFolder.load(Path(spec.delta_from))
    with whole_folder(Path(spec.export_path), lambda: check_export_place(spec)) as folder:
        vocabulary = model.path / VOCABULARY
        arrays: Arrays = mapped_arrays(MappedFile(vocabulary))
        for delta in deltas:
            model = delta.applied(model)
            arrays = delta.encoder.made_of(arrays) if delta.encoder else arrays
        facts = read_facts(delta.description, "model")
        for name in [MANIFEST, *(name for name, _, _ in facts["file"])]:
            (folder / name).parent.mkdir(exist_ok=True)
            shutil.copyfile(delta.path / name, folder / name)
        if any(delta.encoder for delta in deltas):
            save_arrays(folder / VOCABULARY, arrays)
        else:
            link_or_copy(vocabulary, folder / VOCABULARY)
        assert model.table is not None
        _write_table(folder / facts["table"][0][0], model.table)
        shutil.copyfile(delta.description, folder / f"{delta.description.stem}{DESCRIPTION}")
        made = ExportFolder.load(folder)  # which compares all checksums but those of the rows, just made
        assert made.identity == model.identity


def _write_table(path: Path, tables: Tables) -> None:
    with path.open("wb") as file:
        writer = TableWriter(tables.table_rows, tables.width, tables.table_type, file)
        for low in range(0, sum(tables.table_rows), CHUNK_ROWS):
            writer.add(tables.encoded(np.arange(low, min(low + CHUNK_ROWS, sum(tables.table_rows)))))
        writer.finish()
