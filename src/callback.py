"""Callbacks for `mindspore.Model.train`: the loss and its logs, evaluation and the best checkpoint."""

import math
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import numpy as np
from mindspore.train import Callback
from tqdm import tqdm

from src.base.finite import LAST_STEPS, LOOKS_EVERY, Overflows
from src.base.logs import MetricsFile, append_line, draws_bars, evaluation_line
from src.metrics.monitored import BestSoFar, Metrics
from src.ranks.group import ONE_RANK, Ranks

_UNREAD_LOSSES = 1000
_STEPS_BETWEEN_LOOKS = 100  # of several ranks at the clock, since they must agree


class TrainingClock:
    """Seconds spent on training steps: the time since the start, less that of evaluations and saves.

    Attributes:
        paused: seconds of these, by name.
        steps: that have ended, those among them that a run which went back did again.
        first_step_s: seconds until the first of them, which compiles the graph.
        waited: seconds behind it in which the loop waited for rows.
    """

    def __init__(self) -> None:
        self.start = time.perf_counter()
        self.paused: dict[str, float] = {}
        self.steps, self.first_step_s, self.waited = 0, 0.0, 0.0

    def step_ended(self) -> None:
        """Count a step."""
        self.steps += 1
        if self.steps == 1:
            self.first_step_s, self.waited = self.seconds(), 0.0

    def steps_per_s(self, wall: bool) -> float:
        """Of all steps but the first; with the time of evaluations and saves, or without; nan for no such step."""
        seconds = self.seconds() - self.first_step_s + (sum(self.paused.values()) if wall else 0.0)
        return (self.steps - 1) / seconds if self.steps > 1 else math.nan

    @contextmanager
    def wait(self) -> Iterator[None]:
        """Time within this context is spent on waiting for rows."""
        begin = time.perf_counter()
        try:
            yield
        finally:
            self.waited += time.perf_counter() - begin

    def by_phase(self) -> dict[str, float]:
        """Where the seconds since the start went, in the order of phases: the first step, which compiles, the wait for
        rows, the other steps, and what was paused for."""
        waited = min(self.waited, max(self.seconds() - self.first_step_s, 0.0))
        steps = self.seconds() - self.first_step_s - waited
        found = {"first step": self.first_step_s, "reading": waited, "steps": steps}
        return found | dict(sorted(self.paused.items()))

    def seconds(self) -> float:
        """Seconds of training until now."""
        return time.perf_counter() - self.start - sum(self.paused.values())

    @contextmanager
    def pause(self, what: str) -> Iterator[None]:
        """Time within this context does not count; that of another pause within it counts for that one alone."""
        begin, before = time.perf_counter(), sum(self.paused.values())
        try:
            yield
        finally:
            within = sum(self.paused.values()) - before
            self.paused[what] = self.paused.get(what, 0.0) + time.perf_counter() - begin - within


