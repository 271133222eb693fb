"""The file that says which rank has which card of an Ascend cluster."""

import json
import re
import subprocess
import sys

import pytest
from trainings import ENVIRONMENT, ROOT, script

from src.base.errors import InputError
from src.ranks import rank_table
from src.ranks.rank_table import check_rank_table


def table_of(ranks, devices):
    return {"version": "1.0", "server_count": "1", "status": "completed", "server_list": [
        {"server_id": "10.0.0.1", "device": [
            {"device_id": str(device), "device_ip": f"192.1.27.{device}", "rank_id": str(rank)}
            for rank, device in zip(ranks, devices)]}]}  # fmt: skip


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (table_of([0, 1, 2], [0, 1, 2]), "has 3 devices, DEVICE_NUM is 4"),
        (table_of([0, 1, 1, 3], [0, 1, 2, 3]), "has rank_id 1 twice"),
        (table_of([0, 1, 2, 3], [0, 1, 2, 2]), r"has device \('10.0.0.1', 2\) twice"),
        (table_of([0, 1, 2, 4], [0, 1, 2, 3]), "has no rank_id 3"),
        ({"server_list": [{"server_id": "1", "device": [3]}]}, "not of the form server_list"),
        ({"server_list": [{"server_id": "1"}]}, r"not of the form server_list.*KeyError\('device'\)"),
        ([], "not of the form server_list"),
        (None, "is not a file"),
    ],
)
def test_rank_table_is_checked(tmp_path, content, message):
    path = tmp_path / "table.json"
    if content is not None:
        path.write_text(json.dumps(content))
    with pytest.raises(InputError, match=message):
        check_rank_table(path, 4)


def changed(change):
    table = table_of([0, 1, 2, 3], [0, 1, 2, 3])
    change(table, table["server_list"][0]["device"])
    return table


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        (lambda table, _: table.update(status="initializing"), "has status 'initializing': it must be 'completed'"),
        (lambda table, _: table.pop("status"), "has status None: it must be 'completed'"),
        (lambda table, _: table.pop("version"), "has version None: it must be one of 1.0, 1.2"),
        (lambda table, _: table.update(server_count="2"), "has server_count '2' and 1 servers: they must agree"),
        (lambda table, _: table["server_list"][0].update(server_id=""), "has a server without server_id"),
        (
            lambda table, _: table.update(server_count="2", server_list=2 * table["server_list"]),
            "has server_id 10.0.0.1 twice",
        ),
        (lambda _, devices: devices[2].pop("device_ip"), "has no device_ip of device 2 of 10.0.0.1: give the card's"),
        (lambda _, devices: devices[2].update(device_ip=""), "has no device_ip of device 2 of 10.0.0.1"),
        (lambda _, devices: devices[2].update(device_ip="card"), "has device_ip 'card' of device 2 of 10.0.0.1"),
        (lambda _, devices: devices[2].update(device_ip="192.1.27.3"), "has device_ip 192.1.27.3 twice"),
        (lambda _, devices: devices[2].pop("rank_id"), "has rank_id None of device 2 of 10.0.0.1: it must be a whole"),
        (lambda _, devices: devices[2].update(device_id="-1"), "has device_id '-1' of device -1 of 10.0.0.1"),
        (lambda _, devices: devices[2].pop("device_id"), "of device without device_id of 10.0.0.1"),
    ],
)
def test_each_fault_of_a_table_is_named(tmp_path, change, fault):
    path = tmp_path / "table.json"
    path.write_text(json.dumps(changed(change)))
    with pytest.raises(InputError, match=re.escape(fault)) as caught:
        check_rank_table(path, 4)
    assert "\n" not in str(caught.value)


def test_several_faults_are_told_at_once(tmp_path):
    def spoil(table, devices):
        table["status"] = "initializing"
        for device in devices:
            del device["device_ip"]

    path = tmp_path / "table.json"
    path.write_text(json.dumps(changed(spoil)))
    with pytest.raises(
        InputError, match=r"status 'initializing'.*; it has no device_ip of device 1 .*; and 2 more faults"
    ):
        check_rank_table(path, 4)


