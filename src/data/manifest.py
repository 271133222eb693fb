"""The manifest of a data folder: every fact of the data that training and evaluation need, and proof that it is whole.

dataset/manifest.json      written last, by rename: without it the folder is not valid
dataset/vocabulary.npz     the encoder: keys of the categories, in the order of their ids, and what else is learned
dataset/train/ valid/ test/    MindRecord files
"""

import json
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

from src.base.errors import InputError
from src.base.files import sha256_of, whole_file
from src.base.sealed import check_json, sealed_json
from src.data.layout import Layout
from src.data.parts import File, Negatives, Part
from src.model_utils.object_storage import refuse_remote
from src.rows.cells.lists import ListColumn
from src.rows.columns import Columns, Timestamp

MANIFEST = "manifest.json"
VOCABULARY = "vocabulary.npz"
PARTS = ("train", "valid", "test")
PREPROCESS = "preprocess the data again"
# Input of zeros, and field of one category, of rows that have no numeric or no categorical column: all that takes rows
# has something to take, and the network leaves them away.
NO_NUMBER, NO_CATEGORY = "(no number)", "(no category)"
_VERSION = 1


class Coded(Protocol):
    """What a network needs to know of the rows that it takes; a manifest and an encoder have it.

    Attributes:
        inputs, fields: names of the numeric inputs and of the fields.
        table_rows: rows of each field's table, id 0 included.
        layout: of the ids.
    """

    @property
    def inputs(self) -> tuple[str, ...]:
        """See above."""

    @property
    def fields(self) -> tuple[str, ...]:
        """See above."""

    @property
    def table_rows(self) -> tuple[int, ...]:
        """See above."""

    @property
    def layout(self) -> Layout:
        """See above."""


def dense_dim_of(coded: Coded) -> int:
    """How many numeric inputs a network takes: none of one that stands in for none."""
    return len(coded.inputs) if coded.inputs != (NO_NUMBER,) else 0


def has_fields(coded: Coded) -> bool:
    """Whether a network takes fields: not of one that stands in for none."""
    return coded.fields != (NO_CATEGORY,)


