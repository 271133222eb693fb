"""Every option of every program, once: its type, default, rule and help; default < YAML < flag.

`resolve("train", argv)` returns a frozen `Config`. Nothing is read at import, and only a program's main touches it.
A program that reads a checkpoint takes the network's shape from the options saved beside it: default < saved < YAML.
"""

import argparse
import dataclasses
import difflib
import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn, get_args, get_origin

import yaml

from src.base.errors import InputError

PROGRAMS = (
    "train", "eval", "export", "preprocess", "postprocess", "preprocess_data", "synthetic", "table_accuracy",
    "report",
)  # fmt: skip
NETWORK = (
    "emb_dim", "bottom_mlp", "top_mlp", "interaction", "self_interaction", "dcn_layers", "dcn_rank", "towers",
    "mixed_dims",
)  # fmt: skip
ALIASES = {"interaction_op": "interaction"}  # other names of flags
SAVED_OPTIONS = "dlrm.yaml"
GRAPH_TABLES_MB = 64  # MindSpore Lite takes 1 s and three times their size to load tables of 64 MB within a graph
# A stopped training may go on with others of these: no value of the network depends on them, but for rounding.
FREE_OPTIONS = frozenset((
    "device_id", "dataset_path", "ckpt_path", "overwrite", "resume", "save_steps", "log_steps", "loss_file_name",
    "eval_file_name", "metrics_file_name", "parallel_mode", "plan_only", "ranks", "device_memory_mb", "report",
    "importance_rows",
))  # fmt: skip
_MODEL, _NETWORK_READERS, _RAW = ("train", "eval"), ("train", "eval", "export", "table_accuracy"), ("preprocess_data",)
_LEARNED_INPUTS = ("numeric_transform", "missing_indicators", "numeric_buckets", "category_counts")
Rule = tuple[Callable[[Any], bool], str]

_POSITIVE: Rule = (lambda value: math.isfinite(value) and value > 0, "must be a finite number above 0")
_NOT_NEGATIVE: Rule = (lambda value: math.isfinite(value) and value >= 0, "must be 0 or more")
_BELOW_ONE: Rule = (lambda value: 0 <= value < 1, "must be 0 or more, and below 1")
_FRACTION: Rule = (lambda value: 0 <= value <= 1, "must lie between 0 and 1")
_SIZES: Rule = (
    lambda value: len(value) > 0 and min(value) > 0,
    "must be a list of sizes above 0, such as [512,256,16]",
)
_RECORD_ROWS: Rule = (lambda value: 0 < value <= 16384, "must lie between 1 and 16384, so that a page holds a record")
_NOT_ONE: Rule = (lambda value: value == 0 or value > 1, "must be 0, or at least 2: one row is for unseen values")
_BUCKETS: Rule = (lambda value: value == 0 or 2 <= value <= 10_000, "must be 0, or lie between 2 and 10000")
_COUNTS: Rule = (
    lambda value: bool(re.fullmatch(r"([^:,]+:[1-9]\d*(,[^:,]+:[1-9]\d*)*)?", value)),
    "must be of the form FIELD:COUNT,FIELD:COUNT",
)
_PATH: Rule = (lambda value: value != "", "must not be empty")
_NAME: Rule = (
    lambda value: bool(re.fullmatch(r"[A-Za-z0-9_-]+", value)),
    "must be a name of letters, digits, _ and -; its folder is export_path's matter",
)


def _one_of(*choices: str) -> Rule:
    return (lambda value: value in choices), "must be one of " + ", ".join(choices)


def _option(default: Any, programs: Sequence[str], text: str, rule: Rule | None = None, **program_defaults: Any) -> Any:
    """A field of Config: default, the programs that read it, help, rule, and defaults that differ by program."""
    return field(
        default=default,
        metadata={"programs": tuple(programs), "help": text, "rule": rule, "program_defaults": program_defaults},
    )


