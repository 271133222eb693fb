"""Checkpoints: what they hold, that they come back to the bit, and what is refused."""

import contextlib
import os
import signal
import subprocess
import sys
from types import SimpleNamespace

import mindspore as ms
import numpy as np
import pytest
from conftest import ROOT
from mindspore import Tensor
from networks import (
    RATE,
    logits_of,
    make_batch,
    make_model,
    make_step,
    network_spec,
    plain_forward,
    plain_step,
    plain_values,
    values_by_name,
)

from src.base import events
from src.base.errors import InputError
from src.checkpoints import checkpoint, protobuf
from src.checkpoints.protobuf import CheckpointFile
from src.data.layout import Layout
from src.dlrm import DLRM
from src.network.embedding import EmbeddingTables, initial_rows
from src.training.evaluation import score

FIELDS = [f"C{field + 1}" for field in range(8)]
ROWS = [5 + 3 * field for field in range(8)]


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A network after two steps, and the content of its checkpoint. Do not train it further."""
    model = make_model(bottom=(12, 7), seed=4)
    step = make_step(model, RATE)
    for seed in range(2):
        step(*map(Tensor, make_batch(model, 5, 16, seed=seed)))
    path = tmp_path_factory.mktemp("trained") / "dlrm.ckpt"
    checkpoint.save(model, FIELDS, path)
    return model, path.read_bytes()


@pytest.fixture
def saved(trained, tmp_path):
    """The trained network, and a file of its checkpoint to spoil."""
    path = tmp_path / "dlrm.ckpt"
    path.write_bytes(trained[1])
    return trained[0], path


def load(path, fields=FIELDS, rows=ROWS, dense_dim=5, bottom=(12, 7), top=(9, 1), **more):
    layout = Layout.plain(len(fields))
    coded = SimpleNamespace(inputs=["I"] * dense_dim, fields=fields, table_rows=rows, layout=layout)
    return checkpoint.load(path, coded, network_spec(bottom, top, **more))


def bits(model):
    return {value.name: value.asnumpy().tobytes() for value in model.get_parameters()}


def test_values_come_back_to_the_bit(saved):
    model, path = saved
    loaded = load(path)
    assert bits(loaded) == bits(model)
    assert bits(loaded) != bits(make_model(bottom=(12, 7), seed=4))
    dense, ids, _ = make_batch(model, 5)
    assert logits_of(loaded, dense, ids).tobytes() == logits_of(model, dense, ids).tobytes()


def test_checkpoint_holds_a_table_for_each_field_and_no_optimizer_copies(saved):
    model, path = saved
    entries = ms.load_checkpoint(str(path))
    tables = {name: value for name, value in entries.items() if name.startswith("embedding.")}
    assert list(tables) == [f"embedding.{field}" for field in FIELDS]
    for value, field in zip(tables.values(), [view for _, view in model.tables.views(model.tables.table.asnumpy())]):
        np.testing.assert_array_equal(value.asnumpy(), field)
    assert len(entries) == len(FIELDS) + len(model.mlp_parameters())
    assert sum(value.size for value in entries.values()) == sum(value.size for value in model.get_parameters())


def test_checkpoint_takes_four_bytes_a_value(tmp_path):
    model = make_model(13, 26, (512, 256, 64, 16), (512, 256, 1))
    path = tmp_path / "dlrm.ckpt"
    checkpoint.save(model, [f"C{field}" for field in range(26)], path)
    values = sum(value.size for value in model.get_parameters())
    assert 4 * values < path.stat().st_size < 1.01 * 4 * values
    assert os.listdir(tmp_path) == ["dlrm.ckpt"]


def test_loaded_values_are_those_that_train_and_score(saved):
    """Within 1e-5 of plain NumPy: as loaded, after a training step, and after values set behind a compiled graph."""
    _, path = saved
    model = load(path)
    batch = make_batch(model, 5, 16, seed=7)
    logits = [score(model, [batch], 16)[1]]
    np.testing.assert_allclose(logits[-1], plain_forward(plain_values(model), *batch[:2])[:, 0], rtol=0, atol=1e-5)

    expected = plain_step(plain_values(model), batch, RATE)
    step = make_step(model, RATE)
    step(*map(Tensor, batch))
    for name, value in values_by_name(model).items():
        np.testing.assert_allclose(value, expected[name], rtol=0, atol=1e-6, err_msg=name)
    logits.append(score(model, [batch], 16)[1])
    np.testing.assert_allclose(logits[-1], plain_forward(plain_values(model), *batch[:2])[:, 0], rtol=0, atol=1e-5)

    other = make_model(bottom=(12, 7), seed=77)
    for value, new in zip(model.get_parameters(), other.get_parameters()):
        value.set_data(Tensor(new.asnumpy().copy()))
    logits.append(score(model, [batch], 16)[1])
    np.testing.assert_allclose(logits[-1], plain_forward(plain_values(other), *batch[:2])[:, 0], rtol=0, atol=1e-5)
    expected = plain_step(plain_values(other), batch, RATE)
    step(*map(Tensor, batch))
    for name, value in values_by_name(model).items():
        np.testing.assert_allclose(value, expected[name], rtol=0, atol=1e-6, err_msg=name)
    for i, j in ((0, 1), (1, 2), (0, 2)):
        assert np.abs(logits[i] - logits[j]).max() > 1e-3


def test_missing_file_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"checkpoint_path .*none\.ckpt is not a file: name a checkpoint"):
        load(tmp_path / "none.ckpt")
    with pytest.raises(InputError, match="is not a file"):
        load(tmp_path)


@pytest.mark.parametrize("content", [b"", b"not a checkpoint\n" * 50, bytes(1000), b"\x0a\x05abc"])
def test_garbage_is_refused(tmp_path, content):
    path = tmp_path / "dlrm.ckpt"
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"dlrm\.ckpt is not a MindSpore checkpoint, or a damaged one"):
        load(path)


@pytest.mark.parametrize("place", [0.2, 0.6, 0.95])
def test_flipped_bit_is_refused(saved, place):
    _, path = saved
    content = bytearray(path.read_bytes())
    content[int(len(content) * place)] ^= 16
    path.write_bytes(content)
    with pytest.raises(InputError, match="or a damaged one"):
        load(path)


def test_files_are_those_that_mindspore_reads_and_writes(saved, tmp_path):
    model, path = saved
    entries = ms.load_checkpoint(str(path), crc_check=True)
    assert {name: value.asnumpy().tobytes() for name, value in entries.items()} == {
        name: CheckpointFile(path).read(name).tobytes() for name in entries
    }
    theirs = tmp_path / "theirs.ckpt"
    ms.save_checkpoint([{"name": name, "data": value} for name, value in entries.items()], str(theirs))
    assert bits(load(theirs)) == bits(model)


@pytest.mark.parametrize("chunk", [24, 28, 1000])
def test_rows_come_from_any_part_of_an_entry_in_several_messages(tmp_path, monkeypatch, chunk):
    """Messages end within rows, too; MindSpore's own begin a new one after 512 MB."""
    monkeypatch.setattr(protobuf, "_CHUNK", chunk)
    rows = np.arange(60, dtype=np.float32).reshape(20, 3)
    whole = np.arange(7, dtype=np.int32)
    protobuf.write(tmp_path / "a.ckpt", [("rows", rows), ("whole", whole)])
    file = CheckpointFile(tmp_path / "a.ckpt")
    for low in range(21):
        for high in range(low, 21):
            np.testing.assert_array_equal(file.read("rows", low, high), rows[low:high])
    np.testing.assert_array_equal(file.read("whole"), whole)
    np.testing.assert_array_equal(ms.load_checkpoint(str(tmp_path / "a.ckpt"))["rows"].asnumpy(), rows)


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9, 0.999])
def test_truncated_checkpoint_is_refused(saved, share):
    _, path = saved
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])
    with pytest.raises(InputError, match="or a damaged one|has no such entry"):
        load(path)


