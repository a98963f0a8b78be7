"""Predictions of a classifier on sequences, as train validates and evaluate measures."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from lmworks.models.backend import backend
from lmworks.pipeline.sequences import SequenceTable
from lmworks.tfx.progress import report


def predict(compute: Callable[..., Any], table: SequenceTable, batch_size: int = 64) -> np.ndarray:
    """Probabilities of a split, float32 [rows, classes], in the rows' order.

    Args:
        compute: of `text_classification.probabilities`.
        table: the split.
        batch_size: rows at once.
    """
    scores: np.ndarray | None = None
    done = 0
    for batch in table.by_length(batch_size, fixed_shapes=backend() == "jax"):
        found = compute(batch.inputs)[: len(batch.indices)]
        if scores is None:
            scores = np.zeros((len(table), found.shape[1]), np.float32)
        scores[batch.indices] = found
        done += len(found)
        report(done, len(table), "rows")
    assert scores is not None
    return scores