@dataclass(frozen=True)
class Config:
    """The resolved options of one run."""

    config_path: str = _option(
        "",
        (*_NETWORK_READERS, *_RAW),
        "YAML file of options; without it npu_, gpu_ or cpu_config.yaml by device, and none for preprocessing",
    )
    device_target: str = _option("Ascend", _NETWORK_READERS, "device", _one_of("Ascend", "GPU", "CPU"))
    device_id: int = _option(0, _NETWORK_READERS, "number of the Ascend or GPU card", _NOT_NEGATIVE)

    parallel_mode: str = _option(
        "none", ("train",), "none: one process; data: tables on every rank; hybrid: tables split over the ranks",
        _one_of("none", "data", "hybrid"),
    )  # fmt: skip
    plan_only: bool = _option(False, ("train",), "print what each rank would hold and send, and end")
    ranks: int = _option(1, ("train",), "ranks that plan_only is to plan for", _POSITIVE)
    device_memory_mb: int = _option(
        0, ("train",), "memory of a device, which a plan must fit; 0 for any", _NOT_NEGATIVE
    )

    dataset_path: str = _option(
        "./dataset", ("train", "eval", "export", "preprocess", "table_accuracy"),
        "data folder, or one of its parts such as dataset/train; preprocess.py takes a raw file as well", _PATH,
    )  # fmt: skip
    checkpoint_path: str = _option(
        "./checkpoint/dlrm.ckpt", ("eval", "export", "table_accuracy"), "checkpoint that train.py wrote", _PATH
    )
    ckpt_path: str = _option("./checkpoint", ("train",), "folder for checkpoints, options and encoder", _PATH)
    overwrite: bool = _option(
        False, ("train", "export", "preprocess", "preprocess_data", "synthetic"),
        "whether earlier results may be replaced",
    )  # fmt: skip

    emb_dim: int = _option(16, _NETWORK_READERS, "width of an embedding vector", _POSITIVE)
    bottom_mlp: tuple[int, ...] = _option((512, 256, 64, 16), _NETWORK_READERS, "sizes of the bottom MLP", _SIZES)
    top_mlp: tuple[int, ...] = _option((512, 256, 1), _NETWORK_READERS, "sizes of the top MLP", _SIZES)
    interaction: str = _option("dot", _NETWORK_READERS, "how vectors interact", _one_of("dot", "cat", "dcnv2"))
    self_interaction: bool = _option(False, _NETWORK_READERS, "whether dot includes each vector with itself")
    dcn_layers: int = _option(3, _NETWORK_READERS, "layers of dcnv2 that cross the vectors", _POSITIVE)
    dcn_rank: int = _option(64, _NETWORK_READERS, "rank of each layer of dcnv2", _POSITIVE)
    towers: int = _option(
        1,
        _NETWORK_READERS,
        "networks side by side, each with a slice of the vectors, whose mean logit counts",
        _POSITIVE,
    )
    mixed_dims: float = _option(
        0.0, _NETWORK_READERS,
        "temperature of mixed dimensions: the larger a table, the narrower its vectors; 0: all of them have emb_dim",
        _NOT_NEGATIVE,
    )  # fmt: skip
    compute_dtype: str = _option(
        "float32",
        _MODEL,
        "type of the MLPs' matrix products (float16: Ascend and GPU only)",
        _one_of("float32", "float16"),
    )

    epochs: int = _option(1, ("train",), "passes over the training rows", _POSITIVE)
    reset_tables_each_epoch: bool = _option(
        False, ("train",), "whether tables and their optimizer begin each epoch with new initial values, MLPs go on"
    )
    dropout: float = _option(
        0.0, ("train",), "share of the values behind the MLPs' hidden layers that a training step drops", _BELOW_ONE
    )
    label_smoothing: float = _option(
        0.0, ("train",), "e for labels y (1 - e) + e / 2 in training, and so in its loss as logged", _BELOW_ONE
    )
    early_stopping: int = _option(
        0, ("train",), "evaluations without a higher validation AUC behind which the training ends, 0 for any number; "
        "tables that begin anew need a few", _NOT_NEGATIVE,
    )  # fmt: skip
    average_share: float = _option(
        0.0, ("train",), "share of all steps, at their end, over which the MLPs' weights are averaged, for evaluations "
        "and the network that is kept; tables stay as they are", _FRACTION,
    )  # fmt: skip
    batch_size: int = _option(128, ("train",), "samples a training step, over all ranks", _POSITIVE)
    optimizer: str = _option(
        "sgd", ("train",), "update rule of tables and MLPs", _one_of("sgd", "adagrad", "rowwise_adagrad", "adam")
    )
    mlp_optimizer: str = _option(
        "",
        ("train",),
        "update rule of the MLPs, empty for the same as optimizer",
        _one_of("", "sgd", "adagrad", "adam"),
    )
    lr: float = _option(0.15, ("train",), "learning rate", _POSITIVE)
    table_lr: float = _option(0.0, ("train",), "learning rate of the tables, 0 for the same as lr", _NOT_NEGATIVE)
    table_weight_decay: float = _option(
        0.0, ("train",), "share of a table's row that is added to its gradient when it is looked up", _NOT_NEGATIVE
    )
    mlp_weight_decay: float = _option(
        0.0, ("train",), "share of the MLPs' weights, not biases, that goes with each step, times the rate",
        _NOT_NEGATIVE,
    )  # fmt: skip
    warmup_steps: int = _option(0, ("train",), "steps in which the learning rates rise to their values", _NOT_NEGATIVE)
    lr_schedule: str = _option(
        "constant", ("train",), "decay of the learning rates", _one_of("constant", "polynomial", "cosine")
    )
    decay_steps: int = _option(
        0, ("train",), "steps that the decay takes behind the warm-up, 0 for all that are left", _NOT_NEGATIVE
    )
    decay_share: float = _option(
        0.0,
        ("train",),
        "share of all steps, or of an epoch's if it restarts there, at their end, that the decay takes; 0 for what "
        "decay_steps says",
        _FRACTION,
    )
    lr_end_factor: float = _option(0.0, ("train",), "share of the learning rates that the decay leaves", _FRACTION)
    lr_power: float = _option(2.0, ("train",), "exponent of the polynomial decay", _POSITIVE)
    restart_lr_each_epoch: bool = _option(
        False, ("train",), "whether warm-up and decay begin anew in each epoch, instead of once in the training"
    )
    cpu_kernels: bool = _option(True, _MODEL, "whether the CPU uses operators that are compiled on first use")
    loss_scale: float = _option(1024.0, ("train",), "factor on the loss for float16 gradients", _POSITIVE)
    shuffle: bool = _option(True, ("train",), "whether training rows are shuffled, anew each epoch")
    seed: int = _option(1, ("train", "synthetic", "preprocess_data"), "seed of everything random", _NOT_NEGATIVE)
    do_eval: bool = _option(True, ("train",), "whether validation rows are evaluated while training")
    eval_steps: int = _option(0, ("train",), "steps between evaluations, 0 for a tenth of an epoch", _NOT_NEGATIVE)
    eval_batch_size: int = _option(16384, _NETWORK_READERS, "samples an evaluation step", _POSITIVE)
    resume: bool = _option(True, ("train",), "whether to go on with a training that was stopped in ckpt_path")
    save_steps: int = _option(
        0, ("train",), "steps between saves of what going on needs, 0 for a tenth of an epoch", _NOT_NEGATIVE
    )
    report: bool = _option(True, ("train",), "whether report.html, report.json and scores.npz go beside the checkpoint")
    importance_rows: int = _option(
        10_000,
        ("train",),
        "evaluation rows at most on which the report shuffles columns, 0 for none",
        _NOT_NEGATIVE,
    )
    fail_below: float = _option(
        -1.0, ("report",), "how far a later run's AUC may lie below the first's before the exit code is 1; -1 for any",
        (lambda value: value == -1 or 0 <= value <= 1, "must lie between 0 and 1, or be -1"),
    )  # fmt: skip
    output: str = _option("", ("report",), "HTML file to write the comparison to")
    log_steps: int = _option(100, ("train",), "steps between lines of the loss", _POSITIVE)

    export_path: str = _option("./export", ("export", "preprocess"), "folder of an exported model", _PATH)
    file_name: str = _option("dlrm", ("export",), "name of the exported files, without a suffix", _NAME)
    file_format: str = _option("MINDIR", ("export",), "form of the graph", _one_of("MINDIR", "ONNX", "AIR"))
    export_batch_size: int = _option(1024, ("export",), "rows that the exported graph takes at once", _POSITIVE)
    table_placement: str = _option(
        "auto", ("export",),
        f"tables in the graph, or in a file for the host to look up; auto: host above {GRAPH_TABLES_MB} MB",
        _one_of("auto", "graph", "host"),
    )  # fmt: skip
    table_type: str = _option(
        "fp32",
        ("export",),
        "type of the values in a table file; int8 has a scale a row",
        _one_of("fp32", "fp16", "int8"),
    )
    mindir_version: int = _option(
        1, ("export",), "1, which every MindSpore Lite from 2.0 on reads, or 3, as MindSpore 2.10 writes it",
        (lambda value: value in (1, 3), "must be 1 or 3"),
    )  # fmt: skip
    calibrate: bool = _option(
        False, ("export",), "whether scores are calibrated by the validation rows of dataset_path"
    )
    preprocess_path: str = _option(
        "./preprocess_Result", ("preprocess", "postprocess"), "folder of the .bin files that are scored", _PATH
    )
    has_labels: bool = _option(True, ("preprocess",), "whether the rows of a raw file begin with a label")
    result_path: str = _option("./result_Files", ("postprocess",), "folder of the scores", _PATH)
    scores_path: str = _option(
        "./scores.csv", ("postprocess",), "file of a score a row, in the order of the rows", _PATH
    )

    loss_file_name: str = _option("./loss.log", ("train",), "log of the loss", _PATH)
    eval_file_name: str = _option(
        "./auc.log", (*_MODEL, "postprocess"), "log of evaluations", _PATH, eval="./acc.log", postprocess="./acc.log"
    )
    metrics_file_name: str = _option(
        "./metrics.jsonl", (*_MODEL, "postprocess"), "losses and evaluations for machines, a JSON a line", _PATH
    )

    data_path: str = _option(
        "./data/",
        ("preprocess_data", "synthetic"),
        "folder of origin_data/train.txt or train.txt, or the raw file itself; several with commas between",
        _PATH,
    )
    output_path: str = _option("", _RAW, "data folder to write; without it <data_path>/dataset")
    rows: int = _option(300_000, ("synthetic",), "rows to generate", _POSITIVE)
    dense_dim: int = _option(13, _RAW, "numeric columns", _POSITIVE)
    slot_dim: int = _option(26, _RAW, "categorical columns", _POSITIVE)
    train_line_count: int = _option(0, _RAW, "rows to read from the raw file, 0 for all", _NOT_NEGATIVE)
    valid_fraction: float = _option(0.5, _RAW, "share of the last seventh that is validation", _FRACTION)
    min_count: int = _option(1, _RAW, "occurrences in training a category needs for a row", _POSITIVE)
    field_min_count: str = _option("", _RAW, "the same for single fields, such as C3:10,C12:5", _COUNTS)
    max_rows_per_field: int = _option(
        0, _RAW, "rows that a table has at most, the most frequent ones; 0 for no bound", _NOT_ONE
    )
    hash_rows: int = _option(
        0, _RAW, "hash categories to tables of so many rows instead of a vocabulary, 0 for no", _NOT_ONE
    )
    vocab_path: str = _option(
        "", _RAW, "data or checkpoint folder whose vocabulary codes the rows, all for the test part"
    )
    numeric_transform: str = _option(
        "log", _RAW, "what becomes of a number x: log(x + 1), the same standardised, or its rank among training rows",
        _one_of("log", "standard_log", "quantile"),
    )  # fmt: skip
    missing_indicators: bool = _option(
        False, _RAW, "whether each numeric column with empty cells has an input more, which is 1 for them"
    )
    numeric_buckets: int = _option(
        0, _RAW, "buckets of about as many rows that make a field more of each numeric column, 0 for no", _BUCKETS
    )
    category_counts: bool = _option(
        False, _RAW, "whether each field has a numeric input more: how frequent the category was in training"
    )
    shuffle_rows: bool = _option(False, _RAW, "whether training rows are written in random order")
    schema: str = _option("", (*_RAW, "preprocess"), "YAML file of the raw files' columns; see src/data/schema.py")
    vocab_scope: str = _option(
        "train", _RAW, "rows that give vocabulary and statistics (all: leaky, as the original)", _one_of("train", "all")
    )
    max_bad_rows: int = _option(0, (*_RAW, "preprocess"), "bad rows to skip into a reject file", _NOT_NEGATIVE)
    record_rows: int = _option(512, _RAW, "rows packed in a MindRecord record", _RECORD_ROWS)
    shard_rows: int = _option(262_144, _RAW, "rows in a MindRecord file", _POSITIVE)

    def __post_init__(self) -> None:
        """The rules that tie options to each other."""
        if not self.plan_only and (self.ranks > 1 or self.device_memory_mb):
            raise InputError("ranks and device_memory_mb have no effect without plan_only: drop them")
        if self.emb_dim % self.towers:
            raise InputError(f"towers {self.towers} must divide emb_dim {self.emb_dim}: change one of them")
        if self.bottom_mlp[-1] * self.towers != self.emb_dim:
            shares = f" / towers {self.towers}" if self.towers > 1 else ""
            raise InputError(
                f"bottom_mlp {_show(self.bottom_mlp)} ends with {self.bottom_mlp[-1]}, which must equal "
                f"emb_dim {self.emb_dim}{shares}: change one of them"
            )
        if self.top_mlp[-1] != 1:
            raise InputError(f"top_mlp {_show(self.top_mlp)} must end with 1, the logit")
        if self.interaction != "dot" and self.self_interaction:
            raise InputError(
                f"self_interaction True has no effect with interaction {self.interaction}: drop it or use dot"
            )
        crosses = [name for name in ("dcn_layers", "dcn_rank") if getattr(self, name) != OPTIONS[name].default]
        if self.interaction != "dcnv2" and crosses:
            raise InputError(f"{crosses[0]} has no effect with interaction {self.interaction}: drop it or use dcnv2")
        if self.device_target == "CPU" and self.compute_dtype == "float16":
            raise InputError("compute_dtype float16 is for Ascend and GPU; CPU computes in float32: drop it")
        if self.parallel_mode != "none" and self.device_id:
            raise InputError(f"device_id {self.device_id} has no effect with several ranks, which share out the cards")
        if self.device_target == "CPU" and self.device_id:
            raise InputError(f"device_id {self.device_id} has no effect with device_target CPU: drop it")
        if self.table_placement == "graph" and self.table_type != "fp32":
            raise InputError(f"table_type {self.table_type} has no effect with table_placement graph: drop one of them")
        if self.file_format != "MINDIR" and self.mindir_version != OPTIONS["mindir_version"].default:
            raise InputError(f"mindir_version has no effect with file_format {self.file_format}: drop it")
        self._check_report()
        self._check_training()
        self._check_preprocessing()

    def _check_report(self) -> None:
        if self.importance_rows != OPTIONS["importance_rows"].default and not (self.report and self.do_eval):
            missing = "report" if not self.report else "do_eval"
            raise InputError(
                f"importance_rows {self.importance_rows} has no effect without {missing}: drop one of them"
            )

    def _check_training(self) -> None:
        if self.mixed_dims and self.emb_dim % 2:
            raise InputError(
                f"mixed_dims {self.mixed_dims} halves widths, and emb_dim {self.emb_dim} is odd: change one"
            )
        if self.mixed_dims and (self.optimizer in ("rowwise_adagrad", "adam") or self.table_weight_decay):
            other = "table_weight_decay" if self.optimizer in ("sgd", "adagrad") else f"optimizer {self.optimizer}"
            raise InputError(
                f"mixed_dims {self.mixed_dims} packs several vectors in a row, of which {other} would change those "
                f"that a batch does not look up: drop it, or use optimizer sgd or adagrad without weight decay"
            )
        if self.device_target == "CPU" and self.loss_scale != OPTIONS["loss_scale"].default:
            raise InputError(f"loss_scale {self.loss_scale} has no effect with device_target CPU: drop it")
        if self.lr_schedule == "constant" and (self.decay_steps or self.decay_share or self.lr_end_factor):
            raise InputError(
                "decay_steps, decay_share and lr_end_factor have no effect with lr_schedule constant: drop them"
            )
        if self.reset_tables_each_epoch and self.epochs == 1:
            raise InputError("reset_tables_each_epoch has no effect with epochs 1: give more epochs, or False for it")
        if self.restart_lr_each_epoch and (
            self.epochs == 1 or (self.lr_schedule == "constant" and not self.warmup_steps)
        ):
            missing = "epochs 1" if self.epochs == 1 else "a constant rate without warmup_steps"
            raise InputError(f"restart_lr_each_epoch has no effect with {missing}: drop it")
        if self.early_stopping and not self.do_eval:
            raise InputError(f"early_stopping {self.early_stopping} has no effect with do_eval False: drop one of them")
        if self.dropout and len(self.bottom_mlp) == len(self.top_mlp) == 1:
            raise InputError(f"dropout {self.dropout} has no effect without hidden layers in the MLPs: drop it")
        if self.decay_steps and self.decay_share:
            raise InputError(
                f"decay_steps {self.decay_steps} and decay_share {self.decay_share} both say how long the decay takes: "
                f"drop one of them"
            )
        if self.lr_schedule != "polynomial" and self.lr_power != OPTIONS["lr_power"].default:
            raise InputError(f"lr_power {self.lr_power} has no effect with lr_schedule {self.lr_schedule}: drop it")

    def _check_preprocessing(self) -> None:
        if self.hash_rows and (self.min_count > 1 or self.field_min_count or self.max_rows_per_field):
            raise InputError("hash_rows has no vocabulary to shorten: drop min_count and the like")
        if self.vocab_path and (self.hash_rows or self.shuffle_rows):
            raise InputError("vocab_path codes rows for the test part as they are: drop hash_rows and shuffle_rows")
        if self.hash_rows and self.category_counts:
            raise InputError("category_counts needs a vocabulary, which hash_rows does without: drop one of them")
        for name in _LEARNED_INPUTS:
            if self.vocab_path and getattr(self, name) != OPTIONS[name].default:
                raise InputError(f"{name} has no effect with vocab_path, whose encoder is taken: drop it")
        if self.schema and (self.dense_dim, self.slot_dim) != (13, 26):
            raise InputError("dense_dim and slot_dim have no effect with schema, which names the columns: drop them")
        if self.shard_rows % self.record_rows:
            raise InputError(f"shard_rows {self.shard_rows} must be a multiple of record_rows {self.record_rows}")

    def network(self) -> dict[str, Any]:
        """The options of the network's shape but emb_dim, by name."""
        return {name: getattr(self, name) for name in NETWORK if name != "emb_dim"}

    def to_yaml(self, program: str) -> str:
        """The options that the program reads, as YAML that `--config_path` takes again."""
        values = {
            name: list(value) if isinstance(value, tuple) else value
            for name, value in vars(self).items()
            if name in options_of(program) and name != "config_path"
        }
        return yaml.safe_dump(values, sort_keys=False)


