"""Text that files, servers and other programs wrote, made fit for a terminal: no control characters, and never too long."""

from __future__ import annotations

import re

from lmworks.configs.url_secrets import masked

LIMIT = 8_000
"""Characters of a message at most: far more than any list of errors that a person reads."""

_UNSAFE = re.compile(
    "["
    "\x00-\x1f"  # C0, with ESC that begins a terminal's commands, and the line's ends
    "\x7f-\x9f"  # DEL and C1, which begin commands with one character
    "\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069"  # bidirectional marks, which show a text in another order
    "\u2028\u2029"  # line and paragraph separators
    "\ufeff"  # a byte order mark, which is invisible
    "\ud800-\udfff"  # surrogates, which no encoding of a terminal can write
    "]"
)
_UNSAFE_IN_LINES = re.compile(_UNSAFE.pattern.replace("\x00-\x1f", "\x00-\x08\x0b-\x1f"))


def shown(text: object, limit: int = LIMIT, *, lines: bool = False) -> str:
    r"""Returns a text as it may be printed: unsafe characters as `\x1b` or `\u202e`, and the middle left out if it is too long.

    Args:
        text: anything that has a text.
        limit: length of the result at most; the end of a message, which says how to go on, stays.
        lines: whether the text may have several lines; then line feeds and tabs stay.
    """
    unsafe = _UNSAFE_IN_LINES if lines else _UNSAFE
    safe = unsafe.sub(lambda match: match[0].encode("unicode_escape").decode("ascii"), str(text))
    if len(safe) <= limit:
        return safe
    safe = masked(safe)  # for a password is known by the `@` behind it, which the cut may take
    if len(safe) <= limit:
        return safe
    mark = f"… ({len(safe) - limit:,} characters more) …"
    room = max(0, limit - len(mark))
    end = room // 4
    return f"{safe[: room - end]}{mark}{safe[len(safe) - end :]}"[:limit]
