"""The one rule of encodings: raw text is UTF-8 unless the columns say otherwise, whichever door it comes by."""

import codecs
import re
from collections.abc import Iterator
from typing import BinaryIO

from src.base.errors import InputError

UTF8 = "utf-8"
BYTE_ORDER_MARK = b"\xef\xbb\xbf"
NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", re.ASCII)
_PAIRS = re.compile(rb"[\x81-\xfe]([\x40-\x7e\x80-\xfe])")  # GB18030's signs of two bytes: the second one
_WHOLE = re.compile(r"0|-?[1-9]\d*", re.ASCII)
_UNDECODABLE = "dlrm_undecodable"


def utf8(text: str | bytes, encoding: str = UTF8) -> bytes:
    """Raw text as `lines.parse` takes it.

    Text becomes UTF-8; bytes are in the encoding of the columns. Of another one than UTF-8, what can't be decoded
    becomes a byte that UTF-8 has not; `lines.parse` refuses lines that are not UTF-8. A byte order mark at the front of
    a file, or of the first of some lines, is no part of it: who reads takes BYTE_ORDER_MARK away from the result.

    Raises:
        InputError: text that no file can hold, such as half of a surrogate pair.
    """
    if isinstance(text, bytes):
        return text if encoding == UTF8 else text.decode(encoding, _UNDECODABLE).encode(UTF8, "surrogateescape")
    try:
        return text.encode(UTF8)
    except UnicodeEncodeError:
        raise InputError(f"{text[:40]!r} holds a lone surrogate, which is no text: mend it") from None


def utf8_blocks(file: BinaryIO, encoding: str, block_bytes: int) -> Iterator[bytes]:
    """The same of a file, block by block."""
    decoder = codecs.getincrementaldecoder(encoding)(_UNDECODABLE)
    while block := file.read(block_bytes):
        yield decoder.decode(block).encode(UTF8, "surrogateescape")
    yield decoder.decode(b"", final=True).encode(UTF8, "surrogateescape")


def number_text(text: str) -> str:
    """A number as most write it, whole ones without a point; what is no number stays as it is."""
    if _WHOLE.fullmatch(text) or not NUMBER.fullmatch(text):
        return text
    value = float(text)
    return str(int(value)) if value.is_integer() and abs(value) < 2**53 else repr(value)


def is_utf8(text: bytes) -> bool:
    """Whether bytes are UTF-8."""
    return text.isascii() or _decodes(text, UTF8)


def encoding_of(text: bytes) -> str:
    """The encoding that bytes without a byte order mark may be in: of those that are not UTF-8 a guess."""
    if is_utf8(text):
        return UTF8
    # In Chinese text both bytes of most signs are beyond ASCII; a letter with an accent mostly stands alone.
    behind = _PAIRS.findall(text)
    alone = sum(byte < b"\x80" for byte in behind)
    return "gb18030" if _decodes(text, "gb18030") and 2 * alone <= len(behind) else "latin-1"


def _decodes(text: bytes, encoding: str) -> bool:
    try:
        text.decode(encoding)
    except UnicodeDecodeError:
        return False
    return True


def encoding_named(name: str) -> str | None:
    """Python's name of an encoding of text; None if there is none of that name, or one such as idna, of no files."""
    try:
        found = codecs.lookup(name)
        b"0".decode(name, _UNDECODABLE)
    except (LookupError, UnicodeError):
        return None
    if not found._is_text_encoding:
        return None
    return UTF8 if found.name == "utf-8-sig" else found.name


def _undecodable(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeDecodeError):
        raise error
    return "\udcff", error.end  # "surrogateescape" makes the byte 0xFF of it


codecs.register_error(_UNDECODABLE, _undecodable)
