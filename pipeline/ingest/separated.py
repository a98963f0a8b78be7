"""Rows of csv and tsv files: a delimiter between fields, with quotes or without."""

from __future__ import annotations

import csv
import functools
import itertools
from collections.abc import Iterator
from typing import IO, NamedTuple

from lmworks.configs.errors import UserError
from lmworks.pipeline.ingest.lines import LONGEST_ROW, bounded_lines, too_long
from lmworks.pipeline.ingest.rows import Columns, Row

_HEADER_AGAIN = "the header stands again"
_HEADER_THERE = "the names of the columns, though the source has header false"
_QUOTED_SHARE = 0.01
"""Share of rows with quoted fields above which they are pointed out."""


class Dialect(NamedTuple):
    """How fields stand in a line."""

    delimiter: str
    quoted: bool
    """Whether double quotes enclose fields (RFC 4180)."""
    header: bool
    columns: tuple[str, ...]
    """Names instead of the header's."""


def read_separated(file: str, text: IO[str], encoding: str, dialect: Dialect, columns: Columns) -> Iterator[Row]:
    """The rows of a csv or tsv file; all cells are strings.

    Args:
        file: its name, for errors.
        text: its content, with the line ends as they are.
        encoding: in which it was decoded.
        dialect: of the file.
        columns: what must be there.

    Raises:
        UserError: the columns do not fit, a quote is never closed, or the header is far too long.
    """
    lines: Iterator[tuple[int, list[str] | None]] = (
        _quoted_lines(file, text, dialect.delimiter, columns)
        if dialect.quoted
        else _plain_lines(text, dialect.delimiter)
    )
    header = next(lines, (0, []))[1] if dialect.header else []
    if header is None:
        raise UserError(f"{file}:1: {too_long('the first line', LONGEST_ROW)}")
    written = list(dialect.columns) or header
    names = columns.of_file(written)
    headers = (header, list(dialect.columns))
    rows = quoted = 0
    for number, values in lines:
        rows += 1
        if values is None:
            yield columns.refused(number, too_long("the row", LONGEST_ROW))
            continue
        if not dialect.quoted:
            quoted += any(map(_is_quoted, values))
        if len(values) != len(names):
            reason = f"{len(values)} fields where the header has {len(names)}"
            yield columns.refused(number, reason, dict(zip(names, values, strict=False)))
        elif values in headers:
            reason = _HEADER_AGAIN if dialect.header or rows > 1 else _HEADER_THERE
            yield columns.refused(number, reason, dict(zip(names, values, strict=True)))
        else:
            yield columns.row(number, names, values, encoding)
    if quoted and quoted >= _QUOTED_SHARE * rows:
        columns.notice(
            f"{quoted:,} of {rows:,} rows of {file} have a field that begins with a quote, which is kept as text; "
            "if quotes only enclose fields, set ingest.quoting: standard"
        )


def _quoted_lines(file: str, text: IO[str], delimiter: str, columns: Columns) -> Iterator[tuple[int, list[str] | None]]:
    csv.field_size_limit(LONGEST_ROW)
    counted, first = _CountedLines(text), text.readline(LONGEST_ROW + 1)
    if len(first) > LONGEST_ROW:
        raise UserError(f"{file}:1: {too_long('the first line', LONGEST_ROW)}")
    rows = csv.reader(itertools.chain([first], counted), strict=True, delimiter=delimiter)
    while True:
        begin = rows.line_num + 1
        counted.characters = 0
        try:
            values = next(rows)
        except StopIteration:
            return
        except csv.Error as error:
            # After a quote that is never closed nothing can be told from its text, so the file is refused, not the row.
            fix = columns.delimiter_hint([first.strip()]) if begin == 1 else ""
            fix = fix or f"; {columns.quotes_fix}"
            raise UserError(f"{file}:{begin}: no valid csv: {error}{fix}") from error
        if values:  # an empty line is no row (RFC 4180 has none; editors add them)
            yield rows.line_num, values


class _CountedLines:
    """Lines of one row after the other, for `csv`, which would take a row of any length."""

    def __init__(self, text: IO[str]) -> None:
        self._text = text
        self.characters = 0
        """Of the row so far."""

    def __iter__(self) -> Iterator[str]:
        for line in iter(functools.partial(self._text.readline, LONGEST_ROW + 1), ""):
            self.characters += len(line)
            if self.characters > LONGEST_ROW:
                raise csv.Error(too_long("the row", LONGEST_ROW))
            yield line


def _plain_lines(text: IO[str], delimiter: str) -> Iterator[tuple[int, list[str] | None]]:
    for number, line in enumerate(bounded_lines(text, LONGEST_ROW), 1):
        if line is None:
            yield number, None
        elif content := line.removesuffix("\n").removesuffix("\r"):
            yield number, content.split(delimiter)


def _is_quoted(value: str) -> bool:
    """Whether a field begins with a quote as a writer of csv puts it: it encloses the field, or is closed in a later line."""
    if value[:1] != '"':
        return False
    enclosed = len(value) > 1 and value[-1] == '"' and '"' not in value[1:-1].replace('""', "")
    return enclosed or value.count('"') % 2 == 1
