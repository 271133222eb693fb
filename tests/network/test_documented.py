"""MindSpore's operators are used as its documentation has them, and its warnings are seen."""

import inspect
import re
import subprocess
import sys

import pytest
from conftest import ROOT
from mindspore import Tensor, ops
from networks import make_batch, make_model, make_step

from src.training.rules import RULES

USED = sorted({
    name for path in (ROOT / "src").rglob("*.py") for name in re.findall(r"(?<![\w.])ops\.([a-z]\w*)", path.read_text())
})  # fmt: skip


@pytest.mark.parametrize("name", [name for name in USED if hasattr(ops, name)])
def test_functions_are_not_those_that_will_go_or_mean_something_else(name):
    text = " ".join((inspect.getdoc(getattr(ops, name)) or "").split())
    assert not re.search(r"deprecated and (will be )?removed|signature will change|semantics (of this API )?will", text)
    assert not re.search(r"this interface (will change|currently has)", text)


@pytest.mark.parametrize("rule", RULES)
def test_rows_that_repeat_are_added_up_under_a_lock(rule):
    """Without it what they get is not defined; and sums by segments want as many of these as there are."""
    step = make_step(make_model(slot_dim=2), optimizer=rule, table_weight_decay=0.1 if rule == "adagrad" else 0.0)
    used = [one for cell in [step, *step.cells()] for _, inner in cell.cells_and_names()
            for one in inner._primitives.values() if one is not None]  # fmt: skip
    writes = [one for one in used if one.name.startswith("Scatter") and "use_locking" in one.attrs]
    assert writes
    assert all(one.attrs["use_locking"] for one in writes), [one.name for one in writes]
    assert not [one for one in used if one.name == "UnsortedSegmentSum"]


def test_a_step_logs_no_deprecation(capfd, own_graphs):
    most = {"optimizer": "adagrad", "average_from": 0, "mlp_weight_decay": 0.1, "dropout": 0.1}
    for network, options in (({"towers": 2, "interaction": "dcnv2", "dcn_rank": 2}, most), ({}, {})):
        model = make_model(slot_dim=2, **network)
        make_step(model, **options)(*map(Tensor, make_batch(model, 5, 4)))
    assert "deprecat" not in "".join(capfd.readouterr()).lower()


def test_deprecations_are_shown():
    program = "import src.model_utils\nfrom mindspore import log\nlog.warning('this is deprecated')"
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    assert "this is deprecated" in done.stderr