# Of programs that take more than options.
_USAGE = {
    "report": "python -m src.report RUN_A RUN_B ... [--OPTION=VALUE]; a RUN is a checkpoint folder, or the report in it"
}

OPTIONS: Mapping[str, Any] = {option.name: option for option in dataclasses.fields(Config)}


def resolve(program: str, argv: Sequence[str], config_folder: Path | None = None) -> Config:
    """The options of a run: the defaults, under the YAML file's, under the flags.

    Args:
        program: one of PROGRAMS.
        argv: the command line without the program's name.
        config_folder: where npu_config.yaml, gpu_config.yaml and cpu_config.yaml lie; the repository by default.

    Raises:
        InputError: an unknown or repeated option, a value of the wrong type or outside its rule, an unreadable YAML.
    """
    flags = _parse_flags(program, argv)
    values = {
        name: option.metadata["program_defaults"][program]
        for name, option in OPTIONS.items()
        if program in option.metadata["program_defaults"]
    }
    path = Path(flags["config_path"]) if flags.get("config_path") else None
    if not path and {"config_path", "device_target"} <= set(options_of(program)):
        path = _default_yaml(flags, config_folder)
    if path:
        from_yaml = _read_yaml(path)
        if "checkpoint_path" in options_of(program):
            values |= _saved_network((values | from_yaml | flags).get("checkpoint_path"))
        values |= from_yaml
    try:
        return Config(**(values | flags))
    except InputError as error:
        raise InputError(f"{error} (options from {path} and the command line)" if path else str(error)) from None


