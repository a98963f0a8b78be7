"""What a person sees of a run on stderr: a line per stage, and one live line on a terminal."""

from __future__ import annotations

import sys
import time
from typing import Any

from lmworks.tfx import progress

_SECONDS_BETWEEN_LINES = 10.0


class Screen:
    """Lines on stderr; progress overwrites itself on a terminal and comes every ten seconds elsewhere."""

    def __init__(self) -> None:
        self._live = sys.stderr.isatty()
        self._shown = False
        self._last = time.monotonic()

    def begin(self, stage: str, why: str) -> None:
        """A stage starts."""
        self._transient(f"{stage:<11} … {why}")

    def progress(self, stage: str, event: dict[str, Any]) -> None:
        """A stage has come further."""
        line = progress.line(event["done"], event["total"], event["unit"], event["facts"])
        if self._live:
            self._transient(f"{stage:<11} … {line}")
        elif time.monotonic() - self._last > _SECONDS_BETWEEN_LINES:
            self._last = time.monotonic()
            print(f"{stage:<11} … {line}", file=sys.stderr, flush=True)

    def result(self, stage: str, status: str, seconds: float, summary: str, why: str) -> None:
        """A stage is done."""
        self.clear()
        mark = {"made": "made", "cached": "hit", "skipped": "skip"}[status]
        print(
            f"{stage:<11} {mark:<4} {seconds:7.1f} s  {summary + '  ' if summary else ''}[{why}]",
            file=sys.stderr,
            flush=True,
        )

    def clear(self) -> None:
        """Takes the live line away."""
        if self._shown:
            sys.stderr.write("\r\x1b[K")
            sys.stderr.flush()
            self._shown = False

    def _transient(self, line: str) -> None:
        if self._live:
            sys.stderr.write(f"\r\x1b[K{line[:150]}")
            sys.stderr.flush()
            self._shown = True
