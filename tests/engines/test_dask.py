"""Preprocessing by workers of a real Dask scheduler: the same bytes, whoever is killed, and refusals in one line."""

import contextlib
import threading

import clusters
import pytest
from clusters import KILLED, WORKED, WROTE, Interrupts, Kills, checksums, cluster
from conftest import raw_lines, write_raw
from stopping import run_program

from src.base.errors import InputError
from src.engines import engine
from src.engines.options import EngineSpec
from src.options import PreprocessDataOptions, resolve_values

pytest.importorskip("distributed", reason="pip install -r tests/requirements.txt")
from src.engines import over_dask  # noqa: E402
from src.engines.over_dask import dask_engine  # noqa: E402

PROGRAM = "src.preprocess_data"
OPTIONS = ["--shard_rows=64", "--record_rows=64", "--numeric_transform=quantile", "--shuffle_rows=True"]
STEPS = {"count", "merge", "merge_numbers", "scatter", "bundle", "gather", "encode"}
COUNTS_ALONE = {"LIBRARIES": ("numpy", "pandas", "distributed")}


@pytest.fixture(scope="module")
def there(tmp_path_factory):
    """A scheduler and three workers, one of which has no MindSpore."""
    with cluster(tmp_path_factory.mktemp("cluster"), 2) as made:
        made.add(**COUNTS_ALONE)
        yield made


@pytest.fixture(scope="module")
def raw(tmp_path_factory):
    """600 rows; with OPTIONS they are 11 pieces, 9 of them training."""
    return write_raw(tmp_path_factory.mktemp("raw") / "train.txt", raw_lines(600, 5))


@contextlib.contextmanager
def replaced(made):
    """For each worker that is killed another one joins; what the block gets holds their numbers in the end."""
    ended, joined = threading.Event(), []

    def replace():
        gone = made.told(KILLED)
        while not ended.wait(0.02):
            if new := made.told(KILLED) - gone:
                gone |= new
                joined.extend(made.add() for _ in new)

    thread = threading.Thread(target=replace)
    thread.start()
    try:
        yield joined
    finally:
        ended.set()
        thread.join()


@pytest.fixture(scope="module")
def made(raw, there):
    """A data folder that they have made, one of whom was killed in each step while others joined."""
    with replaced(there) as joined:
        flags = [f"--data_path={raw.name}", "--output_path=made", *OPTIONS]  # from where workers are not
        code, text = run_program(PROGRAM, raw.parent, *flags, "--engine=dask", f"--scheduler={there.address}",
                                 kill=Kills(there.folder))  # fmt: skip
    assert code == 0, text
    assert "scheduler tcp://127.0.0.1:" in text
    assert len(there.told(KILLED)) == len(STEPS)
    assert set(joined) & there.told(WORKED)
    assert set(joined) & there.told(WROTE)
    return raw.parent / "made"


def test_a_worker_killed_in_each_step_changes_no_byte(raw, made, tmp_path):
    """Nor do workers that come later, one that can only count, or the number of processes of the other engine."""
    found = checksums(made)
    assert sum(name.endswith(".mindrecord") for name in found) == 9 + 1 + 1
    for workers in (1, 2, 3):
        place = tmp_path / f"local{workers}"
        more = [f"--output_path={place}", f"--workers={workers}"]
        assert run_program(PROGRAM, raw.parent, f"--data_path={raw.name}", *OPTIONS, *more, kill=Kills(None))[0] == 0
        assert checksums(place) == found


def test_who_can_only_count_writes_no_records(there, made):
    (alone,) = (number for number, facts in there.facts.items() if facts)
    assert alone in there.told(WORKED) | there.told(KILLED)
    assert alone not in there.told(WROTE)


