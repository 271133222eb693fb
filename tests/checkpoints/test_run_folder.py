"""The folder of a run: its files move to their places together, beside the encoder that the network was trained on."""

import dataclasses
import json
import os

import numpy as np
import pytest

from src.base.errors import InputError
from src.checkpoints import checkpoint, protobuf
from src.checkpoints.protobuf import CheckpointFile
from src.checkpoints.run_folder import Run, RunOptions
from src.data.manifest import DataFolder, Manifest


def test_run_s_files_move_to_their_places_when_it_ends(tiny_data, tmp_path):
    folder = tmp_path / "new" / "checkpoint"
    with Run(folder, tiny_data, RunOptions("dlrm.yaml", "lr: 0.5\n")) as run:
        assert os.listdir(folder) == ["unfinished"]
        protobuf.write(run.best(7), [("step", np.array([7], np.int32))])
        assert run.finish(7) == folder / "dlrm.ckpt"
    assert sorted(os.listdir(folder)) == ["dlrm.ckpt", "dlrm.yaml", "manifest.json", "vocabulary.npz"]
    assert (folder / "dlrm.yaml").read_text().splitlines()[1:] == ["lr: 0.5"]
    for name in ("manifest.json", "vocabulary.npz"):
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
    assert sorted(os.listdir(tmp_path)) == ["dlrm.ckpt", "dlrm.yaml", "manifest.json", "vocabulary.npz"]


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
    names = ["dlrm.ckpt", "dlrm.rank_1.ckpt", "dlrm.yaml", "manifest.json", "vocabulary.npz"]
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
