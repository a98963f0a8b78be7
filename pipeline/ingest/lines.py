"""Lines of a text, and how long a row and a document may be: a small compressed file may unpack to a line of gigabytes."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from typing import IO

LONGEST_ROW = 1 << 28
"""Characters of a row of csv, tsv or JSON."""
LONGEST_DOCUMENT = 1 << 30
"""Characters of a text document; corpora of 1 GB are in use as one."""
_PIECE = 1 << 20


def too_long(kind: str, longest: int) -> str:
    """Says why a row or document is refused.

    Args:
        kind: what it is.
        longest: characters that it may have.
    """
    return f"{kind} has more than {longest:,} characters, the most that is read"


def bounded_lines(text: IO[str], longest: int, begin: str = "") -> Iterator[str | None]:
    """Reads lines with their line feeds; None in place of one that is longer than it may be.

    Args:
        text: whose lines end with line feeds only.
        longest: characters that a line may have.
        begin: what was read of the text before.
    """
    *lines, last = begin.split("\n")
    for line in lines:
        yield f"{line}\n" if len(line) < longest else None
    read = functools.partial(text.readline, longest + 1)
    line = last + read()
    while line:
        if len(line) <= longest:
            yield line
        else:
            ended = line.endswith("\n")
            while not ended and (piece := text.readline(_PIECE)):
                ended = piece.endswith("\n")
            yield None
        line = read()
