"""Signs of life: a process that compiles is waited for, one that stands still or waits in vain is not."""

import json
import os
import signal
import subprocess
import sys

import pytest

from src.base.signs import SignOfLife, Watch, processor_time, sign_of


class Clock:
    """Ranks that write what they are told to, and a watch with a limit of 60 s that looks every 10 s."""

    def __init__(self, folder, ranks=2):
        self.folder, self.now = folder, 0.0
        self.watch = Watch(folder, range(ranks), 60.0)
        self.signs = [{"beat": 0, "done": 0, "step": 0, "expects": None} for _ in range(ranks)]

    def pass_by(self, seconds, *, beats=(), works=()):
        """What is found to hang meanwhile, the first of it."""
        for _ in range(0, seconds, 10):
            self.now += 10
            for rank, sign in enumerate(self.signs):
                sign["beat"] += rank in beats
                sign["done"] += rank in works
                sign_of(self.folder, rank).write_text(json.dumps(sign))
            if found := self.watch.hanging(self.now):
                return found
        return None


def test_a_first_step_may_take_as_long_as_it_takes_to_compile(tmp_path):
    clock = Clock(tmp_path)
    assert clock.pass_by(500) is None
    for sign in clock.signs:
        sign |= {"step": 1, "expects": "done"}
    assert clock.pass_by(60) is None, "the time before it does not count"


def test_a_rank_that_compiles_uses_the_processor_or_beats(tmp_path, monkeypatch):
    """Its processor time grows; another one's that waits for it does not. One that was stopped does neither."""
    clock, used = Clock(tmp_path), [5, 5]
    monkeypatch.setattr("src.base.signs.processor_time", used.__getitem__)
    for rank, sign in enumerate(clock.signs):
        sign["expects"] = "processor time"
        sign_of(tmp_path, rank).with_suffix(".pid").write_text(str(rank))
    for _ in range(20):
        used[0] += 1
        assert clock.pass_by(30, beats=(1,)) is None
    assert clock.pass_by(200, beats=(1,)) == (0, "rank 0 has given no sign of life for 60 s")


def test_processor_time_is_that_of_a_process_and_of_those_that_it_started():
    assert processor_time(os.getpid()) > 0
    parent = [sys.executable, "-c", "import subprocess, sys; subprocess.run([sys.executable, '-c', sys.argv[1]])"]
    loop = "import time\nwhile time.process_time() < 0.2: pass\nprint(time.process_time(), flush=True)\ntime.sleep(600)"
    with subprocess.Popen([*parent, loop], stdout=subprocess.PIPE, start_new_session=True) as child:
        used = float(child.stdout.readline()) * os.sysconf("SC_CLK_TCK")
        assert processor_time(child.pid) > used - 2, "of its own and of the system's time whole ticks are told"
        os.killpg(child.pid, signal.SIGKILL)
    assert processor_time(child.pid) is None


def test_a_process_without_a_beat_is_named(tmp_path):
    clock = Clock(tmp_path)
    for expects in ("done", "beat"):
        for sign in clock.signs:
            sign |= {"step": 7, "expects": expects}
        assert clock.pass_by(200, beats=(0, 1), works=(0, 1)) is None
        assert clock.pass_by(200, beats=(0,)) == (1, "rank 1 has given no sign of life for 60 s")


def test_ranks_that_wait_for_each_other_in_vain_are_found_though_they_beat(tmp_path):
    clock = Clock(tmp_path)
    for step, sign in enumerate(clock.signs, 7):
        sign |= {"step": step, "done": step, "expects": "done"}
    assert clock.pass_by(200, beats=(0, 1)) == (0, "ranks wait in vain: for 60 s rank 0 has stood behind step 7")


def test_a_rank_that_works_by_itself_is_waited_for(tmp_path):
    """By those that stand in a collective operation."""
    clock = Clock(tmp_path)
    for sign, expects in zip(clock.signs, ("beat", "done")):
        sign |= {"step": 7, "expects": expects}
    assert clock.pass_by(500, beats=(0, 1)) is None


def test_some_ranks_of_several_hosts_may_all_wait_for_a_rank_elsewhere(tmp_path):
    """That does something by itself, of which its own host sees signs; one without a beat hangs anyway."""
    clock = Clock(tmp_path)
    clock.watch = Watch(tmp_path, range(2), 60.0, of_all=False)
    for sign in clock.signs:
        sign |= {"step": 7, "expects": "done"}
    assert clock.pass_by(500, beats=(0, 1)) is None
    assert clock.pass_by(200, beats=(0,)) == (1, "rank 1 has given no sign of life for 60 s")


def test_a_sign_says_what_is_expected_as_the_run_goes_on(tmp_path):
    path = sign_of(tmp_path, 0)
    sign = SignOfLife(path)

    def told():
        return json.loads(path.read_text())["expects"]

    assert told() is None
    sign.begin_step()
    assert told() == "processor time", "the first step compiles"
    sign.end_step(1)
    assert told() == "beat"
    sign.begin_step()
    assert sign.expects == "done"
    sign.end_step(2)
    with sign.work(compiles=True):
        assert told() == "processor time"
    with sign.work(compiles=False):
        assert sign.expects == "done"
    assert (told(), sign.done, sign.step) == ("beat", 4, 2)


def test_nobody_looks_for_signs_of_one_process(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    sign = SignOfLife()
    sign.end_step(1)
    with sign.work(compiles=True):
        pass
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("text", ["", "{"])
def test_a_sign_that_is_not_whole_is_looked_at_again(tmp_path, text):
    sign_of(tmp_path, 0).write_text(text)
    assert Watch(tmp_path, range(1), 60.0).hanging(1e9) is None
