"""Reads tar files without trust: indexes where members lie by their headers alone."""

import os
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from alexnet_mp.data.prepare.listing import check_leads_inside
from alexnet_mp.errors import ConfigurationError, explained

_BLOCK = 512
_LONGEST_EXTENSION = 1 << 16  # bytes of a header that only extends another: a name, or some times
_EXTENSIONS = (tarfile.GNUTYPE_LONGNAME, tarfile.XHDTYPE, tarfile.XGLTYPE)


@dataclass(frozen=True)
class TarMember:
    """A file of `length` bytes at `offset` of the outermost tar file."""

    name: str
    offset: int
    length: int


def index_tar(file: BinaryIO, path: Path, offset: int = 0, length: int | None = None) -> Iterator[TarMember]:
    """The files in the tar that `file` (opened from `path`) holds between `offset` and `offset + length`.

    Raises ConfigurationError that names the tar if a header is damaged or it has been cut short, and the member
    if its name is absolute or has `..`, or it is a link, a device, or sparse.
    """
    end = os.fstat(file.fileno()).st_size if length is None else offset + length
    name: str | None = None
    size: int | None = None
    while True:
        block = _read(file, path, offset, _BLOCK, end)
        if not any(block):
            return
        with explained(f"{path} is not a tar file, or damaged at byte {offset:,}", tarfile.HeaderError):
            header = tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
        data, extends = offset + _BLOCK, header.type in _EXTENSIONS
        member = TarMember(header.name if name is None or extends else name, data, header.size)
        if size is not None and not extends:
            member = TarMember(member.name, data, size)
        if member.length < 0 or (extends and member.length > _LONGEST_EXTENSION):
            raise ConfigurationError(f"{path}: member {member.name!r} has an impossible size, {member.length:,}")
        if data + member.length > end:
            raise ConfigurationError(f"{path} is cut short: member {member.name!r} goes on after its end")
        offset = data + -(-member.length // _BLOCK) * _BLOCK
        if extends:
            name, size = _extension(header.type, _read(file, path, data, member.length, end), path, name, size)
            continue
        name = size = None
        _refuse_hostile(header, member.name, path)
        if not header.isdir():
            yield member


def _read(file: BinaryIO, path: Path, offset: int, length: int, end: int) -> bytes:
    content = os.pread(file.fileno(), length, offset) if offset + length <= end else b""
    if len(content) != length:
        raise ConfigurationError(f"{path} is cut short: it has no end mark at byte {offset:,}")
    return content


def _refuse_hostile(header: tarfile.TarInfo, name: str, path: Path) -> None:
    check_leads_inside(name, path)
    if not (header.isreg() or header.isdir()) or header.type == tarfile.GNUTYPE_SPARSE:
        what = "a link" if header.issym() or header.islnk() else "a device or of another special kind"
        raise ConfigurationError(f"{path}: member {name!r} is {what}, not a file; refused")


def _extension(
    kind: bytes, content: bytes, path: Path, name: str | None, size: int | None
) -> tuple[str | None, int | None]:
    """The name and size of the next member, as far as a header for it gives them."""
    if kind == tarfile.GNUTYPE_LONGNAME:
        return content.rstrip(b"\0").decode("utf-8", "surrogateescape"), size
    records = _pax_records(content, path)
    if any(key.startswith("GNU.sparse") for key in records) or (
        kind == tarfile.XGLTYPE and {"path", "size"} & {*records}
    ):
        raise ConfigurationError(f"{path} has a sparse member, or one name or size for all members; refused")
    try:
        size = int(records["size"]) if "size" in records else size
    except ValueError as error:
        raise ConfigurationError(f"{path} has a member of the size {records['size']!r}") from error
    return records.get("path", name), size


def _pax_records(content: bytes, path: Path) -> dict[str, str]:
    """Records of POSIX's extended header: `<length> <key>=<value>\\n`, the length counting all of it."""
    records = {}
    while content.rstrip(b"\0"):
        digits, space, _ = content.partition(b" ")
        length = int(digits) if digits.isdigit() and len(digits) < 9 else 0
        record = content[len(digits) + 1 : length]
        key, equals, value = record.partition(b"=")
        if not (space and equals and record.endswith(b"\n") and length <= len(content)):
            raise ConfigurationError(f"{path} has a damaged extended header")
        records[key.decode("utf-8", "surrogateescape")] = value[:-1].decode("utf-8", "surrogateescape")
        content = content[length:]
    return records