def options_of(program: str) -> list[str]:
    """Names of the options that a program takes."""
    return [name for name, option in OPTIONS.items() if program in option.metadata["programs"]]


def _saved_network(checkpoint_path: str | None) -> dict[str, Any]:
    """The network's shape as train.py saved it beside a checkpoint; nothing where there is no such file."""
    named = Path(checkpoint_path or OPTIONS["checkpoint_path"].default)
    path = named / SAVED_OPTIONS if named.is_dir() else named.with_name(SAVED_OPTIONS)
    saved = _read_yaml(path) if path.is_file() else {}
    return {name: value for name, value in saved.items() if name in NETWORK}


def _default_yaml(flags: Mapping[str, Any], folder: Path | None) -> Path:
    names = {"Ascend": "npu_config.yaml", "GPU": "gpu_config.yaml", "CPU": "cpu_config.yaml"}
    device = flags.get("device_target", OPTIONS["device_target"].default)
    return (folder or Path(__file__).parents[2]) / names[device]


class _Parser(argparse.ArgumentParser):
    """An argument parser whose errors are InputErrors."""

    def error(self, message: str) -> NoReturn:
        raise InputError(f"command line: {message} (--help lists the options)")


def _parse_flags(program: str, argv: Sequence[str]) -> dict[str, Any]:
    parser = _Parser(prog=program, usage=_USAGE.get(program), allow_abbrev=False, argument_default=argparse.SUPPRESS)
    names = options_of(program)
    for name in names:
        option = OPTIONS[name]
        default = option.metadata["program_defaults"].get(program, option.default)
        more: dict[str, Any] = {"nargs": "?", "const": "true"} if option.type in (bool, "bool") else {}
        parser.add_argument(
            f"--{name}",
            *(f"--{other}" for other, meant in ALIASES.items() if meant == name),
            dest=name,
            action="append",
            metavar=name.upper(),
            **more,
            help=f"{option.metadata['help']}{_choices(option)} (default {_show(default)})".replace("%", "%%"),
        )
    given, unknown = parser.parse_known_args(list(argv))
    if unknown:
        word = unknown[0].split("=")[0].lstrip("-")
        advice = _nearest(word, names, "--")
        if word in OPTIONS:
            advice = f": it is an option of {', '.join(OPTIONS[word].metadata['programs'])}"
        raise InputError(f"command line: {program} knows no option {unknown[0]!r}{advice}")
    values = {}
    for name, texts in vars(given).items():
        if len(texts) > 1:
            raise InputError(f"command line: --{name} is given {len(texts)} times: give it once")
        values[name] = _checked(name, _from_text(name, texts[0]), "command line: --")
    return values


