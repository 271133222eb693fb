"""Files and folders that are there whole or not at all, whoever is killed, and one run at a time."""

import errno
import os
import signal
import subprocess
import sys
import threading

import pytest
from conftest import ROOT

from src.base.errors import InputError
from src.base.files import whole_file, whole_folder


def write(folder, text):
    with whole_folder(folder) as new:
        (new / "f").write_text(text)


def names(path):
    return sorted(one.name for one in path.iterdir())


def test_a_folder_takes_anothers_place(tmp_path):
    write(tmp_path / "a/b", "1")
    write(tmp_path / "a/b", "2")
    assert (tmp_path / "a/b/f").read_text() == "2"
    assert names(tmp_path / "a") == ["b"]


def test_of_a_link_the_target_is_replaced(tmp_path):
    write(tmp_path / "disk/b", "1")
    (tmp_path / "b").symlink_to(tmp_path / "disk/b")
    write(tmp_path / "b", "2")
    assert (tmp_path / "b").is_symlink()
    assert (tmp_path / "disk/b/f").read_text() == "2"
    assert (names(tmp_path), names(tmp_path / "disk")) == (["b", "disk"], ["b"])


def test_a_second_run_is_refused(tmp_path):
    with whole_folder(tmp_path / "b") as new:
        (new / "f").write_text("1")
        with pytest.raises(InputError, match="b: another run is at work there: wait for it, or stop it"):
            write(tmp_path / "b", "2")
    assert (tmp_path / "b/f").read_text() == "1"
    assert names(tmp_path) == ["b"]


def test_of_two_who_write_a_file_one_waits_for_the_other(tmp_path):
    """Both write beside its place, under one name."""
    path, begun = tmp_path / "a", threading.Event()

    def second():
        begun.set()
        with whole_file(path) as file:
            file.write(b"second")

    with whole_file(path) as file:
        file.write(b"fi")
        other = threading.Thread(target=second)
        other.start()
        begun.wait()
        file.flush()
        file.write(b"rst")
        other.join(0.1)  # long enough for one who does not wait
        assert other.is_alive()
        assert names(tmp_path) == ["a.tmp"]
    other.join()
    assert path.read_text() == "second"
    assert names(tmp_path) == ["a"]


def test_what_a_killed_writer_left_is_written_over(tmp_path):
    (tmp_path / "a.tmp").write_text("much longer than the new text")
    with whole_file(tmp_path / "a") as file:
        file.write(b"new")
    with pytest.raises(OSError, match="No space"), whole_file(tmp_path / "a") as file:
        raise OSError(errno.ENOSPC, "No space left on device")
    assert (tmp_path / "a").read_text() == "new"
    assert names(tmp_path) == ["a"]


@pytest.mark.parametrize("renames", [0, 1, 2])
def test_a_kill_leaves_one_of_both_whole(tmp_path, renames):
    """Killed in place of the first rename, between the two, and behind them; then the next run finds its way."""
    write(tmp_path / "b", "old")
    program = f"""
import os, pathlib, shutil, signal
from src.base.files import whole_folder
done, rename = [], pathlib.Path.rename
def counted(*arguments):
    if len(done) == {renames}: os.kill(os.getpid(), signal.SIGKILL)
    done.append(1)
    return rename(*arguments)
pathlib.Path.rename = counted
with whole_folder(pathlib.Path("b")) as new:
    (new / "f").write_text("new")
    shutil.rmtree = lambda *_, **__: os.kill(os.getpid(), signal.SIGKILL)
"""
    done = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, env=os.environ | {"PYTHONPATH": str(ROOT)},
                          check=False)  # fmt: skip
    assert done.returncode == -signal.SIGKILL
    if renames != 1:
        assert (tmp_path / "b/f").read_text() == ("old" if renames == 0 else "new")
    else:
        assert (tmp_path / "b.writing/old/f").read_text() == "old"
    with pytest.raises(InputError), whole_folder(tmp_path / "b"):  # which is refused for its own reasons
        raise InputError("no")
    assert (tmp_path / "b/f").read_text() == ("new" if renames == 2 else "old")
    assert names(tmp_path) == ["b"]


def test_errors_name_the_folder_itself(tmp_path):
    with pytest.raises(OSError, match=r"No such file") as caught, whole_folder(tmp_path / "b") as new:
        (new / "x/y").write_text("")
    assert caught.value.filename == str(tmp_path / "b/x/y")
    assert names(tmp_path) == []


def test_a_file_that_can_not_take_its_place_leaves_nothing(tmp_path):
    (tmp_path / "f").mkdir()
    with pytest.raises(OSError, match="directory") as caught, whole_file(tmp_path / "f") as file:
        file.write(b"x")
    assert caught.value.filename == str(tmp_path / "f")
    with pytest.raises(InputError), whole_file(tmp_path / "g") as file:
        raise InputError("no")
    assert names(tmp_path) == ["f"]
