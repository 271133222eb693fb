"""A training that diverges ends in one line, or goes back; no state of it is kept, and a smaller rate goes on."""

import json
import re
from types import SimpleNamespace

import mindspore as ms
import numpy as np
import pytest
from mindspore import Tensor
from mindspore.train import Callback
from runs import StopAt, rows_of, train_small

from src.base import events
from src.base.errors import InputError
from src.base.finite import NotFinite, first_not_finite, is_finite
from src.checkpoints import checkpoint
from src.network.stock import STOCK
from src.ranks.group import Ranks
from src.report.files import load_report
from src.training import training


class Poison(Callback):
    """Makes a weight not a number after some steps, in turn: of a hidden layer, where MindSpore's ReLU hides it."""

    def __init__(self, *steps, layer=0):
        super().__init__()
        self.steps, self.layer = list(steps), layer

    def on_train_step_end(self, run_context):
        args = run_context.original_args()
        if self.steps and args.cur_step_num == self.steps[0]:
            del self.steps[0]
            weight = args.train_network.model.towers[0].top.trainable_params()[self.layer]
            weight.set_data(Tensor(np.full(weight.shape, np.nan, np.float32)))


class Batches(Callback):
    """The batches by step, as MindSpore shows them to callbacks."""

    def __init__(self):
        super().__init__()
        self.seen = {}

    def on_train_step_end(self, run_context):
        args = run_context.original_args()
        self.seen[args.cur_step_num] = [column.asnumpy().copy() for column in args.train_dataset_element]


def values_of_states(folder):
    """Of every file of a state, by name and entry."""
    return {
        f"{path.name} {name}": value.asnumpy()
        for path in (folder / "unfinished").glob("*-*.ckpt")
        for name, value in ms.load_checkpoint(str(path)).items()
    }


def progress_of(folder):
    return json.loads((folder / "unfinished/progress.json").read_text())


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_one_value_among_many_is_found(bad):
    values = np.zeros((200_000, 2), np.float32)
    assert is_finite(values)
    values[170_001, 1] = bad
    assert not is_finite(values)
    assert first_not_finite({"ids": np.arange(3), "a": np.ones(2), "b": np.float32(bad), "c": values}) == "b"
    assert first_not_finite({"ids": np.arange(3), "one": np.float32(1)}) == ""


def test_a_hidden_weight_ends_the_training(tiny_data, tmp_path, operators):
    """With MindSpore's own operators the losses stay finite, and it was trained to the end, with an AUC of 0.5."""
    what = r"\S+ holds values that are not finite" if operators is STOCK else "the loss is nan"
    with pytest.raises(InputError, match=f"^{what} at step 10: training diverged; .* in (bottom|top).layers.0.weight;"):
        train_small(tiny_data, tmp_path, log_steps=100, eval_steps=10, callbacks=[Poison(9)],
                    cpu_kernels=operators is not STOCK)  # fmt: skip
    assert not (tmp_path / "dlrm.ckpt").exists()


@pytest.mark.parametrize("layer", [0, -1])
def test_no_state_is_saved_of_a_network_that_is_not_finite(tiny_data, tmp_path, layer):
    """By its values in a hidden layer, by its loss in the last one, though no line of the loss came before the save."""
    with pytest.raises(InputError, match=r"at step 15: .*goes on from step 10, the last finite state"):
        train_small(tiny_data, tmp_path, log_steps=100, do_eval=False, save_steps=5, cpu_kernels=layer == -1,
                    callbacks=[Poison(14, layer=layer)])  # fmt: skip
    assert progress_of(tmp_path)["step"] == 10
    values = values_of_states(tmp_path)
    assert {name.split()[0] for name in values} == {"state-5.ckpt", "state-10.ckpt"}
    assert not first_not_finite(values)
    train_small(tiny_data, tmp_path, do_eval=False, save_steps=5)