def _choices(option: Any) -> str:
    rule = option.metadata["rule"]
    return f", {rule[1].removeprefix('must be ')}" if rule and "one of" in rule[1] else ""


def _from_text(name: str, text: str) -> Any:
    """A flag's text as YAML would read it, but for text options, which stay as typed."""
    if OPTIONS[name].type is str or not text:
        return text
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError:
        return text


class _UniqueKeyLoader(yaml.SafeLoader):
    """PyYAML lets the last of two equal keys win; here that is an error."""

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
        seen = set()
        for key, _ in node.value:
            if key.value in seen:
                raise InputError(
                    f"{node.start_mark.name} line {key.start_mark.line + 1}: option {key.value!r} is "
                    f"given twice: keep one"
                )
            seen.add(key.value)
        return super().construct_mapping(node, deep)


def _read_yaml(path: Path) -> dict[str, Any]:
    """A YAML file's options, checked. Options of any program may stand in it, so that one file serves them all."""
    if not path.is_file():
        raise InputError(f"config_path {path} is not a file: name a YAML file of options")
    try:
        with path.open(encoding="utf-8") as file:
            content = yaml.load(file, Loader=_UniqueKeyLoader)
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise InputError(f"{path} is not valid YAML: {error}") from None
    if content is None:
        return {}
    if not isinstance(content, dict):
        raise InputError(f"{path} holds a {type(content).__name__}: it must hold lines of the form option: value")
    for name in content:
        if name == "config_path":
            raise InputError(f"{path}: config_path names a YAML file and can't stand in one: drop it")
        if name not in OPTIONS:
            raise InputError(f"{path}: unknown option {name!r}{_nearest(str(name), list(OPTIONS), '')}")
    return {name: _checked(name, value, f"{path}: ") for name, value in content.items()}