def test_a_vocabulary_grows_by_them_as_by_processes_of_this_machine(raw, there, made):
    """Counting and merging need the earlier one, and what it was counted from, which workers read."""
    lines = [line.replace("0000", "00zz") for line in raw_lines(200, 6)]
    flags = [f"--data_path={write_raw(raw.parent / 'new.txt', lines)}", "--vocab_path=made", "--grow=True",
             "--shard_rows=64", "--record_rows=64"]  # fmt: skip
    for name, more in (("here", []), ("there", ["--engine=dask", f"--scheduler={there.address}"])):
        code, text = run_program(PROGRAM, raw.parent, *flags, f"--output_path={name}", *more)
        assert (code, "growth 1 of the vocabulary" in text) == (0, True), text
    assert checksums(raw.parent / "there") == checksums(raw.parent / "here")


def test_ctrl_c_ends_the_run_and_the_next_one_goes_on(raw, there, made):
    """Workers, whose pieces are called off, are free for it."""
    flags = [f"--data_path={raw.name}", "--output_path=stopped", *OPTIONS]
    on_dask = ["--engine=dask", f"--scheduler={there.address}"]
    code, text = run_program(PROGRAM, raw.parent, *flags, *on_dask, kill=Interrupts("an attempt is put in its place"))
    assert (code, text.splitlines()[-1]) == (130, "stopped by the keyboard or a signal")
    assert "Traceback" not in text
    code, text = run_program(PROGRAM, raw.parent, *flags, *on_dask, kill=Kills(None))
    assert code == 0, text
    assert "count: going on from an earlier run, 1 of 11 pieces are done" in text
    assert checksums(raw.parent / "stopped") == checksums(made)


def test_what_is_wrong_with_the_rows_is_the_same_line(raw, there):
    write_raw(raw.parent / "bad.txt", [*raw_lines(99), "no row"])
    flags = ["--data_path=bad.txt", "--output_path=bad", "--shard_rows=64", "--record_rows=64"]
    more = ["--engine=dask", f"--scheduler={there.address}"]
    lines = [run_program(PROGRAM, raw.parent, *flags, *one)[1].splitlines()[-1] for one in ([], more)]
    assert lines[0] == lines[1]
    assert "bad.txt has 1 bad rows, 0 are allowed: line 100: 1 columns instead of 40" in lines[0]


@pytest.fixture
def begun(there, tmp_path):
    """An engine that has begun."""
    with dask_engine(there.address, 0) as made:
        made.begin(tmp_path, [])
        yield made


def test_what_a_step_refuses_is_refused_here(begun):
    with pytest.raises(InputError, match=r"^column C7 is refused$"):
        list(begun.map("count", clusters.refuse, [("column C7",)], [1], "rows"))


def test_what_ended_is_told_before_workers_are_waited_for(begun, monkeypatch):
    """Such as a piece that killed all of them."""
    monkeypatch.setattr(over_dask, "_WAIT_S", 5)
    monkeypatch.setattr(over_dask, "_TICK_S", 0.05)

    def look(told):
        begun._fit.clear()

    submit = begun._submit

    def submitted(*arguments):
        monkeypatch.setattr(begun, "_look", look)
        begun._looked = 0.0
        return submit(*arguments)

    monkeypatch.setattr(begun, "_submit", submitted)
    assert [number for number, _ in begun.map("count", clusters.process_of, [(7, 0.5)], [1], "rows")] == [7]


def test_a_piece_that_kills_who_does_it_is_given_up(there, begun):
    """The workers of the other tests are not these."""
    doomed = [there.add() for _ in range(4)]
    begun._looked = 0
    begun._look(True)
    others = [name for name in begun._fit if name not in there.addresses(doomed)]
    for name in others:
        begun._unfit[name] = "is spared"
        del begun._fit[name]
    with pytest.raises(InputError, match=r"^count: workers that did the same piece were lost 4 times, as where mem"):
        list(begun.map("count", clusters.die, [()], [1], "rows"))