class LossCallBack(Callback):
    """Logs the loss every log_steps steps and at the end: to loss.log, the metrics file, and as a progress line.

    Of the batch of that step, as the public original does; the metrics file also has the mean of all steps since the
    line before, which curves are drawn of.

    On a terminal the line is rewritten in place, elsewhere each one stands for itself. Reading a loss makes the next
    step wait for this one, so the losses of many steps are read at once.

    Args:
        path: loss.log.
        metrics_file: where the same goes for machines.
        log_steps: steps between lines.
        batch_size: samples a step.
        clock: shared with `EvalCallBack`.
        steps: done before.
        skipped: gives the number of updates that were left out so far under a loss scale. None: there is no such scale.
        waiting: a context in which to wait for steps that the device has not done yet.

    Attributes:
        steps: done so far.
        overflows: whether the steps that were looked at changed something.
        mean_samples_per_s: of all steps by the clock but the first, which compiles the graph.
        wall_samples_per_s: the same with the time of evaluations and saves.
    """

    mean_samples_per_s = wall_samples_per_s = math.nan

    def __init__(
        self, path: str, metrics_file: MetricsFile, log_steps: int, batch_size: int, clock: TrainingClock,
        steps: int = 0,
        skipped: Callable[[], int] | None = None,
        waiting: Callable[[], AbstractContextManager] = nullcontext,
    ):  # fmt: skip
        super().__init__()
        self.skipped, self.waiting = skipped, waiting
        self.path, self.metrics_file, self.log_steps = path, metrics_file, log_steps
        self.batch_size, self.clock, self.steps = batch_size, clock, steps
        self._unread: list[tuple[int, Any]] = []
        self._since_line: list[float] = []  # losses since the last line
        self.samples_per_s, self.overflows = math.nan, Overflows(skipped)
        self.last = (0, 0.0)
        self.bar: tqdm | None = None

    def on_train_begin(self, run_context: Any) -> None:
        args = run_context.original_args()
        total, done = args.batch_num * args.epoch_num, args.cur_step_num
        self.last = (done, self.clock.seconds())
        self.bar = tqdm(total=total, initial=done, unit=" steps", desc="training", disable=not draws_bars())

    def on_train_step_end(self, run_context: Any) -> None:
        args = run_context.original_args()
        self.steps = args.cur_step_num
        self._unread.append((self.steps, args.net_outputs))
        total = args.batch_num * args.epoch_num
        is_last = self.steps > total - LAST_STEPS
        if len(self._unread) >= (_UNREAD_LOSSES if self.skipped is None else 1 if is_last else LOOKS_EVERY):
            self.look()
        if not self.clock.steps:  # compiling the graph belongs to this step and is not throughput
            args.net_outputs.asnumpy()
        self.clock.step_ended()
        if self.clock.steps == 1:
            self.last = (self.steps, self.clock.first_step_s)
        if args.cur_step_num % self.log_steps == 0 or args.cur_step_num == total:
            self._log(args)

    def look(self) -> None:
        """Read the losses that were not read yet.

        Raises:
            NotFinite: one is not, or under a loss scale too many steps in a row changed nothing.
        """
        unread, self._unread = self._unread, []
        with self.waiting() if unread else nullcontext():
            losses = [(step, float(output.asnumpy())) for step, output in unread]
        self._since_line += [loss for _, loss in losses if math.isfinite(loss)]
        self.overflows.look(losses)

    def _log(self, args: Any) -> None:
        self.look()
        step, epoch, loss = args.cur_step_num, args.cur_epoch_num, float(args.net_outputs.asnumpy())
        now, total = self.clock.seconds(), args.batch_num * args.epoch_num
        if step > self.last[0]:
            self.samples_per_s = (step - self.last[0]) * self.batch_size / (now - self.last[1])
        self.last = (step, now)
        step_in_epoch = step - (epoch - 1) * args.batch_num
        skipped = self.skipped() if self.skipped else 0
        more: dict[str, float] = {"skipped_updates": skipped} if skipped else {}
        mean = math.fsum(self._since_line) / len(self._since_line) if self._since_line else math.nan
        self._since_line = []
        more["mean_loss"] = mean
        append_line(self.path, f"epoch: {epoch}, step: {step_in_epoch}, loss is {loss}")
        self.metrics_file.write("loss", epoch=epoch, step=step, loss=loss, samples_per_s=self.samples_per_s, **more)
        speed = "the first step compiles"
        if not math.isnan(self.samples_per_s):
            left_s = (total - step) * self.batch_size / self.samples_per_s
            speed = f"{self.samples_per_s:.0f} samples/s, {left_s:.0f} s left"
        if skipped:
            speed += f", {skipped} updates skipped"
        if self.bar is None:
            return
        self.bar.set_postfix_str(f"loss {loss:.4f}, {speed}", refresh=False)
        self.bar.update(step - self.bar.n)
        if self.bar.disable:
            print(f"epoch: {epoch}, step: {step_in_epoch}/{args.batch_num}, loss is {loss:.4f}, {speed}", flush=True)

    def on_train_end(self, run_context: Any) -> None:
        self.close()
        self.steps = run_context.original_args().cur_step_num
        self.mean_samples_per_s = self.clock.steps_per_s(wall=False) * self.batch_size
        self.wall_samples_per_s = self.clock.steps_per_s(wall=True) * self.batch_size

    def close(self) -> None:
        """Leave the progress line as it stands."""
        if self.bar is not None:
            self.bar.close()
            self.bar = None


