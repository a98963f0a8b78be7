"""Runs as other processes see them: what a run's folder says while it runs and after.

<run>/run.json       the record; while it runs with `running`: the stage and since when
<run>/progress.json  the latest progress of the running stage
<run>/.lock          held for as long as a process runs it
<run>/<stage>/live   link to the state of a stage that has not finished: what it writes while it works
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import socket
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from lmworks.configs.errors import UserError
from lmworks.configs.shown import shown
from lmworks.tfx import containment, locks, names, progress
from lmworks.tfx.artifacts import has_fields, parse_json, write_json
from lmworks.tfx.readable import clock
from lmworks.tfx.screen import MARKS, Screen

RECORD, PROGRESS, LOCK, LIVE = "run.json", "progress.json", ".lock", "live"
_FIELDS = {
    "run", "status", "stages", "process", "running", "kept", "began", "ended", "config", "recipe", "overrides",
}  # fmt: skip
"""What a record has."""
_YEAR_9999 = 253_370_764_800
_POLL_SECONDS, _POLL_FAR_SECONDS = 0.5, 5.0


def folders(root: Path) -> list[Path]:
    """The runs' folders, by the time of their last news; also those whose record cannot be read."""
    try:
        found = [path for path in root.iterdir() if _has_record(path)]
    except (FileNotFoundError, NotADirectoryError):
        return []
    return sorted(found, key=lambda folder: _changed(folder / RECORD))


def _has_record(folder: Path) -> bool:
    """Whether there is a record in a folder, be it a link to nothing; also where that cannot be found out."""
    try:
        os.lstat(folder / RECORD)
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError:
        return folder.is_dir()
    return True


def _changed(path: Path) -> float:
    """Time of a file's last change, seconds since the epoch; 0 where it is gone meanwhile."""
    try:
        return path.stat().st_mtime
    except OSError:
        return 0.0


def readable(root: Path) -> list[tuple[Path, dict[str, Any]]]:
    """The runs' folders and records, by the time of their start; one that cannot be read is named and left out."""
    found = []
    for folder in folders(root):
        try:
            found.append((folder, read_record(folder)))
        except UserError as error:
            print(f"{shown(error)}; the run is left out", file=sys.stderr)
    return sorted(found, key=lambda run: run[1].get("began") or _changed(run[0] / RECORD))


def parse_record(content: bytes) -> dict[str, Any] | None:
    """A run's record as it is written into `run.json`; None where that is damaged or of something else."""
    record = parse_json(content)
    stage = {"status": str, "why": str, "seconds": float | int, "summary": str, "execution": str | None}
    if not has_fields(record, {"run": str, "status": str, "stages": dict}):
        return None
    whole = (
        all(
            names.is_stage(name)
            and has_fields(told, stage)
            and told["status"] in MARKS
            and is_time(told["seconds"])
            and _may_hold(name, told["execution"])
            for name, told in record["stages"].items()
        )
        and has_fields(record.get("process", {"pid": 0, "host": ""}), {"pid": int, "host": str})
        and has_fields(record.get("running", {"stage": "", "since": 0}), {"stage": str, "since": float | int})
        and is_time(record.get("running", {"since": 0})["since"])
        and has_fields(kept := record.get("kept", {}), {})
        and all(names.is_stage(name) and _may_hold(name, execution) for name, execution in kept.items())
        and all(is_time(record.get(name, 0.0)) for name in ("began", "ended"))
    )
    return record if whole and names.is_run(record["run"]) else None


def is_foreign(content: bytes, executions: Iterable[str]) -> bool:
    """Whether a `run.json` is another program's: a JSON object that has fields, none of a record's, and names no execution.

    Args:
        content: of the file.
        executions: that there are, `<stage>/<execution>`.
    """
    value = parse_json(content)
    if not isinstance(value, dict) or not value or _FIELDS & value.keys():
        return False
    # As it stands there, where a key may come twice, and with all escapes of JSON resolved.
    texts = (content.decode("utf-8", "replace"), json.dumps(value, ensure_ascii=False))
    return not any(execution.rpartition("/")[2] in text for execution in executions for text in texts)


def _may_hold(stage: str, execution: Any) -> bool:
    """Whether a record may say that a stage's result is an execution."""
    return execution is None or names.is_execution(execution, stage)


def is_time(value: Any) -> bool:
    """Whether a JSON value is a duration or a time since the epoch, in seconds, that a calendar has a date for."""
    return isinstance(value, float | int) and 0 <= value < _YEAR_9999


def this_process() -> dict[str, Any]:
    """What a record says of the process that runs it."""
    return {"pid": os.getpid(), "host": socket.gethostname()}


