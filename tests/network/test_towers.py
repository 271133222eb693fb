"""Several towers in one network: each is a network of its own, and the logit is the mean of theirs."""

from pathlib import Path

import numpy as np
import pytest
from conftest import CPU, ORIGINAL
from mindspore import Tensor
from networks import loaded, make_step, network_spec

import export as export_program
import train
from src.base.errors import InputError
from src.dataset import batches_of
from src.dlrm import DLRM, mlp_values
from src.network.embedding import EmbeddingTables, initial_rows
from src.network.stock import STOCK
from src.options import TrainOptions, resolve
from src.scorer import Scorer
from src.training.evaluation import score

ROWS, BOTTOM, TOP = (5, 9, 7), (4,), (8, 1)
RULES = {"lr": 0.01, "table_lr": 0.05, "optimizer": "adagrad"}


def batch(rows=32):
    rng = np.random.default_rng(3)
    ids = np.stack([rng.integers(0, size, rows) for size in ROWS], 1).astype(np.int32)
    return rng.normal(size=(rows, 2)).astype(np.float32), ids, rng.integers(0, 2, (rows, 1)).astype(np.float32)


def make(operators=STOCK, towers=3, **more):
    tables = EmbeddingTables(ROWS, initial_rows(ROWS, towers * BOTTOM[-1], 1), operators)
    return DLRM(2, tables, network_spec(BOTTOM, TOP, towers, **more))


def alone(model, number, operators):
    """A network of one tower with the values of one among several."""
    width = BOTTOM[-1]
    values = model.tables.table.asnumpy()[:, number * width : (number + 1) * width].copy()
    one = DLRM(2, EmbeddingTables(ROWS, values, operators), network_spec(BOTTOM, TOP))
    for own, other in zip(one.mlp_parameters(), model.towers[number].get_parameters()):
        own.set_data(Tensor(other.asnumpy().copy()))
    return one


def test_logit_is_the_mean_of_the_towers(operators):
    model = make(operators)
    dense, ids, _ = (Tensor(column) for column in batch())
    each = [alone(model, number, operators)(dense, ids).asnumpy() for number in range(3)]
    assert np.abs(model(dense, ids).asnumpy() - np.mean(each, axis=0)).max() < 1e-6
    assert min(np.abs(each[0] - each[1]).max(), np.abs(each[1] - each[2]).max()) > 1e-2


def test_each_tower_learns_as_it_would_alone(operators):
    """With rules that the loss's scale does not matter to."""
    model = make(operators)
    ones = [alone(model, number, operators) for number in range(3)]
    columns = [Tensor(column) for column in batch()]
    step, steps = make_step(model, **RULES), [make_step(one, **RULES) for one in ones]
    for _ in range(5):
        loss = float(step(*columns).asnumpy())
        losses = [float(one(*columns).asnumpy()) for one in steps]
        assert loss == pytest.approx(np.mean(losses), abs=1e-5)
    for number, one in enumerate(ones):
        again = alone(model, number, operators)
        for own, other in zip(again.mlp_parameters(), one.mlp_parameters()):
            assert np.abs(own.asnumpy() - other.asnumpy()).max() < 1e-4
        assert np.abs(again.tables.table.asnumpy() - one.tables.table.asnumpy()).max() < 1e-4


def test_one_tower_is_the_network_as_it_was():
    names = [parameter.name for parameter in make(STOCK, 1).get_parameters()]
    assert len([name for name in names if name.startswith(("bottom.", "top.", "tables."))]) == len(names)
    first, of_three = make(STOCK, 1), make(STOCK, 3)
    for own, other in zip(first.mlp_parameters(), of_three.mlp_parameters()):
        assert np.array_equal(own.asnumpy(), other.asnumpy())


@pytest.mark.parametrize("interaction", ["dot", "cat", "dcnv2"])
def test_planned_values_count_all_towers(interaction):
    more = {"dcn_rank": 5} if interaction == "dcnv2" else {}
    model = make(interaction=interaction, **more)
    planned = mlp_values(2, len(ROWS), network_spec(BOTTOM, TOP, 3, interaction=interaction, **more))
    assert planned == sum(parameter.size for parameter in model.mlp_parameters())


def test_widths_must_agree():
    with pytest.raises(InputError, match=r"ends with 16, which must equal emb_dim 16 / towers 2"):
        resolve(TrainOptions, [CPU, "--towers=2"])
    with pytest.raises(ValueError, match="the tables have a width of 16, the network 8"):
        DLRM(2, EmbeddingTables(ROWS, initial_rows(ROWS, 16, 1)), network_spec((8, 4), TOP, 2))


@pytest.fixture(scope="module")
def trained(tiny_data, tmp_path_factory):
    """The folder of a run with towers, dropout and averaging, and what its checkpoint gives for the test rows."""
    folder = tmp_path_factory.mktemp("towers")
    sizes = ["--emb_dim=12", "--bottom_mlp=[4]", "--top_mlp=[8,1]", "--towers=3"]
    rules = ["--optimizer=adagrad", "--lr=0.02", "--dropout=0.2", "--average_share=0.5"]
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        train.main([CPU, ORIGINAL, f"--dataset_path={tiny_data.path}", "--batch_size=49", "--importance_rows=50",
                    *sizes, *rules])  # fmt: skip
    dense, ids, _ = (np.concatenate(column) for column in zip(*batches_of(tiny_data, "test", 64)))
    network = {"emb_dim": 12, "bottom_mlp": (4,), "top_mlp": (8, 1), "towers": 3}
    model = loaded(folder / "checkpoint/dlrm.ckpt", tiny_data, **network)
    return folder, dense, ids, score(model, batches_of(tiny_data, "test", 64), 64)[1]


@pytest.mark.parametrize("calibrate", [False, True])
def test_towers_train_evaluate_and_export(trained, tiny_data, tmp_path, monkeypatch, calibrate):
    """The exported graph scores as the checkpoint does, calibrated or not."""
    folder, dense, ids, logits = trained
    monkeypatch.chdir(tmp_path)
    more = ["--calibrate=True", f"--dataset_path={tiny_data.path}"] if calibrate else []
    for placement in ("graph", "host"):
        export_program.main([CPU, f"--checkpoint_path={folder}/checkpoint", f"--export_path={placement}",
                             f"--table_placement={placement}", *more])  # fmt: skip
        scorer = Scorer(placement)
        if calibrate:
            temperature, bias = next(
                (float(line.split("\t")[1]), float(line.split("\t")[2]))
                for line in (Path(placement) / "dlrm.model").read_text().splitlines()
                if line.startswith("calibration\t")
            )
            assert temperature != 1
            expected = 1 / (1 + np.exp(-(logits / temperature + bias)))
        else:
            expected = 1 / (1 + np.exp(-logits))
        assert np.abs(scorer.score_ids(dense, ids) - expected).max() < 1e-6
