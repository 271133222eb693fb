import numpy as np
import pytest
from runs import StopAt, rows_of, train_small
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from src.base.errors import InputError
from src.report import event_files


def events_of(folder):
    """All that TensorBoard's own reader finds of the only run in a folder."""
    (run,) = folder.iterdir()
    found = EventAccumulator(str(run), size_guidance={"scalars": 0, "tensors": 0})
    found.Reload()
    return found


def scalars(events, tag):
    return {one.step: one.value for one in events.Scalars(tag)}


def test_tensorboard_reads_a_run_that_was_stopped_and_went_on(tiny_data, tmp_path):
    options = {
        "tensorboard": str(tmp_path / "events"), "report": True, "importance_rows": 0, "eval_steps": 13,
        "save_steps": 10,
    }  # fmt: skip
    with pytest.raises(KeyboardInterrupt):
        train_small(tiny_data, tmp_path, [StopAt(24)], **options)
    result = train_small(tiny_data, tmp_path, **options)
    events = events_of(tmp_path / "events")
    means = {row["step"]: row["mean_loss"] for row in rows_of(tmp_path / "metrics.jsonl", "loss")}
    assert scalars(events, "train/loss") == pytest.approx(means, rel=1e-6)
    evaluations = rows_of(tmp_path / "metrics.jsonl", "eval")
    assert scalars(events, "valid/auc") == pytest.approx({row["step"]: row["auc"] for row in evaluations}, rel=1e-6)
    assert list(scalars(events, "rate/mlps").values()) == pytest.approx([0.1, 0.1, 0.1])
    assert b"| lr | 0.1 |" in events.Tensors("options/text_summary")[0].tensor_proto.string_val[0]
    with np.load(tmp_path / "scores.npz") as scores:
        labels = scores["labels"]
    for name, rows in (("clicks", labels.sum()), ("others", (1 - labels).sum())):
        (histogram,) = events.Histograms(f"valid/scores_of_{name}")
        assert histogram.step == result.best_step
        assert histogram.histogram_value.num == rows
    (picture,) = events.Images("valid/reliability")
    assert picture.encoded_image_string.startswith(b"\x89PNG")
    assert {"valid/precision_and_recall", "rate/tables", "train/samples_per_s"} <= {
        name for tags in events.Tags().values() if isinstance(tags, list) for name in tags
    }


def test_going_back_takes_away_what_came_behind(tmp_path):
    files = event_files.EventFiles(str(tmp_path), "2026-01-01T00:00:00", {}, lambda step: (0.1, 0.2), 0)
    for step in (10, 20, 30):
        files.follow("loss", {"step": step, "loss": float(step), "samples_per_s": float("nan")})
    files.follow("back", {"step": 30, "to": 15, "why": "", "rates": ""})
    files.follow("loss", {"step": 20, "loss": 5.0, "samples_per_s": 1.0})
    files.close()
    assert scalars(events_of(tmp_path), "train/loss") == {10: 10.0, 20: 5.0}


def test_a_missing_library_is_said_before_anything_is_made(tiny_data, tmp_path, monkeypatch):
    monkeypatch.setattr(event_files, "find_spec", lambda name: None)
    with pytest.raises(InputError, match="pip install -r requirements-tensorboard.txt"):
        train_small(tiny_data, tmp_path, tensorboard=str(tmp_path / "events"))
    assert not (tmp_path / "events").exists()
