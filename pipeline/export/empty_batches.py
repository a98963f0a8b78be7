"""Batches without a text, which a server may be sent."""

from __future__ import annotations

from collections.abc import Callable

import tensorflow as tf


def compute_rows(compute: Callable[..., dict[str, tf.Tensor]], *texts: tf.Tensor) -> dict[str, tf.Tensor]:
    """Computes the outputs of texts, of none too; works inside a graph.

    Models need a row: the longest of none has no length. An empty text stands in for it, and its outputs are left out.

    Args:
        compute: texts, string [batch], at least one, to outputs [batch, …].
        texts: string [batch] each.

    Returns:
        Outputs [batch, …].
    """
    rows = tf.shape(texts[0])[0]
    absent = tf.fill([tf.cast(rows == 0, tf.int32)], "")
    outputs = compute(*(tf.concat([text, absent], axis=0) for text in texts))
    return {name: output[:rows] for name, output in outputs.items()}
