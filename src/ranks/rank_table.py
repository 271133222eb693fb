"""Checks the rank table of an Ascend cluster, the JSON file that says which rank has which card.

{"version": "1.0", "server_count": "1", "status": "completed",
 "server_list": [{"server_id": "10.0.0.1",
                  "device": [{"device_id": "0", "device_ip": "192.1.27.6", "rank_id": "0"}, ...]}]}
"""

import json
from pathlib import Path
from typing import Any

from src.base.errors import InputError


def check_rank_table(path: Path, device_num: int) -> None:
    """Refuse a rank table that is not one of device_num ranks.

    Raises:
        InputError: the file is missing or of another form, the count differs, a rank or a device comes twice, or a rank
            is missing.
    """
    name = f"rank table {path}"
    if not path.is_file():
        raise InputError(f"{name} is not a file: name the JSON file that says which rank has which device")
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        devices = [(server["server_id"], device) for server in content["server_list"] for device in server["device"]]
        places = [(server, _number(device, "device_id")) for server, device in devices]
        ranks = [_number(device, "rank_id") for _, device in devices]
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"{name} is not of the form server_list: [server_id, device: [device_id, device_ip, rank_id]] "
            f"({error!r}): make it anew"
        ) from None
    if len(devices) != device_num:
        raise InputError(f"{name} has {len(devices)} devices, DEVICE_NUM is {device_num}: they must agree")
    checked: tuple[tuple[str, list[Any]], ...] = (("rank_id", ranks), ("device", places))
    for what, values in checked:
        if twice := [value for value in values if values.count(value) > 1]:
            raise InputError(f"{name} has {what} {twice[0]} twice: each must have its own")
    if missing := set(range(device_num)) - set(ranks):
        raise InputError(f"{name} has no rank_id {min(missing)}: ranks count from 0 to {device_num - 1}")


def _number(device: dict[str, Any], key: str) -> int:
    return int(device[key])
