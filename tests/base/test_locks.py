"""A lock has one holder, also in the moment when another run ends and removes it."""

import fcntl

import pytest

from src.base.errors import InputError
from src.base.locks import hold, when_free


def test_a_lock_has_one_holder(tmp_path):
    with hold(tmp_path / ".lock", "folder"), pytest.raises(InputError, match="folder: another run is at work there"):
        hold(tmp_path / ".lock", "folder")
    hold(tmp_path / ".lock", "folder").close()


@pytest.mark.parametrize("taken_anew", [False, True])
def test_a_lock_that_its_holder_removes_meanwhile_is_refused(tmp_path, monkeypatch, taken_anew):
    """It would be held beside that of the next run."""
    path, flock = tmp_path / ".lock", fcntl.flock

    def ended_before(*arguments):
        path.unlink()
        if taken_anew:
            path.touch()
        flock(*arguments)

    monkeypatch.setattr(fcntl, "flock", ended_before)
    with pytest.raises(InputError, match="folder: another run is at work there: wait for it, or stop it"):
        hold(path, "folder")
    monkeypatch.undo()
    hold(path, "folder").close()


def test_who_waits_for_another_writer_says_so_and_not_for_ever(tmp_path, capsys):
    path = tmp_path / "a.tmp"
    with when_free(path, "file a") as file:
        file.write(b"own")
        file.flush()
        with pytest.raises(InputError, match="^file a: another process has been writing it for 0.1 s: stop it"):
            when_free(path, "file a", 0.1).__enter__()
        assert capsys.readouterr().out == "waits for another writer of file a\n"  # once
        assert path.read_bytes() == b"own"
    with when_free(path, "file a", 0):
        assert capsys.readouterr().out == ""
