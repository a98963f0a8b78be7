"""Runs for people and for scripts: `lmworks runs`, as text and as JSON."""

from __future__ import annotations

import datetime
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from lmworks.configs.shown import shown
from lmworks.tfx import runs
from lmworks.tfx.readable import clock
from lmworks.tfx.screen import MARKS

_GAP = "  "


def table(records: Iterable[tuple[Path, dict[str, Any]]], width: int | None = None) -> list[str]:
    """Lists runs, a line each below the columns' names.

    Args:
        records: The runs' folders and records; see `runs.readable`.
        width: Characters that a line may have; None for any number.

    Returns:
        Lines; empty if there is no run.
    """
    rows = [
        tuple(
            map(
                shown,
                (folder.name, record["status"], _started(record), _took(record), _news(folder, record)),
            )
        )
        for folder, record in records
    ]
    if not rows:
        return []
    rows.insert(0, ("RUN", "STATUS", "STARTED", "TOOK", "RESULT"))
    widths = [max(len(row[column]) for row in rows) for column in range(4)]
    lines = [
        _GAP.join([*(cell.ljust(size) for cell, size in zip(row, widths, strict=False)), row[-1]]).rstrip()
        for row in rows
    ]
    return [line if width is None or len(line) <= width else f"{line[: width - 1]}…" for line in lines]


def show(folder: Path, store: str = "") -> str:
    """Describes a run: its stages, how far it is, and the paths of its results.

    Args:
        folder: The run's folder.
        store: URL of the store that holds its results, if that is not on this machine.

    Returns:
        Lines.
    """
    record = runs.read_record(folder)
    facts = (record["status"], _started(record), _took(record), str(record.get("recipe") or ""))
    lines = [f"{shown(folder.name)}: {_GAP.join(shown(fact) for fact in facts if fact)}"]
    for stage, result in record["stages"].items():
        lines.append(
            f"  {shown(stage):<11} {MARKS[result['status']]:<4} {result['seconds']:8.1f} s  "
            f"{shown(result['summary'])}  [{shown(result['why'])}]"
        )
        lines += [f"    {shown(path)}" for path in _outputs(folder, stage, result, store)]
    if at := runs.now(folder, record):
        lines.append(f"  {shown(at[0]):<11} running {shown(at[1])}")
    lines += [f"    {shown(path)}  (not finished)" for path in sorted(folder.glob(f"*/{runs.LIVE}"))]
    if why := runs.end(folder, record):
        lines.append(f"  {shown(why, lines=True)}")
    return "\n".join(lines)


def as_json(folder: Path, record: dict[str, Any], store: str = "") -> dict[str, Any]:
    """Returns what `show` tells as JSON values.

    Args:
        folder: The run's folder.
        record: Its record; see `runs.read_record`.
        store: URL of the store that holds its results, if that is not on this machine.

    Returns:
        `run`, `status`, `started` (ISO 8601 in UTC), `seconds`, `recipe`, `overrides`, `changed` (the reasons of the stages that
        were made), `stages`, `running` and `error`; what is not known is None.
    """
    return {
        "run": folder.name,
        "status": record["status"],
        "started": _utc(record.get("began")),
        "seconds": _seconds(record),
        "recipe": record.get("recipe"),
        "overrides": record.get("overrides", []),
        "changed": {stage: result["why"] for stage, result in record["stages"].items() if result["status"] == "made"},
        "stages": [
            {
                "stage": stage,
                "status": MARKS[result["status"]],
                "why": result["why"],
                "seconds": result["seconds"],
                "summary": result["summary"],
                "value": result.get("value"),
                "outputs": _outputs(folder, stage, result, store),
            }
            for stage, result in record["stages"].items()
        ],
        "running": runs.progress_of(folder, record),
        "error": runs.end(folder, record) or None,
    }


def _outputs(folder: Path, stage: str, result: dict[str, Any], store: str) -> list[str]:
    """Paths or URLs of what a stage made, and of its log."""
    if store:
        return [f"{store}/{result['execution']}/"] if result["execution"] else []
    return [str(path) for path in sorted((folder / stage).glob("[!.]*")) if path.name != runs.LIVE]


def _news(folder: Path, record: dict[str, Any]) -> str:
    """How far a run is, why it ended, or what the stage says that judges the model; without that, the last stage."""
    if at := runs.now(folder, record):
        return " ".join(at)
    if error := runs.end(folder, record):
        return error
    results = record["stages"].values()
    judged = [result["summary"] for result in results if result.get("value") is not None]
    return next(iter([*judged, *(result["summary"] for result in reversed(results) if result["summary"])]), "")


def _seconds(record: dict[str, Any]) -> float | None:
    """Seconds from a run's start to its end, or to now if it runs; None if not known."""
    if "began" not in record:
        return None
    ended = time.time() if record["status"] == "running" else record.get("ended")
    return None if ended is None else round(max(0.0, ended - record["began"]), 3)


def _took(record: dict[str, Any]) -> str:
    seconds = _seconds(record)
    return "" if seconds is None else clock(seconds)


def _started(record: dict[str, Any]) -> str:
    began = record.get("began")
    return "" if began is None else time.strftime("%Y-%m-%d %H:%M", time.localtime(began))


def _utc(seconds: float | None) -> str | None:
    """A time in seconds since the epoch as ISO 8601 in UTC."""
    return None if seconds is None else datetime.datetime.fromtimestamp(seconds, datetime.UTC).isoformat("T", "seconds")
