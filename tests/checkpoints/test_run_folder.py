"""The folder of a run: its files move to their places together, beside the encoder that the network was trained on."""

import contextlib
import dataclasses
import json
import os

import numpy as np
import pytest

from src.base import events
from src.base.errors import AlreadyDone, InputError
from src.checkpoints import checkpoint, protobuf
from src.checkpoints.place import states_of
from src.checkpoints.protobuf import CheckpointFile
from src.checkpoints.run_folder import COMES_OF_ONE, FAILED_AGAIN, Run, RunOptions
from src.data.manifest import DataFolder, Manifest


def test_run_s_files_move_to_their_places_when_it_ends(tiny_data, tmp_path):
    folder = tmp_path / "new" / "checkpoint"
    with Run(folder, tiny_data, RunOptions("dlrm.yaml", "lr: 0.5\n")) as run:
        assert os.listdir(folder) == ["unfinished"]
        protobuf.write(run.best(7), [("step", np.array([7], np.int32))])
        assert run.finish(7) == folder / "dlrm.ckpt"
    assert sorted(os.listdir(folder)) == ["counts.npz", "dlrm.ckpt", "dlrm.yaml", "manifest.json", "vocabulary.npz"]
    assert (folder / "dlrm.yaml").read_text().splitlines()[1:] == ["lr: 0.5"]
    for name in ("counts.npz", "manifest.json", "vocabulary.npz"):
        assert (folder / name).read_bytes() == (tiny_data.path / name).read_bytes()


def test_folder_with_a_checkpoint_is_refused_and_left_alone(tiny_data, tmp_path):
    (tmp_path / "dlrm.ckpt").write_bytes(b"old")
    with pytest.raises(InputError, match=r"ckpt_path .* already holds dlrm\.ckpt: .*--overwrite=True"):
        Run(tmp_path, tiny_data, RunOptions("dlrm.yaml", "lr: 0.7\n"))
    assert os.listdir(tmp_path) == ["dlrm.ckpt"]


def shown(folder):
    """The name of a checkpoint's one entry, and its options."""
    (name,) = CheckpointFile(folder / "dlrm.ckpt").shapes
    return name, (folder / "dlrm.yaml").read_text().splitlines()[1]


def test_old_files_stay_together_until_the_new_run_ends(tiny_data, tmp_path):
    for text, overwrite in (("{lr: 1}", False), ("{lr: 2}", True), ("{lr: 3}", True)):
        with Run(tmp_path, tiny_data, RunOptions("dlrm.yaml", text), overwrite=overwrite) as run:
            protobuf.write(run.best(1), [(text, np.array([1], np.int32))])
            if text == "{lr: 2}":  # stopped: nothing but its own folder has changed
                assert shown(tmp_path) == ("{lr: 1}", "{lr: 1}")
            else:
                run.finish(1)
    assert shown(tmp_path) == ("{lr: 3}", "{lr: 3}")
    assert sorted(os.listdir(tmp_path)) == ["counts.npz", "dlrm.ckpt", "dlrm.yaml", "manifest.json", "vocabulary.npz"]


