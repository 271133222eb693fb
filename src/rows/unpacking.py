"""Packed raw files, and text of other encodings than UTF-8: their text in a folder, where any part of it is at hand."""

import bz2
import gzip
import hashlib
import lzma
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from src.base.errors import InputError
from src.base.files import whole_file
from src.rows.text import UTF8, utf8_blocks

_BLOCK_BYTES = 8 << 20
_OPENERS: dict[str, Any] = {".gz": gzip.open, ".xz": lzma.open, ".bz2": bz2.open}
_PACKED_AS = {b"\x1f\x8b\x08": ".gz", b"\xfd7zXZ\0": ".xz", b"BZh91AY&SY": ".bz2"}  # how such files begin
_NO_TEXT = {b"PK\3\4": "unzip {}", b"\x28\xb5\x2f\xfd": "zstd -d {}"}
_SHOWN_OF_NAME = 50  # for people; a name has at most 255 bytes, and a letter up to 4
_TAR_PLACE, _TAR = 257, b"ustar"


def fingerprint(raw: Path) -> tuple[str, int, int]:
    """Place, size and time of change of a raw file, which tell whether it is still the one that it was."""
    return str(raw.resolve()), raw.stat().st_size, raw.stat().st_mtime_ns


def unpacked(raw: Path, folder: Path, encoding: str) -> Path:
    """The file itself, or its text as UTF-8 in the folder if it is packed or in another encoding.

    Lines of a compressed file can't be found again without reading all before them, hence the unpacking. The text's
    name tells which file it is of, so that no other is taken for it, be it of the same name.
    """
    with raw.open("rb") as file:
        begin = file.read(_TAR_PLACE + len(_TAR))
    kind = next((kind for start, kind in _PACKED_AS.items() if begin.startswith(start)), "")
    if raw.suffix in _OPENERS and begin:  # what is not packed as its name says is refused
        kind = raw.suffix
    _refuse_other_kinds(raw, begin)
    if not kind and encoding == UTF8:
        return raw
    which = hashlib.sha256(repr((fingerprint(raw), encoding)).encode()).hexdigest()[:16]
    target = folder / f"{which}-{raw.name[-_SHOWN_OF_NAME:]}.txt"
    if target.is_file():
        return target
    folder.mkdir(parents=True, exist_ok=True)
    with whole_file(target) as text:
        for block in _text_of(raw, kind, encoding):
            text.write(block)
    return target


def _text_of(raw: Path, kind: str, encoding: str) -> Iterator[bytes]:
    """The text of a file as UTF-8, unpacked if it is of a packed kind."""
    try:
        with _OPENERS[kind](raw, "rb") if kind else raw.open("rb") as file:
            _refuse_other_kinds(raw, file.read(_TAR_PLACE + len(_TAR)))
            file.seek(0)
            yield from utf8_blocks(file, encoding, _BLOCK_BYTES)
    except (EOFError, OSError, lzma.LZMAError, zlib.error) as error:
        if isinstance(error, OSError) and error.errno:  # the others are of damaged content
            raise
        raise InputError(f"{raw} can't be unpacked ({error}): is it damaged, or of another kind?") from None


def _refuse_other_kinds(raw: Path, begin: bytes) -> None:
    """Refuse an archive, which the first bytes of a file, or of what is packed in it, tell."""
    command = next((command for start, command in _NO_TEXT.items() if begin.startswith(start)), "")
    if begin[_TAR_PLACE:] == _TAR:
        command = "tar -xf {}"
    if command:
        raise InputError(f"{raw} is an archive and no text: unpack it with {command.format(raw)!r}, and name the text")