@pytest.fixture
def host(here, monkeypatch):
    """An Ascend host of eight cards, of whose driver there are the file of addresses and the tool that tells them."""
    conf = "".join(f"address_{card}=192.168.100.{101 + card}\nnetmask_{card}=255.255.255.0\n" for card in range(8))
    (here / "hccn.conf").write_text(conf)
    (here / "hccn_tool").write_text('#!/bin/sh\n[ "$2" -lt 8 ] && printf "ipaddr:10.1.0.$2\\nnetmask:255.0.0.0\\n"\n')
    (here / "hccn_tool").chmod(0o755)
    monkeypatch.setattr(rank_table, "HCCN_CONF", here / "hccn.conf")
    monkeypatch.setattr(rank_table, "HCCN_TOOL", str(here / "hccn_tool"))
    return here


def test_a_table_of_one_host_is_made_and_passes(host, capsys):
    rank_table.main(["--make", "8", "--server_ip=10.0.0.1"])
    assert "rank_table_8p.json: 8 ranks on 10.0.0.1, cards 0, 1, 2" in capsys.readouterr().out
    assert check_rank_table(host / "rank_table_8p.json", 8) == 8
    made = json.loads((host / "rank_table_8p.json").read_text())
    assert (made["version"], made["status"], made["server_count"]) == ("1.0", "completed", "1")
    devices = [{"device_id": f"{n}", "device_ip": f"192.168.100.{101 + n}", "rank_id": f"{n}"} for n in range(8)]
    assert made["server_list"] == [{"server_id": "10.0.0.1", "host_nic_ip": "reserve", "device": devices}]
    rank_table.main(["--check=rank_table_8p.json"])
    assert capsys.readouterr().out == "rank_table_8p.json: 8 ranks, no fault found\n"
    with pytest.raises(InputError, match="output rank_table_8p.json is there already: .*--overwrite=True"):
        rank_table.main(["--make=8"])


def test_cards_may_be_named_and_addresses_asked_of_the_tool(host):
    (host / "hccn.conf").unlink()
    rank_table.main(["--make=2", "--devices=5,4", "--server_ip=a", "--output=t.json"])
    devices = json.loads((host / "t.json").read_text())["server_list"][0]["device"]
    assert [tuple(device.values()) for device in devices] == [("5", "10.1.0.5", "0"), ("4", "10.1.0.4", "1")]


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--make=9"], "card 8 has no device_ip: .*has no address_8, and .* tells none: make the table on the Ascend"),
        (["--make=2", "--devices=1,1"], "has device .* twice"),
        (["--make=2", "--devices=1"], "devices 1 are 1 cards, make is 2"),
        (["--make=2", "--devices=a"], "devices is 'a': it must be numbers of cards"),
        (["--make=0"], "give either --make, the number of this host's cards, or --check"),
        (["--make=2", "--check=t"], "give either --make"),
        (["--check=t"], "rank table t is not a file"),
    ],
)
def test_a_table_that_can_t_be_made_is_refused_and_nothing_is_left(host, argv, message):
    before = sorted(path.name for path in host.iterdir())
    with pytest.raises(InputError, match=message):
        rank_table.main(argv if "--check=t" in argv else [*argv, "--server_ip=a"])
    assert sorted(path.name for path in host.iterdir()) == before


def test_a_host_without_cards_is_refused_in_one_line(tmp_path):
    done = subprocess.run([sys.executable, "-m", "src.ranks.rank_table", "--make", "8"], capture_output=True, text=True,
                          env=ENVIRONMENT | {"PYTHONPATH": str(ROOT)}, cwd=tmp_path, check=False)  # fmt: skip
    assert (done.returncode, done.stderr.count("\n"), list(tmp_path.iterdir())) == (2, 1, [])
    assert re.match(r"error: card 0 has no device_ip|error: this host has no address", done.stderr)


def test_good_rank_table_passes(tmp_path):
    path = tmp_path / "table.json"
    path.write_text(json.dumps(table_of([1, 0, 3, 2], [0, 1, 2, 3])))
    check_rank_table(path, 4)


def test_ascend_launcher_checks_its_rank_table(tmp_path):
    done = subprocess.run(script(8, "data", "no-such.json", device="ascend"), cwd=tmp_path, env=ENVIRONMENT,
                          capture_output=True, text=True, check=False)  # fmt: skip
    assert done.returncode == 2
    assert (
        done.stderr
        == "error: rank table no-such.json is not a file: name the JSON file that says which rank has which device\n"
    )
    assert not list(tmp_path.iterdir())
