"""Callbacks for `mindspore.Model.train`: the loss and its logs, evaluation and the best checkpoint."""

import math
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from mindspore.train import Callback
from tqdm import tqdm

from src.base.errors import InputError
from src.base.logs import MetricsFile, append_line, evaluation_line
from src.metrics.monitored import MONITORED, Metrics


class TrainingClock:
    """Seconds spent on training steps: the time since the start, less that of evaluations and checkpoints."""

    def __init__(self) -> None:
        self.start = time.perf_counter()
        self.paused = 0.0

    def seconds(self) -> float:
        """Seconds of training until now."""
        return time.perf_counter() - self.start - self.paused

    @contextmanager
    def pause(self) -> Iterator[None]:
        """Time within this context does not count."""
        begin = time.perf_counter()
        try:
            yield
        finally:
            self.paused += time.perf_counter() - begin


class LossCallBack(Callback):
    """Logs the loss every log_steps steps and at the end: to loss.log, the metrics file, and as a progress line.

    On a terminal the line is rewritten in place, elsewhere each one stands for itself.

    Args:
        path: loss.log.
        metrics_file: where the same goes for machines.
        log_steps: steps between lines.
        batch_size: samples a step.
        clock: shared with `EvalCallBack`.

    Attributes:
        steps: done when the run ended.
        mean_samples_per_s: of all steps of this process but the first, which compiles the graph.
    """

    steps = 0
    mean_samples_per_s = math.nan

    def __init__(self, path: str, metrics_file: MetricsFile, log_steps: int, batch_size: int, clock: TrainingClock):
        super().__init__()
        self.path, self.metrics_file, self.log_steps = path, metrics_file, log_steps
        self.batch_size, self.clock = batch_size, clock
        self.first_step, self.first_step_s = 1, 0.0
        self.samples_per_s = math.nan
        self.last = (0, 0.0)

    def on_train_begin(self, run_context: Any) -> None:
        args = run_context.original_args()
        total, done = args.batch_num * args.epoch_num, args.cur_step_num
        self.first_step = done + 1
        self.bar = tqdm(total=total, initial=done, unit=" steps", desc="training", disable=not sys.stderr.isatty())

    def on_train_step_end(self, run_context: Any) -> None:
        args = run_context.original_args()
        if args.cur_step_num == self.first_step:  # compiling the graph belongs to this step and is not throughput
            args.net_outputs.asnumpy()
            self.first_step_s = self.clock.seconds()
            self.last = (self.first_step, self.first_step_s)
        if args.cur_step_num % self.log_steps == 0 or args.cur_step_num == args.batch_num * args.epoch_num:
            self._log(args)

    def _log(self, args: Any) -> None:
        step, epoch, loss = args.cur_step_num, args.cur_epoch_num, float(args.net_outputs.asnumpy())
        if not math.isfinite(loss):
            raise InputError(f"the loss is {loss} at step {step}: training diverged; try a smaller --lr")
        now, total = self.clock.seconds(), args.batch_num * args.epoch_num
        if step > self.last[0]:
            self.samples_per_s = (step - self.last[0]) * self.batch_size / (now - self.last[1])
        self.last = (step, now)
        step_in_epoch = step - (epoch - 1) * args.batch_num
        append_line(self.path, f"epoch: {epoch}, step: {step_in_epoch}, loss is {loss}")
        self.metrics_file.write("loss", epoch=epoch, step=step, loss=loss, samples_per_s=self.samples_per_s)
        speed = "the first step compiles"
        if step > self.first_step:
            left_s = (total - step) * self.batch_size / self.samples_per_s
            speed = f"{self.samples_per_s:.0f} samples/s, {left_s:.0f} s left"
        self.bar.set_postfix_str(f"loss {loss:.4f}, {speed}", refresh=False)
        self.bar.update(step - self.bar.n)
        if self.bar.disable:
            print(f"epoch: {epoch}, step: {step_in_epoch}/{args.batch_num}, loss is {loss:.4f}, {speed}", flush=True)

    def on_train_end(self, run_context: Any) -> None:
        self.bar.close()
        self.steps = run_context.original_args().cur_step_num
        if counted := self.steps - self.first_step:
            self.mean_samples_per_s = counted * self.batch_size / (self.clock.seconds() - self.first_step_s)


