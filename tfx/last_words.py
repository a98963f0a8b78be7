"""What is known of a process that ended without saying why: how it ended, and the last lines of its log."""

from __future__ import annotations

import signal
import time
from pathlib import Path

from lmworks.tfx.tensorflow_logs import is_noise

_LINES, _CHARACTERS, _BYTES = 3, 200, 1 << 14
_REASONS = {
    signal.SIGKILL: "as the system does when memory runs out",
    signal.SIGILL: "as where this processor lacks instructions that a library was built for",
}


def how_it_ended(code: int) -> str:
    """Describes the end of a process.

    Args:
        code: of `Popen.wait`; negative for a signal.
    """
    if code >= 0:
        return f"exit code {code}"
    names = {number.value: number for number in signal.Signals}
    if -code not in names:
        return f"ended by signal {-code}"
    number = names[-code]
    reason = f", {_REASONS[number]}" if number in _REASONS else ""
    return f"ended by signal {-code} ({number.name}{reason})"


def wait_for_log(log: Path) -> None:
    """Waits until nothing more comes: what a process had printed may pass through its filter after its end."""
    before = -1
    while before != (now := log.stat().st_size):
        before = now
        time.sleep(0.1)


def last_lines(log: Path) -> str:
    """Returns the last lines of a log in one, empty if there are none."""
    with log.open("rb") as file:
        file.seek(max(0, log.stat().st_size - _BYTES))
        lines = [line.strip() for line in file.read().splitlines() if line.strip() and not is_noise(line)]
    texts = [line.decode("utf-8", "replace") for line in lines[-_LINES:]]
    return " | ".join(text if len(text) <= _CHARACTERS else f"{text[:_CHARACTERS]}…" for text in texts)