def test_checkpoint_that_ends_between_two_entries_is_refused(saved):
    """Which MindSpore itself reads without a word."""
    _, path = saved
    entries = ms.load_checkpoint(str(path))
    ms.save_checkpoint([{"name": name, "data": value} for name, value in list(entries.items())[:-1]], str(path))
    with pytest.raises(InputError, match=r"has no such entry for embedding\.C8, the model needs \[26, 7\]"):
        load(path)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"bottom": (12, 8)}, r"has \[5, 7\] for embedding\.C1, the model needs \[5, 8\]"),
        ({"rows": [*ROWS[:-1], 27]}, r"has \[26, 7\] for embedding\.C8, the model needs \[27, 7\]"),
        ({"fields": [*FIELDS[:-1], "C9"]}, r"has no such entry for embedding\.C9"),
        ({"fields": FIELDS[:-1], "rows": ROWS[:-1]}, "the model needs|which this model has not"),
        ({"bottom": (11, 7)}, r"has \[12, 5\] for .*, the model needs \[11, 5\]"),
        ({"bottom": (12, 12, 7)}, r"the model needs \[12, 12\]"),
        ({"bottom": (7,)}, r"the model needs \[7, 5\]"),
        ({"top": (9, 1, 1)}, r"the model needs \[1, 1\]"),
        ({"top": (8, 1)}, r"has \[9, 43\] for .*, the model needs \[8, 43\]"),
        ({"self_interaction": True}, r"has \[9, 43\] for .*, the model needs \[9, 52\]"),
        ({"interaction": "cat"}, r"has \[9, 43\] for .*, the model needs \[9, 63\]"),
        ({"dense_dim": 6}, r"has \[12, 5\] for .*, the model needs \[12, 6\]"),
    ],
)
def test_other_sizes_are_refused(saved, changed, message):
    with pytest.raises(InputError, match=rf"checkpoint .*dlrm\.ckpt .*{message}.*give the options and the data folder"):
        load(saved[1], **changed)


