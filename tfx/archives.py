"""Unpacks zip and tar archives that others made: directories and regular files only, never outside the target folder."""

from __future__ import annotations

import errno
import functools
import lzma
import os
import re
import shutil
import struct
import tarfile
import tempfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from stat import S_IFMT, S_ISDIR, S_ISREG
from typing import IO, NamedTuple, Self

from lmworks.configs.errors import UserError
from lmworks.tfx.names import points_outside

SUFFIXES = (".tar.gz", ".tgz", ".tar.bz2", ".tar.xz", ".tar", ".zip", ".whl")
_DRIVE = re.compile(r"[A-Za-z]:[\\/]")
_BUFFER = 1 << 20
_MOST_MEMBERS = 1_000_000
_SMALL, _HIGHEST_RATIO = 1 << 30, 200
"""Unpacked bytes from which on the ratio of unpacked to packed bytes is limited; plain text reaches about 10."""
_EXTENDED = (
    tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK, tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.SOLARIS_XHDTYPE,
)  # fmt: skip
"""Types of tar headers that say more of the members behind them, such as a long name."""
_LARGEST_HEADER, _LARGEST_HEADERS = 1 << 20, 1 << 28
"""Bytes of an extended header, and of all in an archive."""
_DAMAGED = (
    tarfile.TarError, zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError, OSError, struct.error,
    ValueError, OverflowError,
)  # fmt: skip
"""What the decoders raise for content that is damaged or was made to break them."""


class _Member(NamedTuple):
    """One entry of an archive."""

    name: str
    kind: str
    """`directory`, `file`, or what it is instead."""
    size: int
    """Bytes that the archive says the file has."""
    stream: Callable[[], IO[bytes] | None]
    """Opens the content of a file."""


def unpack(archive: Path, target: Path) -> None:
    """Unpacks an archive, whole or not at all.

    Links, hard and symbolic, are refused, whatever they point at: `tarfile`'s `data` filter of Python 3.11.4 to 3.11.12 follows
    chains of them out of the target (CVE-2025-4517). So every directory on the way to a file is one that was made here.

    Args:
        archive: whose name ends in one of `SUFFIXES`.
        target: the folder to make.

    Raises:
        UserError: no archive, a damaged or encrypted one, a member that is no directory or regular file, whose name points
            outside the target or stands twice, or content that unpacks to far more than an archive of its size holds.
    """
    if not archive.name.endswith(SUFFIXES):
        raise UserError(f"{archive.name}: is no archive; its name must end in one of {', '.join(SUFFIXES)}")
    scratch = Path(tempfile.mkdtemp(dir=target.parent))
    name = ""
    try:
        left = max(_SMALL, _HIGHEST_RATIO * archive.stat().st_size)
        for count, member in enumerate(_members(archive), 1):
            name = member.name
            _check(archive, member, left)
            if count > _MOST_MEMBERS:
                raise UserError(f"{archive.name}: refused: it has more than {_MOST_MEMBERS:,} members")
            path = scratch / name
            if member.kind == "directory":
                path.mkdir(parents=True, exist_ok=True)
                continue
            path.parent.mkdir(parents=True, exist_ok=True)
            source = member.stream()
            assert source is not None
            with source, path.open("xb") as sink:
                while piece := source.read(_BUFFER):
                    left -= len(piece)
                    if left < 0:
                        raise _too_large(archive, name)
                    sink.write(piece)
        scratch.rename(target)
    except FileExistsError:
        raise UserError(f"{archive.name}: refused: its member {name!r} stands in it more than once") from None
    except RuntimeError as error:  # a password, and NotImplementedError: a method of compression that Python lacks
        where = f"its member {name!r} " if name else ""
        raise UserError(f"{archive.name}: {where}cannot be unpacked: {error}") from None
    except _DAMAGED as error:
        if getattr(error, "errno", None) == errno.ENOSPC:
            raise
        where = f" at or after its member {name!r}" if name else ""
        reason = " ".join(str(error).split()) or type(error).__name__
        raise UserError(f"{archive.name}: cannot be unpacked{where}: {reason}") from None
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _members(archive: Path) -> Iterator[_Member]:
    if zipfile.is_zipfile(archive):
        with zipfile.ZipFile(archive) as zipped:
            for entry in zipped.infolist():
                kind = zip_entry_kind(entry)
                yield _Member(entry.filename, kind, entry.file_size, functools.partial(zipped.open, entry))
        return
    try:
        tarred = tarfile.open(archive, tarinfo=_bounded_headers())  # noqa: SIM115, it is closed below
    except tarfile.ReadError:  # which has a line for each compression that it tried
        raise tarfile.ReadError("it is no tar archive, or is damaged at its beginning") from None
    with tarred:
        while header := tarred.next():
            tarred.members.clear()  # type: ignore[attr-defined]  # each holds its extended header
            kind = _tar_kind(header)
            yield _Member(header.name, kind, header.size, functools.partial(tarred.extractfile, header))
        _check_end(tarred)


