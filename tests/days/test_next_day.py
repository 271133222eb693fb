"""python -m src.days: a model's days, stopped and gone on with, taken into use and refused."""

import json
import re
import shutil

import numpy as np
import pytest
from conftest import write_raw
from runs import bits
from stopping import Comes, run_program

from src.base.errors import AlreadyDone, InputError
from src.days.__main__ import main
from src.days.page import page_of
from src.days.verdict import worse
from src.export.delta import Delta
from src.metrics.binary import auc

SMALL = ["--device_target=CPU", "--dense_dim=2", "--slot_dim=3", "--emb_dim=4", "--bottom_mlp=[4]", "--top_mlp=[8,1]",
         "--batch_size=8", "--record_rows=8", "--shard_rows=64", "--compare_linear=False", "--report=False",
         "--eval_batch_size=128", "--export_batch_size=16", "--epochs=2", "--lr=0.01", "--fail_below=-1",
         "--table_placement=host", "--delta=True"]  # fmt: skip
MOMENTS = [
    "the day is begun", "the rows are coded by the earlier encoder", "the rows are prepared",
    "the earlier model has scored", "the files are to go to their places", "the day is trained on",
    "the new model has scored", "the new model is exported", "which model is in use is decided",
    "the new model is in use", "the history has the day",
]  # fmt: skip


def lines(day, rows=420):
    """A click follows from the first category; each day has some of its own."""
    rng = np.random.default_rng(day)
    cells = [rng.integers(0, 6, rows) + 3 * day, rng.integers(0, 4, rows), rng.zipf(1.5, rows) % 50]
    clicks = (rng.random(rows) < np.where(cells[0] % 2, 0.8, 0.2)).astype(int)
    return ["\t".join(map(str, row)) for row in zip(clicks, *rng.integers(0, 99, (2, rows)), *cells)]


def history(model):
    return [json.loads(line) for line in (model / "history.jsonl").read_text().splitlines()]


def lasting(line):
    return {name: value for name, value in line.items() if name != "time"}


@pytest.fixture(scope="module")
def days(made_once):
    """Raw files of three days, and a model of the first two."""

    def make(folder):
        for day in range(3):
            write_raw(folder / f"{day}.txt", lines(day))
        assert main([str(folder / "model"), str(folder / "0.txt"), *SMALL]) == 0
        assert main([str(folder / "model"), str(folder / "1.txt")]) == 0

    return made_once("next_days", make)


@pytest.fixture
def model(days, tmp_path):
    return shutil.copytree(days / "model", tmp_path / "model", symlinks=True)


def test_a_history_of_days(days):
    model = days / "model"
    first, second = history(model)
    assert (first["day"], first["state"], first["earlier"]) == (1, "in use", None)
    assert (second["day"], second["state"], second["earlier"]) == (2, "in use", "0001")
    assert first["rows"] == second["rows"] == {"train": 360, "valid": 30, "test": 30}
    assert second["growth"]["new"] > 0
    assert sum(second["table_rows"].values()) == sum(first["table_rows"].values()) + second["growth"]["new"]
    assert 0.4 < second["unseen_before"]["C1"] < 0.6
    assert second["unseen_after"]["C1"] == 0
    assert "C1" in second["moved"]
    assert second["psi"]["C1"] > 0.25 > second["psi"]["C2"]
    labels = np.array([line[0] == "1" for line in lines(1)])
    assert second["label_mean"] == pytest.approx(labels.mean(), abs=1e-7)
    assert second["label_mean_earlier"] == pytest.approx(np.mean([line[0] == "1" for line in lines(0)[:360]]))
    before = np.load(model / "days/0002/before.npz")
    np.testing.assert_array_equal(before["labels"], labels)
    assert second["progressive"]["auc"] == auc(before["labels"], before["logits"])
    assert second["progressive"]["rows"] == 420
    assert second["before"]["auc"] == auc(before["labels"][-30:], before["logits"][-30:])
    apart = second["difference"]["auc"]
    assert apart[0] == pytest.approx(second["after"]["auc"] - second["before"]["auc"])
    assert (model / "current").resolve() == (model / "days/0002").resolve()
    assert (model / "current/export/dlrm.model").is_file()
    assert not (model / "days/0001/delta").exists()
    assert Delta.load(model / "days/0002/delta").words
    assert (model / "report.html").read_text() == (model / "days/0002/report.html").read_text()
    assert (model / "report.html").read_text() == page_of([first, second])
    assert "第 2 天" in (page := page_of([first, second], "zh"))
    assert not re.search(r"held|earlier|rows|unseen|in use|click", re.sub(r"<style>.*?</style>|<[^>]*>", " ", page))


def test_a_day_killed_at_each_step_ends_as_one_that_was_not(days, model, tmp_path):
    whole = shutil.copytree(model, tmp_path / "whole", symlinks=True)
    assert main([str(whole), str(days / "2.txt")]) == 0
    command = [str(model), str(days / "2.txt")]
    for moment in MOMENTS:
        code, said = run_program("src.days.__main__", tmp_path, *command, kill=Comes(moment))
        assert code == -9, (moment, said)
        done = ["the new model is in use", "the history has the day"]
        assert (model / "current").resolve().name == ("0003" if moment in done else "0002"), moment
        assert len(history(model)) == 2 + (moment == done[1]), moment
    with pytest.raises(AlreadyDone, match="these rows are day 3's, which the model has been trained on"):
        main(command)
    assert lasting(history(model)[-1]) == lasting(history(whole)[-1])
    assert bits(model / "current/checkpoint/dlrm.ckpt") == bits(whole / "current/checkpoint/dlrm.ckpt")
    assert (model / "report.html").is_file()


