"""What a person reads at the end of `lmworks run`: where the results are, and the commands that come next."""

from __future__ import annotations

import shlex
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from absl import flags

from lmworks.configs.shown import shown
from lmworks.configs.url_secrets import masked_url
from lmworks.tfx.artifacts import manifest_of
from lmworks.tfx.local import LOG, Result

_REPORTS = (("evaluate", "evaluation/report.html"), ("ingest", "statistics/report.html"))
_EVALUATION, _SERVABLE = ("evaluate", "evaluation"), ("export", "servable")


def closing(root: str, run: str, results: Sequence[Result]) -> list[str]:
    """Returns lines that say where a run's report, servable and logs are, and what to do next.

    Args:
        root: folder or URL of the runs.
        run: name of the run.
        results: of its stages.
    """
    at_url = "://" in root
    by_stage = {result.stage: result for result in results}
    options = [] if root == "runs" else [f"--root={root}"]
    rows: list[tuple[str, str]] = []
    if why := _verdict(by_stage.get("evaluate")):
        rows.append(("refused", why))
    for stage, name in _REPORTS:
        if path := _place(root, run, by_stage.get(stage), name):
            rows.append(("report", path))
            break
    servable = _place(root, run, by_stage.get(_SERVABLE[0]), _SERVABLE[1])
    if servable:
        rows.append(("servable", servable))
    logs = sorted(Path(root, run).glob(f"*/{LOG}")) if not at_url else []
    if logs:
        rows.append(("logs", f"{root.rstrip('/')}/{run}/*/{LOG}"))
    following = [_command("runs", run, *options), _command("board", *options)]
    if servable and not at_url:
        following.insert(0, _predict(servable, by_stage[_SERVABLE[0]]))
    rows += [("next" if not place else "", command) for place, command in enumerate(following)]
    return [f"  {name:<9} {text}" for name, text in rows]


def go_on(values: flags.FlagValues) -> str:
    """Returns the line that says which command goes on where this one was stopped.

    Args:
        values: flags of the command.
    """
    present = [line for name in values for line in _written(values[name]) if name == values[name].name]
    public = [masked_url(line) for line in present]
    hint = "" if public == present else "  (with what … hides set again)"
    return shown(f"  {'go on':<9} {_command('run', *public)}{hint}")


def _written(flag: Any) -> list[str]:
    if not flag.present:
        return []
    values = flag.value if isinstance(flag.value, list) else [flag.value]
    return [f"--{flag.name}" if value is True else f"--{flag.name}={value}" for value in values]


def _command(*words: str) -> str:
    """Returns a command as it can be typed."""
    program = sys.argv[0] if Path(sys.argv[0]).name == "lmworks" and not shutil.which("lmworks") else "lmworks"
    return shlex.join([program, *words])


def _predict(servable: str, result: Result) -> str:
    assert result.folder is not None
    manifest = manifest_of(result.folder / _SERVABLE[1])
    told = manifest["properties"] if manifest else {}
    text = "--text='… [MASK] …'" if told.get("task") == "masked_lm" else "--text='…'"
    more = " --text_b='…'" if told.get("text_pair") else ""
    return f"{_command('predict', f'--servable={servable}')} {text}{more}"


def _place(root: str, run: str, result: Result | None, name: str) -> str:
    """Returns where an output of a stage is, empty if there is none: the run's link here, the execution at a URL."""
    if result is None or result.folder is None:
        return ""
    if "://" in root:
        return f"{root.rstrip('/')}/store/{result.stage}/{result.folder.name}/{name}"
    path = Path(root, run, result.stage, name)
    return str(path) if path.exists() else ""


def _verdict(evaluated: Result | None) -> str:
    """Returns why the gate refused."""
    if (
        evaluated is None
        or evaluated.folder is None
        or (manifest := manifest_of(evaluated.folder / _EVALUATION[1])) is None
    ):
        return ""
    # Metrics come first in the summary, and reasons behind the verdict.
    return str(manifest["properties"].get("summary", "")).partition("NOT blessed: ")[2]
