"""mindspore_hub_conf.py: the network as MindSpore Hub asks for it."""

import re

import mindspore as ms
import numpy as np
import pytest
from conftest import ROOT
from mindspore import Tensor
from networks import loaded

from mindspore_hub_conf import create_network
from src.base.errors import InputError
from src.dataset import batches_of
from src.network.ascend import ASCEND
from src.network.stock import STOCK


def test_the_network_of_a_checkpoint_gives_the_checkpoints_logits(run_folder, tiny_data):
    dense, ids, _ = next(iter(batches_of(tiny_data, "test", 50)))[:3]
    dense, ids = Tensor(np.asarray(dense, np.float32)), Tensor(np.asarray(ids, np.int32))
    expected = loaded(run_folder / "checkpoint/dlrm.ckpt", tiny_data)(dense, ids).asnumpy()
    for path in ("checkpoint", "checkpoint/dlrm.ckpt"):
        network = create_network("dlrm", checkpoint_path=str(run_folder / path))
        logits = network(dense, ids).asnumpy()
        assert logits.shape == (50, 1)
        assert np.array_equal(logits, expected)


def test_a_fresh_network_has_the_shape_that_is_asked_for():
    network = create_network("dlrm", table_rows=[10, 20, 30], dense_dim=4, emb_dim=8, bottom_mlp=(16, 8), top_mlp=(1,))
    logits = network(Tensor(np.ones((5, 4), np.float32)), Tensor(np.ones((5, 3), np.int32)))
    assert (logits.shape, logits.dtype) == ((5, 1), ms.float32)
    assert network.tables.table.shape == (60, 8)


def test_ids_that_a_table_has_not_are_refused():
    """Those of the field before or behind would be taken instead."""
    network = create_network("dlrm", table_rows=[10, 20], dense_dim=2, emb_dim=4, bottom_mlp=(4,), top_mlp=(1,))
    for wrong in ([9, 20], [10, 0], [-1, 0]):
        with pytest.raises(InputError, match=r"row 2, field [12]: id (20|10|-1) is not among the (10|20) of its table"):
            network(Tensor(np.ones((2, 2), np.float32)), Tensor(np.array([[9, 19], wrong], np.int32)))


@pytest.mark.parametrize(("device", "operators"), [("Ascend", ASCEND), ("GPU", STOCK), ("CPU", STOCK)])
def test_networks_are_of_the_devices_operators(run_folder, monkeypatch, device, operators):
    monkeypatch.setattr(ms, "get_context", lambda _: device)
    for arguments in ({"table_rows": [10, 20]}, {"checkpoint_path": str(run_folder / "checkpoint")}):
        assert create_network("dlrm", **arguments).tables.operators is operators


@pytest.mark.parametrize(
    ("name", "arguments", "message"),
    [
        ("dlrn", {"table_rows": [3]}, "name is 'dlrn': this repository has the network 'dlrm'"),
        ("dlrm", {}, "give either checkpoint_path, of train.py, or table_rows"),
        ("dlrm", {"table_rows": [3], "checkpoint_path": "x"}, "give either checkpoint_path"),
        ("dlrm", {"checkpoint_path": "nowhere/dlrm.ckpt"}, "checkpoint_path nowhere/dlrm.ckpt is not a file"),
        ("dlrm", {"checkpoint_path": "x", "emb_dim": 8}, "emb_dim has no effect with checkpoint_path"),
        (
            "dlrm",
            {"table_rows": [3], "mixed_dims": 0.5},
            "mixed_dims 0.5: a fresh network here has vectors of one width",
        ),
    ],
)
def test_what_can_t_be_made_is_refused(name, arguments, message):
    with pytest.raises(InputError, match=message):
        create_network(name, **arguments)


def test_the_card_shows_calls_that_work():
    """What it calls, with the shapes that it names."""
    text = (ROOT / "mindspore_hub_conf.md").read_text()
    fresh = re.search(r"network = (create_network\(\"dlrm\", table_rows.*\))", text)[1]
    network = eval(fresh, {"create_network": create_network})
    assert network(Tensor(np.ones((2, 13), np.float32)), Tensor(np.ones((2, 26), np.int32))).shape == (2, 1)
    for name in (
        "model-name",
        "backbone-name",
        "module-type",
        "fine-tunable",
        "input-shape",
        "train-dataset",
        "license",
    ):
        assert re.search(rf"^{name}: \S", text, re.MULTILINE)
