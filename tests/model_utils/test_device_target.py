"""The device of a run, and what makes a process one of several."""

import mindspore as ms
import pytest
from networks import make_model  # sets MindSpore up for the CPU

from src.base.errors import InputError
from src.model_utils import device_target
from src.model_utils.device_target import check_products, set_device, start_ranks


@pytest.fixture
def cards(monkeypatch):
    """A machine with 8 cards, and the devices that are set."""
    found = []
    monkeypatch.setattr(ms.device_context.ascend, "is_available", lambda: True)
    monkeypatch.setattr(ms.device_context.ascend, "device_count", lambda: 8)
    monkeypatch.setattr(device_target.ms, "set_device", lambda *device: found.append(device))
    return found


def test_a_rank_table_in_the_surroundings_leaves_a_single_run_its_device(monkeypatch, cards):
    """As on an Ascend host: it has neither several processes nor another card."""
    monkeypatch.setenv("RANK_TABLE_FILE", "/etc/rank_table.json")
    for name in ("MS_ROLE", "RANK_ID", "RANK_SIZE"):
        monkeypatch.delenv(name, raising=False)
    set_device("Ascend", 3)
    assert cards == [("Ascend", 3)]
    assert start_ranks("none")[:2] == (0, 1)
    with pytest.raises(InputError, match="parallel_mode data is for several processes"):
        start_ranks("data")


@pytest.mark.parametrize("name", ["DEVICE_ID", "ASCEND_DEVICE_ID"])
def test_a_process_of_a_rank_table_gets_the_card_that_it_was_started_for(monkeypatch, cards, name):
    """As ModelArts starts a job, once for each card."""
    for key, value in {"RANK_TABLE_FILE": "t.json", "RANK_ID": "3", "RANK_SIZE": "8", name: "5"}.items():
        monkeypatch.setenv(key, value)
    for key in {"MS_ROLE", "DEVICE_ID", "ASCEND_DEVICE_ID"} - {name}:
        monkeypatch.delenv(key, raising=False)
    set_device("Ascend", 0)
    assert cards == [("Ascend", 5)]
    with pytest.raises(InputError, match="parallel_mode none is for one process.* RANK_ID and RANK_SIZE"):
        start_ranks("none")
    monkeypatch.setattr(ms.communication, "init", lambda: None)
    monkeypatch.setattr(ms.communication, "get_rank", lambda: 3)
    monkeypatch.setattr(ms.communication, "get_group_size", lambda: 8)
    assert start_ranks("data")[:2] == (3, 8)
    monkeypatch.setenv("RANK_SIZE", "eight")
    with pytest.raises(InputError, match="the environment's RANK_SIZE is 'eight': it must be a whole number"):
        set_device("Ascend", 0)


def test_a_rank_gets_a_card_of_its_own_and_is_not_a_single_run(monkeypatch, cards):
    monkeypatch.setenv("MS_ROLE", "MS_WORKER")
    set_device("Ascend", 0)
    assert cards == [("Ascend",)]
    with pytest.raises(InputError, match="parallel_mode none is for one process"):
        start_ranks("none")


def test_a_rank_of_the_launcher_gets_the_card_of_its_rank_table(monkeypatch, cards):
    """MindSpore, which would share out cards from 0 on, takes DEVICE_ID there too."""
    table = {"RANK_TABLE_FILE": "t.json", "RANK_ID": "1", "RANK_SIZE": "2", "DEVICE_ID": "5"}
    for key, value in ({"MS_ROLE": "MS_WORKER"} | table).items():
        monkeypatch.setenv(key, value)
    set_device("Ascend", 0)
    assert cards == [("Ascend", 5)]
    monkeypatch.setenv("DEVICE_ID", "8")
    with pytest.raises(InputError, match="device_target Ascend with device_id 8: this machine has 8 of them"):
        set_device("Ascend", 0)


@pytest.mark.parametrize(("device", "asked"), [("CPU", []), ("GPU", [True]), ("Ascend", [True])])
def test_ranks_ask_for_sums_in_one_order_before_they_join(monkeypatch, device, asked):
    calls = []
    monkeypatch.setenv("MS_ROLE", "MS_WORKER")
    monkeypatch.delenv("DLRM_ALIVE_FOLDER", raising=False)
    monkeypatch.setattr(ms, "get_context", lambda _: device)
    monkeypatch.setattr(ms, "set_deterministic", calls.append)
    monkeypatch.setattr(ms.communication, "init", lambda: calls.append("joined"))
    monkeypatch.setattr(ms.communication, "get_rank", lambda: 1)
    monkeypatch.setattr(ms.communication, "get_group_size", lambda: 2)
    assert start_ranks("data")[:2] == (1, 2)
    assert calls == [*asked, "joined"]


def test_a_device_that_cannot_multiply_a_type_is_refused():
    assert make_model
    check_products("float32")
    check_products("float16")
    with pytest.raises(InputError, match="compute_dtype bfloat16: CPU devices like this one can't multiply"):
        check_products("bfloat16")
