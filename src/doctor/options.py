"""Which model is looked at, and which rows that it scores badly."""

from dataclasses import dataclass

from src.base.errors import InputError
from src.model_utils.options import NOT_EMPTY, option


@dataclass(frozen=True)
class DoctorSpec:
    """A model, and rows that it is to score: of a data folder, or raw ones."""

    checkpoint_path: str = option(
        "./checkpoint/dlrm.ckpt", "checkpoint that train.py wrote", NOT_EMPTY, aliases=("checkpoint",)
    )
    dataset_path: str = option(
        "", "data folder, or one of its parts such as dataset/valid; of a folder test is taken", NOT_EMPTY
    )
    data_path: str = option(
        "", "raw files instead: a file, a folder of files, or several with commas between", NOT_EMPTY
    )
    schema: str = option("", "YAML file of the raw files' columns; without it they are as those of training were")
    trained_path: str = option(
        "", "data folder that the model was trained on, where it is no longer where the training had it"
    )

    def __post_init__(self) -> None:
        if bool(self.dataset_path) == bool(self.data_path):
            given = "both are" if self.data_path else "neither is"
            raise InputError(f"{given} given of dataset_path and data_path: name the rows to look at by one of them")
        if self.schema and not self.data_path:
            raise InputError("schema has no effect with dataset_path, whose columns are known: drop it")