def _bounded_headers() -> type[tarfile.TarInfo]:
    """Makes the class of one archive's headers: it refuses those that `tarfile` reads whole before anything can be checked."""

    class Header(tarfile.TarInfo):
        extended = 0
        """Bytes of all extended headers so far."""

        @classmethod
        def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> Self:
            header = super().frombuf(buf, encoding, errors)
            if header.size < 0:
                raise ValueError("the size of a member is negative")
            if header.type in _EXTENDED:
                cls.extended += header.size
                if header.size > _LARGEST_HEADER or cls.extended > _LARGEST_HEADERS:
                    raise ValueError(f"a name or another header has {header.size:,} bytes")
            return header

    return Header


def _check_end(tarred: tarfile.TarFile) -> None:
    """Refuses a tar archive that was cut between two members, of which `tarfile` says nothing.

    Raises:
        tarfile.ReadError: no block of zeros follows the last member.
        EOFError: the compressed stream around it is cut.
    """
    assert tarred.fileobj is not None
    tarred.fileobj.seek(tarred.offset)
    if tarred.fileobj.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):
        raise tarfile.ReadError("its end is missing")
    tarred.fileobj.read(tarfile.RECORDSIZE)


def zip_entry_kind(entry: zipfile.ZipInfo) -> str:
    """Returns `directory`, `file`, or what an entry of a zip file is instead.

    Args:
        entry: whose upper 16 bits of attributes are the file's mode, where Unix wrote it.
    """
    mode = entry.external_attr >> 16
    if entry.is_dir() or S_ISDIR(mode):
        return "directory"
    if not S_IFMT(mode) or S_ISREG(mode):
        return "file"
    return "a link or a device"


def _tar_kind(header: tarfile.TarInfo) -> str:
    if header.isdir():
        return "directory"
    return "file" if header.isreg() else "a link or a device"


def _check(archive: Path, member: _Member, left: int) -> None:
    if points_outside(member.name) or _DRIVE.match(member.name) or "\0" in member.name:
        raise UserError(f"{archive.name}: refused: its member {member.name!r} points outside the archive")
    if member.kind not in ("directory", "file"):
        raise UserError(
            f"{archive.name}: refused: its member {member.name!r} is {member.kind}, and only directories and regular files "
            "are unpacked"
        )
    free = shutil.disk_usage(archive.parent).free if member.size > _SMALL else member.size
    if member.size > left:
        raise _too_large(archive, member.name)
    if member.size > free:
        raise UserError(
            f"{archive.name}: its member {member.name!r} has {member.size:,} bytes, and the disk has {free:,} left "
            f"({os.fspath(archive.parent)})"
        )


def _too_large(archive: Path, name: str) -> UserError:
    return UserError(
        f"{archive.name}: refused at its member {name!r}: it unpacks to more than {_HIGHEST_RATIO} times its size"
    )
