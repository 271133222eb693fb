"""The rank table of an Ascend cluster, the JSON file that says which rank has which card: made for a host, and checked.

    python -m src.ranks.rank_table --make 8                # writes rank_table_8p.json for the cards 0 to 7 of this host
    python -m src.ranks.rank_table --check FILE

{"version": "1.0", "server_count": "1", "status": "completed",
 "server_list": [{"server_id": "10.0.0.1",
                  "device": [{"device_id": "0", "device_ip": "192.1.27.6", "rank_id": "0"}, ...]}]}
"""

import ipaddress
import json
import re
import socket
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

if __name__ == "__main__":
    from src.base.stops import end_at_once

    end_at_once()

from src.base.errors import InputError, run
from src.base.files import whole_file
from src.model_utils.options import NOT_NEGATIVE, matching, option, options_of
from src.model_utils.parsing import parse_flags

HCCN_CONF, HCCN_TOOL = Path("/etc/hccn.conf"), "hccn_tool"  # what Ascend's driver keeps of its cards' addresses
_VERSIONS = ("1.0", "1.2")
_SHOWN_FAULTS = 3
_USAGE = "python -m src.ranks.rank_table --make NUMBER [--OPTION=VALUE ...], or --check FILE"
_FORM = "server_list: [server_id, device: [device_id, device_ip, rank_id]]"


def check_rank_table(path: Path, device_num: int | None = None) -> int:
    """Refuse a rank table that is not one of device_num ranks, or of as many as it has devices; how many these are.

    Raises:
        InputError: the file is missing or of another form, or has other faults, which it names.
    """
    return check_content(_read(path), f"rank table {path}", device_num)


def cards_of(path: Path, ranks: range, rank_num: int) -> tuple[int, ...]:
    """Numbers of the cards that a rank table of rank_num ranks gives to the ranks of one host, in their order.

    Raises:
        InputError: as for `check_rank_table`, or the table has these ranks on several hosts.
    """
    content = _read(path)
    check_content(content, f"rank table {path}", rank_num)
    places = {
        int(device["rank_id"]): (server["server_id"], int(device["device_id"]))
        for server in content["server_list"]
        for device in server["device"]
    }
    if len(hosts := {places[rank][0]: rank for rank in ranks}) > 1:
        (one, rank), (other, other_rank) = list(hosts.items())[:2]
        raise InputError(
            f"rank table {path} has rank {rank} on {one} and rank {other_rank} on {other}, and ranks {ranks[0]} to "
            f"{ranks[-1]} are started here: give the DEVICE_NUM and --node_rank or --first_rank of this host there"
        )
    return tuple(places[rank][1] for rank in ranks)


def _read(path: Path) -> Any:
    if not path.is_file():
        raise InputError(f"rank table {path} is not a file: name the JSON file that says which rank has which device")
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise InputError(f"rank table {path} is not of the form {_FORM} ({error!r}): make it anew") from None


def check_content(content: Any, name: str, device_num: int | None = None) -> int:
    """The same of what a file holds, or is to hold; `name` opens the messages."""
    try:
        devices = [(server, device) for server in content["server_list"] for device in server["device"]]
        if not all(isinstance(one, dict) for pair in devices for one in pair):
            raise TypeError("a device is no object")
    except (KeyError, TypeError) as error:
        raise InputError(f"{name} is not of the form {_FORM} ({error!r}): make it anew") from None
    faults = list(_faults_of(content, devices, len(devices) if device_num is None else device_num))
    if faults:
        more = f"; and {len(faults) - _SHOWN_FAULTS} more faults" if len(faults) > _SHOWN_FAULTS else ""
        raise InputError(f"{name} {'; it '.join(faults[:_SHOWN_FAULTS])}{more}")
    return len(devices)


def _faults_of(
    content: dict[str, Any], devices: Sequence[tuple[dict[str, Any], dict[str, Any]]], device_num: int
) -> Iterator[str]:
    """What is wrong with a table, in words that follow "it"."""
    again = "make it anew"
    if content.get("version") not in _VERSIONS:
        yield f"has version {content.get('version')!r}: it must be one of {', '.join(_VERSIONS)}; {again}"
    if (status := content.get("status")) != "completed":
        yield f"has status {status!r}: it must be 'completed', so wait until the cluster's tool has ended, or {again}"
    servers = content["server_list"]
    if str(content.get("server_count")) != str(len(servers)):
        yield f"has server_count {content.get('server_count')!r} and {len(servers)} servers: they must agree"
    yield from _twice("server_id", [server.get("server_id") for server in servers])
    if any(not server.get("server_id") for server in servers):
        yield f"has a server without server_id: give its address; {again}"
    if len(devices) != device_num:
        yield f"has {len(devices)} devices, DEVICE_NUM is {device_num}: they must agree"
    for server, device in devices:
        yield from _faults_of_device(f"of {server.get('server_id')}", device)
    ranks = [number for _, device in devices if (number := _number(device.get("rank_id"))) is not None]
    places = [(server.get("server_id"), _number(device.get("device_id"))) for server, device in devices]
    yield from _twice("rank_id", ranks)
    yield from _twice("device", [place for place in places if place[1] is not None])
    yield from _twice("device_ip", [device["device_ip"] for _, device in devices if device.get("device_ip")])
    if len(devices) == device_num and (missing := set(range(device_num)) - set(ranks)):
        yield f"has no rank_id {min(missing)}: ranks count from 0 to {device_num - 1}"


