"""What a training run does: its rows, updates, schedule, evaluations, and what it keeps."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from src.base.errors import InputError
from src.metrics.monitored import MONITORED
from src.model_utils.options import (
    BELOW_ONE,
    FRACTION,
    LANGUAGES,
    NOT_EMPTY,
    NOT_NEGATIVE,
    POSITIVE,
    SCALE,
    STEPS,
    one_of,
    option,
    refuse_changed,
)
from src.network.options import NetworkSpec
from src.training.rules import RULES, UpdateRule, rule_of, rule_of_mlps
from src.training.schedule import SCHEDULES

Steps = int | Literal["epoch"]
Scale = float | Literal["dynamic"]
_PARTS_OF_AN_EPOCH = 10
_FORMER_SCALE = 1024.0  # the default of old, which options files of then name wherever it had no effect
_DENSE_RULES = [name for name, rule in RULES.items() if not rule.of_mlps]


def steps_between(wanted: Steps, steps_of_epoch: int) -> int:
    """Steps between two saves or evaluations: as wanted, those of an epoch, or for 0 a tenth of these."""
    if wanted == "epoch":
        return steps_of_epoch
    return wanted or max(1, steps_of_epoch // _PARTS_OF_AN_EPOCH)


@dataclass(frozen=True)
class DataSpec:
    """Which rows train, in which order."""

    dataset_path: str = option(
        "./dataset", "data folder, or one of its parts such as dataset/train", NOT_EMPTY, free=True, told=False
    )
    batch_size: int = option(128, "samples a training step, over all ranks", POSITIVE)
    shuffle: bool = option(True, "whether training rows are shuffled, anew each epoch")
    seed: int = option(1, "seed of everything random", NOT_NEGATIVE)
    unseen_share: float = option(
        0.0, "share of the categories in training rows, at random, that are taken for unseen, so that their row of "
        "each table learns what to make of new ones", BELOW_ONE,
    )  # fmt: skip


@dataclass(frozen=True)
class OptimizationSpec:
    """How a step changes the network."""

    optimizer: str = option("sgd", "update rule of tables and MLPs", one_of(RULES))
    mlp_optimizer: str = option(
        "", "update rule of the MLPs, empty for the same as optimizer", one_of(("", *_DENSE_RULES))
    )
    lr: float = option(0.15, "learning rate", POSITIVE, free=True)
    table_lr: float = option(0.0, "learning rate of the tables, 0 for the same as lr", NOT_NEGATIVE, free=True)
    table_weight_decay: float = option(
        0.0, "share of a table's row that is added to its gradient when it is looked up", NOT_NEGATIVE
    )
    mlp_weight_decay: float = option(
        0.0, "share of the MLPs' weights, not biases, that goes with each step, times the rate", NOT_NEGATIVE
    )
    dropout: float = option(
        0.0, "share of the values behind the MLPs' hidden layers that a training step drops", BELOW_ONE
    )
    label_smoothing: float = option(
        0.0, "e for labels y (1 - e) + e / 2 in training, and so in its loss as logged", BELOW_ONE
    )
    loss_scale: Scale = option(
        "dynamic", "factor on the loss for float16 gradients; dynamic: as large as these allow. Steps whose gradients "
        "overflow change nothing, and are counted", SCALE, free=True,
    )  # fmt: skip

    @property
    def rules(self) -> tuple[UpdateRule, UpdateRule]:
        """By which tables and MLPs are updated.

        Raises:
            ValueError: there is no rule of a name.
        """
        return rule_of(self.optimizer), rule_of_mlps(self.mlp_optimizer or self.optimizer)

    def check_network(self, network: NetworkSpec) -> None:
        """Refuse what does not go with a network.

        Raises:
            InputError: it has no place for it.
        """
        if network.mixed_dims and not (RULES[self.optimizer].packs_rows and not self.table_weight_decay):
            other = "table_weight_decay" if RULES[self.optimizer].packs_rows else f"optimizer {self.optimizer}"
            packing = [name for name, rule in RULES.items() if rule.packs_rows]
            raise InputError(
                f"mixed_dims {network.mixed_dims} packs several vectors in a row, of which {other} would change those "
                f"that a batch does not look up: drop it, or use optimizer {' or '.join(packing)} without weight decay"
            )
        if self.dropout and not network.has_hidden_layers:
            raise InputError(f"dropout {self.dropout} has no effect without hidden layers in the MLPs: drop it")

    def check_compute(self, compute_dtype: str, device_target: str) -> None:
        """Refuse a loss scale where nothing is scaled.

        Raises:
            InputError: one is given.
        """
        if self.loss_scale == _FORMER_SCALE:
            return
        if device_target == "CPU":
            refuse_changed(self, ["loss_scale"], "with device_target CPU: drop it")
        if compute_dtype != "float16":
            refuse_changed(self, ["loss_scale"], f"with compute_dtype {compute_dtype}: drop it")


@dataclass(frozen=True)
class ScheduleSpec:
    """With what a training begins, and what changes in its course."""

    epochs: int = option(1, "passes over the training rows", POSITIVE, free=True)
    reset_tables_each_epoch: bool = option(
        False,
        "whether tables and their optimizer begin each epoch anew, with other initial values or as "
        "from_checkpoint has them, MLPs go on",
    )
    average_share: float = option(
        0.0, "share of all steps, at their end, over which the MLPs' weights are averaged, for evaluations and the "
        "network that is kept; tables stay as they are", FRACTION,
    )  # fmt: skip
    warmup_steps: int = option(0, "steps in which the learning rates rise to their values", NOT_NEGATIVE, free=True)
    lr_schedule: str = option("constant", "decay of the learning rates", one_of(SCHEDULES), free=True)
    decay_steps: int = option(
        0, "steps that the decay takes behind the warm-up, 0 for all that are left", NOT_NEGATIVE, free=True
    )
    decay_share: float = option(
        0.0, "share of all steps, or of an epoch's if it restarts there, at their end, that the decay takes; 0 for "
        "what decay_steps says", FRACTION, free=True,
    )  # fmt: skip
    lr_end_factor: float = option(0.0, "share of the learning rates that the decay leaves", FRACTION, free=True)
    lr_power: float = option(2.0, "exponent of the polynomial decay", POSITIVE, free=True)
    restart_lr_each_epoch: bool = option(
        False, "whether warm-up and decay begin anew in each epoch, instead of once in the training", free=True
    )
    from_checkpoint: str = option(
        "", "checkpoint, or its folder, with whose network and optimizer a training begins; its data folder must have "
        "grown from that one's",
    )  # fmt: skip
    new_rows: str = option(
        "initial", "with what rows of tables begin that did not stand for their values in from_checkpoint: initial "
        "values, or its vector for unseen values", one_of(("initial", "unseen")),
    )  # fmt: skip

    def __post_init__(self) -> None:
        if not self.from_checkpoint:
            refuse_changed(self, ["new_rows"], "without from_checkpoint: drop it")
        if self.lr_schedule == "constant" and (self.decay_steps or self.decay_share or self.lr_end_factor):
            raise InputError(
                "decay_steps, decay_share and lr_end_factor have no effect with lr_schedule constant: drop them"
            )
        # With epochs 1 it is as good as False, and so is reset_tables_each_epoch: what cpu_config.yaml says may stay.
        if self.restart_lr_each_epoch and self.lr_schedule == "constant" and not self.warmup_steps:
            raise InputError("restart_lr_each_epoch has no effect with a constant rate without warmup_steps: drop it")
        if self.decay_steps and self.decay_share:
            raise InputError(
                f"decay_steps {self.decay_steps} and decay_share {self.decay_share} both say how long the decay takes: "
                f"drop one of them"
            )
        if self.lr_schedule != "polynomial":
            refuse_changed(self, ["lr_power"], f"with lr_schedule {self.lr_schedule}: drop it")


@dataclass(frozen=True)
class EvaluationSpec:
    """When validation rows are evaluated while training, and what follows from that."""

    do_eval: bool = option(True, "whether validation rows are evaluated while training")
    eval_steps: Steps = option(
        0, "steps between evaluations; 0: a tenth of an epoch; epoch: at the end of each epoch alone", STEPS, free=True
    )
    eval_batch_size: int = option(16384, "samples an evaluation step", POSITIVE, free=True)
    monitor: str = option("auc", "the metric whose best value is kept, and ends an early_stopping", one_of(MONITORED))
    early_stopping: int = option(
        0, "evaluations without a better value of monitor on validation rows behind which the training ends, 0 for any "
        "number; tables that begin anew need a few", NOT_NEGATIVE, free=True,
    )  # fmt: skip

    def __post_init__(self) -> None:
        if not self.do_eval:
            if self.early_stopping:
                raise InputError(
                    f"early_stopping {self.early_stopping} has no effect with do_eval False: drop one of them"
                )
            refuse_changed(self, ["monitor"], "with do_eval False: drop one of them")


@dataclass(frozen=True)
class KeptSpec:
    """What a run leaves, and where."""

    ckpt_path: str = option(
        "./checkpoint", "folder for checkpoints, options and encoder", NOT_EMPTY, free=True, told=False
    )
    overwrite: bool = option(False, "whether earlier results may be replaced", free=True, told=False)
    resume: bool = option(True, "whether to go on with a training that was stopped in ckpt_path", free=True, told=False)
    save_minutes: float = option(
        15.0,
        "minutes between saves of what going on needs, half of that where the best network is written anyway",
        POSITIVE,
        free=True,
    )
    save_steps: Steps = option(
        0, "steps between saves instead, 0: by save_minutes; epoch: all of one", STEPS, free=True
    )
    keep_states: int = option(2, "the newest states of a run that are kept to go on from", POSITIVE, free=True)
    keep_finished: bool = option(
        True, "whether the last state stays when a run has ended well, so that it can go on with more epochs", free=True
    )
    on_nonfinite: str = option(
        "stop",
        "what a loss, logit or value that is not finite does: stop the run, or send it back to the last finite "
        "state with smaller rates",
        one_of(("stop", "back")),
        free=True,
    )
    report: bool = option(True, "whether report.html, report.json and scores.npz go beside the checkpoint", free=True)
    language: str = option("en", "language of the report's page", one_of(LANGUAGES), free=True, told=False)
    importance_rows: int = option(
        10_000, "evaluation rows at most on which the report shuffles columns, 0 for none", NOT_NEGATIVE, free=True
    )
    compare_linear: bool = option(
        True, "whether a linear model is fitted to some training rows at the end, to compare with", free=True
    )
    tensorboard: str = option("", "folder for event files of this and other runs, which TensorBoard shows; none: no "
                              "files", free=True, told=False)  # fmt: skip
    log_steps: int = option(100, "steps between lines of the loss", POSITIVE, free=True)
    loss_file_name: str = option("./loss.log", "log of the loss", NOT_EMPTY, free=True, told=False)
    eval_file_name: str = option("./auc.log", "log of evaluations", NOT_EMPTY, free=True, told=False)
    metrics_file_name: str = option(
        "./metrics.jsonl", "losses and evaluations for machines, a JSON a line", NOT_EMPTY, free=True, told=False
    )

    def __post_init__(self) -> None:
        if not self.report:
            refuse_changed(self, ["language"], "without report: drop one of them")
        if self.save_steps:
            refuse_changed(self, ["save_minutes"], f"with save_steps {self.save_steps}: drop one of them")

    @property
    def results(self) -> list[Path]:
        """All that a run leaves."""
        logs = (self.loss_file_name, self.eval_file_name, self.metrics_file_name)
        return [Path(name) for name in (self.ckpt_path, *logs, self.tensorboard) if name]

    def check_evaluation(self, do_eval: bool) -> None:
        """Refuse columns to be shuffled for a report that does not show it.

        Raises:
            InputError: they are.
        """
        missing = "" if self.report and do_eval else "report" if not self.report else "do_eval"
        if missing:
            refuse_changed(self, ["importance_rows"], f"without {missing}: drop one of them")


@dataclass(frozen=True)
class ScoreSpec:
    """Which rows a checkpoint is to score."""

    dataset_path: str = option("./dataset", "data folder, or one of its parts such as dataset/train", NOT_EMPTY)
    checkpoint_path: str = option("./checkpoint/dlrm.ckpt", "checkpoint that train.py wrote", NOT_EMPTY)
    eval_batch_size: int = option(16384, "samples an evaluation step", POSITIVE)


@dataclass(frozen=True)
class ScoreLogSpec:
    """Where metrics of scored rows are logged."""

    eval_file_name: str = option("./acc.log", "log of evaluations", NOT_EMPTY)
    metrics_file_name: str = option("./metrics.jsonl", "losses and evaluations for machines, a JSON a line", NOT_EMPTY)

    @property
    def results(self) -> list[Path]:
        """The logs."""
        return [Path(self.eval_file_name), Path(self.metrics_file_name)]
