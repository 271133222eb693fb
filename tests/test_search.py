"""The search for recipes: what it draws, what goes on to the next fold, and what is not done twice."""

import json
import os
import threading

import pytest

from benchmarks.search import FOLDS, RefusedError, Runs, Search, at_once, call, draw, flags_of

SPACE = {
    "base": {"lr": 0.1, "emb_dim": 16},
    "start": [{"lr": 0.5}],
    "lr": [0.1, 0.2, 0.3],
    "network": [{"emb_dim": 16}, {"emb_dim": 8, "bottom_mlp": [8]}],
}


def test_trials_are_base_start_and_drawn_ones():
    trials = draw(SPACE, 5, 1)
    assert trials[:2] == [{"lr": 0.1, "emb_dim": 16}, {"lr": 0.5, "emb_dim": 16}]
    assert len(trials) == 5
    assert all(first != second for place, first in enumerate(trials) for second in trials[:place])
    assert draw(SPACE, 5, 1) == trials != draw(SPACE, 5, 2)
    assert draw(SPACE, 1, 1) == trials[:1]
    assert len(draw(SPACE | {"start": [{"lr": 0.5}, {"lr": 0.5}, {"lr": 0.1}]}, 100, 1)) == 7
    assert len(draw(SPACE, 100, 1)) == 7  # 3 rates, 2 networks, and the one to start with
    assert all(trial.get("bottom_mlp") == [8] for trial in draw(SPACE, 100, 1) if trial["emb_dim"] == 8)


def test_flags_go_to_the_program_that_reads_them():
    options = {"min_count": 3, "bottom_mlp": [32, 8], "lr": 0.5}
    assert flags_of(options, "preprocess_data") == ["--min_count=3"]
    assert flags_of(options, "train") == ["--bottom_mlp=[32,8]", "--lr=0.5"]


@pytest.fixture
def search(tmp_path, monkeypatch):
    """A search whose runs give an AUC that grows with the rate, but for the largest one, which fails."""
    raw = tmp_path / "train.txt"
    raw.write_text("0\t1\ta\n" * 700)
    found = Search(raw, tmp_path / "runs")
    done = []

    def train(data, folder, seed, options):
        done.append((options["lr"], data))
        if options["lr"] == 9:
            raise RefusedError("diverged")
        return {"auc": options["lr"] / 10 + seed / 1000, "logloss": 0.5, "acc": 0.8, "step": 1, "seconds": 2.0}

    monkeypatch.setattr("benchmarks.search.data_folder", lambda raw, folder, rows, share, options: rows)
    monkeypatch.setattr("benchmarks.search.train", train)
    found.did = done
    return found


def test_the_better_half_goes_on_from_fold_to_fold(search):
    trials = [{"lr": rate} for rate in (3, 9, 1, 4, 2)]
    found = search.halve(trials, 0.5, [1, 2], 2)
    assert found == [(3, {"lr": 4}), (2, {"lr": 3}), (1, {"lr": 2}), (1, {"lr": 1}), (1, {"lr": 9})]
    ends = [search.rows[fold] for fold in FOLDS]
    assert ends == sorted(ends)
    assert ends[-1] < 700 * 6 / 7 + 1  # nothing of what is validation and test later
    assert sorted(rows for rate, rows in search.did if rate == 4) == sorted(ends * 2)
    row = search.table_row(3, {"lr": 4}, {"lr": 1, "emb_dim": 16}, [1, 2])
    assert row["what differs from the base"] == "lr: 4"
    assert (row["AUC, fold 5"], row["AUC, fold 7"], row["logloss, fold 6"]) == ("0.4015", "0.4015", "0.5000")
    assert search.table_row(1, {"lr": 9}, {"lr": 9}, [1])["AUC, fold 6"] == ""


def test_what_was_done_is_not_done_again(search, capsys):
    trials = [{"lr": rate} for rate in (1, 2, 9)]
    search.halve(trials, 0.5, [1], 1)
    times = len(search.did)
    search.halve(trials, 0.5, [1], 1)
    search.runs = Runs(search.runs.path)
    search.halve(trials, 0.5, [1], 2)
    assert len(search.did) == times == len(search.runs.path.read_text().splitlines())
    failed = [json.loads(line) for line in search.runs.path.read_text().splitlines() if "error" in line]
    assert [(run["auc"], run["error"]) for run in failed] == [(0.0, "diverged")]


def test_what_says_nothing_of_the_options_is_no_result(search, monkeypatch):
    """As when the keyboard or the system ends a training: the same command does it again."""

    def train(*_):
        raise RuntimeError("killed")

    monkeypatch.setattr("benchmarks.search.train", train)
    with pytest.raises(RuntimeError, match="killed"):
        search.halve([{"lr": 1}], 0.5, [1], 1)
    assert not search.runs.path.is_file()
    with pytest.raises(RefusedError, match="emb_dim 3"):
        call("train.py", "--device_target=CPU", "--emb_dim=3")


def test_works_at_once_share_out_the_cores():
    cores = sorted(os.sched_getaffinity(0))
    both = threading.Barrier(2)

    def work():
        both.wait(60)
        return sorted(os.sched_getaffinity(0))

    found = at_once(2, [work, work])
    assert sorted(core for share in found for core in share) == cores or len(cores) == 1
    assert sorted(os.sched_getaffinity(0)) == cores
