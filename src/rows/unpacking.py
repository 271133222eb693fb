"""Packed raw files, archives, and text of other encodings than UTF-8: their text in a folder.

A member of an archive is named like a file in a folder: logs.zip/day_1.csv.
"""

import bz2
import gzip
import hashlib
import io
import lzma
import shutil
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from src.base.errors import InputError
from src.base.files import whole_file
from src.rows.columnar import kind_of, needed
from src.rows.text import UTF8, utf8_blocks

_BLOCK_BYTES = 8 << 20


def _zstd(file: BinaryIO, _: str) -> BinaryIO:
    pyarrow = needed(Path(str(getattr(file, "name", "a file"))), "packed by zstd")
    return io.BufferedReader(pyarrow.CompressedInputStream(pyarrow.PythonFile(file, "r"), "zstd"))


_OPENERS: dict[str, Any] = {".gz": gzip.open, ".xz": lzma.open, ".bz2": bz2.open, ".zst": _zstd}
_PACKED_AS = {b"\x1f\x8b\x08": ".gz", b"\xfd7zXZ\0": ".xz", b"BZh91AY&SY": ".bz2", b"\x28\xb5\x2f\xfd": ".zst"}
_ZIP = b"PK\3\4"
_TAR_PLACE, _TAR = 257, b"ustar"
_BEGIN_BYTES = _TAR_PLACE + len(_TAR)
_SHOWN_OF_NAME = 50  # for people; a name has at most 255 bytes, and a letter up to 4
_DAMAGED = (EOFError, OSError, lzma.LZMAError, zlib.error, tarfile.TarError, zipfile.BadZipFile)


def fingerprint(raw: Path) -> tuple[str, int, int]:
    """Place, size and time of change of a raw file, which tell whether it is still the one that it was."""
    file, _ = file_and_member(raw)
    return str(raw.resolve()), file.stat().st_size, file.stat().st_mtime_ns


def file_and_member(raw: Path) -> tuple[Path, str]:
    """The file that a raw file is, and ""; or the archive that it is a member of, and its name there."""
    for place in (raw, *raw.parents):
        if place.is_file():
            return place, raw.relative_to(place).as_posix() if place != raw else ""
    return raw, ""


def members_of(archive: Path) -> list[str] | None:
    """Names of the files in an archive, None for a file that is none."""
    with _naming(archive), archive.open("rb") as file, ExitStack() as stack:
        if file.read(len(_ZIP)) == _ZIP:
            with zipfile.ZipFile(archive) as opened:
                return [member.filename for member in opened.infolist() if not member.is_dir()]
        file.seek(0)
        stream = _unwrapped(file, archive, stack)
        if stream.peek(_BEGIN_BYTES)[_TAR_PLACE:_BEGIN_BYTES] != _TAR:
            return None
        with tarfile.open(fileobj=stream, mode="r|") as tar:
            return [member.name for member in tar if member.isfile()]


def unpacked(raw: Path, folder: Path, encoding: str) -> Path:
    """The file itself, or its text as UTF-8 in the folder if it is packed or in another encoding.

    Lines of a compressed file can't be found again without reading all before them, hence the unpacking. The text's
    name tells which file it is of, so that no other is taken for it, be it of the same name.

    Raises:
        InputError: it is damaged, an archive within an archive, or packed in a way that is not known here.
    """
    file, member = file_and_member(raw)
    with file.open("rb") as opened:
        begin = opened.read(_BEGIN_BYTES)
    packed = raw.suffix in _OPENERS or any(begin.startswith(start) for start in _PACKED_AS)
    if not member and (not begin or not packed) and (encoding == UTF8 or kind_of(begin)):
        _refuse_archive(raw, begin)
        return raw
    which = hashlib.sha256(repr((fingerprint(raw), encoding)).encode()).hexdigest()[:16]
    target = folder / f"{which}-{raw.name[-_SHOWN_OF_NAME:]}.txt"
    if target.is_file():
        return target
    folder.mkdir(parents=True, exist_ok=True)
    with whole_file(target, sync=True) as text, _naming(raw), ExitStack() as stack:
        stream = _content(raw, stack)
        begin = stream.peek(_BEGIN_BYTES)[:_BEGIN_BYTES]
        _refuse_archive(raw, begin)
        if kind_of(begin):  # whose bytes are no text
            shutil.copyfileobj(stream, text, _BLOCK_BYTES)
        else:
            text.writelines(utf8_blocks(stream, encoding, _BLOCK_BYTES))
    return target


def first_bytes(raw: Path, size: int) -> bytes:
    """The first bytes of what a raw file holds, unpacked."""
    with _naming(raw), ExitStack() as stack:
        stream = _content(raw, stack)
        _refuse_archive(raw, stream.peek(_BEGIN_BYTES)[:_BEGIN_BYTES])
        return stream.read(size)


def _content(raw: Path, stack: ExitStack) -> io.BufferedReader:
    """What a raw file holds, without what it is packed in; `stack` closes it."""
    file, member = file_and_member(raw)
    opened: Any = stack.enter_context(file.open("rb"))
    if member:
        begin = opened.read(len(_ZIP))
        opened.seek(0)
        if begin == _ZIP:
            opened = stack.enter_context(stack.enter_context(zipfile.ZipFile(file)).open(member))
        else:
            stream = _unwrapped(opened, file, stack)
            tar = stack.enter_context(tarfile.open(fileobj=stream, mode="r|"))  # noqa: SIM115
            opened = next((tar.extractfile(one) for one in tar if one.name == member), None)
        if opened is None:
            raise InputError(f"{file} has no member {member}: name one of it, or the archive alone")
    return _unwrapped(opened, raw, stack)


def _unwrapped(file: Any, raw: Path, stack: ExitStack) -> io.BufferedReader:
    """A stream without the kind of packing that its first bytes, or else its name, tell."""
    stream = file if isinstance(file, io.BufferedReader) else io.BufferedReader(file)
    begin = stream.peek(_BEGIN_BYTES)[:_BEGIN_BYTES]
    kind = next((kind for start, kind in _PACKED_AS.items() if begin.startswith(start)), "")
    if raw.suffix in _OPENERS and begin:  # what is not packed as its name says is refused
        kind = raw.suffix
    if not kind:
        return stream
    opened = stack.enter_context(_OPENERS[kind](stream, "rb"))
    return opened if isinstance(opened, io.BufferedReader) else io.BufferedReader(opened)


@contextmanager
def _naming(raw: Path) -> Iterator[None]:
    """Say of which file it is that its content is damaged."""
    try:
        yield
    except _DAMAGED as error:
        if isinstance(error, OSError) and error.errno:  # the others are of damaged content
            raise
        raise InputError(f"{raw} can't be unpacked ({error}): is it damaged, or of another kind?") from None


def _refuse_archive(raw: Path, begin: bytes) -> None:
    """Refuse an archive where text must be, which the first bytes tell."""
    if begin.startswith(_ZIP) or begin[_TAR_PLACE:] == _TAR:
        raise InputError(f"{raw} is an archive or a spreadsheet, and no text: unpack it, or save it as text")
