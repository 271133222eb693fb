"""Small text files of facts that the C++ program reads too: a key and values a line, sealed by a checksum.

    dlrm    KIND    VERSION
    key     value   value ...       a key may come again, for a list
    crc32   8 hex digits            of all bytes before this line

Tabs stand between the words. Whatever changes or cuts such a file is noticed.
"""

import zlib
from collections.abc import Iterable
from pathlib import Path

from src.base.errors import InputError
from src.base.files import whole_file

_VERSION = "1"
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
