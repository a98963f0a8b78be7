"""Runs as other processes see them: what a run's folder says while it runs and after.

<run>/run.json       the record; while it runs with `running`: the stage and since when
<run>/progress.json  the latest progress of the running stage
<run>/.lock          held for as long as a process runs it
<run>/<stage>/live   link to the state of a stage that has not finished: what it writes while it works
"""

from __future__ import annotations

import json
import math
import os
import socket
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from lmworks.configs.errors import UserError
from lmworks.tfx import locks, progress
from lmworks.tfx.artifacts import has_fields, parse_json
from lmworks.tfx.readable import clock
from lmworks.tfx.screen import Screen

RECORD, PROGRESS, LOCK, LIVE = "run.json", "progress.json", ".lock", "live"
_POLL_SECONDS, _POLL_FAR_SECONDS = 0.5, 5.0


def folders(root: Path) -> list[Path]:
    """The runs' folders, by the time of their last news."""
    return [path.parent for path in sorted(root.glob(f"*/{RECORD}"), key=_changed)]


def _changed(path: Path) -> float:
    """Time of a file's last change, seconds since the epoch; 0 where it is gone meanwhile."""
    try:
        return path.stat().st_mtime
    except OSError:
        return 0.0


def readable(root: Path) -> list[tuple[Path, dict[str, Any]]]:
    """The runs' folders and records, by the time of their last news; one that cannot be read is named and left out."""
    found = []
    for folder in folders(root):
        try:
            found.append((folder, read_record(folder)))
        except UserError as error:
            print(f"{error}; the run is left out", file=sys.stderr)
    return found


def parse_record(content: bytes) -> dict[str, Any] | None:
    """A run's record as it is written into `run.json`; None where that is damaged or of something else."""
    record = parse_json(content)
    stage = {"status": str, "why": str, "seconds": float | int, "summary": str, "execution": str | None}
    if not has_fields(record, {"run": str, "status": str, "stages": dict}):
        return None
    whole = (
        all(has_fields(told, stage) for told in record["stages"].values())
        and has_fields(record.get("process", {}), {})
        and has_fields(record.get("running", {"stage": "", "since": 0}), {"stage": str, "since": float | int})
        and has_fields(record.get("kept", {}), {})
    )
    return record if whole else None


def this_process() -> dict[str, Any]:
    """What a record says of the process that runs it."""
    return {"pid": os.getpid(), "host": socket.gethostname()}


def is_foreign(content: bytes) -> bool:
    """Whether a `run.json` was written by another program, and is no damaged record of ours."""
    found = parse_json(content)
    return isinstance(found, dict) and "run" not in found


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


def write_progress(folder: Path, stage: str, event: dict[str, Any]) -> None:
    """Puts a progress event where other processes find it, whole or not at all."""
    facts = {name: _finite(value) for name, value in event["facts"].items()}
    draft = folder / f".{PROGRESS}.{os.getpid()}"
    try:
        draft.write_text(json.dumps({**event, "facts": facts, "stage": stage, "time": time.time()}), encoding="utf-8")
        draft.replace(folder / PROGRESS)
    except OSError:  # a full disk, say: nothing that a run should end for
        draft.unlink(missing_ok=True)


def now(folder: Path, record: dict[str, Any]) -> tuple[str, str] | None:
    """The stage that a running run is at, and for how long and how far it is; None where no stage runs."""
    running = record.get("running")
    if not running or record["status"] != "running":
        return None
    told = clock(time.time() - running["since"])
    try:
        event = parse_json((folder / PROGRESS).read_bytes())
    except OSError:  # none yet, or none any more
        event = None
    if has_fields(event, {"stage": str}) and progress.is_event(event) and event["stage"] == running["stage"]:
        told += "  " + progress.line(event)
    else:
        told += "  starting"
    return running["stage"], told


def end(folder: Path, record: dict[str, Any]) -> str:
    """Why a run did not get to its end, in one line; nothing where it did or still runs."""
    if record["status"] == "died":
        process = record["process"]
        at = f" at {record['running']['stage']}" if record.get("running") else ""
        return f"{folder}: its process {process['pid']} died{at}; the same command goes on from there"
    return str(record.get("error") or "")


def show(folder: Path, store: str = "") -> str:
    """One run for a person: its stages, where it is, and the paths of its results.

    Args:
        folder: the run's.
        store: URL of the store that its results are in, where that is not on this machine.
    """
    record = read_record(folder)
    lines = [f"{folder.name}: {record['status']}"]
    for stage, told in record["stages"].items():
        lines.append(f"  {stage:<11} {told['status']:<7} {told['seconds']:8.1f} s  {told['summary']}  [{told['why']}]")
        paths = sorted((folder / stage).glob("[!.]*"))
        lines += [f"    {path}" for path in paths if path.name != LIVE and not store]
        if store and told["execution"]:
            lines.append(f"    {store}/{told['execution']}/")
    if at := now(folder, record):
        lines.append(f"  {at[0]:<11} running {at[1]}")
    lines += [f"    {path}  (not finished)" for path in sorted(folder.glob(f"*/{LIVE}"))]
    if why := end(folder, record):
        lines.append(f"  {why}")
    return "\n".join(lines)


def follow(folder: Path, screen: Screen, refresh: Callable[[], None] | None = None) -> dict[str, Any]:
    """Shows stages as they end and how far the running one is, until the run ends.

    Args:
        folder: the run's.
        screen: where to.
        refresh: fetches its record, where that is not on this machine.

    Returns:
        The record: `done`, `failed` or `died`.
    """
    shown: set[str] = set()
    while True:
        if refresh:
            refresh()
        record = read_record(folder)
        for stage, told in record["stages"].items():
            if stage not in shown:
                shown.add(stage)
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
        record = parse_record(path.read_bytes())
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror or error}") from None
    if record is None:
        raise UserError(f"{path}: is no record of a run; run it again, or remove {folder}")
    return record


def _finite(value: Any) -> Any:
    """JSON has no NaN, and a loss may be one."""
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value
