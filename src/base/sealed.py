"""Small text files of facts that the C++ program reads too: a key and values a line, sealed by a checksum.

    dlrm    KIND    VERSION
    key     value   value ...       a key may come again, for a list
    crc32   8 hex digits            of all bytes before this line

Tabs stand between the words. Whatever changes or cuts such a file is noticed.
"""

import json
import zlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from src.base.errors import InputError
from src.base.files import whole_file

_VERSION = "1"
_SEAL = "crc32"
Facts = dict[str, list[tuple[str, ...]]]  # the values of each line of a key, in order


def write_facts(path: Path, kind: str, lines: Iterable[tuple[object, ...]]) -> None:
    """Write lines of a key and its values, whole or not at all.

    Raises:
        InputError: a value holds a tab or a line end.
    """
    text = ""
    for words in [("dlrm", kind, _VERSION), *lines]:
        if wrong := [str(word) for word in words if set(str(word)) & set("\t\r\n")]:
            raise InputError(f"{wrong[0]!r} holds a tab or a line end, which {path} can't hold: name it otherwise")
        text += "\t".join(map(str, words)) + "\n"
    data = text.encode("utf-8", "surrogateescape")  # names of files may be no UTF-8
    with whole_file(path) as file:
        file.write(data + f"crc32\t{zlib.crc32(data):08x}\n".encode())


def begins_as(path: Path, kind: str) -> bool:
    """Whether a file is one of a kind that `write_facts` wrote, in any version, even if it was damaged since."""
    begin = f"dlrm\t{kind}\t".encode()
    if not path.is_file():
        return False
    with path.open("rb") as file:
        return file.read(len(begin)) == begin


def seal_of(path: Path) -> str:
    """The checksum that a file of `write_facts` ends with, which stands for all that is in it."""
    return path.read_bytes()[-9:-1].decode("ascii", "replace")


def read_facts(path: Path, kind: str) -> Facts:
    """What `write_facts` wrote.

    Raises:
        InputError: the file is damaged, or of another kind or version.
    """
    data = path.read_bytes()
    body, seal = data[:-15], data[-15:]
    if seal != f"crc32\t{zlib.crc32(body):08x}\n".encode():
        raise InputError(f"{path} is damaged (its checksum differs): make it again")
    lines = [tuple(line.split("\t")) for line in body.decode("utf-8", "surrogateescape").split("\n")[:-1]]
    if lines[:1] != [("dlrm", kind, _VERSION)]:
        raise InputError(f"{path} is no {kind} of this version of the program: make it again")
    facts: Facts = {}
    for key, *values in lines[1:]:
        facts.setdefault(key, []).append(tuple(values))
    return facts


def sealed_json(content: dict[str, Any]) -> str:
    """A dictionary as JSON, with a checksum among its keys."""
    return json.dumps(content | {_SEAL: _checksum_of(content)}, indent=1)


def check_json(content: dict[str, Any], path: Path, remedy: str) -> dict[str, Any]:
    """What `sealed_json` was given, of what it wrote; what has no checksum, as it was at first, is taken as it is.

    Raises:
        InputError: the checksum differs.
    """
    content = dict(content)
    seal = content.pop(_SEAL, None)
    if seal is not None and seal != _checksum_of(content):
        raise InputError(f"{path} is damaged (its checksum differs): {remedy}")
    return content


def _checksum_of(content: dict[str, Any]) -> str:
    return f"{zlib.crc32(json.dumps(content, sort_keys=True).encode()):08x}"


def sealed_text(text: str) -> str:
    """Text, such as YAML, behind a comment with its checksum."""
    return f"# {_SEAL} {zlib.crc32(text.encode()):08x}\n{text}"


def check_text(path: Path, remedy: str) -> None:
    """Refuse a file of `sealed_text` that has changed; what has no such comment, as it was at first, is taken as it is.

    Raises:
        InputError: the checksum differs, or hardly anything is there.
    """
    first, _, rest = path.read_bytes().partition(b"\n")
    seal = f"# {_SEAL} ".encode()
    whole = first == seal + f"{zlib.crc32(rest):08x}".encode() if first.startswith(seal) else b":" in first
    if not whole:
        raise InputError(f"{path} is damaged (its checksum differs): {remedy}")
