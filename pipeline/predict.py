"""Predictions of a classifier on sequences, as train validates and evaluate measures."""

from __future__ import annotations

import keras
import numpy as np
import tensorflow as tf

from lmworks.models.text_classification import probabilities
from lmworks.pipeline.sequences import SequenceTable
from lmworks.tfx.progress import report


def predict(classifier: keras.Model, table: SequenceTable, batch_size: int = 64) -> np.ndarray:
    """Probabilities of a split, float32 [rows, classes], in the rows' order."""
    compute = probabilities(classifier)
    scores: np.ndarray | None = None
    done = 0
    for batch in table.by_length(batch_size):
        found = compute({name: tf.constant(value) for name, value in batch.inputs.items()}).numpy()
        if scores is None:
            scores = np.zeros((len(table), found.shape[1]), np.float32)
        scores[batch.indices] = found
        done += len(found)
        report(done, len(table), "rows")
    assert scores is not None
    return scores
