"""Runs for people and for scripts: `lmworks runs`, as text and as JSON."""

from __future__ import annotations

import datetime
import time
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from lmworks.configs.shown import shown
from lmworks.tfx import runs
from lmworks.tfx.artifacts import manifest_of
from lmworks.tfx.colours import Paint
from lmworks.tfx.readable import clock
from lmworks.tfx.screen import MARKS, wrapped

_GAP = "  "
_INDENT = 31
"""Cells before a stage's summary."""


def table(
    records: Iterable[tuple[Path, dict[str, Any]]], width: int | None = None, paint: Paint | None = None
) -> list[str]:
    """Lists runs, a line each below the columns' names.

    Args:
        records: The runs' folders and records; see `runs.readable`.
        width: Characters that a line may have; None for any number.
        paint: Colours the runs' status; None for no colours.

    Returns:
        Lines; empty if there is no run.
    """
    rows = [
        tuple(
            map(
                shown,
                (folder.name, runs.status(record), _started(record), _took(record), _news(folder, record)),
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
    lines = [line if width is None or len(line) <= width else f"{line[: width - 1]}…" for line in lines]
    if paint:
        lines[1:] = [
            _painted(line, widths[0] + len(_GAP), row[1], paint) for line, row in zip(lines[1:], rows[1:], strict=True)
        ]
    return lines


def _painted(line: str, begin: int, word: str, paint: Paint) -> str:
    """Colours a status word in a line, if the line was not cut before its end."""
    end = begin + len(word)
    return line[:begin] + paint.status(word) + line[end:] if line[begin:end] == word else line


def show(folder: Path, store: str = "", width: int | None = None, paint: Paint | None = None) -> str:
    """Describes a run: its stages, how far it is, and the paths of its results.

    Args:
        folder: The run's folder.
        store: URL of the store that holds its results, if that is not on this machine.
        width: Cells of a line, if longer ones are to be wrapped; those that end with a path never are.
        paint: Colours the words that say how the run and its stages ended; None for no colours.

    Returns:
        Lines.
    """
    record = runs.read_record(folder)
    name, status = shown(folder.name), runs.status(record)
    facts = (status, _started(record), _took(record), str(record.get("recipe") or ""))
    lines = [f"{name}: {_GAP.join(shown(fact) for fact in facts if fact)}"]
    if paint:
        lines = [_painted(lines[0], len(name) + 2, status, paint)]

    def add(text: str, mark: str = "", indent: int = _INDENT) -> None:
        first, *rest = wrapped(text, width, indent) if width else [text]
        lines.extend([_painted(first, 14, mark, paint) if paint else first, *rest])

    for stage, result in record["stages"].items():
        mark = MARKS[result["status"]]
        head = f"  {shown(stage):<11} {mark:<4} {result['seconds']:8.1f} s"
        add(_GAP.join(filter(None, [head, shown(result["summary"]), f"[{shown(result['why'])}]"])), mark)
        lines += [f"    {shown(path)}" for path in _outputs(folder, stage, result, store)]
    at = runs.now(folder, record)
    if at:
        add(f"  {shown(at[0]):<11} running {shown(at[1])}", "running")
    for path in sorted(folder.glob(f"*/{runs.LIVE}")):
        if at is None or path.parent.name != at[0]:
            lines.append(f"  {shown(path.parent.name)}")
        lines.append(f"    {shown(path)}  (not finished)")
    for line in shown(runs.end(folder, record), lines=True).splitlines():
        add(f"  {line}", indent=2)
    return "\n".join(lines)


def as_json(folder: Path, record: dict[str, Any], store: str = "") -> dict[str, Any]:
    """Returns what `show` tells as JSON values.

    Args:
        folder: The run's folder.
        record: Its record; see `runs.read_record`.
        store: URL of the store that holds its results, if that is not on this machine.

    Returns:
        `run`, `status`, `started` (ISO 8601 in UTC), `seconds`, `recipe`, `overrides`, `changed` (the reasons of the stages that
        were made), `stages`, `running` (with `since` and the `time` of the latest progress) and `error`; what is not known is None.
        `figures` of a stage are the numbers that its outputs on this machine have as properties, by output and name.
    """
    running = runs.progress_of(folder, record)
    return {
        "run": folder.name,
        "status": runs.status(record),
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
                "figures": {} if store else _figures(folder / stage),
                "outputs": _outputs(folder, stage, result, store),
            }
            for stage, result in record["stages"].items()
        ],
        "running": running and running | {name: _utc(running[name]) for name in ("since", "time") if name in running},
        "error": runs.end(folder, record) or None,
    }


def _figures(stage: Path) -> dict[str, float]:
    """The numbers among the properties of a stage's outputs, by output and name: `evaluation/accuracy`."""
    manifests = ((path.name, manifest_of(path)) for path in sorted(stage.glob("[!.]*")) if path.is_dir())
    return {
        name: value
        for output, manifest in manifests
        if manifest
        for name, value in _numbers(manifest["properties"], output)
    }


def _numbers(values: Mapping[str, Any], path: str) -> Iterator[tuple[str, float]]:
    for name, value in values.items():
        if isinstance(value, dict):
            yield from _numbers(value, f"{path}/{name}")
        elif isinstance(value, int | float) and not isinstance(value, bool):
            yield f"{path}/{name}", value


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


def _utc(seconds: Any) -> str | None:
    """A time in seconds since the epoch as ISO 8601 in UTC; None for what is no time."""
    return (
        None
        if not runs.is_time(seconds)
        else datetime.datetime.fromtimestamp(seconds, datetime.UTC).isoformat("T", "seconds")
    )