def read_record(folder: Path) -> dict[str, Any]:
    """The record of a run, with the status `died` where its process ended without a word.

    Raises:
        UserError: it cannot be read.
    """
    record = _record(folder)
    here = record.get("process", {}).get("host") == socket.gethostname()
    if record["status"] == "running" and here and not locks.held(folder / LOCK):
        # It may have ended well between the two looks; what it says now is its last word.
        again = _record(folder)
        if again["status"] == "running" and again.get("process") == record["process"]:
            again["status"] = "died"
        return again
    return record


def status(record: dict[str, Any]) -> str:
    """The status of a run as a person reads it: `refused` where it is done and a stage said no to the ones after it."""
    is_refused = record["status"] == "done" and any(told["status"] == "skipped" for told in record["stages"].values())
    return "refused" if is_refused else str(record["status"])


def write_record(folder: Path, record: dict[str, Any]) -> None:
    """Writes a run's record, whole or not at all, its stages in the order of their work."""
    write_json(folder / RECORD, record, sort_keys=False)


def write_progress(folder: Path, stage: str, event: dict[str, Any]) -> None:
    """Puts a progress event where other processes find it, whole or not at all."""
    facts = {name: _finite(value) for name, value in event["facts"].items()}
    with contextlib.suppress(OSError), containment.written(folder / PROGRESS) as file:  # a full disk ends no run
        json.dump({**event, "facts": facts, "stage": stage, "time": time.time()}, file)


def now(folder: Path, record: dict[str, Any]) -> tuple[str, str] | None:
    """The stage that a running run is at, and for how long and how far it is; None where no stage runs."""
    running = record.get("running")
    if not running or record["status"] != "running":
        return None
    told = clock(time.time() - running["since"])
    if event := _latest_progress(folder, running["stage"]):
        told += "  " + progress.line(event)
    else:
        told += "  starting"
    return running["stage"], told


def progress_of(folder: Path, record: dict[str, Any]) -> dict[str, Any] | None:
    """The stage that a running run is at, with its progress if it has reported any; None where no stage runs."""
    running = record.get("running")
    if not running or record["status"] != "running":
        return None
    return running | (_latest_progress(folder, running["stage"]) or {})


def _latest_progress(folder: Path, stage: str) -> dict[str, Any] | None:
    """The progress that a stage reported last."""
    try:
        event = parse_json(containment.read_file(folder / PROGRESS))
    except OSError:  # none yet, or none any more
        return None
    whole = has_fields(event, {"stage": str}) and progress.is_event(event)
    return event if whole and event["stage"] == stage else None


def end(folder: Path, record: dict[str, Any]) -> str:
    """Why a run did not get to its end, in one line; nothing where it did or still runs."""
    if record["status"] == "died":
        process = record["process"]
        at = f" at {record['running']['stage']}" if record.get("running") else ""
        return f"{folder}: its process {process['pid']} died{at}; the same command goes on from there"
    return str(record.get("error") or "")


def follow(folder: Path, screen: Screen, refresh: Callable[[], None] | None = None) -> dict[str, Any]:
    """Shows stages as they end and how far the running one is, until the run ends.

    Args:
        folder: the run's.
        screen: where to.
        refresh: fetches its record, where that is not on this machine.

    Returns:
        The record: `done`, `failed`, `stopped` or `died`.
    """
    ended: set[str] = set()
    while True:
        if refresh:
            refresh()
        record = read_record(folder)
        for stage, told in record["stages"].items():
            if stage not in ended:
                ended.add(stage)
                screen.result(stage, told["status"], told["seconds"], told["summary"], told["why"])
        if record["status"] != "running":
            screen.clear()
            return record
        if at := now(folder, record):
            screen.say(*at)
        time.sleep(_POLL_FAR_SECONDS if refresh else _POLL_SECONDS)


def point(link: Path, target: Path) -> None:
    """Makes a relative link, in place of an earlier one in one step."""
    draft = link.with_name(f".{link.name}.{os.getpid()}")
    draft.unlink(missing_ok=True)
    draft.symlink_to(os.path.relpath(target, link.parent))
    draft.replace(link)


def _record(folder: Path) -> dict[str, Any]:
    path = folder / RECORD
    try:
        record = parse_record(containment.read_file(path))
    except OSError as error:
        told = error.strerror or error
        raise UserError(
            f"{path}: cannot be read: {told}; make it a file that can be read, or remove {folder}"
        ) from None
    if record is None:
        raise UserError(f"{path}: is no record of a run; run it again, or remove {folder}")
    return record


def _finite(value: Any) -> Any:
    """JSON has no NaN, and a loss may be one."""
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value
