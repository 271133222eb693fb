"""How a model is exported, and which rows the C++ program scores with it."""

from dataclasses import dataclass

from src.base.errors import InputError
from src.model_utils.options import NOT_EMPTY, NOT_NEGATIVE, POSITIVE, Rule, matching, one_of, option, refuse_changed

GRAPH_TABLES_MB = 64  # MindSpore Lite takes 1 s and three times their size to load tables of 64 MB within a graph
SUFFIXES = {"MINDIR": ".mindir", "ONNX": ".onnx", "AIR": ".air"}
_PARTS = ("train", "valid", "test")
TABLE_TYPES = ("fp32", "fp16", "int8")
_NAME = matching(r"[A-Za-z0-9_-]+", "must be a name of letters, digits, _ and -; its folder is export_path's matter")
_MINDIR_VERSION = Rule(lambda value: value in (1, 3), "must be 1 or 3")


@dataclass(frozen=True)
class ExportSpec:
    """Which model is exported, how, and to where."""

    checkpoint_path: str = option("./checkpoint/dlrm.ckpt", "checkpoint that train.py wrote", NOT_EMPTY)
    export_path: str = option("./export", "folder of an exported model", NOT_EMPTY)
    overwrite: bool = option(False, "whether earlier results may be replaced")
    file_name: str = option("dlrm", "name of the exported files, without a suffix", _NAME)
    file_format: str = option("MINDIR", "form of the graph", one_of(SUFFIXES))
    export_batch_size: int = option(1024, "rows that the exported graph takes at once", POSITIVE)
    table_placement: str = option(
        "auto", f"tables in the graph, or in a file for the host to look up; auto: host above {GRAPH_TABLES_MB} MB",
        one_of(("auto", "graph", "host")),
    )  # fmt: skip
    table_type: str = option("fp32", "type of the values in a table file; int8 has a scale a row", one_of(TABLE_TYPES))
    mindir_version: int = option(
        1, "1, which every MindSpore Lite from 2.0 on reads, or 3, as MindSpore 2.10 writes it", _MINDIR_VERSION
    )
    delta_from: str = option(
        "", "earlier export: what changed since is written, or apply_delta's changes applied to it"
    )
    apply_delta: str = option("", "deltas, with commas between, that become a whole export with delta_from's")
    calibrate: bool | str = option(
        False, "rows that calibrate scores: valid (or True) or test of dataset_path, or another data folder, or a part "
        "of one as FOLDER:test",
    )  # fmt: skip
    dataset_path: str = option("./dataset", "data folder whose rows calibrate", NOT_EMPTY)
    eval_batch_size: int = option(16384, "samples an evaluation step", POSITIVE)

    def __post_init__(self) -> None:
        if self.table_placement == "graph" and self.table_type != "fp32":
            raise InputError(f"table_type {self.table_type} has no effect with table_placement graph: drop one of them")
        if self.apply_delta and not self.delta_from:
            raise InputError("apply_delta needs the export that the deltas were made from: name it by --delta_from")
        if self.delta_from and (self.file_format != "MINDIR" or self.table_placement == "graph"):
            wrong = "table_placement graph" if self.file_format == "MINDIR" else f"file_format {self.file_format}"
            raise InputError(
                f"delta_from takes a MINDIR with its tables in a file, not {wrong}: export the model whole"
            )
        if self.file_format != "MINDIR":
            refuse_changed(self, ["mindir_version"], f"with file_format {self.file_format}: drop it")

    @property
    def calibrates_by_own(self) -> bool:
        """Whether rows of dataset_path calibrate."""
        return self.calibrate is True or self.calibrate in _PARTS

    def check_device(self, device_target: str) -> None:
        """Refuse a form that a device can't write.

        Raises:
            InputError: it is such a one.
        """
        if self.file_format == "AIR" and device_target != "Ascend":
            raise InputError(
                f"file_format AIR needs device_target Ascend, and it is {device_target}: export MINDIR or ONNX"
            )


@dataclass(frozen=True)
class RowsSpec:
    """Which rows are written for the C++ program, coded for which model."""

    dataset_path: str = option(
        "./dataset", "data folder, or one of its parts such as dataset/train, or a raw file", NOT_EMPTY
    )
    export_path: str = option("./export", "folder of an exported model", NOT_EMPTY)
    preprocess_path: str = option("./preprocess_Result", "folder of the .bin files that are scored", NOT_EMPTY)
    overwrite: bool = option(False, "whether earlier results may be replaced")
    has_labels: bool = option(True, "whether the rows of a raw file begin with a label")
    schema: str = option("", "YAML file of the raw files' columns; see docs/data.md")
    max_bad_rows: int = option(0, "bad rows to skip into a reject file", NOT_NEGATIVE)


@dataclass(frozen=True)
class ResultSpec:
    """Where the C++ program's scores lie, and where their table goes."""

    preprocess_path: str = option("./preprocess_Result", "folder of the .bin files that are scored", NOT_EMPTY)
    result_path: str = option("./result_Files", "folder of the scores", NOT_EMPTY)
    model: str = option("", "the model that scored the rows, which lines of the logs then name")
    scores_path: str = option("./scores.csv", "file of a score a row, in the order of the rows", NOT_EMPTY)
