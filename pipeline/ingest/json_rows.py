"""Rows of JSON files: objects one a line (JSON Lines), pretty-printed one after the other, or the elements of an array."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import IO, Any

from lmworks.configs.errors import UserError
from lmworks.pipeline.ingest.lines import LONGEST_ROW, bounded_lines, too_long
from lmworks.pipeline.ingest.rows import Columns, Row

_CHUNK = 1 << 16
_MARGIN = 16
"""Characters at the end of what was read in which an error may only say that more is to come."""
_BLANK = " \t\n\r"


def read_json(file: str, text: IO[str], encoding: str, columns: Columns) -> Iterator[Row]:
    """The rows of a JSON file; values keep their types.

    Args:
        file: its name, for errors.
        text: its content.
        encoding: in which it was decoded.
        columns: what must be there.

    Raises:
        UserError: an array or pretty-printed objects that are no JSON: where the next object begins cannot be told.
    """
    head, line = text.read(_CHUNK), 1
    while head and not head.strip(_BLANK):
        line += head.count("\n")
        head = text.read(_CHUNK)
    values: Iterator[tuple[int, Any, str]]
    if _is_stream(head.lstrip(_BLANK), len(head) < _CHUNK):
        values = _Stream(file, head, text, line).values()
    else:
        values = _of_lines(bounded_lines(text, LONGEST_ROW, head), line)
    for number, value, reason in values:
        if reason or not isinstance(value, dict):
            yield columns.refused(number, reason or "no JSON object")
            continue
        names, reason = columns.of_object(tuple(value), number)
        if reason:
            yield columns.refused(number, reason)
        else:
            yield columns.row(number, names, list(value.values()), encoding)


class _RepeatedKeyError(Exception):
    """An object that has a key twice: which of the values counts cannot be told."""


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values = dict(pairs)
    if len(values) != len(pairs):
        repeated = next(name for name, count in Counter(name for name, _ in pairs).items() if count > 1)
        raise _RepeatedKeyError(f"the key {repeated!r} stands twice in an object")
    return values


_DECODER = json.JSONDecoder(object_pairs_hook=_object)


def _of_lines(lines: Iterable[str | None], first: int) -> Iterator[tuple[int, Any, str]]:
    """Line number and value of each line, or why it has none.

    Args:
        lines: of `bounded_lines`.
        first: number of the first.
    """
    for number, line in enumerate(lines, first):
        if line is None:
            yield number, None, too_long("the row", LONGEST_ROW)
            continue
        if not line.strip():
            continue
        try:
            yield number, _DECODER.decode(line), ""
        except (ValueError, RecursionError) as error:
            yield number, None, f"no JSON: {error}"
        except _RepeatedKeyError as error:
            yield number, None, str(error)


def _is_stream(begin: str, whole: bool) -> bool:
    """Whether the objects are not one a line.

    Args:
        begin: of the file, without blanks before it.
        whole: whether it is all of it.
    """
    if not begin.startswith("{"):
        return begin.startswith("[")
    line, line_end, _ = begin.partition("\n")
    if not line_end:
        return False
    try:
        json.loads(line)
    except (ValueError, RecursionError):
        try:
            end = json.JSONDecoder().raw_decode(begin)[1]
        except json.JSONDecodeError as error:
            return not whole and _wants_more(error, begin)
        except (ValueError, RecursionError):
            return False
        return end > len(line) or line[end:].lstrip(_BLANK).startswith(("{", "["))
    return False


def _wants_more(error: json.JSONDecodeError, text: str) -> bool:
    """Whether JSON may only be incomplete."""
    return error.msg.startswith("Unterminated string") or error.pos >= len(text) - _MARGIN


class _Stream:
    """Values one after the other, those of an array one by one, in memory that does not grow with the file.

    Args:
        file: its name, for errors.
        head: what was read of it already.
        rest: the rest.
        line: number of the line in which `head` begins.
    """

    def __init__(self, file: str, head: str, rest: IO[str], line: int) -> None:
        self._file, self._text, self._rest = file, head, rest
        self._place, self._line, self._ended = 0, line, False

    def values(self) -> Iterator[tuple[int, Any, str]]:
        """Line where a value ends, the value, and why it is none."""
        array = separated = False
        while sign := self._next():
            if array and sign == "]":
                array = False
                self._advance(self._place + 1)
            elif array and sign == "," and not separated:
                separated = True
                self._advance(self._place + 1)
            elif not array and sign == "[":
                array = separated = True
                self._advance(self._place + 1)
            elif array and not separated:
                raise self._invalid("a comma is missing", self._place)
            else:
                value, reason = self._value()
                yield self._line, value, reason
                separated = False
        if array:
            raise self._invalid("the array is never closed", self._place)

    def _next(self) -> str:
        """The next character that is no blank; empty at the end."""
        while True:
            place = self._place
            while place < len(self._text) and self._text[place] in _BLANK:
                place += 1
            self._advance(place)
            if place < len(self._text):
                return self._text[place]
            if not self._read():
                return ""

    def _value(self) -> tuple[Any, str]:
        while True:
            try:
                value, end, reason = *_DECODER.raw_decode(self._text, self._place), ""
            except _RepeatedKeyError as error:
                value, end, reason = *json.JSONDecoder().raw_decode(self._text, self._place), str(error)
            except json.JSONDecodeError as error:
                if _wants_more(error, self._text):
                    if len(self._text) - self._place > LONGEST_ROW:
                        raise self._invalid(too_long("an object", LONGEST_ROW), self._place) from None
                    if self._read():
                        continue
                raise self._invalid(error.msg, error.pos) from None
            except (ValueError, RecursionError) as error:  # a number of thousands of digits, thousands of brackets
                raise self._invalid(str(error), self._place) from None
            if end == len(self._text) and self._read():  # a number may go on
                continue
            self._advance(end)
            return value, reason

    def _read(self) -> bool:
        """Reads as much again as is held, so that a long value costs no more than twice its length."""
        more = "" if self._ended else self._rest.read(max(_CHUNK, len(self._text) - self._place))
        self._ended = not more
        if more:
            self._text, self._place = self._text[self._place :] + more, 0
        return bool(more)

    def _advance(self, place: int) -> None:
        self._line += self._text.count("\n", self._place, place)
        self._place = place

    def _invalid(self, message: str, place: int) -> UserError:
        line = self._line + self._text.count("\n", self._place, place)
        return UserError(f"{self._file}:{line}: no valid JSON: {message}")
