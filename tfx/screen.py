"""What a person sees of a run: a line per stage, and one live line on a terminal."""

from __future__ import annotations

import sys
import time
from typing import Any, TextIO

from lmworks.configs.shown import shown
from lmworks.tfx import progress

MARKS = {"made": "made", "cached": "hit", "skipped": "skip"}
"""What a person reads for the status of a stage."""


class Screen:
    """Lines of text; progress overwrites itself on a terminal and comes every ten seconds elsewhere.

    Args:
        stream: where to; stderr when not given.
        seconds: between two lines of progress where there is no terminal.
    """

    def __init__(self, stream: TextIO | None = None, seconds: float = 10.0) -> None:
        self._stream = stream or sys.stderr
        self._live = self._stream.isatty()
        self._seconds = seconds
        self._shown = False
        self._last = time.monotonic()

    def begin(self, stage: str, why: str) -> None:
        """A stage starts."""
        self._transient(f"{stage:<11} … {shown(why)}")

    def progress(self, stage: str, event: dict[str, Any]) -> None:
        """A stage has come further."""
        self.say(stage, progress.line(event["done"], event["total"], event["unit"], event["facts"]))

    def say(self, stage: str, told: str) -> None:
        """Where a stage is, in words."""
        line = f"{shown(stage):<11} … {shown(told)}"
        if self._live:
            self._transient(line)
        elif time.monotonic() - self._last > self._seconds:
            self._last = time.monotonic()
            print(line, file=self._stream, flush=True)

    def result(self, stage: str, status: str, seconds: float, summary: str, why: str) -> None:
        """A stage is done."""
        self.clear()
        print(
            f"{shown(stage):<11} {MARKS[status]:<4} {seconds:7.1f} s  {shown(summary) + '  ' if summary else ''}[{shown(why)}]",
            file=self._stream,
            flush=True,
        )

    def clear(self) -> None:
        """Takes the live line away."""
        if self._shown:
            self._stream.write("\r\x1b[K")
            self._stream.flush()
            self._shown = False

    def _transient(self, line: str) -> None:
        if self._live:
            self._stream.write(f"\r\x1b[K{line[:150]}")
            self._stream.flush()
            self._shown = True