def test_the_line_names_the_first_bad_step_and_keeps_its_batch(tiny_data, tmp_path):
    """Though the losses of many steps are looked at together."""
    batches = Batches()
    with pytest.raises(
        InputError, match="the loss is nan at step 13: training diverged; try a smaller --lr: "
    ) as error:
        train_small(tiny_data, tmp_path, log_steps=20, callbacks=[Poison(12, layer=-1), batches])
    text = str(error.value)
    assert "the same command with --lr=0.01 begins anew, as there is no finite state; " in text
    assert "the first value that is not finite is in bottom.layers.0.weight; " in text
    path = tmp_path / "loss.nonfinite-13.npz"
    assert f"the step's batch is in {path}" in text
    with np.load(path) as kept:
        for name, column in zip(("dense", "ids", "labels"), batches.seen[13], strict=True):
            np.testing.assert_array_equal(kept[name], column)


def test_a_batch_that_cannot_be_kept_does_not_hide_what_was_found(tiny_data, tmp_path):
    (tmp_path / "loss.nonfinite-13.npz").mkdir()
    with pytest.raises(InputError, match=r"loss is nan at step 13: .* --lr=0.01 begins anew.* batch is not kept, as .*"
                       r"loss.nonfinite-13.npz can't be written \(.+\)$"):  # fmt: skip
        train_small(tiny_data, tmp_path, log_steps=1, callbacks=[Poison(12, layer=-1)])


def test_an_evaluation_of_ones_own_that_is_not_finite_ends_the_training_too(tiny_data, tmp_path):
    """Though it does not say behind which step."""

    class Evaluation(Callback):
        def on_train_step_end(self, run_context):
            if run_context.original_args().cur_step_num == 7:
                raise NotFinite("2 of 3 logits are not finite")

    with pytest.raises(InputError, match="^2 of 3 logits are not finite: training.* --lr=0.01 goes on from step 5, .*"
                       "; all values are still finite$"):  # fmt: skip
        train_small(tiny_data, tmp_path, save_steps=5, callbacks=[Evaluation()])


def test_going_back_takes_the_last_finite_state_and_a_tenth_of_the_rate(tiny_data, tmp_path, capsys):
    """What follows is what a run does that goes on from that state with that rate; log and report say it."""
    options = {"save_steps": 5, "eval_steps": 5, "log_steps": 1, "report": True, "importance_rows": 0}
    back, by_hand = tmp_path / "back", tmp_path / "by_hand"
    back.mkdir(), by_hand.mkdir()
    result = train_small(tiny_data, back, on_nonfinite="back", callbacks=[Poison(12)], **options)
    assert "the loss is nan at step 13: going back to step 10 with lr 0.01; the first value" in capsys.readouterr().out
    with pytest.raises(InputError, match="the same command with --lr=0.01 goes on from step 10"):
        train_small(tiny_data, by_hand, callbacks=[Poison(12)], **options)
    again = train_small(tiny_data, by_hand, **options, lr=0.01)
    assert "going on from step 10 of 26, which" in (said := capsys.readouterr().out)
    assert ", with lr 0.01 instead of 0.1\n" in said
    assert (result.best, result.best_step, result.steps) == (again.best, again.best_step, 26)
    assert (back / "dlrm.ckpt").read_bytes() == (by_hand / "dlrm.ckpt").read_bytes()
    (row,) = rows_of(back / "metrics.jsonl", "back")
    assert (row["step"], row["to"], row["lr"]) == (13, 10, pytest.approx(0.01))
    reports = [load_report(folder)["curves"] for folder in (back, by_hand)]
    assert [curves["changes"] for curves in reports] == [
        [{"step": 10, "what": "the loss is nan at step 13: back to here, with lr 0.01"}],
        [{"step": 10, "what": "lr 0.01 instead of 0.1"}],
    ]
    for curves in reports:
        assert [point[0] for point in curves["loss"]] == list(range(1, 27))
        assert [point[1] for point in curves["rate"]] == pytest.approx([0.1] * 10 + [0.01] * 16)
    assert "back to here, with lr 0.01" in (back / "report.html").read_text()


