"""A run on a cluster, as one sees it from here: submitted, watched to its end, cancelled."""

from __future__ import annotations

import random
import re
import sys
import time
from collections.abc import Callable, Collection, Sequence
from typing import Any, NamedTuple, Protocol, TypeVar

from lmworks.configs.errors import UserError
from lmworks.configs.load import ConfigError
from lmworks.configs.shown import shown
from lmworks.tfx.readable import clock
from lmworks.tfx.screen import Screen

T = TypeVar("T")

POLL_SECONDS = 5.0
"""Between two looks at a run."""
WAIT_SECONDS = 2.0
"""Before the first retry of a call; each further wait is twice as long, and a random part of it is left out."""
_LONGEST_WAIT_SECONDS = 60.0
_TRIES = 5
_PATIENT_TRIES = 8
"""Of a look at a run that goes on without us: some minutes."""
TOO_MANY = 429
PASSING = (TOO_MANY, 500, 502, 503, 504)
"""Codes of faults that pass, where to ask again does nothing twice."""
_MEANINGS = {
    400: "bad request",
    401: "not logged in",
    403: "not allowed",
    404: "not found",
    409: "exists already",
    TOO_MANY: "too many requests",
    500: "internal error",
    502: "bad gateway",
    503: "unavailable",
    504: "timed out",
}
_TAIL = 20
"""Lines of a failed stage's log that are shown."""


class Fault(UserError):
    """A server could not be reached or did not do what it was asked.

    Args:
        server: who.
        told: what it said, or why it could not be reached.
        code: HTTP status; None where there was no answer.
        wait_seconds: how long it asks to wait.
        fix: what the user can do.
    """

    def __init__(
        self, server: str, told: str, code: int | None = None, wait_seconds: float | None = None, fix: str = ""
    ) -> None:
        said = " ".join(told.split())[:300]
        answer = f"answers {code} ({_MEANINGS.get(code, 'error')})" if code else "cannot be reached"
        super().__init__(f"{server} {answer}{': ' + said if said else ''}{'; ' + fix if fix else ''}")
        self.code, self.wait_seconds = code, wait_seconds


def calling(call: Callable[[], T], passing: Sequence[int | None] = (TOO_MANY,), tries: int = _TRIES) -> T:
    """Calls a server, again where its fault passes.

    Args:
        call: raises `Fault`.
        passing: the codes after which it is called again; None stands for a server that cannot be reached.
        tries: how often at most.

    Raises:
        Fault: the last one.
    """
    wait = WAIT_SECONDS
    for left in range(tries - 1, -1, -1):
        try:
            return call()
        except Fault as fault:
            if fault.code not in passing or not left:
                raise
            seconds = min(max(fault.wait_seconds or 0.0, wait * random.uniform(0.5, 1.0)), _LONGEST_WAIT_SECONDS)
            print(f"{shown(fault)}; once more in {seconds:.0f} s", file=sys.stderr, flush=True)
        time.sleep(seconds)
        wait *= 2
    raise AssertionError


class Stage(NamedTuple):
    """What became of one stage of a run so far."""

    state: str
    """`waiting`, `running`, `made`, `cached`, `skipped`, `failed` or `cancelled`."""
    seconds: float = 0.0
    told: str = ""
    """What it made, or why it waits or failed."""


class Status(NamedTuple):
    """How far a run is."""

    state: str
    """`running`, `done`, `failed` or `cancelled`."""
    stages: dict[str, Stage]
    """By name; those of which the cluster knows nothing yet are missing."""
    error: str = ""


class Run(Protocol):
    """A run that was submitted. Its methods raise `Fault`."""

    link: str
    """To its page."""

    def status(self) -> Status:
        """How far it is."""

    def log(self, stage: str) -> list[str]:
        """The last lines that a stage has written; none where the cluster does not give them."""

    def cancel(self) -> None:
        """Asks the cluster to end it."""


class Cluster(Protocol):
    """Where runs are submitted to."""

    def submit(self, package: str, name: str) -> Run:
        """Starts a run.

        Args:
            package: path of the compiled pipeline.
            name: of the run; each has one of its own.
        """

    def schedule(self, package: str, name: str, cron: Cron) -> str:
        """Starts runs again and again, one at a time; missed times are not made up for.

        Args:
            package: path of the compiled pipeline.
            name: of the schedule.
            cron: when.

        Returns:
            A link to its page.

        Raises:
            ConfigError: the cluster has no time zones.
            UserError: there is a schedule of that name.
        """


class Cron(NamedTuple):
    """When runs are repeated."""

    fields: str
    """Minute, hour, day of month, month, day of week."""
    zone: str
    """IANA's name of a time zone; empty for the cluster's own."""


def cron_of(expression: str) -> Cron:
    """Reads `0 3 * * *`, or `TZ=Europe/Berlin 0 3 * * *`.

    Raises:
        ConfigError: it is neither.
    """
    first, _, rest = expression.strip().partition(" ")
    name, equals, zone = first.partition("=")
    zoned = bool(equals) and name in ("TZ", "CRON_TZ")
    bounds = ((0, 59), (0, 23), (1, 31), (1, 12), (0, 6))
    fields = (rest if zoned else expression).split()
    if len(fields) != len(bounds) or not all(map(_cron_field, fields, bounds)):
        raise ConfigError(
            f"--cron={expression}: must be five fields, minute, hour, day of month, month and day of week: --cron='0 3 * * *' is "
            "three o'clock every night"
        )
    return Cron(" ".join(fields), zone if zoned else "")


