"""What a classifier's predictions look like when it has learnt too little: classes never predicted, one class for nearly all."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from lmworks.pipeline.evaluate.classification import Integers

_NAMED = 5
_MIN_EXCESS = 10


def remarks(matrix: Integers, names: Sequence[str]) -> list[str]:
    """Says which classes are never predicted, and whether one class gets far more predictions than it has labels.

    That is so if the other classes together get fewer than half of the predictions that they have labels, and at least
    10 fewer, so that it is no accident of a few rows.

    Args:
        matrix: int [classes, classes], a row per label, a column per prediction.
        names: the classes in label order.
    """
    labelled, predicted, rows = matrix.sum(axis=1), matrix.sum(axis=0), int(matrix.sum())
    said = []
    never = np.flatnonzero((labelled > 0) & (predicted == 0)).tolist()
    if never:
        listed = ", ".join(names[index] for index in never[:_NAMED])
        more = f" and {len(never) - _NAMED:,} more" if len(never) > _NAMED else ""
        said.append(f"never predicted: {listed}{more}")
    top = int(predicted.argmax())
    others_labelled, others_predicted = rows - int(labelled[top]), rows - int(predicted[top])
    if 2 * others_predicted < others_labelled and others_labelled - others_predicted >= _MIN_EXCESS:
        said.append(
            f"{names[top]} gets {predicted[top] / rows:.0%} of the predictions and has {labelled[top] / rows:.0%} of the labels"
        )
    return said
