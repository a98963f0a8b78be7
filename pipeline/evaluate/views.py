"""What the pages of Kubeflow and Vertex AI show of an evaluation, as the metadata they read.

The forms are those of KFP's artifacts `system.Metrics` and `system.ClassificationMetrics`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from lmworks.pipeline.evaluate.classification import Figure, Floats, Integers, Scores, confusion
from lmworks.pipeline.evaluate.figures import READABLE_CLASSES

_MAX_POINTS = 200
"""Of a ROC curve: no page shows more, and all of them are held in the cluster's database."""


def metric_view(metrics: Mapping[str, Figure]) -> dict[str, Any]:
    """The values of all metrics but those of single classes and those that are no number."""
    values = {name: figure["value"] for name, figure in metrics.items() if "/" not in name}
    return {name: value for name, value in values.items() if math.isfinite(value)}


def class_view(labels: Integers, scores: Scores, names: Sequence[str]) -> dict[str, Any]:
    """The confusion matrix, where it can be read, and the ROC curve, where there is one.

    Args:
        labels: int [n], in `range(classes)`.
        scores: float32 [n, classes], probabilities.
        names: the classes in label order.
    """
    shown: dict[str, Any] = {}
    if len(names) <= READABLE_CLASSES:
        matrix = confusion(labels, scores.argmax(axis=1), len(names))
        shown["confusionMatrix"] = {
            "annotationSpecs": [{"displayName": name} for name in names],
            "rows": [{"row": counts} for counts in matrix.tolist()],
        }
    # Of two classes the second is the positive one; of more, every class against the others, all counted alike.
    columns = [1] if len(names) == 2 else range(len(names))
    truths = np.concatenate([labels == column for column in columns])
    if 0 < truths.sum() < len(truths):
        rates = roc(truths, np.concatenate([scores[:, column] for column in columns]))
        keep = np.unique(np.linspace(0, len(rates[0]) - 1, _MAX_POINTS).round().astype(int))
        names_of_rates = ("falsePositiveRate", "recall", "confidenceThreshold")
        points = zip(*(one[keep].tolist() for one in rates), strict=True)
        shown["confidenceMetrics"] = [dict(zip(names_of_rates, point, strict=True)) for point in points]
    return shown


def roc(truths: np.ndarray, scores: np.ndarray) -> tuple[Floats, Floats, Floats]:
    """The receiver operating characteristic: a point for each score that occurs, as a threshold.

    Fawcett 2006, An introduction to ROC analysis, algorithm 1.

    Args:
        truths: bool [n], both values occur.
        scores: float [n], probabilities.

    Returns:
        False positive rate, true positive rate and threshold, float64 [points], from (0, 0) at the threshold 1 on, which
        stands for the infinite one, to (1, 1).
    """
    order = np.argsort(-scores, kind="stable")
    last = np.append(np.flatnonzero(np.diff(scores[order])), len(scores) - 1)  # of all rows with the same score
    positives = np.cumsum(truths[order])[last]
    negatives = 1 + last - positives
    return (
        np.append(0.0, negatives / negatives[-1]),
        np.append(0.0, positives / positives[-1]),
        np.append(1.0, scores[order][last].astype(np.float64)),
    )
