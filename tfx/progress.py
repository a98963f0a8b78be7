"""Progress of a stage: to the runner through a pipe where there is one, else a line on stderr now and then."""

from __future__ import annotations

import json
import os
import sys
import time
from typing import Any

ENVIRONMENT = "LMWORKS_PROGRESS_FD"
_EVERY_SECONDS = {"pipe": 0.2, "stderr": 10.0}
_last = 0.0


def report(done: int, total: int | None, unit: str, **facts: float | str) -> None:
    """Says how far the stage is; throttled, so it may be called for every batch.

    Args:
        done: units done.
        total: units in all, None where unknown.
        unit: what is counted: rows, steps.
        **facts: what is worth seeing beside it: loss, time left.
    """
    global _last
    pipe = os.environ.get(ENVIRONMENT)
    now = time.monotonic()
    if now - _last < _EVERY_SECONDS["pipe" if pipe else "stderr"] and done != total:
        return
    _last = now
    if pipe:
        send({"done": done, "total": total, "unit": unit, "facts": facts})
    else:
        print(line(done, total, unit, facts), file=sys.stderr, flush=True)


def send(event: dict[str, Any]) -> None:
    """Sends one event to the runner, if there is one."""
    pipe = os.environ.get(ENVIRONMENT)
    if pipe:
        try:
            os.write(int(pipe), (json.dumps(event) + "\n").encode())
        except OSError:  # the runner is gone, and the watch on it ends this process
            return


def line(done: int, total: int | None, unit: str, facts: dict[str, float | str]) -> str:
    """One line for a person."""
    share = f"{done:,}/{total:,} {unit} ({100 * done / total:.0f} %)" if total else f"{done:,} {unit}"
    told = (f"{name} {value:.4g}" if isinstance(value, float) else f"{name} {value}" for name, value in facts.items())
    return "  ".join([share, *told])
