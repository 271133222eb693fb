"""What goes to workers by the path of a file, and what workers that do one piece twice leave."""

import os
import pickle
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from conftest import files_of, preprocess_lines, raw_lines, write_raw

from src.base.errors import InputError
from src.data.counted import COUNTS, Counted
from src.data.encoder import load_encoder
from src.data.manifest import VOCABULARY
from src.engines import kept
from src.engines.engine import Local
from src.engines.fitness import Facts, Probe, look
from src.engines.kept import forget, once, pickled
from src.preprocessing.options import PreprocessingSpec
from src.preprocessing.run import preprocess
from src.rows.columns import Columns


@pytest.fixture(autouse=True)
def nothing_kept():
    forget()
    yield
    forget()


def test_what_lies_in_a_file_travels_by_its_path(tiny_data):
    """And is read once a process, whoever asks."""
    path, manifest = tiny_data.path / VOCABULARY, tiny_data.manifest
    encoder = load_encoder(path, manifest.dense)
    texts = [pickled({"encoder": encoder, "number": number}) for number in range(2)]
    assert max(map(len, texts)) < 1000 < path.stat().st_size
    one, other = (pickle.loads(text)["encoder"] for text in texts)
    assert one is other is not encoder
    assert (one.inputs, one.fields, one.table_rows) == (encoder.inputs, encoder.fields, encoder.table_rows)
    keys = np.stack([encoder.vocabulary.keys_of(field)[:3] for field in range(26)])
    vocabulary = pickle.loads(pickled(encoder.vocabulary))
    np.testing.assert_array_equal(vocabulary.encode(keys), encoder.vocabulary.encode(keys))
    counted = Counted.load(tiny_data.path / COUNTS)
    again = pickle.loads(pickled(counted))
    assert again.rows == counted.rows
    np.testing.assert_array_equal(again.tables[2].counts, counted.tables[2].counts)
    assert len(pickled(counted)) < 1000 < len(pickled(replace(counted, path=None)))


def test_another_file_at_the_path_is_refused(tmp_path):
    (tmp_path / "file").write_bytes(b"one")
    text = kept.sha256_of(tmp_path / "file")
    assert once(Path.read_bytes, tmp_path / "file", text) == b"one"
    (tmp_path / "file").write_bytes(b"two")
    assert once(Path.read_bytes, tmp_path / "file", text) == b"one"
    forget()
    with pytest.raises(InputError, match=r"file is another file here than where the run began: is the folder really"):
        once(Path.read_bytes, tmp_path / "file", text)


def test_a_process_keeps_few_values(tmp_path):
    for number in range(9):
        (tmp_path / f"{number}").write_bytes(b"%d" % number)
        once(Path.read_bytes, tmp_path / f"{number}", kept.sha256_of(tmp_path / f"{number}"))
    assert [value for value in kept._kept.values()] == [b"5", b"6", b"7", b"8"]


def test_paths_travel_in_full(here):
    assert pickle.loads(pickled([Path("data/train.txt"), Path("/a")])) == [here / "data/train.txt", Path("/a")]


class Twice(Local):
    """As workers of which one was given up for lost: each piece is done twice, the second time after it was taken."""

    is_forked = False

    def map(self, what, function, work, sizes, unit, shared=(), follows=(), needs=""):
        work, shared = pickle.loads(pickled((work, shared)))
        for one in work:
            yield function(*one, *shared)
            function(*one, *shared)


def test_a_piece_that_two_workers_do_is_taken_once(tmp_path, monkeypatch):
    raw, options = write_raw(tmp_path / "train.txt", raw_lines(300)), {"shard_rows": 64, "shuffle_rows": True}
    one = preprocess_lines(raw, tmp_path / "one", **options).path
    monkeypatch.chdir(tmp_path)
    spec = PreprocessingSpec(record_rows=64, **options)
    other = preprocess([Path("train.txt")], Path("other"), Columns.numbered(), spec, engine=Twice()).path
    assert files_of(other, "", "train", "valid", "test") == files_of(one, "", "train", "valid", "test")
    assert sorted(path.name for path in other.iterdir()) == sorted(path.name for path in one.iterdir())


def test_a_piece_of_a_run_that_has_ended_writes_nothing(tmp_path):
    from src.preprocessing.journal import _attempt

    with pytest.raises(FileNotFoundError):
        _attempt(tmp_path / "dataset/.work", tmp_path / "dataset/.work/count-00000.npz", None, dict, ())
    assert not list(tmp_path.iterdir())


def test_a_worker_tells_what_it_does_not_see(tmp_path):
    raw = write_raw(tmp_path / "train.txt", raw_lines(9))
    (tmp_path / "out/.work").mkdir(parents=True)
    probe = Probe.made(tmp_path / "out/.work", [raw])
    assert look(probe).unseen == ""
    elsewhere = replace(probe, file=tmp_path / "gone/.work/probe")
    assert "can't see the output folder" in look(elsewhere).unseen
    assert "(it has other files): give a folder that all machines share" in look(replace(probe, content="")).unseen
    assert "train.txt (it has another size): give a f" in look(replace(probe, reads={raw: 1})).unseen
    assert "can't see the input" in look(replace(probe, reads={tmp_path / "none": 1})).unseen
    assert [path.name for path in (tmp_path / "out/.work").iterdir()] == [probe.file.name]  # what it tried is gone
    again = Probe.made(tmp_path / "out/.work", [])
    assert [path.name for path in (tmp_path / "out/.work").iterdir()] == [again.file.name]


def test_a_folder_that_a_worker_may_not_write_is_told(tmp_path):
    if os.geteuid() == 0:
        pytest.skip("root may write everywhere")
    probe = Probe.made(tmp_path, [])
    tmp_path.chmod(0o500)
    try:
        assert "can't write to the output folder" in look(probe).unseen
    finally:
        tmp_path.chmod(0o700)


@pytest.mark.parametrize(("facts", "why"), [
    ({}, ""),
    ({"sources": "other"}, "has another version of this program: start it anew with the same sources"),
    ({"python": "3.9.1"}, "has Python 3.9.1, and this process "),
    ({"libraries": {"numpy": "2.0.0"}}, "has numpy 2.0.0, and this process "),
    ({"libraries": {}}, "has numpy (none), and this process "),
    ({"unseen": "can't see the input"}, "can't see the input"),
])  # fmt: skip
def test_who_has_another_program_or_library_is_not_fit(facts, why):
    here = Facts.here()
    assert replace(here, **facts).unfit_for(here).startswith(why)
    assert bool(replace(here, **facts).unfit_for(here)) == bool(why)


def test_libraries_that_not_every_step_needs_may_lack_but_not_differ():
    here = Facts.here()
    here = replace(here, libraries=here.libraries | {"mindspore": "2.10.0"})
    without = {name: version for name, version in here.libraries.items() if name != "mindspore"}
    assert replace(here, libraries=without).unfit_for(here) == ""
    assert "has mindspore 2.9.0, and this process 2.10.0" in replace(
        here, libraries=without | {"mindspore": "2.9.0"}
    ).unfit_for(here)
