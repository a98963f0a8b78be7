"""Keeps what TensorFlow logs about itself off standard error: it greets at every import, whatever its own settings say.

TensorFlow 2.21 writes lines of the level "info" while its libraries are loaded, before `TF_CPP_MIN_LOG_LEVEL` counts. So file
descriptor 2 leads through a process that leaves them out; it outlives this one, so that the last words before a crash are seen.
`TF_CPP_MIN_LOG_LEVEL` of 0 or 1 shows all.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.abc
import logging
import os
import re
import subprocess
import sys
from collections.abc import Sequence
from types import ModuleType

LEVEL = "TF_CPP_MIN_LOG_LEVEL"
_LIBRARIES = ("absl", "tensorflow", "jax", "matplotlib")
"""Names of Python loggers whose warnings are of the same kind."""
_NOISE = re.compile(
    rb"WARNING: All log messages before absl::InitializeLog\(\)"
    rb"|[IW]\d{4} \d\d:\d\d:[\d.]+ +\d+ \S+\] "
    rb"|\d{4}-\d\d-\d\d \d\d:\d\d:[\d.]+: [IW] "
    rb"|To enable the following instructions: "
    # Of the level "error", and all they say is that this machine has no GPU, or that another implementation computes.
    rb"|E\d{4} .*\] (failed call to cuInit|Unable to register cu\w+ factory|oneDNN supports \w+ only)"
)


def is_noise(line: bytes) -> bool:
    """Whether a line is one that TensorFlow logs at the level "info" or "warning"."""
    return _NOISE.match(line) is not None


def show() -> None:
    """Lets this process and its children show all that TensorFlow logs."""
    os.environ.setdefault(LEVEL, "0")


def quiet() -> None:
    """Filters standard error from the moment on when TensorFlow or JAX is imported, unless `LEVEL` asks for all."""
    sys.meta_path.insert(0, _AtImport())


class _AtImport(importlib.abc.MetaPathFinder):
    """Finds nothing; it is asked for each module before it is loaded."""

    def find_spec(self, name: str, path: Sequence[str] | None, target: ModuleType | None = None) -> None:
        if name in ("tensorflow", "jax"):
            sys.meta_path.remove(self)
            if os.environ.setdefault(LEVEL, "2") not in ("0", "1"):
                importlib.import_module("absl.logging")  # makes its logger, of a class of its own
                for library in _LIBRARIES:
                    logging.getLogger(library).setLevel(logging.ERROR)
                _start_filter()


def _start_filter() -> None:
    with contextlib.suppress(OSError):  # without one the lines are seen
        command = [sys.executable, "-I", "-S", __file__]
        # Of its own session: Ctrl-C is not for it, which ends when nobody writes any more.
        child = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, start_new_session=True)
        child.returncode = 0  # nobody waits for it
        assert child.stdin is not None
        os.dup2(child.stdin.fileno(), 2)
        child.stdin.close()


def _filter() -> None:
    for line in sys.stdin.buffer:
        if not is_noise(line):
            with contextlib.suppress(OSError):
                os.write(2, line)


if __name__ == "__main__":
    _filter()
