"""The metrics that a gate may have thresholds on: their names and between which values they lie."""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Iterable, Mapping

from lmworks.configs.other_names import VALUE_OF, snake_case

_AVERAGED = ("precision", "recall", "f1")
_SHARE = (0.0, 1.0)
_CLASSIFIER = {
    "accuracy": _SHARE,
    **{f"{kind}_{mean}": _SHARE for kind in _AVERAGED for mean in ("macro", "weighted")},
    "log_loss": (0.0, math.inf),
}
_LANGUAGE_MODEL = {"loss": (0.0, math.inf), "perplexity": (1.0, math.inf), "accuracy": _SHARE}
_CAUSAL_LM = {**_LANGUAGE_MODEL, "bits_per_byte": (0.0, math.inf), "memorised_50grams": _SHARE}
METRICS: Mapping[str, Mapping[str, tuple[float, float]]] = {
    "text_classification": _CLASSIFIER,
    "causal_lm": _CAUSAL_LM,
    "masked_lm": _LANGUAGE_MODEL,
}
"""Task to metric to the lowest and the highest value it can have; a classifier also has each of `f1/<class>` for its classes."""
_OF_CLASS = re.compile(rf"(?:{'|'.join(_AVERAGED)})/(?P<label>.+)", re.DOTALL)


def _range(name: str) -> tuple[float, float]:
    if _OF_CLASS.fullmatch(name):
        return _SHARE
    return next((metrics[name] for metrics in METRICS.values() if name in metrics), (-math.inf, math.inf))


def can_fail(name: str, low: float | None, high: float | None) -> bool:
    """Whether a model can be on the wrong side of a bound: an accuracy cannot be below 0."""
    least, most = _range(name)
    return (low is not None and not low <= least) or (high is not None and not high >= most)


def unknown_metric(name: str, task: str, labels: Iterable[str] = ()) -> str | None:
    """Why a task has no metric of this name; None where it has.

    Args:
        name: of the metric.
        task: of the config.
        labels: the classes, where the config names them.
    """
    known = list(METRICS[task])
    if task == "text_classification":
        labels = [str(label) for label in labels]
        match = _OF_CLASS.fullmatch(name)
        if match and (not labels or match["label"] in labels):
            return None
        known += [f"{kind}/{label}" for kind in _AVERAGED for label in labels]
    if name in known:
        return None
    meant = VALUE_OF.get(snake_case(name))
    near = [meant] if meant in known else difflib.get_close_matches(name, known, n=1, cutoff=0.6)
    hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(known)}"
    return f"{task} has no such metric; {hint}"


def unreachable(name: str, low: float | None, high: float | None) -> str | None:
    """Why no model can be within the bounds; None where one can."""
    least, most = _range(name)
    if low is not None and low > most:
        percent = f"; in per cent? {low / 100:g}" if most == 1 and low <= 100 else ""
        return f"min {low:g} is above {most:g}, the most it can be{percent}"
    if high is not None and high < least:
        return f"max {high:g} is below {least:g}, the least it can be"
    return None
