"""What a person sees of a run: a line per stage, and one live line on a terminal."""

from __future__ import annotations

import contextlib
import os
import sys
import threading
import time
from collections.abc import Sequence
from typing import Any, NamedTuple, TextIO

from rich.cells import cell_len, set_cell_size

from lmworks.configs.shown import shown
from lmworks.tfx import progress
from lmworks.tfx.colours import Paint, is_terminal
from lmworks.tfx.readable import clock

MARKS = {"made": "made", "cached": "hit", "skipped": "skip"}
"""What a person reads for the status of a stage."""
_COLUMNS = 80
"""Of a terminal that does not say how wide it is."""
_INDENT = 28
"""Cells before a stage's summary."""
_TICK_SECONDS = 1.0
_PART = "  "


class _Live(NamedTuple):
    """What the live line says."""

    name: str
    parts: tuple[str, ...]
    """Most important first; the last ones are left out where the terminal is narrow."""
    began: float | None
    """On the monotonic clock; the time since then is shown."""


class Screen:
    """Lines of text; progress overwrites itself on a terminal and comes every ten seconds elsewhere.

    On a terminal the live line is written anew every second, so that its clock goes on when a stage has nothing to say. It
    never reaches the last column: a terminal would wrap it there, and leave rubbish behind.

    Args:
        stream: that is written to; stderr when not given.
        seconds: time between two lines of progress where there is no terminal.
        live: whether to write a live line if the stream is a terminal.
    """

    def __init__(self, stream: TextIO | None = None, seconds: float = 10.0, live: bool = True) -> None:
        self._stream = stream or sys.stderr
        self._live = live and is_terminal(self._stream)
        self._paint = Paint(self._stream)
        self._seconds = seconds
        self._last = time.monotonic()
        self._lock = threading.RLock()
        self._line: _Live | None = None
        """Of the stage that works."""
        self._beside: _Live | None = None
        """Of a transfer, which is shown in its place."""
        self._cells = 0
        """Of the line on the terminal; 0 where there is none."""
        self._ticker: threading.Thread | None = None
        self._idle = threading.Event()

    def begin(self, stage: str, why: str = "") -> None:
        """Says that a stage starts to work, or without a reason that it is compared with earlier runs."""
        name = shown(stage)
        parts = ("loading libraries", f"[{shown(why)}]") if why else ("comparing with earlier runs",)
        self._show(_Live(name, parts, self._began(name) or time.monotonic()))

    def progress(self, stage: str, event: dict[str, Any]) -> None:
        """Says how far a stage is, by an event of `tfx.progress`."""
        self.say(stage, progress.line(event))

    def say(self, stage: str, text: str) -> None:
        """Says in words where a stage is.

        Args:
            stage: its name.
            text: parts divided by two blanks, most important first.
        """
        name = shown(stage)
        self._say(_Live(name, tuple(shown(text).split(_PART)), self._began(name)))

    def _began(self, name: str) -> float | None:
        return self._line.began if self._line and self._line.name == name else None

    def say_beside(self, about: str, text: str) -> None:
        """Shows how far a transfer is, in place of the stage that works, until `end_beside`."""
        line = _Live(shown(about), tuple(shown(text).split(_PART)), None)
        if not self._live:
            self._plain(line)
            return
        with self._lock:
            self._beside = line
            self._draw()

    def end_beside(self) -> None:
        """Shows the stage that works again."""
        with self._lock:
            self._beside = None
            self._draw()

    def result(self, stage: str, status: str, seconds: float, summary: str, why: str) -> None:
        """Says what became of a stage."""
        self._ended(stage, MARKS[status], seconds, shown(summary), why)

    def broken(self, stage: str, mark: str, seconds: float) -> None:
        """Says that a stage did not get to its end, by the mark `fail` or `stop`."""
        self._ended(stage, mark, seconds)

    def _ended(self, stage: str, mark: str, seconds: float, text: str = "", why: str = "") -> None:
        self.clear()
        head = f"{shown(stage):<11} {mark:<4} {seconds:7.1f} s"
        line = _PART.join([head, *filter(None, [text, f"[{shown(why)}]" if why else ""])])
        lines = wrapped(line, self._columns() - 1, _INDENT) if self._live else [line]
        lines[0] = lines[0].replace(f" {mark} ", f" {self._paint.status(mark)} ", 1)
        self._print("\n".join(lines))

    def note(self, text: str) -> None:
        """Writes a line that stays, above the live line."""
        with self._lock:
            self._draw(text + "\n")

    def clear(self) -> None:
        """Takes the live line away."""
        with self._lock:
            self._line = self._beside = None
            self._draw()
            self._idle.set()
            ticker, self._ticker = self._ticker, None
        if ticker:
            ticker.join()

    def _show(self, line: _Live) -> None:
        if not self._live:
            return
        with self._lock:
            self._line = line
            self._draw()
            if self._ticker is None:
                self._idle = threading.Event()
                self._ticker = threading.Thread(target=self._tick, args=[self._idle], name="screen", daemon=True)
                self._ticker.start()

    def _say(self, line: _Live) -> None:
        if self._live:
            self._show(line)
        else:
            self._plain(line)

    def _plain(self, line: _Live) -> None:
        with self._lock:
            if time.monotonic() - self._last > self._seconds:
                self._last = time.monotonic()
                self._print(f"{line.name:<11} … {_PART.join(line.parts)}")

    def _print(self, text: str) -> None:
        self._write(text + "\n")

    def _write(self, text: str) -> None:
        # A terminal may be gone and a disk full: nothing that a run should end for.
        with contextlib.suppress(OSError, ValueError):
            self._stream.write(text)
            self._stream.flush()

    def _tick(self, idle: threading.Event) -> None:
        while not idle.wait(_TICK_SECONDS):
            with self._lock:
                if not idle.is_set():
                    self._draw()

    def _columns(self) -> int:
        try:
            return os.get_terminal_size(self._stream.fileno()).columns or _COLUMNS
        except (OSError, ValueError):
            return _COLUMNS

    def _draw(self, above: str = "") -> None:
        """Writes the live line in place of the one that is there, in one piece so that nothing flickers.

        Args:
            above: lines that stay, written before it.
        """
        text = self._erasure() + above
        if line := self._beside or self._line:
            since = f" {clock(time.monotonic() - line.began):>5}" if line.began is not None else ""
            live = fit((f"{line.name:<11}{since}", *line.parts), self._columns() - 1)
            text += self._paint(live[: len(line.name)], "bold") + live[len(line.name) :]
            self._cells = cell_len(live)
        if text:
            self._write(text)

    def _erasure(self) -> str:
        """Takes the line on the terminal away, also if the terminal became narrower and has wrapped it since."""
        if not self._cells:
            return ""
        above = (self._cells - 1) // max(1, self._columns())
        self._cells = 0
        return (f"\x1b[{above}A" if above else "") + "\r\x1b[J"


