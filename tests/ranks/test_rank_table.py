"""The file that says which rank has which card of an Ascend cluster."""

import json
import subprocess

import pytest
from trainings import ENVIRONMENT, script

from src.base.errors import InputError
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
        ({"server_list": [{"device": [{}]}]}, "not of the form server_list"),
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
