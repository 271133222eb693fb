"""The folder of a training run: what it leaves, and while it works, what it is killed or stopped with.

checkpoint/dlrm.ckpt         the network that is kept, and the files beside it that checkpoint.py names
checkpoint/report.html       the run for people, report.json the same for machines, scores.npz its scores
checkpoint/unfinished/       the same of a run that has not ended, or was stopped, and the states it goes on from
checkpoint/finished/         the last state of a run that ended well, which more epochs go on from
"""

import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

from src.base.errors import InputError, naming
from src.base.events import happens
from src.base.files import flush, link_or_copy, whole_file
from src.base.locks import hold
from src.base.sealed import sealed_json, sealed_text
from src.checkpoints.names import CHECKPOINT, EVALUATIONS, LOCK, REPORT, REPORT_PAGE, SCORES, UNFINISHED
from src.checkpoints.parts import open_parts, part_of
from src.checkpoints.place import FINISHED, OLDER, PROGRESS, REPLACES, is_replacing, states_of, trains_on
from src.checkpoints.run_options import RunOptions
from src.data.counted import COUNTS, encoder_files
from src.data.manifest import MANIFEST, VOCABULARY, DataFolder, Manifest
from src.ranks.group import ONE_RANK, Ranks

_FAILED = "diverged_at_rate"
# Of a state that is kept although it led to divergence at a smaller rate too, or comes of one that did.
FAILED_AGAIN, COMES_OF_ONE = "diverged_again", "comes of one"
_OF_A_STEP = re.compile(r"(state|rest|best)-(\d+)\.")