def _faults_of_device(where: str, device: dict[str, Any]) -> Iterator[str]:
    which = f"device {device.get('device_id', 'without device_id')} {where}"
    for key in ("device_id", "rank_id"):
        if _number(device.get(key)) is None:
            yield f"has {key} {device.get(key)!r} of {which}: it must be a whole number from 0"
    if not device.get("device_ip"):
        yield f"has no device_ip of {which}: give the card's address, which {HCCN_CONF} has, or make it anew"
    elif not _is_address(device["device_ip"]):
        yield f"has device_ip {device['device_ip']!r} of {which}: it must be an address such as 192.168.100.101"


def _twice(what: str, values: Sequence[Any]) -> Iterator[str]:
    if twice := [value for value in values if value is not None and values.count(value) > 1]:
        yield f"has {what} {twice[0]} twice: each must have its own"


def _number(value: Any) -> int | None:
    return int(value) if re.fullmatch(r"\d+", str(value)) else None


def _is_address(text: Any) -> bool:
    try:
        ipaddress.ip_address(str(text))
    except ValueError:
        return False
    return True


def addresses(devices: Sequence[int]) -> list[str]:
    """The addresses of cards of this host, as Ascend's driver keeps them.

    Raises:
        InputError: it keeps none, or not all.
    """
    kept = _kept_addresses()
    found = [kept.get(device) or _asked_address(device) for device in devices]
    if None in found:
        missing = devices[found.index(None)]
        what = f"{HCCN_CONF} has no address_{missing}" if kept else f"there is no {HCCN_CONF} with addresses"
        raise InputError(
            f"card {missing} has no device_ip: {what}, and {HCCN_TOOL} tells none: make the table on the Ascend host, "
            f"once its cards have addresses ({HCCN_TOOL} -i {missing} -ip -s address ... netmask ...)"
        )
    return [address for address in found if address]


def _kept_addresses() -> dict[int, str]:
    """What hccn.conf says: lines such as address_0=192.168.100.101."""
    if not HCCN_CONF.is_file():
        return {}
    pairs = re.findall(r"^\s*address_(\d+)\s*=\s*(\S+)\s*$", HCCN_CONF.read_text(encoding="utf-8"), re.MULTILINE)
    return {int(device): address for device, address in pairs}


def _asked_address(device: int) -> str | None:
    """What hccn_tool says of a card, ipaddr:192.168.100.101 among others."""
    try:
        command = [HCCN_TOOL, "-i", str(device), "-ip", "-g"]
        told = subprocess.run(command, capture_output=True, text=True, check=False, timeout=30).stdout
    except (OSError, subprocess.TimeoutExpired):
        return None
    found = re.search(r"ipaddr:\s*(\S+)", told)
    return found[1] if found else None


def own_address() -> str:
    """By which other hosts reach this one.

    Raises:
        InputError: it has none but its own loop.
    """
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))  # sends nothing: an address of documentation, to see which way it would go
            address = str(probe.getsockname()[0])
        except OSError:
            address = "127.0.0.1"
    if ipaddress.ip_address(address).is_loopback:
        raise InputError("this host has no address in a network: give --server_ip, by which its ranks are told apart")
    return address


def rank_table(server_id: str, devices: Sequence[int]) -> dict[str, Any]:
    """The table of one host whose ranks have these cards, in their order."""
    pairs = zip(devices, addresses(devices))
    return {
        "version": "1.0", "server_count": "1", "status": "completed",
        "server_list": [{"server_id": server_id, "host_nic_ip": "reserve", "device": [
            {"device_id": str(device), "device_ip": address, "rank_id": str(rank)}
            for rank, (device, address) in enumerate(pairs)]}],
    }  # fmt: skip


@dataclass(frozen=True)
class TableSpec:
    """What is to be done with which table."""

    make: int = option(0, "write a table of so many cards of this host", NOT_NEGATIVE)
    devices: str = option(
        "", "numbers of the cards, such as 4,5,6,7; unless given, from 0 on",
        matching(r"(\d+(,\d+)*)?", "must be numbers of cards, such as 4,5,6,7"),
    )  # fmt: skip
    server_ip: str = option("", "address of this host; unless given, that by which it sends")
    output: str = option("", "file to write, rank_table_8p.json and the like unless given")
    overwrite: bool = option(False, "whether a file in that place may be replaced")
    check: str = option("", "a table to check, of whatever number of ranks")

    def __post_init__(self) -> None:
        if bool(self.make) == bool(self.check):
            raise InputError("give either --make, the number of this host's cards, or --check, a rank table")
        if self.devices and len(self.cards) != self.make:
            raise InputError(
                f"devices {self.devices} are {len(self.cards)} cards, make is {self.make}: they must agree"
            )

    @property
    def cards(self) -> list[int]:
        """Numbers of the cards, by rank."""
        return [int(one) for one in self.devices.split(",")] if self.devices else list(range(self.make))


@dataclass(frozen=True)
class TableOptions:
    """Of this program."""

    table: TableSpec


def main(argv: Sequence[str]) -> None:
    """Make or check a table, as the command line says."""
    spec = TableSpec(**parse_flags("rank_table", _USAGE, options_of(TableOptions), argv, {}))
    if spec.check:
        print(f"{spec.check}: {check_rank_table(Path(spec.check))} ranks, no fault found")
        return
    path = Path(spec.output or f"rank_table_{spec.make}p.json")
    if path.exists() and not spec.overwrite:
        raise InputError(f"output {path} is there already: name another --output, or replace it with --overwrite=True")
    server = spec.server_ip or own_address()
    table = rank_table(server, spec.cards)
    check_content(table, f"the table of {server}", spec.make)
    with whole_file(path) as file:
        file.write(json.dumps(table, indent=2).encode() + b"\n")
    print(f"{path}: {spec.make} ranks on {server}, cards {', '.join(map(str, spec.cards))}")


if __name__ == "__main__":
    run(main)
