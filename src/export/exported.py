"""An exported model that is there whole: reading its folder and checking it, without MindSpore."""

import zlib
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from src.base.errors import InputError
from src.base.files import check_place
from src.base.sealed import Facts, begins_as, read_facts, seal_of
from src.data.manifest import MANIFEST, PARTS, VOCABULARY, DataFolder, Manifest, find
from src.export.options import ExportSpec
from src.export.table_file import TableFile, Tables

DESCRIPTION, DELTA = ".model", ".delta"
_CHUNK_BYTES = 1 << 20
_REMEDY = "export the model again"
Identity = tuple[str, str, str]
FROM_TRAINING = f"put {MANIFEST} and {VOCABULARY} there as train.py wrote them"


def checksum(path: Path) -> str:
    """CRC-32 of a file, 8 hex digits."""
    crc = 0
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK_BYTES):
            crc = zlib.crc32(chunk, crc)
    return f"{crc:08x}"


def is_export(folder: Path) -> bool:
    """Whether a folder holds an exported model, damaged or not."""
    return any(begins_as(path, "model") for path in folder.glob(f"*{DESCRIPTION}"))


def is_delta(folder: Path) -> bool:
    """Whether a folder holds what changes an exported model, damaged or not."""
    return any(begins_as(path, "delta") for path in folder.glob(f"*{DELTA}"))


def check_export_place(spec: ExportSpec) -> None:
    """Refuse to export where something is that may not be replaced."""
    place = Path(spec.export_path)
    if spec.delta_from and Path(spec.delta_from).resolve() == place.resolve():
        raise InputError(
            f"export_path {place} is what delta_from names, which stays as it is: name another --export_path"
        )
    check_place(place, lambda folder: is_export(folder) or is_delta(folder), "export_path", spec.overwrite)


def checkpoint_manifest(checkpoint_path: Path) -> Manifest:
    """The manifest beside a checkpoint.

    Raises:
        InputError: there is none, or the vocabulary is missing or damaged, so raw rows could not be scored.
    """
    folder = checkpoint_path.parent
    if not (folder / MANIFEST).is_file():
        raise InputError(
            f"checkpoint {checkpoint_path} has no {MANIFEST} beside it, without which raw rows can't be coded: "
            f"{FROM_TRAINING}"
        )
    manifest = Manifest.load(folder / MANIFEST, FROM_TRAINING)
    manifest.verify(folder, [VOCABULARY], FROM_TRAINING)
    return manifest


def calibrating_rows(spec: ExportSpec) -> DataFolder | None:
    """The data folder whose named part calibrates, None for no calibration.

    Raises:
        InputError: there is none, or not this part, or it is that of training, whose scores are too sure of themselves.
    """
    if not spec.calibrate:
        return None
    named = "valid" if spec.calibrate is True else spec.calibrate
    folder, _, part = named.rpartition(":")
    if spec.calibrates_by_own:
        folder, part = spec.dataset_path, named
    elif not folder or part not in PARTS:
        folder, part = named, ""
    if not (part or Path(folder).is_dir()):
        raise InputError(
            f"calibrate {spec.calibrate} is neither valid nor test, the parts of dataset_path, nor a data folder"
        )
    data = find(folder)
    if part and data.named_part not in (None, part):
        raise InputError(
            f"calibrate {spec.calibrate} asks for the {part} rows, and {data.named_part} is another part: give "
            f"{data.path} in place of {folder}, or --calibrate={data.named_part}"
        )
    found = data.manifest.parts
    part = part or data.named_part or ("valid" if "valid" in found else "test")
    if part == "train":
        raise InputError(
            f"calibrate {spec.calibrate}: a network knows its training rows too well to be calibrated by them: give "
            f"rows of valid or test"
        )
    if part not in found:
        raise InputError(
            f"data folder {data.path} has no {part} rows to calibrate with, only {', '.join(found)}: preprocess it "
            f"with some, or calibrate by other rows"
        )
    return replace(data, named_part=part)


