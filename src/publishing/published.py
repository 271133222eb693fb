"""A published folder that is there whole: reading it, as a network and for scoring.

published/README.md            the card, for people and for hubs
published/config.json          the network's shape, and the files with their checksums
published/model.safetensors    the MLPs and, behind them, a table of vectors for each field
published/vocabulary.npz       the encoder: raw rows to what the network takes
published/manifest.json        the columns of raw rows
published/report.html          how the network was trained, and what it is worth

Card and page are for people, and may be changed; of the other files each is compared with its checksum.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from src.base.errors import InputError
from src.base.sealed import check_json
from src.checkpoints.names import TABLE
from src.data.manifest import MANIFEST, VOCABULARY, Manifest
from src.data.parts import File
from src.export.table_file import Tables
from src.network.options import NetworkSpec
from src.publishing.tensor_file import TensorFile

CONFIG, TENSORS, CARD = "config.json", "model.safetensors", "README.md"
CHECKED = (TENSORS, VOCABULARY, MANIFEST)
KIND, VERSION = "dlrm-mindspore", 1
_REMEDY = "publish the model again, or fetch the folder anew"


def is_published(folder: Path) -> bool:
    """Whether a folder is a published model, damaged or not."""
    try:
        return bool(json.loads((folder / CONFIG).read_text(encoding="utf-8")).get("model_type") == KIND)
    except (OSError, ValueError, AttributeError):
        return False


@dataclass(frozen=True)
class Published:
    """A published model.

    Attributes:
        path: the folder.
        manifest: facts of its columns.
        network: its shape.
        tensors: the values.
        config: all of config.json.
    """

    path: Path
    manifest: Manifest
    network: NetworkSpec
    tensors: TensorFile
    config: Mapping[str, Any]

    @classmethod
    def load(cls, path: Path) -> "Published":
        """Read and check a folder.

        Raises:
            InputError: it is none, or a file of it is missing, damaged or another model's.
        """
        if not is_published(path):
            raise InputError(f"{path} holds no {CONFIG} of a published model: name a --publish of export.py")
        try:
            config = check_json(json.loads((path / CONFIG).read_text(encoding="utf-8")), path / CONFIG, _REMEDY)
            if config["version"] != VERSION:
                raise InputError(f"{path / CONFIG} is of another version of this program: {_REMEDY}")
            for name in CHECKED:
                if not (path / name).is_file() or vars(File.of(path, path / name)) != config["files"][name]:
                    raise InputError(f"{path / name} is missing or damaged (its checksum differs): {_REMEDY}")
            shape: dict[str, Any] = {
                key: tuple(value) if isinstance(value, list) else value for key, value in config["network"].items()
            }
            return cls(path, Manifest.load(path / MANIFEST, _REMEDY), NetworkSpec(**shape),
                       TensorFile(path / TENSORS), config)  # fmt: skip
        except (KeyError, TypeError) as error:
            raise InputError(f"{path / CONFIG} is not as this program writes it ({error!r}): {_REMEDY}") from None

    @property
    def tables(self) -> "TensorTables":
        """The tables, of which no more is read than is looked up."""
        return TensorTables(self.tensors, self.manifest, self.network.emb_dim)


class TensorTables(Tables):
    """The tables of a published model."""

    def __init__(self, tensors: TensorFile, manifest: Manifest, width: int):
        super().__init__(manifest.rows_of_tables, width, "fp32")
        self.rows = tensors.rows([TABLE + name for name in manifest.tables], width)

    def encoded(self, rows: np.ndarray) -> np.ndarray:
        """As of `Tables`."""
        return np.ascontiguousarray(self.rows[rows]).view(np.uint8)
