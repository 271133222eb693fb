"""Where a model is published, and what of its training rows that may show."""

from dataclasses import dataclass
from pathlib import Path

from src.base.errors import InputError
from src.export.options import ExportSpec
from src.model_utils.options import option, refuse_changed

_OF_EXPORTS = (
    "export_path", "file_name", "file_format", "export_batch_size", "table_placement", "table_type", "mindir_version",
    "delta_from", "apply_delta", "calibrate",
)  # fmt: skip


@dataclass(frozen=True)
class PublishSpec:
    """Where a model is published, and how its encoder is kept."""

    publish: str = option("", "folder to publish the model in, as safetensors with a card, in place of an export")
    hash_vocabulary: bool = option(
        False, "whether the published vocabulary has keyed hashes in place of categories; the key goes to FOLDER.key"
    )

    def __post_init__(self) -> None:
        if not self.publish:
            refuse_changed(self, ["hash_vocabulary"], "without publish: name a folder by --publish")

    @property
    def key_path(self) -> Path:
        """Where the key of a hashed vocabulary goes, beside the folder."""
        return key_path_of(self.publish)

    def check_export(self, export: ExportSpec) -> None:
        """Refuse options of an export, which a published model is not.

        Raises:
            InputError: one has another value than its default.
        """
        if self.publish:
            refuse_changed(export, _OF_EXPORTS, "with publish, which writes another kind of folder: drop one of them")


def key_path_of(folder: str | Path) -> Path:
    """Where the key of a published folder stands: beside it, never in it."""
    place = Path(folder).resolve()
    if not place.name:
        raise InputError(f"publish {folder} has no name: name a folder in it")
    return place.with_name(f"{place.name}.key")