class StageScreen(Screen):
    """The screen of a stage's own process: what is said of transfers reaches that of the runner."""

    def say_beside(self, about: str, text: str) -> None:
        """See `Screen.say_beside`."""
        progress.doing(text)

    def end_beside(self) -> None:
        """See `Screen.end_beside`; the stage's next word follows."""


def wrapped(text: str, cells: int, indent: int) -> list[str]:
    """Cuts a line between words where a terminal would cut it anywhere.

    Args:
        text: the line.
        cells: of the terminal at most; one that is narrower than twice the indent cuts the line itself.
        indent: cells before each further line.
    """
    begin, *words = text.split(" ")
    lines = [begin]
    for word in words:
        longer = f"{lines[-1]} {word}"
        if cell_len(longer) > cells and lines[-1].strip() and cells > 2 * indent:
            lines.append(" " * indent + word)
        else:
            lines[-1] = longer
    return lines


def fit(parts: Sequence[str], cells: int) -> str:
    """Joins the parts of a line, without those for which there is no room.

    Args:
        parts: of the line, most important first. The first two are cut rather than left out.
        cells: of the terminal at most; some characters take two.
    """
    line, *rest = parts
    for place, part in enumerate(rest):
        longer = f"{line}{_PART}{part}"
        if cell_len(longer) <= cells or not place:
            line = longer
    return line if cell_len(line) <= cells else set_cell_size(line, max(0, cells - 1)).rstrip() + "…"
