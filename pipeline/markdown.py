"""Text of others inside Markdown: it reads as it is written, whatever characters it has."""

from __future__ import annotations

import re

_JOINERS = "\u200c\u200d"
"""Invisible, and part of words in Persian and of emoji."""
_ACTIVE = re.compile(
    r"""[&<>"'`|\\*\[\]{}#~!@$^]"""
    r"|(?<![^\W_])_|_(?![^\W_])"  # inside of a word it is a letter
    r"|:(?=//)|(?<=www)\.|\.(?=www\.)",  # GitHub makes links of bare addresses
    re.IGNORECASE,
)


def escaped(text: str) -> str:
    """Returns a text for the middle of a line of Markdown, or for a table's cell.

    Characters that Markdown or HTML act upon become numeric character references, which all dialects show as they are, also
    in a table, where some take a backslash before `|` literally (CommonMark 0.31, 6.2 and 2.5). Blanks and line ends become
    one space, other characters that are not visible become U+FFFD.

    Args:
        text: plain text, such as a label.
    """
    line = " ".join(text.split())
    visible = "".join(each if each.isprintable() or each in _JOINERS else "\ufffd" for each in line)
    return _ACTIVE.sub(lambda match: f"&#{ord(match[0])};", visible)


def code_block(text: str) -> str:
    """Returns a text of several lines as a block of Markdown that shows it unchanged (CommonMark 0.31, 4.4)."""
    return "".join(f"    {line}\n" for line in text.split("\n"))
