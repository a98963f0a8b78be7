"""Colours on a terminal, and nowhere else unless they are forced: https://no-color.org, https://bixense.com/clicolors."""

from __future__ import annotations

import os
from typing import TextIO

_CODES = {"green": 32, "cyan": 36, "red": 31, "yellow": 33, "bold": 1}
STATUS_COLOURS = {
    "made": "green", "hit": "cyan", "skip": "yellow", "stop": "yellow", "fail": "red",
    "done": "green", "running": "cyan", "stopped": "yellow", "refused": "yellow", "died": "red", "failed": "red",
}  # fmt: skip
"""Of the words that say how a stage or a run ended."""


def is_terminal(stream: TextIO) -> bool:
    """Whether a stream is a terminal that can move its cursor."""
    return stream.isatty() and os.environ.get("TERM") not in ("dumb", "")


def is_coloured(stream: TextIO) -> bool:
    """Whether colours are to be written: NO_COLOR forbids them, FORCE_COLOR and CLICOLOR_FORCE demand them."""
    if os.environ.get("NO_COLOR"):
        return False
    if any(os.environ.get(name, "0") not in ("", "0") for name in ("FORCE_COLOR", "CLICOLOR_FORCE")):
        return True
    return is_terminal(stream)


class Paint:
    """Colours text for a stream; gives it back as it is where there are to be no colours.

    Args:
        stream: that the text is written to.
    """

    def __init__(self, stream: TextIO) -> None:
        self._coloured = is_coloured(stream)

    def __call__(self, text: str, colour: str) -> str:
        """Returns a text in a colour."""
        return f"\x1b[{_CODES[colour]}m{text}\x1b[0m" if self._coloured and text and colour else text

    def status(self, word: str) -> str:
        """Returns a status word, such as `made`, in its colour."""
        return self(word, STATUS_COLOURS.get(word, ""))