@pytest.mark.parametrize(("poisoned", "expected"), [
    ((12, 13, 11, 14, 11), [("13", "step 10", "0.01"), ("14", "step 5", "0.001"), ("12", "step 10", "0.0001"),
                            ("15", "step 5", "1e-05"), ("12", "step 5", "1e-06")]),
    ((6, 7), [("7", "step 5", "0.01"), ("8", "the beginning", "0.001")]),
])  # fmt: skip
def test_a_state_that_leads_to_divergence_at_a_smaller_rate_too_is_given_up(
    tiny_data, tmp_path, capsys, poisoned, expected
):
    """Then an older one serves. The last one is given up for the beginning if nothing came of it before that."""
    train_small(tiny_data, tmp_path, save_steps=5, log_steps=1, on_nonfinite="back", keep_states=2,
                callbacks=[Poison(*poisoned)])  # fmt: skip
    said = re.findall(r"at step (\d+): going back to (step \d+|the beginning) with lr (\S+);", capsys.readouterr().out)
    assert said == expected


def test_going_back_has_an_end(tiny_data, tmp_path, monkeypatch):
    """At most so many times, over stops too; the folder goes on with a smaller rate."""
    monkeypatch.setattr(training, "MOST_TIMES_BACK", 2)
    options = {"save_steps": 5, "log_steps": 1, "on_nonfinite": "back"}
    with pytest.raises(InputError, match=r"at step 9: .*--lr, after it went back 2 times: the .*--lr=0.0001 goes on"):
        train_small(tiny_data, tmp_path, callbacks=[Poison(6, 7, 8)], **options)
    assert progress_of(tmp_path)["times_back"] == 2
    result = train_small(tiny_data, tmp_path, **options, lr=0.0001)
    assert result.steps == 26


def test_a_smaller_rate_outlives_a_stop(tiny_data, tmp_path):
    """One that going back chose; another one that is given is taken as it is."""
    options = {"save_steps": 5, "log_steps": 1, "on_nonfinite": "back"}

    class Stop(Callback):
        def on_train_step_end(self, run_context):
            args = run_context.original_args()
            rates.append(round(float(args.train_network.learning_rate.asnumpy()), 6))
            if args.cur_step_num == 9 and not poison.steps:
                raise KeyboardInterrupt

    rates, poison = [], Poison(8)
    for lr, expected in ((0.1, 0.01), (0.1, 0.01), (0.07, 0.07)):
        rates.clear()
        with pytest.raises(KeyboardInterrupt):
            train_small(tiny_data, tmp_path, callbacks=[poison, Stop()], lr=lr, **options)
        assert rates[-1] == expected


def test_going_on_says_that_an_earlier_part_went_back(tiny_data, tmp_path, capsys):
    """Its smaller rates stay, in log and report."""
    options = {"save_steps": 5, "log_steps": 1, "on_nonfinite": "back", "report": True, "importance_rows": 0}
    with pytest.raises(KeyboardInterrupt):
        train_small(tiny_data, tmp_path, callbacks=[Poison(8), StopAt(12)], **options)
    capsys.readouterr()
    train_small(tiny_data, tmp_path, **options)
    assert ", with lr 0.01 since it went back 1 time\n" in capsys.readouterr().out
    assert load_report(tmp_path)["curves"]["changes"] == [
        {"step": 5, "what": "the loss is nan at step 9: back to here, with lr 0.01"},
        {"step": 10, "what": "lr 0.01 since it went back 1 time"},
    ]


@pytest.mark.parametrize(("lr", "table_lr", "flags"), [
    (5000, 0.02, "--lr=500"), (0.001, 0.5, "--table_lr=0.05"), (0.3, 0.2, "--lr=0.03 --table_lr=0.03"),
    (0.3, 0.0, "--lr=0.03"),
])  # fmt: skip
def test_the_larger_rate_is_the_one_to_lower(tiny_data, tmp_path, lr, table_lr, flags):
    """One that a YAML file gave, and that can't be to blame, is not touched; they do so who go back by themselves."""
    with pytest.raises(InputError, match=f"the same command with {flags} (goes on from step|begins)"):
        train_small(tiny_data, tmp_path, callbacks=[Poison(6, layer=-1)], lr=lr, table_lr=table_lr, save_steps=5,
                    do_eval=False)  # fmt: skip


