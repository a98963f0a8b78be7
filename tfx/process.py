"""Processes that die with the one that started them."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
from collections.abc import Mapping, Sequence
from typing import Any

_ENVIRONMENT = "LMWORKS_PARENT_FD"
# The write end is open in the parent alone: when the parent ends in any way, the read end sees the end of the file.
_read_end, _write_end = -1, -1


def start(
    command: Sequence[str], pass_fds: Sequence[int] = (), env: Mapping[str, str] | None = None, **options: Any
) -> subprocess.Popen[bytes]:
    """Starts a process that calls `die_with_parent` and so ends with this one, even when this one is killed."""
    global _read_end, _write_end
    if _write_end < 0:
        _read_end, _write_end = os.pipe()
    environment = {**os.environ, **(env or {}), _ENVIRONMENT: str(_read_end)}
    return subprocess.Popen(command, pass_fds=[*pass_fds, _read_end], env=environment, **options)


def die_with_parent() -> None:
    """Ends this process at once when the one that `start`ed it is gone. Does nothing in a process started otherwise."""
    watched = os.environ.pop(_ENVIRONMENT, None)
    if watched is None:
        return

    def watch() -> None:
        os.read(int(watched), 1)
        os.kill(os.getpid(), signal.SIGKILL)

    threading.Thread(target=watch, name="die-with-parent", daemon=True).start()