class Run:
    """The files of a training run, in a subfolder until it ends well, so that no unfinished one looks whole.

    A run that was stopped leaves the subfolder, and the next one goes on there. A context, which holds a lock on it.
    All ranks of a run share it; what concerns all is done by rank 0, while the others wait.

    Args:
        folder: the checkpoint folder.
        data: the data, whose manifest and vocabulary are kept with the checkpoint.
        options: of the run.
        overwrite: whether the folder's checkpoint may be replaced when the run ends.
        resume: whether to go on with a run that was stopped, or ended well after fewer epochs; otherwise the files of
            the first are thrown away.
        ranks: of the run.
        keep_states: how many of the newest states are kept.

    Attributes:
        path: the subfolder.
        changes: which options are others than before the stop, in words; rank 0 knows.

    Raises:
        AlreadyDone: this very run has ended well here.
        InputError: the folder already holds another checkpoint, which overwrite does not allow to be replaced; a run
            is at work there, or one was stopped that had other options or data.
    """

    def __init__(
        self, folder: Path, data: DataFolder, options: RunOptions, *, overwrite: bool = False, resume: bool = True,
        ranks: Ranks = ONE_RANK, keep_states: int = 1,
    ):  # fmt: skip
        self.folder, self.path, self._options, self._ranks = folder, folder / UNFINISHED, options, ranks
        self._progress, self._keep_states = self.path / PROGRESS, keep_states
        self.changes: list[str] = []
        self._replaces = False  # whether files began to go to their places, so that what stood there is given up
        self._lock: IO[str] | None = None
        self._by_rank_0(lambda: self._prepare(data, overwrite, resume))

    def __enter__(self) -> "Run":
        return self

    def __exit__(self, *_: Any) -> None:
        if self._lock:
            self._lock.close()

    def _prepare(self, data: DataFolder, overwrite: bool, resume: bool) -> None:
        def look() -> bool:
            return trains_on(self.folder, self._options, overwrite, resume, data.manifest)

        look()  # a refused run makes no folder
        data.manifest.verify(data.path, encoder_files(data.manifest))
        self.path.mkdir(parents=True, exist_ok=True)
        self._lock = hold(self.path / LOCK, f"ckpt_path {self.folder}")
        try:
            is_longer = look()  # another run may have ended there meanwhile; from now on none does
            self._replaces = resume and is_replacing(self.folder)
            with naming(self.path):
                if is_longer and not self._progress.is_file():
                    self._check_same(data, self.folder / FINISHED)
                    self._take_back()
                elif resume and self._progress.is_file():
                    self._check_same(data, self.path)
                else:
                    if resume and (self.path / self._options.name).is_file():
                        print(f"beginning anew: the run that was stopped in {self.path} came to no save before, "
                              f"which --save_minutes sets", flush=True)  # fmt: skip
                    self._start(data)
        except BaseException:
            self._lock.close()
            raise

    def _take_back(self) -> None:
        """Let the state of a run that ended well be that of one that was stopped."""
        self._clear()
        ended = self.folder / FINISHED
        for path in ended.iterdir():
            if path.name not in (LOCK, PROGRESS):
                link_or_copy(path, self.path / path.name)
        self._write_progress(states_of(ended / PROGRESS))  # last, as it makes them valid

    def _clear(self) -> None:
        """Remove all files of a run that was stopped."""
        self._progress.unlink(missing_ok=True)  # first, so that what is left is never taken for a whole state
        for path in self.path.iterdir():
            if path.name != LOCK:
                path.unlink()

    def _start(self, data: DataFolder) -> None:
        self._clear()
        for name in encoder_files(data.manifest):
            link_or_copy(data.path / name, self.path / name)
        shutil.copyfile(data.path / MANIFEST, self.path / MANIFEST)
        self._write_options()

    def _check_same(self, data: DataFolder, stopped: Path) -> None:
        """Refuse to go on with other options or data than those the run began with, whose files are in a folder."""
        saved = self._options.saved_in(stopped)
        difference = self._options.difference(saved)
        if not difference and Manifest.load(stopped / MANIFEST) != data.manifest:
            difference = f"other data than {data.path}"
        if difference:
            ended = stopped.name == FINISHED
            raise InputError(
                f"{stopped} holds a training that {'ended' if ended else 'was stopped'}, with {difference}: go on with "
                f"what it had, name another --ckpt_path, or "
                f"{'replace it with --overwrite=True' if ended else 'throw it away with --resume=False'}"
            )
        self.changes = self._options.changes(saved)

    def keep_options(self) -> None:
        """Keep this run's options in place of those of the run that was stopped, once nothing refuses to go on."""
        self._by_rank_0(self._write_options)

    def _write_options(self) -> None:
        with whole_file(self.path / self._options.name) as file:
            file.write(sealed_text(self._options.text).encode())

    def best(self, step: int) -> Path:
        """Where the best network so far, that of a step, is kept. Each has a name of its own, so that a state always
        finds the one it goes with, whenever the run is killed."""
        return self.path / f"best-{step}.ckpt"

    def state(self, step: int) -> Path:
        """Where the network after a step is kept, in a state."""
        return self.path / f"state-{step}.ckpt"

    def rest(self, step: int) -> Path:
        """Where the rest of a state is kept."""
        return self.path / f"rest-{step}.ckpt"

    def progress(self) -> dict[str, Any] | None:
        """What the last `commit` of a run that was stopped had to say; None if it never came so far.

        Raises:
            InputError: its file is damaged.
        """
        return next(iter(states_of(self._progress)), None)

    def commit(self, progress: dict[str, Any], step: int, best_step: int) -> None:
        """Make the state of a step the one to go on from; `write_part` has returned, so all ranks have written it.

        Args:
            progress: what `progress` is to give.
            step: the step; states of older ones are removed, but for as many as are to be kept.
            best_step: step of the best network; those that go with no state that is kept are removed.
        """
        self._by_rank_0(lambda: self._commit(progress, step, best_step))

    def _by_rank_0(self, work: Callable[[], None]) -> None:
        """What concerns all, done by rank 0 while the others wait for it, or for its error."""
        self._ranks.together(work if self._ranks.rank == 0 else lambda: None)

    def _commit(self, progress: dict[str, Any], step: int, best_step: int) -> None:
        happens("a state is whole")
        for path in self.path.glob(f"best-{best_step}.*"):
            flush(path)
        older = [state for state in states_of(self._progress) if state["step"] < step][: self._keep_states - 1]
        self._write_progress([progress, *older])
        happens("the progress names another state")
        self._remove_others([progress, *older], best_step)

    def _write_progress(self, states: list[dict[str, Any]]) -> None:
        """Say which states there are, and whether this run, not one that wrote a state before, has given up what
        stood in its files' places."""
        first, *older = [{key: value for key, value in state.items() if key != REPLACES} for state in states]
        more = {REPLACES: True} if self._replaces else {}
        with whole_file(self._progress, sync=True) as file:
            file.write(sealed_json(first | more | {OLDER: older}).encode())

    def remove_other_bests(self, step: int) -> None:
        """Of the best networks, keep those that the states go with, and the newest one, that of a step."""
        self._by_rank_0(lambda: self._remove_others(states_of(self._progress), step))

    def _remove_others(self, states: list[dict[str, Any]], best_step: int) -> None:
        steps = {state["step"] for state in states}
        bests = {best_step, *(state.get("best_step", 0) for state in states)}
        for path in self.path.iterdir():
            found = _OF_A_STEP.match(path.name)
            if found and int(found[2]) not in (bests if found[1] == "best" else steps):
                path.unlink()

    def retreat(self, rate: float, changed: dict[str, Any], begun: int, *, stops: bool) -> dict[str, Any] | None:
        """What is to be gone on from by a run that diverged: the newest state, or an older one.

        A state that leads to divergence at two rates, the second one smaller, is taken to be spoiled, and given up with
        those that came of it: be it that the run began with it each time, or that it is the newest one. Where no older
        one is left it stays all the same if the run had saved another one since, and so got on.

        Args:
            rate: at which it diverged.
            changed: what that state's progress is to say now.
            begun: the step of the state that it began with.
            stops: whether the run ends: then the newest state alone is given up, and only for an older one.

        Returns:
            The progress of that state, with FAILED_AGAIN if it stays all the same, or came of a spoiled one; None for
            no state at all, so that the run begins anew.
        """
        self._by_rank_0(lambda: self._retreat(rate, changed, begun, stops))
        return self.progress()

    def _retreat(self, rate: float, changed: dict[str, Any], begun: int, stops: bool) -> None:
        states = states_of(self._progress)
        concerned = [place for place, state in enumerate(states) if not place or state["step"] == begun]
        spoiled = [place for place in concerned if rate < states[place].get(_FAILED, 0)]
        for place in concerned:
            states[place][_FAILED] = rate
        if spoiled:
            last = spoiled[-1]
            stays = last + 1 == len(states) and (last > 0 or stops)
            states[last] |= {FAILED_AGAIN: True}
            if not stops:
                del states[: last if stays else last + 1]
            elif spoiled[0] == 0 and len(states) > 1:
                del states[0]
            if stops and last:
                states[0] |= {FAILED_AGAIN: COMES_OF_ONE}
        if states:
            states[0] |= changed
            self._write_progress(states)
        else:
            self._progress.unlink(missing_ok=True)

    def finish(self, step: int, keep_state: bool = False) -> Path:
        """Put the files of a run that ended well in their places, the best network, that of a step, last.

        Args:
            step: of the best network.
            keep_state: whether the state of the last commit, of no other one, stays in a subfolder of its own.

        Returns:
            The checkpoint's path.
        """
        target = self.folder / CHECKPOINT
        self._by_rank_0(lambda: self._publish(step, target, keep_state))
        return target

    def _publish(self, step: int, target: Path, keep_state: bool) -> None:
        """Nothing leaves the subfolder before all is in its place, so a run that is killed here can go on.

        Its progress says so first: who goes on may replace what is in its place already.
        """
        best = self.best(step)
        parts = len(open_parts(best, check=()))
        self._replaces = True
        if states := states_of(self._progress):
            self._write_progress(states)
        happens("the files are to go to their places")
        with naming(self.folder):
            target.unlink(missing_ok=True)  # it must not stand beside another run's files
            for path in self.folder.glob(f"{target.stem}.rank_*{target.suffix}"):
                path.unlink()
            for name in (self._options.name, MANIFEST, VOCABULARY):
                _place(self.path / name, self.folder / name)
            for name in (COUNTS, REPORT, REPORT_PAGE, SCORES, EVALUATIONS):  # of which none need be there
                (self.folder / name).unlink(missing_ok=True)
                if (self.path / name).is_file():
                    _place(self.path / name, self.folder / name)
            for rank in reversed(range(parts)):
                flush(part_of(best, rank))
                _place(part_of(best, rank), part_of(target, rank))
            happens("all files are in their places")
            ended = self.folder / FINISHED
            if ended.exists():
                (ended / PROGRESS).unlink(missing_ok=True)
                shutil.rmtree(ended)
            happens("no other state is left beside them")
            if keep_state:
                self._forget_older(step)
                self.path.rename(ended)
                happens("the last state is in its place")
                self._progress, self._replaces = ended / PROGRESS, False  # it replaces nothing any more
                self._write_progress(states_of(self._progress))
                (ended / LOCK).unlink()
            else:
                self._progress.unlink(missing_ok=True)
                shutil.rmtree(self.path)

    def _forget_older(self, best_step: int) -> None:
        if states := states_of(self._progress)[:1]:
            self._write_progress(states)
            self._remove_others(states, best_step)


def _place(source: Path, target: Path) -> None:
    link_or_copy(source, target)
    happens(f"{target.name} is in its place")
