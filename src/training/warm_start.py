"""Training that begins with what an earlier one has learned, on a data folder that has grown from its own.

A row that stands for the same value as before keeps its vector and its optimizer's states to the bit; others begin as
in a training that begins with nothing, or, if asked, with the vector for unseen values. MLPs and their states go on.
Schedule, count of steps, averages and loss scale are the new run's own; the rules' corrections for the first steps go
on, as the states do.

A checkpoint's folder stands for the last state of its run, in `finished/`; its file, or a folder without such a state,
for the network alone, whose optimizer begins anew.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from mindspore import Tensor

from src.base.errors import InputError
from src.base.sealed import check_text
from src.checkpoints import checkpoint
from src.checkpoints.names import CHECKPOINT, file_of
from src.checkpoints.place import FINISHED, PROGRESS, goes_on_from, states_of
from src.data.counted import Since, rows_since
from src.data.manifest import MANIFEST, VOCABULARY, DataFolder, Manifest
from src.model_utils.config import SAVED_OPTIONS
from src.model_utils.options import values_of
from src.network.embedding import Fill
from src.network.mixed_dims import Widths, widths_of
from src.network.options import NetworkSpec
from src.ranks.group import Ranks
from src.ranks.placement import Piece
from src.training.prepare import Prepared
from src.training.resume import Progress
from src.training.rules import rule_of_mlps
from src.training.step import TrainStep

UNSEEN_ROW = "unseen"
_CHUNK_ROWS = 1 << 16
_REMEDY = "copy it anew from where train.py wrote it"
_DEFAULT_RULES = {"optimizer": "sgd", "mlp_optimizer": ""}


@dataclass(frozen=True)
class Source:
    """What a training begins with.

    Attributes:
        network: a checkpoint.
        rest: its optimizer's states; None where they are not kept.
        manifest: of the data that it was trained with.
        options: of its run.
        progress: of its run; None where no state is kept.
    """

    network: Path
    rest: Path | None
    manifest: Manifest
    options: dict[str, Any]
    progress: Progress | None

    @classmethod
    def of(cls, named: str) -> "Source":
        """What a user named, by a checkpoint's folder or file.

        Raises:
            InputError: there is none, or no manifest and options beside it.
        """
        folder, ended = Path(named), Path(named) / FINISHED
        states = states_of(ended / PROGRESS)
        if states:
            progress = Progress.of(states[0])
            network, rest = (ended / f"{name}-{progress.step}.ckpt" for name in ("state", "rest"))
            return cls(network, rest if rest.is_file() else None, *_beside(ended), progress)
        try:
            network = file_of(named)
        except InputError as error:
            raise InputError(f"from_checkpoint: {error}") from None
        return cls(network, None, *_beside(network.parent if folder != network else folder.parent), None)


def _beside(folder: Path) -> tuple[Manifest, dict[str, Any]]:
    for name in (MANIFEST, SAVED_OPTIONS):
        if not (folder / name).is_file():
            raise InputError(f"from_checkpoint {folder} has no {name} beside its checkpoint: {_REMEDY}")
    check_text(folder / SAVED_OPTIONS, _REMEDY)
    options = yaml.safe_load((folder / SAVED_OPTIONS).read_text(encoding="utf-8"))
    return Manifest.load(folder / MANIFEST, _REMEDY), dict(options or {})


class WarmStart:
    """The begin of a training with an earlier one's network.

    Args:
        named: what the user named.
        data: the data folder to train on.
        network: its network.
        rules: names of the update rules of tables and MLPs.
        new_rows: "unseen" for the vector of unseen values in rows that stand for others than before.
        ranks: of the run.

    Nothing is read before it is needed: a run that goes on needs none of it.
    """

    def __init__(
        self, named: str, data: DataFolder, network: NetworkSpec, rules: Sequence[str], new_rows: str, ranks: Ranks
    ):  # fmt: skip
        self._named, self._data, self._network, self._rules = named, data, network, tuple(rules)
        self._like_unseen, self._ranks = new_rows == UNSEEN_ROW, ranks

    @classmethod
    def of(cls, prepared: Prepared) -> "WarmStart | None":
        """What a training begins with, None for nothing; looked at here, unless the training is to go on.

        Raises:
            InputError: it may not begin so. Whatever was stopped in its place is still there.
        """
        specs, kept = prepared.specs, prepared.specs.kept
        if not specs.schedule.from_checkpoint:
            return None
        rules = [rule.name for rule in specs.optimization.rules]
        warm = cls(specs.schedule.from_checkpoint, prepared.folder, specs.network, rules, specs.schedule.new_rows,
                   specs.runtime.ranks)  # fmt: skip
        if not (kept.resume and goes_on_from(Path(kept.ckpt_path))):
            warm.facts()
        return warm

    @cached_property
    def source(self) -> Source:
        """What the training begins with.

        Raises:
            InputError: it is of another network or other columns, or the data's encoder has not grown from its own.
        """
        found, manifest = Source.of(self._named), self._data.manifest
        saved = values_of(NetworkSpec()) | found.options
        for name, value in values_of(self._network).items():
            if saved[name] != value:
                raise InputError(
                    f"from_checkpoint {self._named} has {name} {saved[name]}, and this run {value}: give --{name} as "
                    f"it was there"
                )
        for what in ("inputs", "fields", "layout"):
            if (old := getattr(found.manifest, what)) != (new := getattr(manifest, what)):
                raise InputError(
                    f"from_checkpoint {self._named} was trained with other {_different(what, old, new)} than "
                    f"{self._data.path} has: preprocess with --vocab_path={self._named} --grow=True"
                )
        return found

    @cached_property
    def rows(self) -> list[Since]:
        """Of each table which rows stand for what they did before."""
        digest = self.source.manifest.sha256(VOCABULARY) or ""
        rows = rows_since(self._data.path, self._data.manifest, digest)
        if rows is None:
            raise InputError(
                f"from_checkpoint {self._named} was trained with another vocabulary than that of {self._data.path}, "
                f"which has not grown from it: preprocess with --vocab_path={self._named} --grow=True"
            )
        for name, old, new in zip(self._data.manifest.tables, self._old_widths.shares, self._widths.shares):
            if old != new:
                width = self._network.emb_dim
                raise InputError(
                    f"from_checkpoint {self._named} has vectors of width {width // old} for {name}, and by mixed_dims "
                    f"{self._network.mixed_dims} this run {width // new}, for the tables have grown: train anew"
                )
        return rows

    @property
    def _widths(self) -> Widths:
        return widths_of(self._data.manifest.rows_of_tables, self._network)

    @property
    def _old_widths(self) -> Widths:
        return widths_of(self.source.manifest.rows_of_tables, self._network)

    @cached_property
    def _goes_on(self) -> tuple[bool, bool]:
        """Whether the optimizer's states of tables, and of MLPs, go on."""
        saved = _DEFAULT_RULES | self.source.options
        old = saved["optimizer"], rule_of_mlps(saved["mlp_optimizer"] or saved["optimizer"]).name
        return self.source.rest is not None and old[0] == self._rules[0], (
            self.source.rest is not None and old[1] == self._rules[1]
        )

    def _parts(self, path: Path) -> checkpoint.Parts:
        checked = range(self._ranks.rank, 1 << 16, self._ranks.size)
        return checkpoint.Parts(path, self.source.manifest.tables, self._old_widths.packed_rows, checked)

    @cached_property
    def _values(self) -> checkpoint.Parts:
        return self._parts(self.source.network)

    @cached_property
    def _states(self) -> checkpoint.Parts | None:
        return self._parts(self.source.rest) if self.source.rest else None

    @property
    def steps_before(self) -> tuple[int, int]:
        """The steps that the optimizer's states of tables, and of MLPs, have behind them."""
        done, (tables, mlps) = self.source.progress, self._goes_on
        if done is None:
            return 0, 0
        of_tables = done.step
        if self.source.options.get("reset_tables_each_epoch") and done.step:
            of_epoch = self.source.manifest.parts["train"].rows // done.batch_size
            of_tables = (done.step - 1) % of_epoch + 1
        return (of_tables + done.steps_before[0]) * tables, (done.step + done.steps_before[1]) * mlps

    def facts(self) -> dict[str, Any]:
        """What the report says: the checkpoint, whether states go on, and how many rows of each table do."""
        old = self.source.manifest.rows_of_tables
        tables = {
            name: one.counts(rows) for name, one, rows in zip(self._data.manifest.tables, self.rows, old, strict=True)
        }
        return {"checkpoint": self._named, "step": self.source.progress.step if self.source.progress else None,
                "states": list(self._goes_on), "tables": tables}  # fmt: skip

    def line(self) -> str:
        """The same for people."""
        facts = self.facts()
        totals = {what: sum(one[what] for one in facts["tables"].values()) for what in ("kept", "new", "dealt", "free")}
        step = f", behind its step {facts['step']}" if facts["step"] is not None else ""
        begin = "like the row for unseen values" if self._like_unseen else "as at the start"
        return (
            f"beginning with {self.source.network}{step}: {totals['kept']:,} rows of tables kept; {totals['new']:,} "
            f"new and {totals['dealt']:,} dealt to other values begin {begin}; {totals['free']:,} are free; "
            + self._about_states()
        )

    def _about_states(self) -> str:
        if all(self._goes_on):
            return "the optimizer's states go on"
        whose = " and ".join(name for name, goes in zip(("tables", "MLPs"), self._goes_on) if not goes)
        if self.source.rest is not None:
            return f"the optimizer's states of {whose} begin anew, as its rule is another one"
        if self.source.progress is not None:
            return "the optimizer of that run kept no states"
        return (
            f"the optimizer's states begin anew, as {CHECKPOINT} holds the network alone, and only the folder of a run "
            f"with keep_finished its last state"
        )

    def tables(self, anew: Fill) -> Fill:
        """What fills the tables' pieces, those of rows that begin anew with the values that `anew` gives them."""
        return self._fill(self._values.fill(checkpoint.TABLE), self._unseen_rows(anew) if self._like_unseen else anew)

    def _fill(self, old: Fill, anew: Fill) -> Fill:
        shares, old_rows = self._widths.shares, self._old_widths.packed_rows

        def fill(piece: Piece, values: np.ndarray) -> None:
            anew(piece, values)
            share, table = shares[piece.table], piece.table
            kept = np.zeros(piece.high * share, bool)  # of each vector, of which several may share a row
            own = self.rows[table].kept[: len(kept)]
            kept[: len(own)] = own
            # In chunks, so that nothing of the table's size exists beside the table itself.
            for low in range(piece.low, min(piece.high, old_rows[table]), _CHUNK_ROWS):
                part = Piece(table, low, min(low + _CHUNK_ROWS, piece.high, old_rows[table]))
                before = np.empty((part.rows, values.shape[1]), np.float32)
                old(part, before)
                vectors = values[low - piece.low :][: part.rows].reshape(part.rows * share, -1)
                chosen = kept[part.low * share : part.high * share]
                vectors[chosen] = before.reshape(vectors.shape)[chosen]

        return fill

    def _unseen_rows(self, anew: Fill) -> Fill:
        """Fills pieces with the old vector for unseen values, where the table has one."""
        shares = self._widths.shares

        def fill(piece: Piece, values: np.ndarray) -> None:
            if not piece.rows or not self.rows[piece.table].kept[0]:
                anew(piece, values)
                return
            first = np.empty((1, values.shape[1]), np.float32)
            self._values.fill(checkpoint.TABLE)(Piece(piece.table, 0, 1), first)
            values.reshape(piece.rows * shares[piece.table], -1)[:] = first.reshape(shares[piece.table], -1)[0]

        return fill

    def restore_tables(self, step: TrainStep, anew: Fill | None = None) -> None:
        """Give a step its tables' states that go on, and their vectors where `anew`, as for `tables`, is given."""
        goes_on, _ = self._goes_on
        for name, parameter in step.row_values().items():
            if parameter is step.tables.table:
                if anew:
                    step.tables.refill(parameter, self.tables(anew))
            elif goes_on and self._states:
                step.tables.refill(parameter, self._fill(self._states.fill(f"{name}."), _zeros))

    def restore_mlps(self, step: TrainStep) -> None:
        """Give a step the MLPs, and those of their states that go on."""
        checkpoint.fill_mlps(step.model, self._values)
        _, goes_on = self._goes_on
        if goes_on and self._states:
            for parameter in (state for states in step.dense_optimizer.states for state in states):
                parameter.set_data(Tensor.from_numpy(self._states.value(parameter.name, parameter.shape)))


def _zeros(_: Piece, values: np.ndarray) -> None:
    values[:] = 0


def _different(what: str, old: Any, new: Any) -> str:
    """What of two manifests differs, in words."""
    if what == "layout":
        return "lists or shared tables"
    odd = [name for name in (*old, *new) if (name in old) != (name in new)]
    return f"{what}, {', '.join(odd[:3])}" if odd else f"order of {what}"
