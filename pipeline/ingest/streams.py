"""Bytes and text of a file, unpacked according to its content; what is no data is named for what it is."""

from __future__ import annotations

import bz2
import codecs
import gzip
import io
import lzma
import re
import struct
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import IO, Any, NamedTuple

from lmworks.tfx.archives import zip_entry_kind

HEAD = 8192
"""Bytes by which a file's content is recognised."""
_DEEPEST = 3
"""Compressions around each other that are unpacked."""
_SMALL, _HIGHEST_RATIO = 1 << 30, 1000
"""Unpacked bytes from which on the ratio of unpacked to packed bytes is limited; text reaches about 10, tables of zeros 100."""
_SUFFIXES = {"gz": "gzip", "bz2": "bzip2", "xz": "xz", "zst": "Zstandard", "zip": "zip"}
_PACKED = {
    "gzip": (b"\x1f\x8b\x08",),
    "bzip2": tuple(b"BZh%d1AY&SY" % level for level in range(1, 10)),
    "xz": (b"\xfd7zXZ\0",),
    "Zstandard": (b"\x28\xb5\x2f\xfd",),
    "zip": (b"PK\x03\x04", b"PK\x05\x06"),
}
PARQUET = b"PAR1"
# What is no data, or none that is read, with the way to what is.
_FOREIGN = {
    b"version https://git-lfs.github.com/spec/": "a Git LFS pointer, not the file itself; run `git lfs pull`",
    b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1": "an old Office file (.xls, .doc); save it as csv or text",
    b"ARROW1\0\0": "an Arrow (Feather) file; save it as Parquet",
    b"SQLite format 3\0": "an SQLite database; export its table as csv",
    b"\x89HDF\r\n\x1a\n": "an HDF5 file; save its table as Parquet",
    b"\x93NUMPY": "a NumPy file; save its texts as jsonl",
    b"Obj\x01": "an Avro file; save it as Parquet",
    b"7z\xbc\xaf\x27\x1c": "a 7-Zip archive; unpack it",
    b"Rar!\x1a\x07": "a RAR archive; unpack it",
    b"%PDF-": "a PDF document; save its text",
}
_MARKS = ((codecs.BOM_UTF32_LE, "utf-32"), (codecs.BOM_UTF32_BE, "utf-32"), (codecs.BOM_UTF16_LE, "utf-16"),
          (codecs.BOM_UTF16_BE, "utf-16"))  # fmt: skip


DAMAGED = (EOFError, zlib.error, lzma.LZMAError, zipfile.BadZipFile)
"""What decompressors raise in reading, beside an OSError without a number (gzip, bzip2, Zstandard)."""


class ForeignContentError(Exception):
    """A file whose content is no data that can be read; the message says what it is and the fix."""


class Content(NamedTuple):
    """An open file, unpacked."""

    stream: IO[bytes]
    name: str
    """File name without folders and without the suffix of a compression; of a zip file its member's."""
    head: bytes
    """First bytes of the stream, at most `HEAD`."""

    def encoding(self, configured: str) -> str:
        """The encoding to decode with: a byte order mark that UTF-8 cannot have overrules UTF-8."""
        if configured.lower().replace("_", "-") not in ("utf-8", "utf8"):
            return configured
        for mark, encoding in _MARKS:
            if self.head.startswith(mark):
                return encoding
        return "utf-8-sig"

    def text(self, encoding: str, newline: str) -> io.TextIOWrapper:
        """The stream as text; a byte that is no text becomes a lone surrogate, so that its row, not the file, is refused.

        Args:
            encoding: of `encoding`.
            newline: empty, or a line feed, as `open` takes it; line ends are never translated.
        """
        return io.TextIOWrapper(self.stream, encoding, "surrogateescape", newline=newline)


def file_name(path: str) -> str:
    """Returns the name of a file without its folders, and of a URL without its query.

    Args:
        path: path or URL.
    """
    if path.split("::")[-1].startswith(("http://", "https://")):
        path = re.split(r"[?#]", path)[0]
    return path.rstrip("/").rpartition("/")[2]


def uncompressed_name(name: str) -> str:
    """A file name without the suffix of a compression."""
    before, _, suffix = name.rpartition(".")
    return before if before and suffix.lower() in _SUFFIXES else name


@contextmanager
def open_content(path: str, member: str = "") -> Iterator[Content]:
    """Opens a file or URL and unpacks gzip, bzip2, xz, Zstandard and zip, whatever its name.

    Args:
        path: path or URL.
        member: the file to read in a zip file that holds several.

    Raises:
        ForeignContentError: a zip file without exactly one file, a name that promises a compression that there is not, or
            content that is known to be no data.
    """
    import fsspec

    inside = ""
    with ExitStack() as stack:
        try:
            packed = stack.enter_context(fsspec.open(path, "rb"))
            stream, head = _with_head(packed)
            name = file_name(path)
            packings: list[str] = []
            while len(packings) < _DEEPEST and (packing := _packing(name, head)):
                if packing == "zip":
                    inside, stream = _member(stack, stream, member)
                    name = inside.rpartition("/")[2]
                else:
                    name, stream = uncompressed_name(name), _unpacked(packing, stream)
                packings.append(packing)
                stream, head = _with_head(stream)
            if member and "zip" not in packings:
                raise ForeignContentError(f"no zip file, and a member of one is named ({member})")
            if packings and head.startswith(PARQUET):
                raise ForeignContentError(f"a Parquet file inside {packings[-1]}; unpack it")
            if head[257:262] == b"ustar":
                raise ForeignContentError("a tar archive; unpack it, and name its files by a glob")
            for mark, description in _FOREIGN.items():
                if head.startswith(mark):
                    raise ForeignContentError(description)
            if packings and (size := getattr(packed, "size", None)):
                stream = io.BufferedReader(_Limited(stream, size), 1 << 20)
            yield Content(stream, name, head)
        except (*DAMAGED, OSError) as error:
            if not inside:
                raise
            raise zipfile.BadZipFile(f"member {inside}: {error or type(error).__name__}") from error