@dataclass(frozen=True)
class Manifest:
    """A data folder's facts.

    Attributes:
        dense, categorical: names of the raw files' columns.
        table_rows: rows of each field's table, id 0 included.
        parts: by name; one without rows is absent.
        files: all files but the manifest.
        bad_rows: lines left out.
        source: names of the raw files, the lines read of them, and their columns.
        options: of preprocessing.
        negative: how many numbers of a column are below 0, of the columns that have any.
        shared_keys: how many keys several training values have, of the columns with values so long that their keys are
            hashes.
        inputs, fields: names of the network's numeric inputs and fields, as `src/data/encoder.py` makes them of the
            columns; unless given, these are the columns.
        layout: of the ids; a file without it is of fields of one value with a table each.
        dropped: how many values of a field's lists are left out, of the fields that have any.
        negatives: what became of the training rows without a click, if not all are kept.
    """

    dense: tuple[str, ...]
    categorical: tuple[str, ...]
    table_rows: tuple[int, ...]
    parts: dict[str, Part]
    files: tuple[File, ...]
    bad_rows: int
    source: dict[str, Any]
    options: dict[str, Any]
    inputs: tuple[str, ...] = ()
    fields: tuple[str, ...] = ()
    negative: dict[str, int] = field(default_factory=dict)
    shared_keys: dict[str, int] = field(default_factory=dict)
    layout: Layout = Layout((), (), ())
    dropped: dict[str, int] = field(default_factory=dict)
    negatives: Negatives | None = None

    def __post_init__(self) -> None:
        listed = {file.name for file in self.files}
        for name, part in self.parts.items():
            part.check(name, listed)
        object.__setattr__(self, "inputs", self.inputs or self.dense)
        object.__setattr__(self, "fields", self.fields or self.categorical)
        if self.layout.is_plain:  # also one that says nothing
            object.__setattr__(self, "layout", Layout.plain(len(self.fields)))
        elif not self.layout.fields == len(self.fields) == len(self.table_rows):
            raise TypeError(f"the layout is of {self.layout.fields} fields, of which there are {len(self.fields)}")

    @property
    def tables(self) -> tuple[str, ...]:
        """Names of the tables: those of the first fields that use them."""
        return self.layout.of_tables(self.fields)

    @property
    def rows_of_tables(self) -> tuple[int, ...]:
        """Rows of each table."""
        return self.layout.of_tables(self.table_rows)

    @property
    def weight(self) -> str:
        """Name of the column of the rows' weights; "" where they have none."""
        return str(self.source.get("columns", {}).get("weight", ""))

    @property
    def weighting(self) -> str:
        """Words behind a number of rows; "" where they have no weights."""
        return f" weighted by column {self.weight}" if self.weight else ""

    @property
    def logit_shift(self) -> float:
        """What a logit of the full data lies above that of the training rows; 0 where these are all."""
        return self.negatives.shift if self.negatives else 0.0

    def label_mean_of_all(self, part: str) -> float:
        """A part's label mean, of training rows that were sampled the one before that."""
        mean = self.parts[part].label_mean
        return self.negatives.mean_of_all(mean) if self.negatives and part == "train" else mean

    def columns(self) -> Columns:
        """The columns of the raw files."""
        given = {key: _tuples(value) for key, value in self.source.get("columns", {}).items()}
        if "lists" in given:
            given["lists"] = tuple(ListColumn(**one) for one in given["lists"])
        if "shared" in given:
            given["shared"] = tuple((column, table) for column, table in given["shared"])
        if "timestamps" in given:
            given["timestamps"] = tuple(Timestamp(**one) for one in given["timestamps"])
        return Columns(self.dense, self.categorical, **given)

    def save(self, folder: Path) -> None:
        """Write it into the folder, whole or not at all."""
        with whole_file(folder / MANIFEST, sync=True) as file:
            file.write(sealed_json({"version": _VERSION, **self._content()}).encode())

    def _content(self) -> dict[str, Any]:
        """All that is kept; programs that know no lists, or no sampling, read it where there are none."""
        content = asdict(self)
        if self.layout.is_plain:
            del content["layout"]
        for name in ("dropped", "negatives"):
            if not content[name]:
                del content[name]
        return content

    @classmethod
    def load(cls, path: Path, remedy: str = PREPROCESS) -> "Manifest":
        """Read a manifest file; an InputError tells what is wrong, and the remedy."""
        try:
            found = json.loads(path.read_text(encoding="utf-8"))
            content = {key: value for key, value in found.items() if key != "crc32"}
            if content.pop("version") != _VERSION:
                raise InputError(f"{path} is of another version of this program: {remedy}")
            parts = {
                name: Part(**{key: _tuples(value) for key, value in part.items()})
                for name, part in content.pop("parts").items()
            }
            files = tuple(File(**file) for file in content.pop("files"))
            layout = Layout.from_json(content.pop("layout", {"tables": (), "sizes": (), "pools": ()}))
            negatives = Negatives(**content.pop("negatives")) if "negatives" in content else None
            values = {key: _tuples(value) for key, value in content.items()}
            manifest = cls(parts=parts, files=files, layout=layout, negatives=negatives, **values)
        except (json.JSONDecodeError, UnicodeDecodeError, KeyError, TypeError, AttributeError) as error:
            raise InputError(f"{path} is not a manifest of this program ({error!r}): {remedy}") from None
        check_json(found, path, remedy)
        return manifest

    def verify(self, folder: Path, names: Sequence[str], remedy: str = PREPROCESS) -> None:
        """Compare files of the folder with the manifest.

        Args:
            folder: the data folder.
            names: the files to look at.
            remedy: ends the error.

        Raises:
            InputError: a file is missing, or its size or checksum differs.
        """
        known = {file.name: file for file in self.files}
        for name in names:
            path = folder / name
            if name not in known:
                raise InputError(f"{folder / MANIFEST} lists no {name}: {remedy}")
            if not path.is_file():
                raise InputError(f"{path} is missing, though {MANIFEST} lists it: {remedy}")
            if path.stat().st_size != known[name].bytes:
                raise InputError(
                    f"{path} has {path.stat().st_size} bytes, {MANIFEST} says {known[name].bytes}: {remedy}"
                )
            if sha256_of(path) != known[name].sha256:
                raise InputError(f"{path} has changed since {MANIFEST} was written (its checksum differs): {remedy}")

    def sha256(self, name: str) -> str | None:
        """The checksum of one of the files; None if there is no such file."""
        return next((file.sha256 for file in self.files if file.name == name), None)

    def part_files(self, part: str) -> list[str]:
        """Names of a part's files, MindRecord's index files included."""
        return [file.name for file in self.files if file.name.startswith(part + "/")]