def test_values_are_looked_at_once_behind_a_step(tiny_data, tmp_path, monkeypatch):
    """By evaluation, best network, state and end; where a user's callbacks may change them, at each."""
    seen, check = [], checkpoint.check_finite
    monkeypatch.setattr(checkpoint, "check_finite", lambda *values: seen.append(values[2]) or check(*values))
    train_small(tiny_data, tmp_path / "1", save_steps=5, eval_steps=5)
    assert seen == [5, 10, 15, 20, 25, 26]
    seen.clear()
    train_small(tiny_data, tmp_path / "2", save_steps=13, eval_steps=26, callbacks=[Poison()])
    assert (seen[0], set(seen[1:]), len(seen) > 3) == (13, {26}, True)


@pytest.mark.parametrize(("lr", "optimizer", "kernels"), [
    (2e3, "sgd", True), (1e6, "rowwise_adagrad", False),
])  # fmt: skip
@pytest.mark.parametrize("on_nonfinite", ["stop", "back"])
def test_whatever_diverges_goes_on_by_the_lines_own_advice(tiny_data, tmp_path, lr, optimizer, kernels, on_nonfinite):
    """Until it ends well; `benchmarks/diverging.py` tries many more. Never is a state kept that is not finite."""
    found, more = [], {}

    def check(moment):
        if moment == "the progress names another state":
            found.append(first_not_finite(values_of_states(tmp_path)))

    events.listeners.append(check)
    try:
        for _ in range(12):
            try:
                result = train_small(tiny_data, tmp_path, lr=lr, optimizer=optimizer, cpu_kernels=kernels, save_steps=3,
                                     log_steps=100, eval_steps=7, on_nonfinite=on_nonfinite, **more)  # fmt: skip
                break
            except InputError as error:
                advice = re.search(r"training diverged; .*: the same command with --lr=(\S+) (.*);", str(error))
                lr, more = float(advice[1]), {"resume": "--resume=False" not in advice[2]}
    finally:
        events.listeners.remove(check)
    assert result.steps == 26
    assert len(found) >= 8
    assert not any(found)


def test_all_ranks_learn_what_one_of_them_holds():
    """So that none waits for it, nor saves its part."""

    class Second(Ranks):
        def __init__(self, others_flag):
            self.rank, self.size, self.others_flag = 1, 2, others_flag

        def gather(self, values):
            return np.stack([np.full_like(values, self.others_flag), values])

    good, bad = {"a": np.ones(3, np.float32)}, {"a": np.full(3, np.inf, np.float32)}
    checkpoint.check_finite(good, Second(0), 7)
    with pytest.raises(
        NotFinite, match="a table's part on rank 0 holds values that are not finite at step 7: training"
    ):
        checkpoint.check_finite(good, Second(1), 7)
    with pytest.raises(NotFinite, match="^a holds values that are not finite at step 7"):
        checkpoint.check_finite(bad, Second(0), 7)


def test_no_rank_says_that_all_is_finite_where_another_holds_what_is_not():
    class Second(Ranks):
        def __init__(self):
            self.rank, self.size = 1, 2

        def gather(self, values):
            return np.stack([np.ones_like(values), values])

    found = SimpleNamespace(prepared=SimpleNamespace(specs=SimpleNamespace(runtime=SimpleNamespace(ranks=Second()))))
    for value, words in ((1.0, "values that are not finite are on rank 0"), (np.nan, "the first value .* is in a")):
        found._values = lambda value=value: {"a": np.array([value])}
        assert re.fullmatch(words, training.Training._facts(found, 0))


def test_the_error_says_what_and_where():
    assert str(NotFinite("the loss is nan", 3)) == "the loss is nan at step 3: training diverged; try a smaller --lr"
    assert str(NotFinite("2 of 3 logits are not finite")).startswith("2 of 3 logits are not finite: training diverged;")