class EvalCallBack(Callback):
    """Evaluates at the end of each epoch and every eval_steps steps within, and keeps the best network.

    Args:
        evaluate: gives the metrics of the network as it is.
        save: writes the network of a step as the one to keep.
        best: what is kept so far, and how that is chosen.
        path: auc.log.
        metrics_file: where the same goes for machines.
        eval_steps: steps between evaluations. A run that is stopped within an epoch ends with one too.
        clock: shared with `LossCallBack`.
    """

    def __init__(
        self, evaluate: Callable[[], Metrics], save: Callable[[int], None], best: BestSoFar, path: str,
        metrics_file: MetricsFile, eval_steps: int, clock: TrainingClock,
    ):  # fmt: skip
        super().__init__()
        self.evaluate, self.save, self.best = evaluate, save, best
        self.path, self.metrics_file, self.eval_steps, self.clock = path, metrics_file, eval_steps, clock
        self.last_step = 0

    def on_train_step_end(self, run_context: Any) -> None:
        args = run_context.original_args()
        if args.cur_step_num % args.batch_num == 0 or args.cur_step_num % self.eval_steps == 0:
            self._evaluate(args.cur_epoch_num, args.cur_step_num)
            if self.best.is_over:
                run_context.request_stop()

    def on_train_end(self, run_context: Any) -> None:
        args = run_context.original_args()
        self.evaluate_at_end(args.cur_epoch_num, args.cur_step_num)

    def evaluate_at_end(self, epoch: int, step: int) -> None:
        """Evaluate behind the last step, unless that is done."""
        if step > self.last_step:
            self._evaluate(epoch, step)
        if not self.best.chooses:
            self.save(step)

    def _evaluate(self, epoch: int, step: int) -> None:
        self.last_step = step
        with self.clock.pause("evaluations"):
            begin = time.perf_counter()
            metrics = self.evaluate()
            seconds = time.perf_counter() - begin
            line = evaluation_line(metrics, seconds)
            append_line(self.path, line)
            self.metrics_file.write("eval", epoch=epoch, step=step, part=self.best.part, **metrics, eval_s=seconds)
            tqdm.write(f"epoch: {epoch}, step: {step}, {self.best.part}: {line}", file=sys.stdout)
            if self.best.takes(metrics, step):
                with self.clock.pause("saves"):
                    self.save(step)


class SaveTimes:
    """When the state is due to be saved: every so many steps, or else minutes.

    Args:
        steps: between saves; 0 for minutes.
        minutes: between saves; half of them where the network of the same step was just kept, whose file serves for
            both.
        ranks: of the run, which take the word of the first one's clock.
    """

    def __init__(self, steps: int, minutes: float, ranks: Ranks = ONE_RANK):
        self.steps, self.seconds, self.ranks = steps, 60 * minutes, ranks
        self.last = time.monotonic()

    def is_due(self, done: int, kept_step: int) -> bool:
        """Whether it is, behind so many steps, where the best network is that of a step."""
        if self.steps:
            return done % self.steps == 0
        just_kept = done == kept_step
        if self.ranks.size > 1 and done % _STEPS_BETWEEN_LOOKS and not just_kept:
            return False
        waited = time.monotonic() - self.last
        is_due = waited >= (self.seconds / 2 if just_kept else self.seconds)
        with self.ranks.sign.work(compiles=False):
            return bool(self.ranks.gather(np.array([is_due], np.int32))[0, 0])

    def saved(self) -> None:
        """Time counts from now on."""
        self.last = time.monotonic()


class ResumeCallBack(Callback):
    """Lets a training begin behind the steps that a stopped one did, and saves what going on needs.

    It comes before the callbacks that count steps. It saves when the step after the saved one begins, so that
    evaluations and the user's callbacks are through with the saved one.

    Args:
        first_step: steps done before.
        epochs: of the whole training.
        save: writes the state of a run that has done so many steps.
        times: when.
        best: the network that is kept so far.
        clock: shared with `LossCallBack`.
    """

    def __init__(
        self, first_step: int, epochs: int, save: Callable[[int], None], times: SaveTimes, best: BestSoFar,
        clock: TrainingClock,
    ):  # fmt: skip
        super().__init__()
        self.first_step, self.epochs = first_step, epochs
        self.save, self.times, self.best, self.clock = save, times, best, clock

    def on_train_begin(self, run_context: Any) -> None:
        args = run_context.original_args()
        args.cur_step_num, args.epoch_num = self.first_step, self.epochs  # MindSpore counts from its initial_epoch

    def on_train_step_begin(self, run_context: Any) -> None:
        done = run_context.original_args().cur_step_num - 1
        if done > self.first_step and self.times.is_due(done, self.best.step if self.best.chooses else 0):
            with self.clock.pause("saves"):
                self.save(done)
            self.times.saved()


class StepCallBack(Callback):
    """Calls a function when a step begins, and one with its number when it has ended."""

    def __init__(self, begins: Callable[[], None] = lambda: None, ended: Callable[[int], None] = lambda step: None):
        super().__init__()
        self.begins, self.ended = begins, ended

    def on_train_step_begin(self, run_context: Any) -> None:
        self.begins()

    def on_train_step_end(self, run_context: Any) -> None:
        self.ended(run_context.original_args().cur_step_num)


class EpochCallBack(Callback):
    """Calls a function with the number of each epoch, from 0, when its first step begins; not for the first epoch.

    It comes behind `ResumeCallBack`, which saves what the last epoch left: who goes on from there does the call again.
    """

    def __init__(self, start: Callable[[int], None]):
        super().__init__()
        self.start = start

    def on_train_step_begin(self, run_context: Any) -> None:
        args = run_context.original_args()
        epoch, step = divmod(args.cur_step_num - 1, args.batch_num)
        if epoch and not step:
            self.start(epoch)
