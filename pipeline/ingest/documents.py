"""Documents of text files: the whole of a file, or what stands between separator lines; line ends stay as they are."""

from __future__ import annotations

import io
from collections.abc import Iterator
from typing import IO

from lmworks.configs.schema import FILE_COLUMNS, IngestStage, Source
from lmworks.pipeline.ingest.lines import LONGEST_DOCUMENT, bounded_lines, too_long
from lmworks.pipeline.ingest.rows import FileColumns, Row
from lmworks.pipeline.ingest.streams import Content

_CHUNK = 1 << 20


def read_documents(
    content: Content,
    encoding: str,
    text: str,
    separator: str | None,
    byte_range: tuple[int, int] | None,
    columns: FileColumns,
) -> Iterator[Row]:
    """The documents of a text file.

    Args:
        content: of the file.
        encoding: to decode with.
        text: name of the column.
        separator: the line between two documents; None, and the file is one document.
        byte_range: the bytes `[begin, end)` that are read; all when None.
        columns: make the rows.
    """
    if (
        separator is None
        and b"\0" in content.head
        and not encoding.lower().startswith(("utf-16", "utf-32", "utf_16", "utf_32"))
    ):
        yield columns.refused(1, "no text: a binary file (it holds zero bytes)")
        return
    lines: IO[str]
    if byte_range:
        lines = io.StringIO(_decode(_between(content.stream, *byte_range), encoding), newline="\n")
    else:
        lines = content.text(encoding, newline="\n")
    if separator is None:
        document = _read(lines)
        if document is None:
            yield columns.refused(1, too_long("the document", LONGEST_DOCUMENT))
        else:
            yield columns.row(1, [text], [document], encoding)
        return
    parts: list[str] = []
    number = size = 0

    def ended(number: int) -> Row:
        if size > LONGEST_DOCUMENT:
            return columns.refused(number, too_long("the document", LONGEST_DOCUMENT))
        return columns.row(number, [text], ["".join(parts)], encoding)

    for number, line in enumerate(bounded_lines(lines, LONGEST_DOCUMENT), 1):
        if line is not None and line.removesuffix("\n").removesuffix("\r") == separator:
            if size:
                yield ended(number - 1)
            parts, size = [], 0
            continue
        size += LONGEST_DOCUMENT + 1 if line is None else len(line)
        if line is None or size > LONGEST_DOCUMENT:
            parts = []
        else:
            parts.append(line)
    if size:
        yield ended(number)


def _read(text: IO[str]) -> str | None:
    """Reads a text; None where it is longer than a document may be."""
    parts, size = [], 0
    while part := text.read(_CHUNK):
        size += len(part)
        if size > LONGEST_DOCUMENT:
            return None
        parts.append(part)
    return "".join(parts)


def document_hint(config: IngestStage, source: Source, key: str) -> str:
    """Proposes to read files of a folder as text documents; empty where that cannot be what is meant.

    Args:
        config: of the stage.
        source: that names the files.
        key: of the config that names the source.
    """
    if not source.files or config.option(source, "format") or config.label_column not in (None, *FILE_COLUMNS):
        return ""
    return f"to read all files of the folder as text documents set {key}.format: text"


def _between(stream: IO[bytes], begin: int, end: int) -> bytes:
    """The bytes `[begin, end)` of a stream that need not seek."""
    left = begin
    while left and (skipped := stream.read(min(left, _CHUNK))):
        left -= len(skipped)
    return b"" if left else stream.read(end - begin)


def _decode(content: bytes, encoding: str) -> str:
    if encoding == "utf-8-sig":  # a character that a border cuts belongs to no side
        content = content.lstrip(bytes(range(0x80, 0xC0)))
        content = content[: len(content) - _torn(content)]
    return content.decode(encoding, "surrogateescape")


def _torn(content: bytes) -> int:
    """Bytes at the end that begin a UTF-8 character and do not complete it."""
    for back in range(1, min(4, len(content)) + 1):
        if content[-back] >= 0xC0:
            size = 2 + (content[-back] >= 0xE0) + (content[-back] >= 0xF0)
            return back if back < size else 0
    return 0
