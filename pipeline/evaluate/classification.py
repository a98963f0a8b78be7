"""Figures of a classifier and their 95 % intervals, equal to scikit-learn's, in pure NumPy.

The prediction is the class of the highest score, the first one of a tie. Every class counts, as in scikit-learn with
`labels=range(classes)` and `zero_division=0`: a class that is neither labelled nor predicted has precision, recall and
F1 of 0, and lowers the macro means. So a macro mean has the same meaning in a slice that lacks a class as in the split.
Figures of a class without labelled rows are left out of what is written: they say nothing of the class.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NotRequired, TypedDict

import numpy as np
from numpy.typing import NDArray

from lmworks.configs.errors import UserError
from lmworks.pipeline.evaluate.intervals import (
    Bounds,
    Floats,
    f1,
    mean_f1,
    mean_of_proportions,
    skewed_mean,
    weighted_precision,
    wilson,
    within,
)

Integers = NDArray[np.integer[Any]]
Scores = NDArray[np.floating[Any]]

PER_CLASS = ("precision", "recall", "f1")
MIN_MISTAKES = 5
"""With fewer wrong rows the log loss has no interval: its tail, which they make, is not known."""


class Figure(TypedDict):
    """One metric as in metrics.json; it has no interval where the data say too little for one."""

    value: float
    ci95: NotRequired[tuple[float, float]]


class Calibration(TypedDict):
    """Bins of a reliability diagram: arrays [bins], NaN in `confidence` and `accuracy` where a bin is empty."""

    error: float
    examples: NDArray[np.int64]
    confidence: Floats
    accuracy: Floats


def check(labels: Integers, scores: Scores, names: Sequence[str]) -> None:
    """Refuses arrays that no figure can be computed from.

    Args:
        labels: int [n], in `range(classes)`.
        scores: float [n, classes], probabilities.
        names: the classes in label order.

    Raises:
        UserError: the split is empty, or a score is not a finite number.
        ValueError: the shapes or labels do not fit each other: a mistake of the caller.
    """
    if not len(labels):
        raise UserError("the split is empty")
    if scores.shape != (len(labels), len(names)):
        raise ValueError(f"scores {scores.shape} do not fit {len(labels)} labels and {len(names)} classes")
    if labels.min() < 0 or labels.max() >= len(names):
        raise ValueError(f"labels from {labels.min()} to {labels.max()} do not fit {len(names)} classes")
    bad = int((~np.isfinite(scores).all(axis=1)).sum())
    if bad:
        raise UserError(
            f"the model gives no finite probabilities for {bad} of {len(labels)} rows; did training diverge?"
        )


def row_log_loss(labels: Integers, scores: Scores) -> Floats:
    """Negative log-likelihood of each row's label in nats: float64 [n].

    Like scikit-learn's `log_loss`, clips to [eps, 1 - eps] with the machine precision of the scores' own type (the
    float32 next to 1 says no more than that) and does not normalise rows; unlike it, sums in float64.
    """
    epsilon = float(np.finfo(np.float32 if scores.dtype == np.float32 else np.float64).eps)
    likelihood = np.take_along_axis(scores, np.asarray(labels)[:, None], axis=1)[:, 0].astype(np.float64)
    return -np.log(np.clip(likelihood, epsilon, 1 - epsilon))


def _ratio(numerator: Floats, denominator: Floats) -> Floats:
    """Quotient that is 0 where the denominator is: scikit-learn's `zero_division=0`."""
    return np.divide(numerator, denominator, out=np.zeros(numerator.shape), where=denominator > 0)


def _formulas(
    hits: Floats, labelled: Floats, predicted: Floats, log_loss: Floats, names: Sequence[str]
) -> dict[str, Floats]:
    """All metrics of one sample or of many at once.

    Formulas: https://scikit-learn.org/stable/modules/model_evaluation.html#precision-recall-and-f-measures

    Args:
        hits: float64 [..., classes], rows of the class that are predicted as it.
        labelled: float64 [..., classes], rows whose label is the class.
        predicted: float64 [..., classes], rows predicted as the class.
        log_loss: float64 [...], mean over the rows.
        names: the classes in label order.

    Returns:
        Metric names to float64 [...].
    """
    examples = labelled.sum(axis=-1)
    per_class = {
        "precision": _ratio(hits, predicted),
        "recall": _ratio(hits, labelled),
        "f1": _ratio(2 * hits, labelled + predicted),
    }
    figures = {"accuracy": hits.sum(axis=-1) / examples}
    figures |= {f"{kind}_macro": values.mean(axis=-1) for kind, values in per_class.items()}
    figures |= {f"{kind}_weighted": (values * labelled).sum(axis=-1) / examples for kind, values in per_class.items()}
    figures["log_loss"] = log_loss
    for index, name in enumerate(names):
        figures |= {f"{kind}/{name}": values[..., index] for kind, values in per_class.items()}
    return figures


def confusion(labels: Integers, predictions: Integers, classes: int) -> NDArray[np.int64]:
    """Counts of (label, prediction): int64 [classes, classes], a row per label, a column per prediction.

    Args:
        labels: int [n], in `range(classes)`.
        predictions: int [n], in `range(classes)`.
        classes: number of classes.
    """
    cells = np.asarray(labels, np.int64) * classes + predictions
    return np.bincount(cells, minlength=classes * classes).reshape(classes, classes)