def _cron_field(field: str, bounds: tuple[int, int]) -> bool:
    for part in field.split(","):
        found = re.fullmatch(r"(\*|(\d+)(-(\d+))?)(/(\d+))?", part)
        if not found:
            return False
        numbers = [int(number) for number in (found[2], found[4]) if number]
        if any(not bounds[0] <= number <= bounds[1] for number in numbers) or numbers != sorted(numbers):
            return False
        if found[6] is not None and int(found[6]) == 0:
            return False
    return True


def follow(run: Run, stages: Sequence[str], screen: Screen, verbose: bool = False, gated: Collection[str] = ()) -> bool:
    """Shows the stages as they end, and the log's last line of the one that works, until the run ends.

    Args:
        run: that was submitted.
        stages: of the pipeline, in order.
        screen: where to.
        verbose: show all lines of the logs.
        gated: the stages behind a gate.

    Returns:
        Whether every stage came to its end; False where a gate said no.

    Raises:
        UserError: the run failed or was cancelled, with the reason.
    """
    ended: set[str] = set()
    logs = {stage: _Log(run, stage) for stage in stages}
    while True:
        try:
            status = calling(run.status, (None, *PASSING), _PATIENT_TRIES)
        except Fault as fault:
            raise UserError(f"{fault}; the run goes on: {run.link}") from None
        for name in stages:
            stage = status.stages.get(name, Stage("waiting"))
            if name in ended or stage.state == "waiting":
                if stage.told and name not in ended:
                    screen.say(name, f"waits: {stage.told}")
                continue
            lines = logs[name].news() if verbose or stage.state in ("running", "made") else []
            if verbose:
                screen.clear()
                for line in lines:
                    print(f"{name:<11} | {shown(line)}", file=sys.stderr, flush=True)
            if stage.state == "running":
                screen.say(name, f"{clock(stage.seconds)}  {stage.told or logs[name].last}")
            elif stage.state in ("made", "cached", "skipped"):
                ended.add(name)
                screen.result(name, stage.state, stage.seconds, stage.told or logs[name].summary, "on the cluster")
        if status.state != "running":
            break
        time.sleep(POLL_SECONDS)
    screen.clear()
    if status.state == "done":
        if any(name not in ended for name in stages if name not in gated):
            print(
                f"the run is done, and of some stages the cluster says nothing: {run.link}", file=sys.stderr, flush=True
            )
        elif left := [name for name in stages if name not in ended]:
            for name in left:
                screen.result(name, "skipped", 0.0, "", "the gate said no")
            return False
        return all(status.stages[name].state != "skipped" for name in ended)
    raise UserError(_why(status, run, logs, verbose))


def _why(status: Status, run: Run, logs: dict[str, _Log], verbose: bool) -> str:
    if status.state == "cancelled":
        return f"the run was cancelled on the cluster: {run.link}"
    failed = next((name for name in logs if status.stages.get(name, Stage("")).state == "failed"), None)
    if failed is None:
        return f"the run failed{': ' + ' '.join(status.error.split())[:500] if status.error else ''}: {run.link}"
    logs[failed].news()
    if not verbose:
        for line in logs[failed].lines[-_TAIL:]:
            print(f"{failed:<11} | {shown(line)}", file=sys.stderr, flush=True)
    told = [" ".join(status.stages[failed].told.split())[:500], _explained(logs[failed].last)]
    return f"{failed}: {'; '.join(filter(None, told)) or status.error or 'failed without a word'}: {run.link}"


def _explained(line: str) -> str:
    """The last line of a stage that failed, without the component's name before it."""
    return re.sub(r"^[\w.]+:\w+: ", "", line)


class _Log:
    """What is known of a stage's log. A log that cannot be had is no reason to stop looking at the run."""

    def __init__(self, run: Run, stage: str) -> None:
        self._run, self._stage = run, stage
        self.lines: list[str] = []

    def news(self) -> list[str]:
        """The lines since the last call."""
        try:
            now = self._run.log(self._stage)
        except Fault:
            return []
        # A retried stage begins a log of its own, and a cluster may give the latest lines only.
        old, self.lines = self.lines, now
        for kept in range(min(len(old), len(now)), 0, -1):
            if old[-kept:] == now[:kept]:
                return now[kept:]
        return now

    @property
    def summary(self) -> str:
        """What the stage made, which is the last that it says."""
        mark = f"{self._stage} made"
        return self.last.removeprefix(mark).strip() if self.last.startswith(mark) else ""

    @property
    def last(self) -> str:
        """The last line with something in it."""
        return next((line.strip() for line in reversed(self.lines) if line.strip()), "")


def lower_case(name: str) -> str:
    """A name as clusters allow them: lower-case letters and digits, and `-` for all else."""
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")


def timestamped(name: str) -> str:
    """A name of a run that no other has, as clusters allow them: lower-case letters, digits and `-`, a letter first."""
    told = lower_case(name)[:100]
    told = told if told[:1].isalpha() else f"run-{told}"
    return f"{told}-{time.strftime('%Y%m%d-%H%M%S')}"


def message_of(body: Any) -> str:
    """What an error's JSON says: `message`, or that of its `error`."""
    while isinstance(body, dict):
        body = (
            body.get("message") or body.get("error_description") or body.get("error") or body.get("error_message") or ""
        )
    return str(body)
