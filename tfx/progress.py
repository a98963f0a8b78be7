"""Progress of a stage: to the runner through a pipe where there is one, else a line on stderr now and then.

An event is `{"about", "done", "total", "unit", "facts"}`: which part of the stage works, how many units of how many are done
(`total` is null if that is not known, `unit` is empty if nothing is counted), and what is worth seeing beside it.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from lmworks.configs.shown import shown
from lmworks.tfx.artifacts import has_fields
from lmworks.tfx.readable import clock, number

ENVIRONMENT = "LMWORKS_PROGRESS_FD"
LEFT = "left"
"""The fact that says how much time is left, in seconds."""
_EVERY_SECONDS = {"pipe": 0.2, "stderr": 10.0}
_FIELDS = {"about": str, "done": int, "total": int | None, "unit": str, "facts": dict}
_last = 0.0
_parts: list[str] = []
_counted: tuple[Any, ...] = ()
"""What was counted last: part, total and unit."""
_since = (0.0, 0)
"""When that count began, on the monotonic clock, and with how many units."""


@contextmanager
def within(part: str) -> Iterator[None]:
    """Names the part of the stage that works within it: what is reported there is of this part."""
    global _last
    _parts.append(part)
    _last = 0.0  # the first word of a part is never left out
    try:
        yield
    finally:
        _parts.pop()
        _last = 0.0


def report(done: int, total: int | None, unit: str, **facts: float | str) -> None:
    """Says how far the stage is; throttled, so it may be called for every batch.

    The time left is added where the total is known, from the speed since the first call with this total.

    Args:
        done: units done.
        total: units in all, None where unknown.
        unit: what is counted: rows, steps.
        **facts: what is worth seeing beside it, most important first: `left` (seconds), loss, speed.
    """
    global _last, _counted, _since
    now = time.monotonic()
    counted = (tuple(_parts), total, unit)
    if counted != _counted or done < _since[1]:
        _counted, _since = counted, (now, done)
    if now - _last < _EVERY_SECONDS["pipe" if os.environ.get(ENVIRONMENT) else "stderr"] and done != total:
        return
    _last = now
    began, before = _since
    if total and LEFT not in facts and before < done < total:
        facts = {LEFT: (now - began) / (done - before) * (total - done), **facts}
    _tell({"about": ", ".join(_parts), "done": done, "total": total, "unit": unit, "facts": facts})


def doing(words: str) -> None:
    """Says in words what the stage does now, where there is nothing to count; never left out.

    Args:
        words: a few, such as `loading bert_tiny`.
    """
    _tell({"about": ", ".join([*_parts, words]), "done": 0, "total": None, "unit": "", "facts": {}})


def _tell(event: dict[str, Any]) -> None:
    if os.environ.get(ENVIRONMENT):
        send(event)
    else:
        print(line(event), file=sys.stderr, flush=True)


def send(event: dict[str, Any]) -> None:
    """Sends one event to the runner, if there is one."""
    pipe = os.environ.get(ENVIRONMENT)
    if pipe:
        try:
            os.write(int(pipe), (json.dumps(event) + "\n").encode())
        except OSError:  # the runner is gone, and the watch on it ends this process
            return


def descriptors() -> list[int]:
    """The files that a process started by a stage must inherit so that it can report too."""
    return [int(pipe)] if (pipe := os.environ.get(ENVIRONMENT)) else []


def is_event(value: Any) -> bool:
    """Whether a JSON value is an event of progress."""
    return has_fields(value, _FIELDS)


def line(event: dict[str, Any]) -> str:
    """One line for a person: its parts are divided by two blanks, the most important first."""
    done, total, unit = event["done"], event["total"], event["unit"]
    parts = []
    if unit:
        parts.append(f"{done:,}/{total:,} {unit} ({100 * done // total} %)" if total else f"{done:,} {unit}")
    if event["about"]:
        # What counts in it stands behind the name of the part.
        parts[:] = [": ".join([event["about"], *parts])]
    facts = dict(event["facts"])
    if isinstance(left := facts.pop(LEFT, None), int | float):
        parts.append(f"{clock(left)} left")
    return shown("  ".join([*parts, *(_fact(name, value) for name, value in facts.items())]))


def _fact(name: str, value: Any) -> str:
    return f"{name} {number(value) if isinstance(value, int | float) else value}"
