"""The network of a published folder, and a model that scores with it.

Legend: N numeric inputs, F fields, D width of a vector.
"""

from pathlib import Path

import numpy as np
from mindspore import Tensor, nn

from src.base.errors import InputError
from src.base.files import MappedFile
from src.base.npz import mapped_arrays
from src.checkpoints.names import TABLE
from src.data.encoder import load_encoder
from src.data.manifest import VOCABULARY, Manifest, dense_dim_of, has_fields
from src.data.parts import sha256_of
from src.dlrm import DLRM
from src.export.exported import ExportFolder
from src.export.graph import ScoreVectors, tables_of_widths
from src.export.live import HOST_SIZES, Graphs, LiveModel
from src.network.embedding import whole_tables
from src.network.operators import Operators
from src.network.options import NetworkSpec
from src.publishing.options import key_path_of
from src.publishing.published import CONFIG, TENSORS, Published
from src.ranks.placement import Piece
from src.rows.keys import is_seed


def without_tables(manifest: Manifest, network: NetworkSpec) -> DLRM:
    """A network of this shape to which vectors come from elsewhere; of the tables it has only the widths."""
    tables = tables_of_widths(len(manifest.fields), network.emb_dim)
    return DLRM(dense_dim_of(manifest), tables, network, has_fields=has_fields(manifest))


def fill_mlps(model: DLRM, published: Published) -> None:
    """Give a network the values of a published one but the tables'.

    Raises:
        InputError: an array is missing, or has another shape.
    """
    for parameter in model.mlp_parameters():
        values = published.tensors.value(parameter.name)
        if values.shape != tuple(parameter.shape):
            raise InputError(
                f"{published.tensors.path} has {list(values.shape)} for {parameter.name}, and the network of {CONFIG} "
                f"{list(parameter.shape)}: publish the model again"
            )
        parameter.set_data(Tensor(np.array(values)))


def network_of(published: Published, operators: Operators) -> DLRM:
    """The network with its tables in memory, by some operators."""
    manifest = published.manifest

    def fill(piece: Piece, values: np.ndarray) -> None:
        values[:] = published.tensors.value(TABLE + manifest.tables[piece.table])[piece.low : piece.high]

    tables = whole_tables(manifest.rows_of_tables, published.network.emb_dim, fill, operators, manifest.layout)
    model = DLRM(dense_dim_of(manifest), tables, published.network, has_fields=has_fields(manifest))
    fill_mlps(model, published)
    return model


def live_model(folder: Path, key_path: str | Path = "") -> LiveModel:
    """A published model that scores.

    Args:
        folder: where it is.
        key_path: file of the key of a hashed vocabulary; unless given it is looked for beside the folder.

    Raises:
        InputError: no published model, a damaged one, or no such key.
    """
    published = Published.load(folder)
    manifest, vocabulary = published.manifest, folder / VOCABULARY
    secret = read_key(Path(key_path or key_path_of(folder))) if published.config["encoder"]["hashed"] else ""
    encoder, arrays = load_encoder(vocabulary, manifest.dense, secret), mapped_arrays(MappedFile(vocabulary))
    digest = manifest.sha256(VOCABULARY) or ""
    model = ExportFolder(
        folder, folder / TENSORS, published.tables, HOST_SIZES[-1], published.network.emb_dim, digest, manifest,
        (f"published {sha256_of(folder / CONFIG)}", digest, published.config["files"][TENSORS]["sha256"]),
    )  # fmt: skip

    def cell(_: Path) -> nn.Cell:
        network = without_tables(manifest, published.network)
        fill_mlps(network, published)
        return ScoreVectors(network).set_train(False)

    return LiveModel(model, encoder, arrays, Graphs(HOST_SIZES, cell))


def read_key(path: Path) -> str:
    """The key in a file that publishing left.

    Raises:
        InputError: there is none.
    """
    try:
        key = path.read_text(encoding="ascii").strip()
    except FileNotFoundError:
        raise InputError(
            f"{path} is not there: this model's categories are keyed hashes, and whoever published it has the key: "
            f"put its file there, or name it as key_path"
        ) from None
    except UnicodeDecodeError:
        key = ""
    if not is_seed(key):
        raise InputError(f"{path} holds no key of 32 hex digits: put the file there that export.py wrote")
    return key