def _checked(name: str, value: Any, where: str) -> Any:
    """The value in the option's type and within its rule; `where` opens the message of the error."""
    option = OPTIONS[name]
    converted = _converted(value, option.type)
    if converted is None:
        raise InputError(f"{where}{name} is {_show(value)}: it must be {_type_name(option.type)}")
    rule = option.metadata["rule"]
    if rule and not rule[0](converted):
        raise InputError(f"{where}{name} is {_show(converted)}: it {rule[1]}")
    return converted


def _converted(value: Any, kind: Any) -> Any:
    """The value as `kind`, or None if it is of another type."""
    if get_origin(kind) is tuple:
        if not isinstance(value, (list, tuple)):
            return None
        items = [_converted(item, get_args(kind)[0]) for item in value]
        return None if None in items else tuple(items)
    if kind is float:
        # PyYAML reads 1e-3 as text, since YAML 1.1 asks for a point in a number with an exponent.
        if isinstance(value, str) and re.fullmatch(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", value):
            return float(value)
        if isinstance(value, str) and value.lower() in ("nan", "inf", "-inf"):
            return float(value)
        return float(value) if isinstance(value, (int, float)) and not isinstance(value, bool) else None
    if kind is bool and value in (0, 1):
        return bool(value)
    if kind is int and isinstance(value, bool):
        return None
    return value if isinstance(value, kind) else None


def _type_name(kind: Any) -> str:
    if get_origin(kind) is tuple:
        return "a list of whole numbers such as [512,256,16]"
    return {bool: "True or False", int: "a whole number", float: "a number", str: "text"}[kind]


def _show(value: Any) -> str:
    return str(list(value)).replace(" ", "") if isinstance(value, tuple) else repr(value)


def _nearest(word: str, names: Sequence[str], prefix: str) -> str:
    close = difflib.get_close_matches(word, names, 1, 0.5)
    return f"; did you mean {prefix}{close[0]}?" if close else " (--help lists the options)"
