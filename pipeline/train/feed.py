"""Batches ahead of the device: a thread makes the next ones while the device computes."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable
from types import TracebackType
from typing import Generic, TypeVar

T = TypeVar("T")


class Feed(Generic[T]):
    """Calls `make(step)` for the steps from `start` to before `stop`, in order, in a thread of its own.

    Args:
        make: what a step needs.
        start: the first step.
        stop: the step after the last.
        ahead: how many are made before they are asked for.

    Attributes:
        waited: seconds that `next` has spent waiting.
    """

    def __init__(self, make: Callable[[int], T], start: int, stop: int, ahead: int = 3) -> None:
        self.waited = 0.0
        self._made: queue.Queue[T | BaseException] = queue.Queue(ahead)
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._work, args=(make, start, stop), name="feed", daemon=True)
        self._thread.start()

    def _work(self, make: Callable[[int], T], start: int, stop: int) -> None:
        for step in range(start, stop):
            try:
                made: T | BaseException = make(step)
            except BaseException as error:  # raised where `next` is called
                made = error
            while not self._closed.is_set():
                try:
                    self._made.put(made, timeout=0.1)
                    break
                except queue.Full:
                    continue
            if self._closed.is_set() or isinstance(made, BaseException):
                return

    def next(self) -> T:
        """Of the next step; waits until it is made."""
        began = time.monotonic()
        made = self._made.get()
        self.waited += time.monotonic() - began
        if isinstance(made, BaseException):
            raise made
        return made

    def __enter__(self) -> Feed[T]:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._closed.set()
        self._thread.join()