def test_who_comes_later_is_looked_at_first(there, begun, capfd):
    """And left out with a line if it is not fit; else it gets work."""
    late = [there.add(_WINGS=("base",)), there.add()]
    work = [(number, 0.05) for number in range(60)]
    found = dict(begun.map("count", clusters.process_of, work, [1] * len(work), "rows"))
    assert sorted(found) == list(range(60))
    assert late[1] in found.values()
    assert late[0] not in found.values()
    assert "is left out: it has another version of this program: start it anew with" in capfd.readouterr().err
    for number in late:
        there.end(number)


@pytest.mark.parametrize(("threads", "facts", "line"), [
    (2, {}, "has 2 threads, which would do pieces at once: start it with --nthreads 1 and more --nworkers"),
    (1, {"_WINGS": ("base",)}, "has another version of this program: start it anew with the same sources"),
    (1, {"look": clusters.sees_nothing}, "can't see the output folder"),
    (1, {"look": clusters.has_no_program}, "can't import this program"),
])  # fmt: skip
def test_a_worker_that_is_not_fit_is_refused_before_there_is_work(there, tmp_path, threads, facts, line):
    number = there.add(threads, **facts)
    try:
        with dask_engine(there.address, 0) as made, pytest.raises(InputError, match=f"^worker tcp://.* of sch.*{line}"):
            made.begin(tmp_path, [])
    finally:
        there.end(number)


def test_a_scheduler_that_is_not_there_or_has_no_workers_is_one_line(tmp_path, monkeypatch):
    monkeypatch.setattr(over_dask, "_CONNECT_S", 0.5)
    monkeypatch.setattr(over_dask, "_WAIT_S", 0.1)
    unreached = pytest.raises(InputError, match=r"^scheduler tcp://127.0.0.1:9 can't be reached .*start it with 'dask")
    with unreached, dask_engine("tcp://127.0.0.1:9", 0):
        pass
    empty = pytest.raises(InputError, match=r"^scheduler tcp://\S+ has had no workers for 0.1 s: start some")
    with cluster(tmp_path, 0) as none, dask_engine(none.address, 0) as made, empty:
        made.begin(tmp_path, [])


def test_a_scheduler_that_is_lost_is_one_line(tmp_path, monkeypatch):
    monkeypatch.setattr(over_dask, "_CONNECT_S", 0.5)
    with cluster(tmp_path, 1) as lost, dask_engine(lost.address, 0) as made:
        made.begin(tmp_path, [])
        results = made.map("count", clusters.process_of, [(number, 0.05) for number in range(99)], [1] * 99, "rows")
        next(results)
        lost.end()
        with pytest.raises(InputError, match=r"^scheduler tcp://\S+ was lost .*start it again; the same command goes"):
            list(results)


def test_without_a_scheduler_workers_are_started_here(tmp_path):
    with dask_engine("", 1) as made:
        made.begin(tmp_path, [])
        assert len(dict(made.map("count", clusters.process_of, [(1,), (2,)], [1, 1], "rows"))) == 2


def test_dask_is_optional(monkeypatch):
    monkeypatch.setattr(engine.importlib.util, "find_spec", lambda name: None)
    refused = pytest.raises(InputError, match=r"^engine dask needs distributed, not installed: pip install -r require")
    with refused, engine.engine_of(EngineSpec("dask")):
        pass


@pytest.mark.parametrize(("given", "line"), [
    ({"engine": "spark"}, "must be one of local, dask"),
    ({"scheduler": "here:8786", "engine": "dask"}, "must be an address such as tcp://HOST:8786"),
    ({"scheduler": "tcp://here:8786"}, "has no effect with engine local: give --engine=dask"),
    ({"scheduler": "tcp://here:8786", "engine": "dask", "workers": 2}, "workers 2 has no effect with scheduler tcp"),
])  # fmt: skip
def test_options_that_contradict_each_other_are_refused(given, line):
    with pytest.raises(InputError, match=line):
        resolve_values(PreprocessDataOptions, given, "here")