@dataclass(frozen=True)
class DataFolder:
    """A valid data folder, and the part of it that the user named, if any."""

    path: Path
    manifest: Manifest
    named_part: str | None = None

    def part_to_score(self) -> str:
        """The named part, or else test.

        Raises:
            InputError: it has no rows.
        """
        part = self.named_part or "test"
        if part not in self.manifest.parts:
            raise InputError(
                f"data folder {self.path} has no {part} rows: name a part that has, such as {self.path / 'train'}"
            )
        return part

    def shards(self, part: str) -> tuple[list[str], list[int]]:
        """Paths of a part's MindRecord files, checked against the manifest, and the rows in each."""
        self.manifest.verify(self.path, self.manifest.part_files(part))
        shards = self.manifest.parts[part]
        if not shards.shards:
            raise InputError(f"{self.path} is a published model, which has no rows: name the data folder of its rows")
        return [str(self.path / name) for name in shards.shards], list(shards.shard_rows)


_ALWAYS_TOLD = ("label", "order", "separator", "header")
_TOLD_ELSEWHERE = ("dense", "categorical", "key_seed", "checked", "split")


def raw_format(columns: Columns) -> dict[str, Any]:
    """What a manifest's source says of the raw files' columns, beside the names that stand in the manifest anyway."""
    default = Columns((), ())
    return {
        name: list(value) if isinstance(value, tuple) else value
        for name, value in asdict(replace(columns, split=None)).items()
        if name in _ALWAYS_TOLD or (name not in _TOLD_ELSEWHERE and value != getattr(default, name))
    }


_TOLD: set[Path] = set()  # once is enough


def place_of(dataset_path: str) -> Path:
    """Where a path of data leads to: of one that is not there, but below data/, to there, which it says.

    For commands of the public original, whose train.py reads dataset/ while its preprocessing writes data/dataset/.
    """
    given, below = Path(dataset_path), Path("data") / dataset_path
    if os.path.exists(given) or not os.path.exists(below):
        return given
    if below.absolute() not in _TOLD:
        print(f"dataset_path {dataset_path} is not there: {below} is, and taken", flush=True)
        _TOLD.add(below.absolute())
    return below


def is_data_folder(path: Path) -> bool:
    """Whether a path is that of a data folder, or of a part of one."""
    # By os, for which a list of files that is too long for a path is not there.
    return os.path.isfile(path / MANIFEST) or (path.name in PARTS and os.path.isfile(path.resolve().parent / MANIFEST))


def find(dataset_path: str) -> DataFolder:
    """The data folder that a user named, by itself or by one of its parts (dataset/train).

    Raises:
        InputError: there is no such folder, no manifest, or not the named part.
    """
    refuse_remote(dataset_path, "dataset_path")
    path = place_of(dataset_path)
    if not path.is_dir():
        raise InputError(
            f"dataset_path {dataset_path} is not a folder: name the data folder that src/preprocess_data.py wrote"
        )
    if (path / MANIFEST).is_file():
        return DataFolder(path, Manifest.load(path / MANIFEST))
    above, name = path.resolve().parent, path.resolve().name
    if name in PARTS and (above / MANIFEST).is_file():
        manifest = Manifest.load(above / MANIFEST)
        if name not in manifest.parts:
            raise InputError(
                f"dataset_path {dataset_path}: the data folder {above} has no {name} rows: name a part that has"
            )
        return DataFolder(above, manifest, name)
    below = next((place for place in (path / "dataset", path / "data/dataset") if (place / MANIFEST).is_file()), None)
    remedy = f"did you mean {below}?" if below else "run src/preprocess_data.py"
    raise InputError(
        f"dataset_path {dataset_path} holds no {MANIFEST}, so it is no data folder, or its preprocessing "
        f"did not end: {remedy}"
    )


def _tuples(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value
