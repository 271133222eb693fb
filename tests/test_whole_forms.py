"""benchmarks/forms.py: a few forms of click logs through the whole chain, on few rows and with a small network."""

import importlib.util

import numpy as np
import pytest

from benchmarks import forms
from benchmarks.forms_of import FORMS
from src.metrics.binary import auc
from src.preprocessing.planted import draw_any

SHORT = ("--emb_dim=4", "--bottom_mlp=[4]", "--top_mlp=[4,1]", "--epochs=1", "--compare_linear=False")
NAMES = ("KDD", "Parquet", "lists")


@pytest.mark.parametrize("name", NAMES)
def test_a_form_is_scored_alike_by_all_programs(program, here, monkeypatch, name):
    if name == "Parquet" and not importlib.util.find_spec("pyarrow"):
        pytest.skip("pip install -r tests/requirements.txt")
    monkeypatch.setattr(forms, "NETWORK", SHORT)
    (form,) = (form for form in FORMS if name in form.name)
    found = forms.run_form(form, 700, program)
    assert 20 < found["test_rows"] < 100
    assert [fault for fault in forms.faults_of(found) if "below the best" not in fault] == []
    assert forms.faults_of(found | {"auc": found["best"] - 0.02, "apart": 2e-5}) != []


def test_what_is_wrong_is_told():
    good = {"auc": 0.8, "best": 0.805, "auc_of_scores": 0.80001, "apart": 1e-6}
    assert forms.faults_of(good) == []
    for wrong in ({"best": 0.811}, {"apart": 2e-5}, {"auc_of_scores": 0.79}, {"apart": float("nan")}):
        assert len(forms.faults_of(good | wrong)) == 1


def test_labels_follow_the_chances():
    rows = draw_any(3, 20_000, 2, (3, 4, 1000), (5, 5))
    for low in np.linspace(0, 0.9, 10):
        some = (rows.chances >= low) & (rows.chances < low + 0.1)
        assert rows.labels[some].mean() == pytest.approx(rows.chances[some].mean(), abs=4 * 0.5 / some.sum() ** 0.5)
    assert auc(rows.labels.astype(np.float32), rows.chances) > 0.75
    assert (rows.chances != draw_any(4, 20_000, 2, (3, 4, 1000), (5, 5)).chances).any()


def test_there_are_twelve_forms_with_one_schema_each(here):
    from src.rows.schema import load_schema

    assert len(FORMS) == 12
    for form in FORMS:
        if form.schema:
            assert form.label == load_schema(form.schema_file(here / "schema.yaml")).label