def test_a_first_day_killed_before_the_history_had_it(days, model):
    """Though its own model is in use already."""
    first = history(model)[0]
    (model / "history.jsonl").unlink()
    shutil.rmtree(model / "days/0002")
    (model / "current").unlink()
    (model / "current").symlink_to("days/0001")
    with pytest.raises(InputError, match="day 1 was stopped, of other files, 0.txt: let that go on"):
        main([str(model), str(days / "1.txt"), *SMALL])
    assert main([str(model), str(days / "0.txt"), *SMALL]) == 0
    assert history(model) == [first]


def test_a_worse_model_is_refused_and_may_be_tried_again(days, model, tmp_path, capsys):
    command = [str(model), str(days / "2.txt"), "--keep_days=1"]
    turned = [f"{1 - int(line[0])}{line[1:]}" for line in lines(1)[:390]]
    spoiled = write_raw(tmp_path / "spoiled.txt", turned + lines(1)[390:])
    worse_one = [str(model), str(spoiled), "--fail_below=0.001", "--day_epochs=2", "--lr=0.03"]
    assert main(worse_one) == 1
    line = history(model)[-1]
    assert line["state"] == "refused"
    assert line["after"]["auc"] < line["before"]["auc"]
    assert "of the new model is more than 0.001 below" in line["reason"]
    assert "is refused, and the earlier one stays" in capsys.readouterr().out
    assert (model / "current").resolve().name == "0002"
    with pytest.raises(InputError, match="spoiled.txt is of day 3, whose model was refused .* --retry=True"):
        main(worse_one)
    assert main(command) == 0
    assert [one["state"] for one in history(model)] == ["in use", "in use", "refused", "in use"]
    assert history(model)[-1]["earlier"] == "0002"
    assert sorted(path.name for path in (model / "days").iterdir()) == ["0004"]


def test_refusals(days, model, tmp_path):
    def refused(message, *words, error=InputError):
        with pytest.raises(error, match=message):
            main([str(model), *map(str, words)])

    copied = shutil.copy(days / "1.txt", tmp_path / "renamed.txt")
    refused("these rows are day 2's", copied, error=AlreadyDone)
    refused("1.txt is of day 2, .*leave it out, so that no row is trained on twice", f"{days}/1.txt,{days}/2.txt")
    refused("have the same content", f"{days}/1.txt,{copied}")
    main_again = [str(model), str(days / "0.txt"), *SMALL, "--config_path=cpu_config.yaml"]
    with pytest.raises(AlreadyDone, match="these rows are day 1's"):
        main(main_again)
    refused("1 of 2 arguments given")
    refused("days knows no option '--epoch=3'; did you mean", days / "2.txt", "--epoch=3")
    refused(
        "days knows no option '--vocab_path=x': it is an option of preprocess_data", days / "2.txt", "--vocab_path=x"
    )
    refused("config_path is the first day's, which holds for all", days / "2.txt", "--config_path=best_config.yaml")
    refused("min_count 2 .*with vocab_path, whose encoder is taken", days / "2.txt", "--min_count=2")
    refused("delta needs exports with their tables in a file", days / "2.txt", "--table_placement=auto")
    assert not list((model / "days/0003").glob("*"))
    day = model / "days/0003"
    with pytest.raises(InputError, match="holds something else than a model of days"):
        main([str(tmp_path), str(days / "2.txt"), *SMALL])
    plan = {"files": [{"name": "z.txt", "bytes": 1, "sha256": "0"}], "kept": {}, "given": {}, "earlier": "0002"}
    (day / "day.json").write_text(json.dumps(plan))
    bad = write_raw(tmp_path / "bad.txt", ["1\tx"])
    refused("bad.txt has 1 bad rows, 0 are allowed", bad)  # nothing had been done of z.txt
    (day / "day.json").write_text(json.dumps(plan))
    (day / "dataset").mkdir()
    (day / "dataset/manifest.json").touch()
    refused("day 3 was stopped, of other files, z.txt: let that go on, or throw the stopped day away", days / "2.txt")


def test_a_model_stays_where_the_new_one_is_worse_by_its_metric():
    assert not worse("auc", {"auc": 0.7}, {"auc": 0.695}, 0.01)
    assert (
        worse("auc", {"auc": 0.7}, {"auc": 0.68}, 0.01)
        == "AUC 0.68000 of the new model is more than 0.01 below 0.70000 of the earlier one"
    )
    assert "above 0.50000" in worse("logloss", {"logloss": 0.5}, {"logloss": 0.6}, 0.0)
    assert not worse("auc", {"auc": 0.7}, {"auc": 0.1}, -1)
    with pytest.raises(InputError, match="the held-out rows are of one label, and have no AUC"):
        worse("auc", {"auc": None}, {"auc": None}, 0.01)
