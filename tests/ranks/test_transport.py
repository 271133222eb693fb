"""By what ranks send, and what is said where they can't by UCX."""

import pytest
from simulated import on_ranks

from src.base.errors import InputError
from src.options import TrainOptions, resolve
from src.ranks import transport
from src.ranks.options import ParallelSpec
from src.ranks.transport import exchange_of, uses_ucx

ADVICE = r"UCX on all hosts, .* pip install -r requirements-cpu-ranks\.txt"


def chosen(parallels, has_ucx=(False, False), ends_rows=(True, True)):
    """What each of two ranks gets, or the error; one that has UCX would fail to connect to the other."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(transport.Messages, "of", lambda rank, size: object() if has_ucx[rank] else None)
        return on_ranks(2, lambda own: exchange_of(own, parallels[own.rank], True, ends_rows[own.rank]))


def test_without_ucx_a_line_gives_advice_and_mindspore_sends(capsys):
    assert chosen([ParallelSpec("data")] * 2) == [None, None]
    (line,) = capsys.readouterr().out.splitlines()
    assert line.startswith("ranks send by MindSpore's collective operations (rank 0 has no UCX); ")
    assert "pip install -r requirements-cpu-ranks.txt" in line


AUTO, OWN = ParallelSpec("data"), ParallelSpec("data", transport="mindspore")


@pytest.mark.parametrize(
    ("parallels", "has_ucx", "ends_rows", "why"),
    [
        ([AUTO, AUTO], (True, False), (True, True), "rank 1 has no UCX"),
        ([AUTO, AUTO], (True, True), (True, False), "rank 1 computes by MindSpore's own operators"),
        ([AUTO, OWN], (True, True), (True, True), "rank 1 is told to send by MindSpore"),
    ],
)
def test_one_rank_without_is_enough_for_all(capsys, parallels, has_ucx, ends_rows, why):
    """Hosts may differ, and ranks of one that waited for messages would wait for ever."""
    assert chosen(parallels, has_ucx, ends_rows) == [None, None]
    assert f"({why})" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("options", "ends_rows", "message"),
    [
        ({"transport": "ucx"}, True, f"transport ucx: rank 0 has no UCX; {ADVICE}"),
        ({"wire_dtype": "float16"}, True, f"wire_dtype float16: rank 0 has no UCX; {ADVICE}"),
        ({"transport": "ucx"}, False, "transport ucx: rank 0 computes by MindSpore's own operators"),
        ({"wire_dtype": "bfloat16"}, False, "wire_dtype bfloat16: rank 0 computes by MindSpore's own"),
    ],
)
def test_ucx_that_is_asked_for_and_not_there_is_refused_on_all_ranks(options, ends_rows, message):
    for error in chosen([ParallelSpec("data", **options)] * 2, ends_rows=(ends_rows,) * 2):
        with pytest.raises(InputError, match=message):
            raise error


def test_hosts_with_other_types_on_the_wire_are_refused():
    for error in chosen([AUTO, ParallelSpec("data", wire_dtype="float16")]):
        with pytest.raises(InputError, match="ranks differ in how they send: the place of wire_dtype is 0, 2"):
            raise error


def test_mindspore_is_taken_without_a_word_when_it_is_asked_for(capsys):
    assert chosen([OWN, OWN], (True, True)) == [None, None]
    assert not capsys.readouterr().out


@pytest.mark.parametrize(
    ("device", "options", "message"),
    [
        ("CPU", ["--transport=ucx"], "transport ucx has no effect with parallel_mode none: drop it"),
        ("CPU", ["--wire_dtype=float16"], "wire_dtype float16 has no effect with parallel_mode none: drop it"),
        ("GPU", ["--parallel_mode=data", "--transport=ucx"], "transport ucx is for ranks on CPU; those on GPU"),
        ("Ascend", ["--parallel_mode=data", "--wire_dtype=float16"], "wire_dtype float16 is for ranks on CPU"),
        ("CPU", ["--parallel_mode=data", "--transport=mindspore", "--wire_dtype=bfloat16"], "no effect with transport"),
        ("CPU", ["--parallel_mode=data", "--transport=mpi"], "transport"),
    ],
)
def test_options_without_effect_are_refused(device, options, message):
    with pytest.raises(InputError, match=message):
        resolve(TrainOptions, [f"--device_target={device}", *options])


def test_a_plan_is_of_what_would_be_used(monkeypatch):
    monkeypatch.setattr(transport, "ucx_folder", lambda: "somewhere")
    assert uses_ucx(ParallelSpec("data"), "CPU")
    assert not uses_ucx(ParallelSpec("data", transport="mindspore"), "CPU")
    assert not uses_ucx(ParallelSpec("data"), "Ascend")
    monkeypatch.setattr(transport, "ucx_folder", lambda: None)
    assert not uses_ucx(ParallelSpec("data"), "CPU")
