"""What is known of a process that ended without saying why: how it ended, the last lines of its log, and whose code failed."""

from __future__ import annotations

import os
import signal
import sysconfig
import time
import traceback
from pathlib import Path

from lmworks.tfx.tensorflow_logs import is_noise

_LINES, _CHARACTERS, _BYTES = 3, 200, 1 << 14
_REASONS = {
    signal.SIGKILL: "as the system does when memory runs out",
    signal.SIGILL: "as where this processor lacks instructions that a library was built for",
}

_LIBRARIES = ("stdlib", "platstdlib", "purelib", "platlib")
_GENERATED = ("<", "__autograph_generated_file")
"""How the names of files begin that nobody wrote: frozen modules, and what TensorFlow makes of a function."""


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


def place_of_error(error: BaseException) -> str:
    """Returns the last place of an error in code of the person's own, such as `my_callbacks.py:4`; empty if there is none.

    Args:
        error: with the trace from where it was raised to where it was caught.
    """
    paths = sysconfig.get_paths()
    libraries = tuple(os.path.join(os.path.realpath(paths[name]), "") for name in _LIBRARIES)
    place = ""
    for frame, line in traceback.walk_tb(error.__traceback__):
        path = frame.f_code.co_filename
        is_ours = str(frame.f_globals.get("__name__", "")).partition(".")[0] == __name__.partition(".")[0]
        is_generated = os.path.basename(path).startswith(_GENERATED)
        if not (is_ours or is_generated or os.path.realpath(path).startswith(libraries) or "-packages" in path):
            place = f"{_short(path)}:{line}"
    return place


def _short(path: str) -> str:
    """A path as short as it can be typed."""
    try:
        return os.path.relpath(path) if Path(path).is_relative_to(Path.cwd()) else path
    except OSError:  # the working directory was removed
        return path