def test_entry_too_many_is_refused(saved):
    _, path = saved
    entries = [{"name": name, "data": value} for name, value in ms.load_checkpoint(str(path)).items()]
    ms.save_checkpoint([*entries, {"name": "embedding.C9", "data": Tensor(np.zeros((2, 7), np.float32))}], str(path))
    with pytest.raises(InputError, match=r"holds embedding\.C9, which this model has not"):
        load(path)


def test_interrupted_save_leaves_the_older_checkpoint_whole(saved, monkeypatch):
    model, path = saved
    older = path.read_bytes()
    newer = make_model(bottom=(12, 7), seed=5)

    def full_disk(moment):
        if moment == "an entry of a checkpoint is written":
            raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(events, "listeners", [full_disk])
        with pytest.raises(OSError, match="No space left"):
            checkpoint.save(newer, FIELDS, path)
    assert path.read_bytes() == older
    assert bits(load(path)) == bits(model)
    checkpoint.save(newer, FIELDS, path)  # over what the interrupted one has left
    assert bits(load(path)) == bits(newer)


SAVER = """
import sys
sys.path.insert(0, {root!r})
import numpy as np
from pathlib import Path
from src.checkpoints import checkpoint
from src.dlrm import DLRM
from src.network.embedding import EmbeddingTables
from src.network.options import NetworkSpec

tables = EmbeddingTables([{rows}], np.zeros(({rows}, 7), np.float32))
model = DLRM(5, tables, NetworkSpec(7, (12, 7), (9, 1)))
for number in range(200):
    tables.table.set_data(type(tables.table)(np.full(({rows}, 7), number, np.float32)))
    print(number, flush=True)
    checkpoint.save(model, ["C1"], Path({path!r}))
"""


def test_killed_save_leaves_a_whole_checkpoint(tmp_path):
    """Killed as soon as a file of less than its 14 MB is seen after the first save."""
    path, script, rows = tmp_path / "dlrm.ckpt", tmp_path / "saver.py", 500_000
    script.write_text(SAVER.format(root=str(ROOT), path=str(path), rows=rows))
    with subprocess.Popen([sys.executable, str(script)], stdout=subprocess.PIPE, text=True) as child:
        assert [child.stdout.readline() for _ in range(2)] == ["0\n", "1\n"]
        while child.poll() is None:
            if any(0 < size < 28 * rows for size in sizes_of(tmp_path.glob("dlrm*"))):
                child.send_signal(signal.SIGKILL)
                break
        child.wait()
    assert child.returncode == -signal.SIGKILL
    values = np.unique(load(path, ["C1"], [rows]).tables.table.asnumpy())
    assert len(values) == 1


def sizes_of(paths):
    """Sizes of the files that are still there."""
    for path in paths:
        with contextlib.suppress(FileNotFoundError):
            yield path.stat().st_size


def test_tables_take_over_the_memory_they_are_given():
    """2.2 GB at full size that would otherwise exist twice."""
    values = initial_rows([1000, 24], 16, 1)
    tables = EmbeddingTables([1000, 24], values)
    address = values.__array_interface__["data"][0]
    assert tables.table.asnumpy().__array_interface__["data"][0] == address


@pytest.mark.parametrize("place", ["table", "mlp"])
def test_values_that_are_not_finite_are_not_saved(tmp_path, place):
    rows = (4, 3)
    model = DLRM(2, EmbeddingTables(rows, initial_rows(rows, 4, 1)), network_spec((4,), (1,)))
    parameter = model.tables.table if place == "table" else model.mlp_parameters()[0]
    values = parameter.asnumpy().copy()
    values[1, 1] = np.nan
    parameter.set_data(ms.Tensor(values))
    with pytest.raises(InputError, match=r"not finite: training diverged"):
        checkpoint.save(model, ["C1", "C2"], tmp_path / "dlrm.ckpt")
    assert not list(tmp_path.iterdir())
