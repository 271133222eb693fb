"""Short real trainings: what a run keeps, how it ends, and what reaches the rows and the tables."""

import contextlib

import numpy as np
import pytest
from conftest import preprocess_lines, raw_lines, write_raw
from mindspore import Tensor
from mindspore.train import Callback
from networks import loaded, make_batch, make_model
from runs import SMALL, Recorder, Watch, rows_of, train_small

from src.base.errors import InputError
from src.dataset import batches_of
from src.network.embedding import initial_values, joint_rows, whole_fields
from src.network.stock import STOCK
from src.ranks.group import Ranks
from src.training import training
from src.training.evaluation import score


def test_early_stopping_by_test_rows_is_refused(tmp_path):
    data = preprocess_lines(write_raw(tmp_path / "train.txt", raw_lines(300)), tmp_path / "data", valid_fraction=0.0)
    with pytest.raises(InputError, match="early_stopping 2 needs validation rows, and .* has only test rows"):
        train_small(data, tmp_path, early_stopping=2)


def test_network_that_is_kept_has_the_averaged_weights(tiny_data, tmp_path, operators):
    """And scores as the evaluation did that chose it; without evaluation too."""
    for do_eval in (True, False):
        watch = Watch(26)
        result = train_small(tiny_data, tmp_path, average_share=0.5, overwrite=True, do_eval=do_eval,
                             cpu_kernels=operators is not STOCK, callbacks=[watch])  # fmt: skip
        model = loaded(result.checkpoint, tiny_data, operators, **SMALL)
        values, _ = watch.seen[26]
        for parameter in model.mlp_parameters():
            np.testing.assert_array_equal(parameter.asnumpy(), values[f"average.{parameter.name}"])
            assert not np.array_equal(parameter.asnumpy(), values[parameter.name])
        if do_eval:
            found = training.evaluate(model, batches_of(tiny_data, "valid", 64), 64)
            assert found == result.best


def test_tables_begin_each_epoch_anew_and_mlps_go_on(tiny_data, tmp_path, operators):
    """After an epoch's first step only what it looked up differs from new initial values, and Adam's states from 0."""
    watch, rows = Watch(26, 27, 53), tiny_data.manifest.table_rows
    train_small(tiny_data, tmp_path, epochs=3, reset_tables_each_epoch=True, cpu_kernels=operators is not STOCK,
                callbacks=[watch], lr=0.001, optimizer="adam", dropout=0.3)  # fmt: skip
    for step, epoch in ((27, 1), (53, 2)):
        values, touched = watch.seen[step]
        expected = joint_rows(whole_fields(rows), SMALL["emb_dim"], initial_values(rows, 1, epoch))
        differs = np.flatnonzero((values["embedding"] != expected).any(1))
        assert set(differs) <= set(touched)
        assert len(differs) > 0.9 * len(touched)
        assert np.abs(values["embedding"] - expected).max() < 0.02
        for state in ("tables.mean", "tables.square"):
            assert set(np.flatnonzero(values[state].any(1))) <= set(touched)
    before, after = watch.seen[26][0], watch.seen[27][0]
    assert int(after["steps_done"][0]) == 27
    for name in before.keys() - {"embedding", "tables.mean", "tables.square", "steps_done"}:
        assert 0 < np.abs(after[name] - before[name]).max() < 0.1, name


def test_callback_of_the_user_is_called(tiny_data, tmp_path):
    recorder = Recorder()
    result = train_small(tiny_data, tmp_path, callbacks=[recorder])
    assert recorder.calls == ["begin", *range(1, 27), "end"]
    assert result.steps == 26
    logged = {row["step"]: row["loss"] for row in rows_of(tmp_path / "metrics.jsonl", "loss")}
    assert list(logged) == [10, 20, 26]
    assert [logged[step] for step in logged] == [recorder.losses[step - 1] for step in logged]


class Rows(Callback):
    """The ids of the batches, as MindSpore shows them to callbacks."""

    def __init__(self):
        super().__init__()
        self.ids = []

    def on_train_step_end(self, run_context):
        self.ids.append(run_context.original_args().train_dataset_element[1].asnumpy().copy())


def test_seed_and_shuffle_reach_the_order_of_the_rows(tiny_data, tmp_path):
    orders = []
    for options in ({"seed": 1}, {"seed": 2}, {"shuffle": False}):
        rows = Rows()
        train_small(tiny_data, tmp_path, batch_size=343, do_eval=False, overwrite=True, callbacks=[rows], **options)
        orders.append(np.concatenate(rows.ids))
    (whole,) = [batch[1] for batch in batches_of(tiny_data, "train", 2000)]
    assert len(whole) == 1715
    assert [np.array_equal(order, whole) for order in orders] == [False, False, True]
    assert not np.array_equal(orders[0], orders[1])
    assert [sorted(order.tolist()) for order in orders] == [sorted(whole.tolist())] * 3


def test_training_that_a_callback_stops_ends_with_an_evaluation(tiny_data, tmp_path):
    """And so with a checkpoint, though no epoch ended."""
    result = train_small(tiny_data, tmp_path, callbacks=[Recorder(stop_at=5)])
    assert [row["step"] for row in rows_of(tmp_path / "metrics.jsonl", "eval")] == [5]
    assert (result.steps, result.best_step) == (5, 5)
    assert result.checkpoint.is_file()


