"""The launcher: what it refuses, and what it makes of ranks that fail."""

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from trainings import ENVIRONMENT, ROOT, processes_in, start, wait_for

import train
from src.base.errors import InputError
from src.launch import Cluster, Launch, cluster_of
from src.launch import main as launch_main

RANK = """
import os, time
from src.base.workers import die_with_parent
if not os.fork():
    die_with_parent()  # as a program's workers
    open("forked_by_" + os.environ["RANK_ID"], "w").close()
time.sleep(600)
"""
LAUNCHER = """
import sys
from src.launch import Launch, cluster_of
Launch(cluster_of({}, 2), [sys.executable, "-c", sys.argv[1]]).wait()
"""


def test_ranks_end_with_a_launcher_that_is_killed(tmp_path):
    """And MindSpore's scheduler, and workers of ranks that are no trainings, since it is the kernel that ends all."""
    child = subprocess.Popen([sys.executable, "-c", LAUNCHER, RANK], cwd=tmp_path, stderr=subprocess.PIPE, text=True,
                             env=ENVIRONMENT | {"PYTHONPATH": str(ROOT)})  # fmt: skip
    wait_for(lambda: len(list(tmp_path.glob("forked_by_*"))) == 2, child)
    assert len(processes_in(tmp_path)) == 6
    child.kill()
    child.communicate()
    deadline = time.monotonic() + 30
    while processes_in(tmp_path):
        assert time.monotonic() < deadline
        time.sleep(0.1)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--paralel_mode=data"], "knows no option '--paralel_mode=data'; did you mean"),
        (["--batch_size=0"], "batch_size"),
    ],
)
def test_launcher_finds_mistakes_before_it_starts_anything(tiny_data, tmp_path, options, message):
    child = start(tmp_path, tiny_data, 2, *options, rate=["--lr=0.05"])
    _, err = child.communicate(timeout=60)
    assert child.returncode == 2
    assert message in err
    assert len(err.splitlines()) == 1
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("number", ["0", "two", "-1"])
def test_number_of_devices_is_checked(number):
    with pytest.raises(InputError, match=f"DEVICE_NUM is {number}"):
        launch_main([number])


def test_several_processes_need_a_launcher(tiny_data):
    with pytest.raises(InputError, match=r"run_distribute_train_cpu\.sh"):
        train.main([f"--dataset_path={tiny_data.path}", "--device_target=CPU", "--parallel_mode=data"])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--worker_num=8"], "4 of these ranks are on this machine: say which by --node_rank=0"),
        (["--worker_num=6", "--node_rank=0"], "6 is no multiple of local_worker_num 4.* give each --first_rank"),
        (["--worker_num=8", "--node_rank=2"], "ranks 8 to 11 would be on this machine.* the last one 7"),
        (["--worker_num=6", "--first_rank=3"], "ranks 3 to 6 would be on this machine"),
        (["--worker_num=eight"], "worker_num is 'eight': it must be a whole number"),
        (["--rank_timeout=0"], "rank_timeout is '0': it must be seconds"),
        (["--bind_core=perhaps"], "bind_core is 'perhaps': it must be True or False"),
        (["--master_addr=no such host"], "master_addr is 'no such host': no machine is known"),
    ],
)
def test_ranks_that_can_t_be_are_refused(options, message):
    with pytest.raises(InputError, match=message):
        launch_main(["4", *options])


@pytest.mark.parametrize(
    ("given", "local", "ranks"),
    [
        ({}, 4, range(4)),
        ({"worker_num": "8", "node_rank": "1"}, 4, range(4, 8)),
        ({"worker_num": "8", "first_rank": "6"}, 2, range(6, 8)),
        ({"worker_num": "8", "first_rank": "0", "local_worker_num": "6"}, 2, range(6)),
    ],
)
def test_hosts_may_have_different_numbers_of_ranks(given, local, ranks):
    cluster = cluster_of(given, local)
    assert cluster.ranks == ranks
    for place, rank in enumerate(ranks):
        found = cluster.environment(rank)
        assert (found["MS_NODE_ID"], found["RANK_ID"], found["DEVICE_ID"]) == (str(rank), str(rank), str(place))


def test_ranks_get_the_cards_of_a_rank_table(tmp_path):
    """Of two hosts, with four cards in use, in an order of their own."""
    places = [("10.0.0.1", 4, 1), ("10.0.0.1", 5, 0), ("10.0.0.2", 0, 2), ("10.0.0.2", 7, 3)]
    servers = [
        {"server_id": host, "device": [
            {"device_id": str(card), "device_ip": f"192.1.{host[-1]}.{card}", "rank_id": str(rank)}
            for server, card, rank in places if server == host]}
        for host in ("10.0.0.1", "10.0.0.2")
    ]  # fmt: skip
    path = tmp_path / "table.json"
    path.write_text(json.dumps({"version": "1.0", "server_count": "2", "status": "completed", "server_list": servers}))
    for node, cards in (("0", ["5", "4"]), ("1", ["0", "7"])):
        cluster = cluster_of({"rank_table": str(path), "worker_num": "4", "node_rank": node}, 2)
        found = [cluster.environment(rank) for rank in cluster.ranks]
        assert [one["DEVICE_ID"] for one in found] == cards
        assert {one["RANK_TABLE_FILE"] for one in found} == {str(path)}
    across = "has rank 1 on 10.0.0.1 and rank 2 on 10.0.0.2, and ranks 1 to 2 are started here: give the DEVICE_NUM"
    with pytest.raises(InputError, match=across):
        cluster_of({"rank_table": str(path), "worker_num": "4", "first_rank": "1"}, 2)