@dataclass
class BestSoFar:
    """The network that is kept, and what chose it.

    Attributes:
        part: name of the rows that are evaluated. Only validation rows choose: with others the last network is kept.
        monitor: name of the metric that chooses.
        patience: evaluations in a row without a better value behind which the training ends, 0 for any number.
        metrics, step: of the network that is kept; None and 0 before the first one.
        waited: evaluations since then.
    """

    part: str
    monitor: str = "auc"
    patience: int = 0
    metrics: Metrics | None = None
    step: int = 0
    waited: int = 0

    @property
    def chooses(self) -> bool:
        """Whether the best network is kept, and not the last one."""
        return self.part == "valid"

    @property
    def is_over(self) -> bool:
        """Whether there was no better one for too long."""
        return bool(self.patience) and self.waited >= self.patience

    def takes(self, metrics: Metrics, step: int) -> bool:
        """Whether a network is to be kept as the best one; remembers its metrics and step if so."""
        one = MONITORED[self.monitor]
        if self.chooses and self.metrics and not one.is_better(metrics[self.monitor], self.metrics[self.monitor]):
            self.waited += 1
            return False
        self.metrics, self.step, self.waited = metrics, step, 0
        return self.chooses


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

    Attributes:
        ended: whether the training ended because no better network came.
    """

    ended = False

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
                self.ended = True
                run_context.request_stop()

    def on_train_end(self, run_context: Any) -> None:
        args = run_context.original_args()
        if args.cur_step_num > self.last_step:
            self._evaluate(args.cur_epoch_num, args.cur_step_num)
        if not self.best.chooses:
            self.save(args.cur_step_num)

    def _evaluate(self, epoch: int, step: int) -> None:
        self.last_step = step
        with self.clock.pause():
            begin = time.perf_counter()
            metrics = self.evaluate()
            seconds = time.perf_counter() - begin
            line = evaluation_line(metrics, seconds)
            append_line(self.path, line)
            self.metrics_file.write("eval", epoch=epoch, step=step, part=self.best.part, **metrics, eval_s=seconds)
            tqdm.write(f"epoch: {epoch}, step: {step}, {self.best.part}: {line}", file=sys.stdout)
            if self.best.takes(metrics, step):
                self.save(step)


class ResumeCallBack(Callback):
    """Lets a training begin behind the steps that a stopped one did, and saves what going on needs.

    It comes before the callbacks that count steps. It saves when the step after the saved one begins, so that
    evaluations and the user's callbacks are through with the saved one.

    Args:
        first_step: steps done before.
        epochs: of the whole training.
        save: writes the state of a run that has done so many steps.
        save_steps: steps between saves.
        clock: shared with `LossCallBack`.
    """

    def __init__(self, first_step: int, epochs: int, save: Callable[[int], None], save_steps: int,
                 clock: TrainingClock):  # fmt: skip
        super().__init__()
        self.first_step, self.epochs = first_step, epochs
        self.save, self.save_steps, self.clock = save, save_steps, clock

    def on_train_begin(self, run_context: Any) -> None:
        args = run_context.original_args()
        args.cur_step_num, args.epoch_num = self.first_step, self.epochs  # MindSpore counts from its initial_epoch

    def on_train_step_begin(self, run_context: Any) -> None:
        done = run_context.original_args().cur_step_num - 1
        if done > self.first_step and done % self.save_steps == 0:
            with self.clock.pause():
                self.save(done)


class FirstStepCallBack(Callback):
    """Calls a function when the first step that is done has ended."""

    def __init__(self, done: Callable[[], None]):
        super().__init__()
        self.done: Callable[[], None] | None = done

    def on_train_step_end(self, run_context: Any) -> None:
        if self.done:
            done, self.done = self.done, None
            done()


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