@dataclass(frozen=True)
class ExportFolder:
    """An exported model that is there whole.

    Attributes:
        path: the folder.
        graph: file of the graph.
        table: the tables, or None where the graph has them.
        batch_size: rows that the graph takes at once.
        width: D.
        vocabulary: SHA-256 of the vocabulary.
        manifest: facts of the data it was trained on.
        identity: checksums of its description, vocabulary and tables, which tell it from all others.
    """

    path: Path
    graph: Path
    table: Tables | None
    batch_size: int
    width: int
    vocabulary: str
    manifest: Manifest
    identity: Identity

    @classmethod
    def load(cls, path: Path) -> "ExportFolder":
        """Read and check an exported model: its folder, or a file in it.

        The rows of a table file are checked when they are looked up.

        Raises:
            InputError: there is none, or a file of it is missing, damaged, or another model's.
        """
        folder = path if path.is_dir() else path.parent
        found = sorted(folder.glob(f"*{DESCRIPTION}"))
        if len(found) != 1:
            raise InputError(
                f"{path} is no exported model: {folder} holds {len(found)} files named *{DESCRIPTION}, which export.py "
                f"writes; name its --export_path"
            )
        if not path.exists():
            raise InputError(f"{path} is not there: name what export.py wrote in {folder}")
        return cls.described_by(found[0])

    @classmethod
    def described_by(cls, description: Path, tables: Tables | None = None) -> "ExportFolder":
        """Read and check the model of a description, whose files stand beside it.

        Args:
            description: its file.
            tables: where tables and vocabulary are not beside it, but follow from an earlier export's: the tables.

        Raises:
            InputError: as `load`.
        """
        try:
            return cls._of_facts(description, read_facts(description, "model"), tables)
        except (KeyError, IndexError, ValueError) as error:
            if isinstance(error, InputError):
                raise
            raise InputError(f"{description} is not as this version of the program writes it: {_REMEDY}") from None

    @classmethod
    def _of_facts(cls, description: Path, facts: Facts, tables: Tables | None) -> "ExportFolder":
        folder = description.parent
        single = {key: values[0][0] for key, values in facts.items()}
        files = {name: (int(size), crc) for name, size, crc in facts["file"]}
        for name, (file_bytes, crc) in files.items():
            file = sized_file(folder, name, file_bytes)
            if checksum(file) != crc:
                raise InputError(f"{file} is damaged (its checksum differs): {_REMEDY}")
        if single["graph"] not in files:
            raise InputError(f"{folder / single['graph']} is not among the files of its description: {_REMEDY}")
        fields = [tuple(line) for line in facts["field"]]
        table, of_table = tables, ""
        for name, size, of_table in facts.get("table", []):
            if tables is None:
                table = _table_of(sized_file(folder, name, int(size)), of_table)
        manifest = _manifest_of(folder, single["vocabulary"], int(single["dense"]), fields)
        if tables is None:
            manifest.verify(folder, [VOCABULARY], _REMEDY)
        return cls(
            folder, folder / single["graph"], table, int(single["batch_size"]), int(single["width"]),
            single["vocabulary"], manifest, (seal_of(description), single["vocabulary"], of_table),
        )  # fmt: skip


def _table_of(path: Path, identity: str) -> TableFile:
    """A table file, which must be a model's own."""
    table = TableFile(path)
    if table.identity != identity:
        raise InputError(f"{table.path} is of another export than the model: {_REMEDY}")
    return table


def sized_file(folder: Path, name: str, size: int, remedy: str = _REMEDY) -> Path:
    """A file of the folder that has so many bytes.

    Raises:
        InputError: there is none; the remedy ends it.
    """
    file = folder / name
    if Path(name).is_absolute() or ".." in Path(name).parts:
        raise InputError(f"{file} is no file in an exported model's folder: {remedy}")
    if not file.is_file() or file.stat().st_size != size:
        raise InputError(f"{file} is missing or has not its {size} bytes: {remedy}")
    return file


def field_facts(manifest: Manifest) -> list[tuple[Any, ...]]:
    """What a description says of the fields: name, and rows of the table; where there are lists or tables are shared,
    of all fields also the table's number, how many ids a row has, and how their vectors are pooled, or "one"."""
    layout, facts = manifest.layout, []
    for field, (name, rows) in enumerate(zip(manifest.fields, manifest.table_rows)):
        more = (layout.tables[field], layout.sizes[field], layout.pools[field] or "one")
        facts.append(("field", name, rows, *(() if layout.is_plain else more)))
    return facts


def _manifest_of(folder: Path, vocabulary: str, dense_dim: int, fields: list[tuple[str, ...]]) -> Manifest:
    """The manifest of an exported model, which must be that model's own."""
    if not (folder / MANIFEST).is_file():
        raise InputError(f"{folder / MANIFEST} is missing: {_REMEDY}")
    manifest = Manifest.load(folder / MANIFEST, _REMEDY)
    of_fields = [tuple(map(str, line[1:])) for line in field_facts(manifest)]
    if (manifest.sha256(VOCABULARY), len(manifest.inputs), of_fields) != (vocabulary, dense_dim, fields):
        raise InputError(f"{folder / MANIFEST} is of another model: {_REMEDY}")
    return manifest
