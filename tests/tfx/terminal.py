"""A terminal for tests: a pseudo-terminal, and what its reader's screen shows, with lines that wrap and reflow."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import struct
import termios
import tty

from rich.cells import cell_len

_TOKEN = re.compile(r"\x1b\[([0-9;]*)([A-Za-z])|([\r\n])|([^\x1b\r\n])")


class Terminal:
    """A pseudo-terminal whose screen is emulated as tmux and most others do it.

    Attributes:
        stream: that is written to, as a program's stderr.
        text: all that was written.
    """

    def __init__(self, columns: int = 80) -> None:
        self._main, self.side = pty.openpty()
        tty.setraw(self.side)
        self.stream = os.fdopen(self.side, "w", encoding="utf-8")
        self.text = ""
        self._columns = columns
        self._rows: list[list[str]] = [[]]
        """Lines as they were written; a line that is too long fills several rows of the screen."""
        self._row, self._cell = 0, 0
        """The cursor: the line, and the cell in it."""
        self.resize(columns)

    def resize(self, columns: int) -> None:
        """Makes the terminal wider or narrower; its lines reflow."""
        self.read()
        self._columns = columns
        fcntl.ioctl(self.side, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))

    def read(self) -> None:
        """Takes in what was written since."""
        os.set_blocking(self._main, False)
        data = b""
        try:
            while more := os.read(self._main, 1 << 16):
                data += more
        except BlockingIOError:
            pass
        self._feed(data.decode())

    def _feed(self, text: str) -> None:
        self.text += text
        for match in _TOKEN.finditer(text):
            number, command, control, character = match.groups()
            line = self._rows[self._row]
            if command == "J":
                del self._rows[self._row + 1 :], line[self._cell :]
            elif command == "A":  # of rows on the screen, not of lines
                for _ in range(int(number or 1)):
                    if self._cell >= self._columns:
                        self._cell -= self._columns
                    elif self._row:
                        self._row -= 1
                        above = max(0, len(self._rows[self._row]) - 1) // self._columns * self._columns
                        self._cell += above
            elif control == "\r":
                # The pending wrap in the last column belongs to the row that is full.
                full = self._cell and self._cell == len(line) and self._cell % self._columns == 0
                self._cell = (self._cell - bool(full)) // self._columns * self._columns
            elif control == "\n":
                self._row, self._cell = self._row + 1, 0
                if self._row == len(self._rows):
                    self._rows.append([])
            elif character:
                cells = [character, *[""] * (cell_len(character) - 1)]
                line[self._cell : self._cell + len(cells)] = cells
                self._cell += len(cells)

    def lines(self) -> list[str]:
        """What the screen shows now: rows of at most as many cells as it has columns."""
        self.read()
        shown = []
        for line in self._rows:
            starts = range(0, max(1, len(line)), self._columns)
            shown += ["".join(line[start : start + self._columns]).rstrip() for start in starts]
        return shown if shown[-1] else shown[:-1]

    def close(self) -> None:
        """Ends the pseudo-terminal."""
        self.stream.close()
        os.close(self._main)