def test_folder_refuses_a_vocabulary_that_has_changed(tiny_data, tmp_path):
    folder = tmp_path / "dataset"
    folder.mkdir()
    (folder / "manifest.json").write_bytes((tiny_data.path / "manifest.json").read_bytes())
    content = bytearray((tiny_data.path / "vocabulary.npz").read_bytes())
    content[len(content) // 2] ^= 1
    (folder / "vocabulary.npz").write_bytes(content)
    with pytest.raises(InputError, match=r"vocabulary\.npz has changed"):
        Run(tmp_path / "checkpoint", DataFolder(folder, tiny_data.manifest), RunOptions("dlrm.yaml", ""))
    assert not (tmp_path / "checkpoint").exists()


def test_second_layout_s_parts_do_not_stay(tiny_data, tmp_path):
    """A part of an earlier checkpoint, and one that a run with more ranks has left, are not the new checkpoint's."""
    (tmp_path / "dlrm.rank_3.ckpt").write_bytes(b"old")
    with Run(tmp_path, tiny_data, RunOptions("dlrm.yaml", ""), overwrite=True) as run:
        for rank in range(2):
            content = [(checkpoint.PARTS, np.array([2], np.int32))]
            protobuf.write(checkpoint.part_of(run.best(5), rank), content)
        checkpoint.part_of(run.best(5), 2).write_bytes(b"of four ranks")
        run.finish(5)
    names = ["counts.npz", "dlrm.ckpt", "dlrm.rank_1.ckpt", "dlrm.yaml", "manifest.json", "vocabulary.npz"]
    assert sorted(os.listdir(tmp_path)) == names


def test_encoder_of_other_data_is_refused(tiny_data, tmp_path, capsys):
    path = tmp_path / "dlrm.ckpt"
    with pytest.raises(InputError, match=r"checkpoint_path .* is not a file"):
        checkpoint.check_encoder(path, tiny_data)
    path.write_bytes(b"")
    checkpoint.check_encoder(path, tiny_data)
    assert "no manifest.json beside it" in capsys.readouterr().out
    with Run(tmp_path, tiny_data, RunOptions("dlrm.yaml", ""), overwrite=True) as run:
        path = run.best(1)
    path.write_bytes(b"")
    checkpoint.check_encoder(path, tiny_data)
    assert capsys.readouterr().out == ""
    files = tuple(
        dataclasses.replace(file, sha256="0" * 64) if file.name == "vocabulary.npz" else file
        for file in tiny_data.manifest.files
    )
    other = DataFolder(tiny_data.path, dataclasses.replace(tiny_data.manifest, files=files))
    with pytest.raises(InputError, match=r"checkpoint .*best-1\.ckpt was trained with another vocabulary than that of"):
        checkpoint.check_encoder(path, other)


def test_encoder_without_a_vocabulary_in_its_manifest_is_refused(tiny_data, tmp_path):
    content = json.loads((tiny_data.path / "manifest.json").read_text())
    del content["crc32"]
    content["files"] = [file for file in content["files"] if file["name"] != "vocabulary.npz"]
    (tmp_path / "manifest.json").write_text(json.dumps(content))
    (tmp_path / "dlrm.ckpt").write_bytes(b"")
    assert Manifest.load(tmp_path / "manifest.json").table_rows == tiny_data.manifest.table_rows
    with pytest.raises(InputError, match="vocabulary"):
        checkpoint.check_encoder(tmp_path / "dlrm.ckpt", tiny_data)


def commit(run, *steps):
    """Save states of some steps, of which the network of the last one is the best."""
    for step in steps:
        for path in (run.state(step), run.best(step)):
            protobuf.write(path, [("step", np.array([step], np.int32))])
        run.commit({"step": step, "best_step": step, "run": "one"}, step, step)


def steps_in(path):
    return [state["step"] for state in states_of(path / "unfinished/progress.json")]


def test_a_second_divergence_leaves_the_states_that_the_run_had_got_on_to(tiny_data, tmp_path):
    """Whether it goes back by itself or stops; the line's advice of a smaller rate has something to go on from."""
    options = RunOptions("dlrm.yaml", "lr: 1\n")
    for name, stops, left in (("back", False, [288]), ("stop", True, [290, 288])):
        with Run(tmp_path / name, tiny_data, options, keep_states=2) as run:
            commit(run, 280, 288)
            assert run.retreat(0.3, {}, 0, stops=stops)["step"] == 288
            commit(run, 290)
            assert run.retreat(0.03, {}, 288, stops=stops)["step"] == left[0]
            assert steps_in(tmp_path / name) == left
            assert all(run.state(step).is_file() for step in left)


def test_who_stops_keeps_the_last_state_and_is_told_where_it_failed_twice(tiny_data, tmp_path):
    for name, stops, left in (("stop", True, [280]), ("back", False, [])):
        with Run(tmp_path / name, tiny_data, RunOptions("dlrm.yaml", "lr: 1\n"), keep_states=2) as run:
            commit(run, 280, 288)
            found = [run.retreat(rate, {}, step, stops=stops)
                     for rate, step in ((3, 0), (2, 288), (1, 280), (0.1, 280))]  # fmt: skip
            assert [state and state["step"] for state in found] == [288, 280, 280, *(left or [None])]
            assert [FAILED_AGAIN in state for state in found if state] == [False, False, False, True][: 3 + len(left)]
            assert steps_in(tmp_path / name) == left


def test_states_that_come_of_a_spoiled_one_again_and_again_are_told(tiny_data, tmp_path):
    """Each run that stops gets on to a new state, and no further, however small its rate."""
    begun, found = 0, []
    for rate in (4, 3, 2, 1, 0.5):
        with Run(tmp_path, tiny_data, RunOptions("dlrm.yaml", "lr: 1\n"), keep_states=2) as run:
            commit(run, *(step for step in (4, 8) if step > begun))
            content = run.retreat(rate, {}, begun, stops=True)
            begun, again = content["step"], content.get(FAILED_AGAIN)
            found.append((begun, again))
    assert found == [(8, None), (4, None), (8, None), (4, None), (8, COMES_OF_ONE)]


@pytest.mark.parametrize("killed_at", ["", "no other state is left beside them", "the last state is in its place"])
def test_a_finished_state_replaces_nothing_when_it_is_taken_back(tiny_data, tmp_path, killed_at):
    """Or a run of other options would take a finished checkpoint's place, though nothing allows it to."""
    options = [RunOptions("dlrm.yaml", f"lr: {lr}\nepochs: {epochs}\n", frozenset(["lr", "epochs"]))
               for lr, epochs in ((1, 1), (1, 2), (3, 1))]  # fmt: skip

    def stop(moment):
        if moment == killed_at:
            raise KeyboardInterrupt

    with Run(tmp_path, tiny_data, options[0]) as run:
        commit(run, 7)
        events.listeners.append(stop)
        try:
            with contextlib.suppress(KeyboardInterrupt):
                run.finish(7, keep_state=True)
        finally:
            events.listeners.remove(stop)
    if (tmp_path / "unfinished").exists():
        with Run(tmp_path, tiny_data, options[0]) as run:  # goes on
            run.finish(7, keep_state=True)
    if killed_at != "the last state is in its place":
        assert "replaces_checkpoint" not in (tmp_path / "finished/progress.json").read_text()
    with Run(tmp_path, tiny_data, options[1]) as run:
        assert run.progress()["step"] == 7
    with pytest.raises(InputError, match=r"already holds dlrm\.ckpt"):
        Run(tmp_path, tiny_data, options[2])
    with Run(tmp_path, tiny_data, options[1]) as run:
        commit(run, 9)
    with pytest.raises(InputError, match=r"already holds dlrm\.ckpt"):
        Run(tmp_path, tiny_data, options[2])


def test_a_run_that_ends_while_another_begins_is_seen(tiny_data, tmp_path, monkeypatch):
    """Between the look at the folder and the lock."""
    mine, verify = [RunOptions("dlrm.yaml", f"lr: {lr}\n") for lr in (1, 2)], Manifest.verify

    def meanwhile(*arguments):
        monkeypatch.setattr(Manifest, "verify", verify)
        with Run(tmp_path, tiny_data, mine[0]) as run:
            commit(run, 7)
            run.finish(7)
        verify(*arguments)

    monkeypatch.setattr(Manifest, "verify", meanwhile)
    with pytest.raises(InputError, match=r"already holds dlrm\.ckpt"):
        Run(tmp_path, tiny_data, mine[1])
    assert shown(tmp_path) == ("step", "lr: 1")
    with Run(tmp_path, tiny_data, mine[1], overwrite=True):  # the lock was given back
        pass


def lacking(name):
    return lambda folder: (folder / name).unlink()


def emptied(name):
    def harm(folder):
        (folder / name).unlink()  # it may be a link to a file of the data folder
        (folder / name).touch()

    return harm


@pytest.mark.parametrize(("harm", "message", "resume"), [
    (None, "the same command has made it; ", True),
    (None, r"dlrm\.ckpt: name another", False),
    (emptied("dlrm.ckpt"), r"but .*dlrm\.ckpt is not a MindSpore checkpoint", True),
    (lambda folder: os.truncate(folder / "dlrm.ckpt", 30), r"but .*dlrm\.ckpt is not a MindSpore checkpoint", True),
    (lacking("dlrm.rank_1.ckpt"), r"but checkpoint .* has 2 parts, and .*dlrm\.rank_1\.ckpt is missing", True),
    (lacking("counts.npz"), r"but .*counts\.npz is missing", True),
    (lacking("vocabulary.npz"), r"but .*vocabulary\.npz is missing", True),
    (emptied("vocabulary.npz"), r"but .*vocabulary\.npz has 0 bytes", True),
    *((lacking(name), f"but .*{name} is missing", True) for name in (
        "report.html", "report.json", "loss.log", "auc.log", "metrics.jsonl")),
])  # fmt: skip
def test_nothing_is_to_do_only_where_all_that_a_run_leaves_is_there(tiny_data, tmp_path, harm, message, resume):
    names = {"loss_file_name": "loss.log", "eval_file_name": "auc.log", "metrics_file_name": "metrics.jsonl"}
    texts = ["".join(f"{key}: {tmp_path / at / one}\n" for key, one in names.items()) for at in ("", "elsewhere")]
    texts = [f"report: true\ndo_eval: true\n{text}" for text in texts]
    options, other = (RunOptions("dlrm.yaml", text, frozenset(names), untold=frozenset(names)) for text in texts)
    with Run(tmp_path, tiny_data, options) as run:
        for rank in range(2):
            protobuf.write(checkpoint.part_of(run.best(7), rank), [(checkpoint.PARTS, np.array([2], np.int32))])
        for name in ("report.html", "report.json"):
            (run.path / name).write_text("")
        run.finish(7)
    for name in names.values():
        (tmp_path / name).write_text("")
    if harm:
        harm(tmp_path)
    before = sorted(os.listdir(tmp_path))
    for one in (options, other):
        with pytest.raises(InputError, match=message if one is options else "but .*elsewhere|name another") as caught:
            Run(tmp_path, tiny_data, one, resume=resume)
        assert isinstance(caught.value, AlreadyDone) == (one is options and not harm and resume)
    assert sorted(os.listdir(tmp_path)) == before


def test_a_run_that_was_stopped_before_its_first_save_begins_anew_and_says_so(tmp_path, tiny_data, capfd):
    for _ in range(2):
        assert "beginning anew" not in capfd.readouterr().out
        with Run(tmp_path, tiny_data, RunOptions("dlrm.yaml", "lr: 1\n")):
            pass
    assert f"the run that was stopped in {tmp_path}/unfinished came to no save before" in capfd.readouterr().out
    with Run(tmp_path, tiny_data, RunOptions("dlrm.yaml", "lr: 1\n"), resume=False):
        assert "beginning anew" not in capfd.readouterr().out
