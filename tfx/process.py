"""Processes that die with the one that started them, that may be given their work later, and that may be asked to stop."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from types import FrameType
from typing import Any

from lmworks.configs.errors import UserError

_ENVIRONMENT = "LMWORKS_PARENT_FD"
# The write end is open in the parent alone: when the parent ends in any way, the read end sees the end of the file.
_read_end, _write_end = -1, -1


def python(module: str, *arguments: str) -> list[str]:
    """Returns the command of a Python process of ours, to which the working directory gives no module."""
    return [sys.executable, "-P", "-m", module, *arguments]


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


class Waiting:
    """A process that was started before its work is known.

    Args:
        command: whose last word gets `fd:N` appended, where the process finds its work by `wait_for_work`.
        **options: of `subprocess.Popen`.
    """

    def __init__(self, command: Sequence[str], **options: Any) -> None:
        self._mine, theirs = socket.socketpair()
        with theirs:
            self.child = start([*command[:-1], f"{command[-1]}fd:{theirs.fileno()}"], [theirs.fileno()], **options)

    def give(self, work: str, descriptors: Sequence[int]) -> bool:
        """Hands over the work with open files; False when the process is gone."""
        try:
            socket.send_fds(self._mine, [b"\n"], descriptors)
            self._mine.sendall(work.encode())
            self._mine.shutdown(socket.SHUT_WR)
        except OSError:
            return False
        return self.child.poll() is None

    def end(self) -> None:
        """Kills the process."""
        self.child.kill()
        self.child.wait()
        self._mine.close()


def wait_for_work(descriptor: int) -> tuple[str, list[int]] | None:
    """Blocks until the starter calls `Waiting.give`: the work and the files, or None when it went away."""
    with socket.socket(fileno=descriptor) as source:
        first, descriptors, _, _ = socket.recv_fds(source, 1, 8)
        if not first:
            return None
        return b"".join(iter(lambda: source.recv(1 << 16), b"")).decode(), descriptors


class Stopped(UserError):
    """Work was stopped by SIGTERM or Ctrl-C, and what it had done is kept."""


class Stop:
    """Whether this process was asked to stop; see `stoppable`."""

    def __init__(self) -> None:
        self.by = ""
        """Name of the signal; empty while there was none."""
        self._at_once = False

    def ask(self, number: int, _: FrameType | None = None) -> None:
        """The signal handler."""
        if self.by and number == signal.SIGINT:  # a second Ctrl-C means it
            raise KeyboardInterrupt
        self.by = self.by or signal.Signals(number).name  # Ctrl-C is followed by SIGTERM from the runner
        if self._at_once:
            raise Stopped(self._told())

    def _told(self) -> str:
        return f"stopped by {self.by}; the same command goes on from there"

    @contextlib.contextmanager
    def at_once(self) -> Iterator[None]:
        """Within it a signal raises `Stopped`: for work that has nothing to keep."""
        self._at_once = True
        try:
            if self.by:
                raise Stopped(self._told())
            yield
        finally:
            self._at_once = False


def interrupt_on_sigterm() -> None:
    """From now on SIGTERM ends this process as Ctrl-C does, so that what it has open is closed in order."""

    def interrupt(_number: int, _frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, interrupt)


@contextlib.contextmanager
def stoppable() -> Iterator[Stop]:
    """Within it SIGTERM and Ctrl-C only set `Stop.by`, so that the work can end where it loses nothing.

    In a thread that is not the main one signals stay as they are.
    """
    stop = Stop()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return
    before = {number: signal.signal(number, stop.ask) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
