"""Ranks on two hosts, which network namespaces stand for."""

import json
import os
import shutil
import subprocess

import pytest
from forked import Launcher, launch_in_network
from trainings import SGD, TRAINING, alone_of, check_as_one_process, values

from src.ranks.options import ucx_folder
from src.ranks.placement import place, plan


def test_two_hosts(tiny_data, made_once, tmp_path):
    """One rank each in a network namespace of its own, joined by a virtual cable, which also counts what is sent.

    UCX would find that both are on one machine, and share memory: it is told not to.
    """
    names = [f"dlrm{os.getpid()}{side}" for side in "ab"]

    def ip(*words):
        return subprocess.run(["ip", *words], capture_output=True, text=True, check=False)

    if os.geteuid() or ip("netns", "add", names[0]).returncode:
        pytest.skip("network namespaces need root")
    try:
        ip("netns", "add", names[1])
        made = ip("link", "add", "one", "netns", names[0], "type", "veth", "peer", "name", "two", "netns", names[1])
        if made.returncode:
            pytest.skip(f"no virtual network: {made.stderr}")
        for name, link, address in zip(names, ("one", "two"), ("10.77.0.1/24", "10.77.0.2/24")):
            ip("-n", name, "addr", "add", address, "dev", link)
            ip("-n", name, "link", "set", link, "up")
            ip("-n", name, "link", "set", "lo", "up")
        children = []
        for rank, name in enumerate(names):
            (tmp_path / f"host{rank}").mkdir()
            command = [name, "1", "--device_target=CPU", f"--dataset_path={tiny_data.path}", "--worker_num=2",
                       "--local_worker_num=1", "--master_addr=10.77.0.1", "--master_port=8118", f"--node_rank={rank}",
                       f"--ckpt_path={tmp_path}/checkpoint", "--parallel_mode=hybrid"]  # fmt: skip
            command += [*TRAINING, *SGD, "--importance_rows=0"]  # whose scoring is no part of the plan
            children.append(Launcher(tmp_path / f"host{rank}", command, launch_in_network, UCX_TLS="tcp,self"))
        texts = [child.communicate(timeout=300) for child in children]
        assert [child.returncode for child in children] == [0, 0], texts
        statistics = json.loads(ip("-n", names[1], "-s", "-j", "link", "show", "two").stdout)
    finally:
        for name in names:
            ip("netns", "delete", name)
    shutil.copy(tmp_path / "host0/metrics.jsonl", tmp_path)
    check_as_one_process(tmp_path, tiny_data, alone_of(made_once, tiny_data, "sgd", SGD))
    assert (tmp_path / "host1/log1/output.log").exists()
    sent = statistics[0]["stats64"]["tx"]["bytes"]
    mlp = sum(v.size for name, v in values(tmp_path, tiny_data).items() if name != "tables")
    rows = tiny_data.manifest.table_rows
    wire_bytes = 4 if ucx_folder() else 0
    planned = 26 * plan(place(rows, "hybrid", 2), 64, 8, mlp, 0, "CPU", wire_bytes=wire_bytes).bytes_per_step[1]
    assert ("ranks send by UCX" in (tmp_path / "host0/log0/output.log").read_text()) == bool(wire_bytes)
    assert sent == pytest.approx(planned, rel=0.5)  # with evaluations, checks at saves and headers