def measure(labels: Integers, scores: Scores, names: Sequence[str]) -> dict[str, float]:
    """Metrics of a split or slice.

    Args:
        labels: int [n], in `range(classes)`.
        scores: float32 [n, classes], probabilities.
        names: the classes in label order.

    Returns:
        `accuracy`; `precision`, `recall` and `f1`, each as `_macro`, `_weighted` and per class as `f1/<name>`;
        `log_loss` in nats.

    Raises:
        UserError: the split is empty, or a score is not a finite number.
    """
    check(labels, scores, names)
    matrix = confusion(labels, scores.argmax(axis=1), len(names)).astype(np.float64)
    loss = row_log_loss(labels, scores).mean()
    figures = _formulas(matrix.diagonal(), matrix.sum(axis=1), matrix.sum(axis=0), loss, names)
    return {name: float(value) for name, value in figures.items()}


def intervals(labels: Integers, scores: Scores, names: Sequence[str]) -> dict[str, Bounds]:
    """Computes 95 % confidence intervals of what `measure` gives; the module `intervals` says by which methods.

    Args:
        labels: int [n], in `range(classes)`.
        scores: float32 [n, classes], probabilities.
        names: the classes in label order.

    Returns:
        Metric names to (lower, upper); a metric of which the rows say too little is missing.

    Raises:
        UserError: the split is empty, or a score is not a finite number.
    """
    check(labels, scores, names)
    predictions = scores.argmax(axis=1)
    matrix = confusion(labels, predictions, len(names)).astype(np.float64)
    hits, labelled, predicted = matrix.diagonal(), matrix.sum(axis=1), matrix.sum(axis=0)
    low, high = wilson(hits.sum(), len(labels))
    accuracy = (float(low), float(high))
    every_class = bool((labelled > 0).all())
    bounds: dict[str, Bounds | None] = {
        "accuracy": accuracy,
        "precision_macro": mean_of_proportions(hits, predicted) if every_class else None,
        "recall_macro": mean_of_proportions(hits, labelled),
        "f1_macro": mean_f1(matrix),
        "precision_weighted": weighted_precision(matrix),
        "recall_weighted": accuracy,  # which it is: the weights are the recalls' own denominators
        "f1_weighted": mean_f1(matrix, labelled / len(labels)),
    }
    if (predictions != labels).sum() >= MIN_MISTAKES:
        bounds["log_loss"] = within(skewed_mean(row_log_loss(labels, scores)), 0.0, math.inf)
    per_class = {
        "precision": wilson(hits, predicted),
        "recall": wilson(hits, labelled),
        "f1": f1(hits, labelled, predicted),
    }
    for kind, (lows, highs) in per_class.items():
        for name, low, high in zip(names, lows.tolist(), highs.tolist(), strict=True):
            bounds[f"{kind}/{name}"] = None if np.isnan(low) else (low, high)
    return {name: bound for name, bound in bounds.items() if bound}


def figures(labels: Integers, scores: Scores, names: Sequence[str]) -> dict[str, Figure]:
    """Gives `measure` and `intervals` in the form of metrics.json, without the classes that have no labelled rows.

    Args:
        labels: int [n], in `range(classes)`.
        scores: float32 [n, classes], probabilities.
        names: the classes in label order.

    Raises:
        UserError: the split is empty, or a score is not a finite number.
    """
    values, bounds = measure(labels, scores, names), intervals(labels, scores, names)
    rows = np.bincount(labels, minlength=len(names))
    absent = {f"{kind}/{name}" for name, count in zip(names, rows, strict=True) if not count for kind in PER_CLASS}
    return {
        name: Figure(value=value, ci95=bounds[name]) if name in bounds else Figure(value=value)
        for name, value in values.items()
        if name not in absent
    }


def calibration(labels: Integers, scores: Scores, bins: int = 10) -> Calibration:
    """Reliability of the predicted class's probability, and the expected calibration error.

    ECE = sum over bins of |accuracy - confidence| x share of rows (Guo et al. 2017, arXiv:1706.04599, equation 3), with
    bins of equal width, open below and closed above.

    Args:
        labels: int [n], in `range(classes)`.
        scores: float32 [n, classes], probabilities.
        bins: number of bins over (0, 1].
    """
    confidence = scores.max(axis=1).astype(np.float64)
    index = np.clip(np.ceil(confidence * bins).astype(np.int64) - 1, 0, bins - 1)
    examples = np.bincount(index, minlength=bins)
    empty = np.full(bins, np.nan)
    some = examples > 0
    sums = (np.bincount(index, weights, bins) for weights in (confidence, scores.argmax(axis=1) == labels))
    mean, accuracy = (np.divide(total, examples, out=empty.copy(), where=some) for total in sums)
    error = float(np.nansum(np.abs(accuracy - mean) * examples) / len(labels))
    return Calibration(error=error, examples=examples, confidence=mean, accuracy=accuracy)