def test_ranks_wait_for_each_other_as_long_as_is_said():
    """MindSpore's collective operations on a CPU fail behind 30 s else: one rank may write a large report.

    On several hosts that is also how soon ranks notice that those elsewhere are gone, and stays.
    """
    found = cluster_of({"cluster_time_out": "77"}, 2).environment(1)
    assert (found["MS_TOPO_TIMEOUT"], found["MS_NODE_TIMEOUT"]) == ("77", "77")
    assert "MS_NODE_TIMEOUT" not in cluster_of({"worker_num": "4", "node_rank": "1"}, 2).environment(3)


def test_the_scheduler_starts_where_its_address_is():
    assert cluster_of({"master_addr": "localhost"}, 2).is_master
    assert not cluster_of({"master_addr": "192.0.2.1"}, 2).is_master  # an address for documentation alone


def test_bound_ranks_share_out_the_processors(monkeypatch):
    monkeypatch.setattr("os.sched_getaffinity", lambda _: set(range(3, 13)))
    cluster = cluster_of({"bind_core": "True", "worker_num": "6", "first_rank": "3"}, 3)
    assert [cluster.processors(rank) for rank in (3, 4, 5)] == [[3, 4, 5], [6, 7, 8], [9, 10, 11, 12]]
    assert not cluster.processors(-1)
    assert not cluster_of({}, 3).processors(0)


def test_a_rank_that_dies_is_seen_whichever_it_is(tmp_path, monkeypatch, capsys):
    """Ranks that are no trainings, of which the last one dies while the others would go on for long."""
    monkeypatch.chdir(tmp_path)
    last = "import os, signal, time; os.environ['RANK_ID'] == '2' and os.kill(os.getpid(), signal.SIGTERM)"
    launch = Launch(cluster_of({}, 3), [sys.executable, "-c", f"{last}; time.sleep(600)"])
    assert launch.wait() == 128 + signal.SIGTERM
    assert "error: rank 2 was killed by signal 15; the other ranks were stopped" in capsys.readouterr().err
    assert not [child for child in launch.ranks.values() if child.poll() is None]


def test_error_of_rank_0_alone_ends_all_with_its_exit_code(tmp_path, monkeypatch, capsys):
    """Ranks that are no trainings, of which the other one waits for long."""
    monkeypatch.chdir(tmp_path)
    code = "import os, sys, time; os.environ['RANK_ID'] == '0' or time.sleep(600); sys.exit(2)"
    launch = Launch(cluster_of({}, 2), [sys.executable, "-c", code])
    assert launch.wait() == 2
    assert "error: rank 0 ended with exit code 2" in capsys.readouterr().err
    assert not [child for child in launch.ranks.values() if child.poll() is None]


def test_of_ranks_that_fail_together_the_one_that_knows_why_is_named(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    code = "import os, sys; rank = int(os.environ['RANK_ID']); print('error: no rows', file=sys.stderr)"
    launch = Launch(cluster_of({}, 2), [sys.executable, "-c", f"{code}; sys.exit(1 + rank)"])
    for child in launch.ranks.values():
        child.wait()
    assert launch.wait() == 2
    assert "error: rank 1 ended with exit code 2 (no rows); the other ranks were stopped" in capsys.readouterr().err


def logs():
    return {str(log): log.read_text() for log in Path().glob("log*/*") if log.is_file()}


def test_only_logs_that_a_run_has_written_are_removed(here):
    for folder in ("log20240101", "log3"):
        Path(folder).mkdir()
        Path(folder, "output.log").write_text("the user's\n")
    launched("print('four', flush=True)", ranks=2)
    launched("pass", ranks=1)
    assert logs() == {"log0/output.log": "", **{f"{one}/output.log": "the user's\n" for one in ("log20240101", "log3")}}


@pytest.mark.parametrize("failed", ["sys.exit(1)", "os.kill(os.getpid(), 9)"])
def test_a_good_log_outlives_starts_that_fail_before_they_train(here, failed):
    launched("print('good')", ranks=1)
    for _ in range(2):
        launched(f"print('failed', flush=True); {failed}", ranks=1)
        assert logs() == {"log0/output.log": "failed\n", "log0/output.log.earlier": "good\n"}
    launched("print('refused', flush=True); sys.exit(2)", ranks=1)
    assert logs() == {"log0/output.log": "good\n", "log0/refused.log": "refused\n"}
    launched("print('better')", ranks=1)
    assert logs() == {"log0/output.log": "better\n"}


def test_a_refused_start_leaves_no_folders_and_an_earlier_run_its_logs(here, capsys):
    launched("print('error: no card', flush=True); sys.exit(2)", ranks=2)
    assert "(no card); the other ranks were stopped\n" in capsys.readouterr().err
    assert not list(here.iterdir())
    launched("sys.exit(2)", ranks=2)  # of which nothing was shown
    assert "the other ranks were stopped; see log" in capsys.readouterr().err
    assert set(logs()) == {"log0/output.log", "log1/output.log"}


def launched(code, ranks):
    """A run of ranks that are no trainings, without MindSpore's scheduler."""
    program = [sys.executable, "-c", f"import os, sys; {code}"]
    Launch(Cluster(ranks, ranks, 0, "192.0.2.1", 1), program).wait()