def _packing(name: str, head: bytes) -> str | None:
    """How content is compressed; None if it is not."""
    packing = next((kind for kind, marks in _PACKED.items() if head.startswith(marks)), None)
    suffix = _SUFFIXES.get(name.lower().rpartition(".")[2])
    if suffix and packing is None:
        raise ForeignContentError(f"no {'gzipped' if suffix == 'gzip' else suffix} file, as its name says; rename it")
    return packing


def _with_head(stream: Any) -> tuple[IO[bytes], bytes]:
    """The stream from its beginning, and its first bytes."""
    head = b""
    while len(head) < HEAD and (more := stream.read(HEAD - len(head))):
        head += more
    try:
        stream.seek(0)
    except (OSError, ValueError):  # such as a URL whose server gives no length
        stream = io.BufferedReader(_Replay(head, stream), 1 << 20)
    return stream, head


class _Replay(io.RawIOBase):
    """A stream whose first bytes were read already."""

    def __init__(self, head: bytes, rest: Any) -> None:
        self._head, self._rest = head, rest

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        part = self._head[: len(buffer)] or self._rest.read(len(buffer))
        self._head = self._head[len(part) :]
        buffer[: len(part)] = part
        return len(part)


class _Limited(io.RawIOBase):
    """An unpacked stream that ends where it is a decompression bomb.

    Args:
        stream: to read.
        size: of the packed file, bytes.
    """

    def __init__(self, stream: IO[bytes], size: int) -> None:
        self._stream, self._left = stream, max(_SMALL, _HIGHEST_RATIO * size)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        part = self._stream.read(len(buffer))
        self._left -= len(part)
        if self._left < 0:
            raise ForeignContentError(f"a compressed file that unpacks to more than {_HIGHEST_RATIO:,} times its size")
        buffer[: len(part)] = part
        return len(part)


def _unpacked(packing: str, stream: IO[bytes]) -> Any:
    if packing == "gzip":
        return gzip.GzipFile(fileobj=stream, mode="rb")  # else it takes the mode of a gzip file around it, a number
    if packing == "bzip2":
        return bz2.BZ2File(stream)
    if packing == "xz":
        return lzma.LZMAFile(stream)
    import pyarrow as pa

    return io.BufferedReader(pa.CompressedInputStream(pa.PythonFile(stream, "r"), "zstd"), 1 << 20)


def _member(stack: ExitStack, stream: IO[bytes], member: str) -> tuple[str, IO[bytes]]:
    """The path and content of the one file of a zip file, or of the one that is named."""
    try:
        archive = stack.enter_context(zipfile.ZipFile(stream))
    except (*DAMAGED, OSError, ValueError, NotImplementedError, struct.error) as error:
        raise ForeignContentError(f"a damaged zip file, or one of a later version ({error})") from error
    entries = {entry.filename: entry for entry in archive.infolist() if zip_entry_kind(entry) != "directory"}
    names = [entry.filename for entry in archive.infolist() if entry.filename in entries]
    if "[Content_Types].xml" in names or "mimetype" in names:
        raise ForeignContentError("an Office file (.xlsx, .docx, .ods); save it as csv or text")
    # What macOS adds is no data.
    names = [name for name in names if not name.startswith("__MACOSX/") and not name.endswith(".DS_Store")]
    if member and member not in names:
        raise ForeignContentError(
            f"a zip file without a member {member!r}; it holds: {', '.join(names[:8]) or 'nothing'}"
        )
    if not member and len(names) != 1:
        more = ", …" if len(names) > 8 else ""
        raise ForeignContentError(
            f"a zip file that holds {len(names)} files ({', '.join(names[:8])}{more}); unpack it, or name one by member"
            if names
            else "a zip file that holds nothing"
        )
    name = member or names[0]
    if (kind := zip_entry_kind(entries[name])) != "file":
        raise ForeignContentError(f"a zip file whose member {name} is {kind}, and not a regular file")
    if names.count(name) > 1:
        raise ForeignContentError(f"a zip file that holds {name} more than once; unpack it")
    try:
        return name, stack.enter_context(archive.open(name))
    except RuntimeError as error:  # a password, and NotImplementedError: a method that Python lacks
        raise ForeignContentError(f"a zip file whose member {name} cannot be unpacked ({error}); unpack it") from error
    except (*DAMAGED, OSError, ValueError, struct.error) as error:
        raise ForeignContentError(
            f"a damaged zip file, at its member {name} ({error or type(error).__name__})"
        ) from error