def test_evaluations_stand_a_tenth_of_an_epoch_apart_by_default(tiny_data, tmp_path):
    train_small(tiny_data, tmp_path, eval_steps=0)
    assert [row["step"] for row in rows_of(tmp_path / "metrics.jsonl", "eval")] == list(range(2, 27, 2))


def test_checkpoint_kept_is_the_one_with_the_best_auc(tiny_data, tmp_path, monkeypatch):
    """Real evaluations, of which the third of seven is made out to be the best: its values are kept, not later ones."""
    real, measured, values = training.evaluate, [], []

    def evaluate(model, *arguments):
        measured.append(real(model, *arguments))
        values.append({value.name: value.asnumpy().tobytes() for value in model.get_parameters()})
        auc = 0.99 if len(measured) == 3 else 0.5
        return measured[-1] | {"auc": auc}

    monkeypatch.setattr(training, "evaluate", evaluate)
    result = train_small(tiny_data, tmp_path, eval_steps=10, epochs=2)
    assert [row["step"] for row in rows_of(tmp_path / "metrics.jsonl", "eval")] == [10, 20, 26, 30, 40, 50, 52]
    assert (result.best_step, result.best["auc"]) == (26, 0.99)
    assert len({metrics["logloss"] for metrics in measured}) == 7  # each saw other values
    model = loaded(result.checkpoint, tiny_data, **SMALL)
    kept = {value.name: value.asnumpy().tobytes() for value in model.get_parameters()}
    assert [kept == seen for seen in values] == [False, False, True, False, False, False, False]


class Poison(Callback):
    """Makes a weight of the top MLP not a number after a step, as divergence does."""

    def __init__(self, step):
        super().__init__()
        self.step = step

    def on_train_step_end(self, run_context):
        args = run_context.original_args()
        if args.cur_step_num == self.step:
            bias = args.train_network.model.mlp_parameters()[-1]
            bias.set_data(Tensor(np.full(bias.shape, np.nan, np.float32)))


@pytest.mark.parametrize("do_eval", [True, False])
def test_diverging_training_is_one_error_and_leaves_no_checkpoint(tiny_data, tmp_path, do_eval):
    with pytest.raises(InputError, match=r"the loss is (nan|inf) at step \d+: training diverged; try a smaller --lr"):
        train_small(tiny_data, tmp_path, lr=3e38, log_steps=2, do_eval=do_eval)
    assert not (tmp_path / "dlrm.ckpt").exists()


def test_evaluation_that_sees_the_divergence_first_is_the_same_error(tiny_data, tmp_path):
    """Between two lines of the loss."""
    with pytest.raises(InputError, match="the loss is nan at step 10: training diverged; .*--lr"):
        train_small(tiny_data, tmp_path, log_steps=100, eval_steps=10, callbacks=[Poison(9)])
    assert not (tmp_path / "dlrm.ckpt").exists()


def test_batch_larger_than_the_training_rows_is_refused(tiny_data, tmp_path):
    with pytest.raises(InputError, match="batch_size is 1716, but there are only 1715 training rows: lower it"):
        train_small(tiny_data, tmp_path, batch_size=1716)


def test_without_evaluation_the_last_network_is_kept(tiny_data, tmp_path):
    result = train_small(tiny_data, tmp_path, do_eval=False)
    assert (result.best, result.best_step) == (None, 0)
    assert result.checkpoint.is_file()
    assert not (tmp_path / "auc.log").exists()
    assert rows_of(tmp_path / "metrics.jsonl", "eval") == []
    assert rows_of(tmp_path / "metrics.jsonl", "end")[0]["steps"] == 26


@pytest.mark.parametrize(("batch_size", "padded"), [(64, [64, 64, 64]), (50, [50, 50, 50]), (16_384, [256])])
def test_a_part_of_few_rows_is_scored_in_a_batch_of_about_as_many(tiny_data, batch_size, padded):
    sizes = []

    class Network:
        def set_train(self, _):
            pass

        def __call__(self, dense, ids):
            sizes.append(len(ids.asnumpy()))
            return Tensor(dense.asnumpy()[:, :1])

    batches = batches_of(tiny_data, "valid", batch_size)
    labels, logits = score(Network(), batches, batch_size)
    assert sizes == padded
    dense, _, expected = (np.concatenate(column) for column in zip(*batches))
    assert len(labels) == 143
    np.testing.assert_array_equal(labels, expected[:, 0])
    np.testing.assert_array_equal(logits, dense[:, 0])


def test_only_the_first_batch_that_a_network_scores_may_compile():
    """Of a size: for all others ranks that wait in vain are found, also in the first batch of each evaluation."""
    model, ranks, seen = make_model(), Ranks(), []
    ranks.sign.work = lambda compiles: contextlib.nullcontext(seen.append(compiles))
    for rows, count in ((16, 2), (16, 2), (8, 1)):
        score(model, [make_batch(model, 5, rows)] * count, rows, ranks)
    assert seen == [True, False, False, False, True]
