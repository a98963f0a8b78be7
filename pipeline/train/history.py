"""How a run was computed, and where that changed when it was resumed.

Some keys may change between a kill and the same command's next start, since they change the result by rounding only: how a step's
rows are cut into micro-batches, devices, rematerialisation. (With dropout another cut draws other masks.) What a key of the store
promises is the result up to that (`tfx/fingerprint.py`); a run that did change them says so, in the model's properties and in its
summary. Code and libraries that are others after a kill are recorded likewise; a finished run of other code is not gone on from.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

from lmworks.configs.schema import TrainStage
from lmworks.models.arithmetic import accelerator


class History:
    """The settings that a run computes with now, and its changes so far.

    Args:
        config: of the run, `batch_size` a number.
        devices: how many compute.
    """

    def __init__(self, config: TrainStage, devices: int) -> None:
        self._settings: dict[str, Any] = {
            "batch_size x accumulate": f"{config.batch_size} x {config.accumulate}",
            "devices": f"{devices} x {accelerator() or 'processor'}",
            "remat": config.remat,
            "steps_per_execution": config.steps_per_execution,
        }
        self.changes: list[dict[str, Any]] = []

    def facts(self) -> dict[str, Any]:
        """Returns what a checkpoint says of it."""
        return {"settings": self._settings, "changes": self.changes}

    def resume(self, step: int, facts: dict[str, Any], changed_code: Sequence[str]) -> None:
        """Takes over the history of a checkpoint, and adds what is different from here on.

        Args:
            step: of the checkpoint.
            facts: what it says.
            changed_code: modules and libraries that were others when it was written.
        """
        self.changes = list(facts["changes"])
        before = facts["settings"]
        changed = {name: [before[name], now] for name, now in self._settings.items() if before[name] != now}
        if changed or changed_code:
            self.changes.append({"step": step, "settings": changed, "code": list(changed_code)})
            print(f"train: {_describe(self.changes[-1])}", file=sys.stderr, flush=True)

    def summary(self) -> str:
        """Describes the changes for a person; empty where there are none."""
        return "; ".join(map(_describe, self.changes))


def _describe(change: dict[str, Any]) -> str:
    parts = [f"{name} {now} (before: {before})" for name, (before, now) in change["settings"].items()]
    if code := change["code"]:
        parts.append("other code (" + ", ".join(code[:3]) + (f" and {len(code) - 3} more)" if len(code) > 3 else ")"))
    return f"resumed at step {change['step']:,} with {', '.join(parts)}"
