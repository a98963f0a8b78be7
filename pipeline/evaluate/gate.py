"""Whether a model is blessed: its metrics within the thresholds of the config."""

from __future__ import annotations

import difflib
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from lmworks.configs.errors import UserError
from lmworks.configs.metrics import can_fail, unknown_metric
from lmworks.configs.schema import Threshold
from lmworks.pipeline.evaluate.classification import PER_CLASS, Figure
from lmworks.tfx.artifacts import write_json
from lmworks.tfx.readable import apart

NO_THRESHOLDS = "no thresholds set"


class Gate(NamedTuple):
    """The decision on a model."""

    blessed: bool
    """No threshold is broken, also where there is none: then the model passes, and nothing says that it is good."""
    reasons: list[str]
    """The broken thresholds; else the kept ones; else that there are none."""
    thresholds: int
    """How many of them could be broken."""

    @property
    def verdict(self) -> str:
        """What a person is shown: a model of which nothing was demanded is not called blessed."""
        if not self.blessed:
            return f"NOT blessed: {'; '.join(self.reasons)}"
        return "blessed" if self.thresholds else "; ".join(self.reasons)

    def properties(self) -> dict[str, Any]:
        """Properties of the evaluation, which clusters show: `blessed` only where something was demanded."""
        return {"blessed": self.blessed} if self.thresholds or not self.blessed else {"gate": NO_THRESHOLDS}

    def write(self, folder: Path) -> None:
        """Writes blessing.json."""
        write_json(folder / "blessing.json", self._asdict())


def check_names(thresholds: Collection[str], classes: Sequence[str]) -> None:
    """Refuses thresholds on classes that the model does not have: before it predicts, not after.

    Raises:
        UserError: with all such thresholds.
    """
    known = {f"{kind}/{name}" for kind in PER_CLASS for name in classes}
    unknown = [name for name in thresholds if "/" in name and name not in known]
    if unknown:
        raise UserError(
            "\n".join(
                f"evaluate.thresholds.{name}: {unknown_metric(name, 'text_classification', classes)}"
                for name in unknown
            )
        )


def gate(
    metrics: Mapping[str, Figure], thresholds: Mapping[str, Threshold], split: str, classes: Sequence[str] = ()
) -> Gate:
    """Decides whether every metric's value, not its interval, lies within its bounds, inclusive.

    Args:
        metrics: of the split.
        thresholds: bounds of metrics.
        split: name of the split.
        classes: of the model; a threshold on one of them that has no rows in the split is broken.

    Raises:
        UserError: a threshold names a metric that there is not.
    """
    kept: list[str] = []
    broken: list[str] = []
    absent = {f"{kind}/{name}" for kind in PER_CLASS for name in classes} - metrics.keys()
    for name, threshold in thresholds.items():
        if name in absent:
            broken.append(f"{name}: the class has no rows in the {split} split")
            continue
        if name not in metrics:
            raise UserError(_no_metric(name, metrics))
        value = metrics[name]["value"]
        if threshold.min is not None:
            # Not `value < min`: a bound of NaN must never bless.
            holds = value >= threshold.min
            shown, bound = apart(value, threshold.min)
            (kept if holds else broken).append(
                f"{name} {shown} is {'at least' if holds else 'below'} the minimum {bound}"
            )
        if threshold.max is not None:
            holds = value <= threshold.max
            shown, bound = apart(value, threshold.max)
            (kept if holds else broken).append(
                f"{name} {shown} is {'at most' if holds else 'above'} the maximum {bound}"
            )
    failing = sum(can_fail(name, threshold.min, threshold.max) for name, threshold in thresholds.items())
    none = NO_THRESHOLDS if not thresholds else f"{NO_THRESHOLDS} that could fail"
    reasons = broken or (kept if failing else [none])
    return Gate(not broken, reasons, failing)


def _no_metric(name: str, known: Collection[str]) -> str:
    near = difflib.get_close_matches(name, known, n=1, cutoff=0)
    return f"evaluate.thresholds: there is no metric {name!r}" + (f"; the nearest is {near[0]!r}" if near else "")
