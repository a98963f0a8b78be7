"""Losses of language models: sums over real targets, to be divided by the number of targets of the whole optimizer step."""

from __future__ import annotations

import functools
from collections.abc import Callable

import tensorflow as tf

_MOST_LOGITS = 1 << 26
"""Logits that are held at once; more rows are worked on in turn."""


def cross_entropy(
    states: tf.Tensor,
    embeddings: tf.Tensor,
    targets: tf.Tensor,
    weights: tf.Tensor,
    smoothing: float = 0.0,
    z_loss: float = 0.0,
    bias: tf.Tensor | None = None,
    soft_cap: float | None = None,
) -> tuple[tf.Tensor, tf.Tensor]:
    """Cross-entropy of a softmax over a vocabulary, summed over targets, in nats.

    The logits `states · embeddingsᵀ + bias` are computed in the states' precision, everything after them in float32. The
    gradient is computed along with the loss, from the same softmax, so that logits are neither kept nor computed twice.

    Args:
        states: float [n, width] or [batch, n, width].
        embeddings: float32 [vocabulary, width].
        targets: int32 [n] or [batch, n].
        weights: float32, as `targets`, 0 where there is no target; no gradient flows into them.
        smoothing: label smoothing (Szegedy et al. 2016, arXiv:1512.00567, section 7).
        z_loss: weight of the squared log-normaliser (Chowdhery et al. 2022, arXiv:2204.02311, section 5).
        bias: float32 [vocabulary].
        soft_cap: what logits stay within: they become soft_cap · tanh(logits / soft_cap) (Gemma 2, arXiv:2408.00118).

    Returns:
        What is trained, and the plain cross-entropy, without smoothing and z-loss, to be reported: float32 scalars.
    """
    states = tf.reshape(states, [-1, states.shape[-1]])
    targets, weights = tf.reshape(targets, [-1]), tf.reshape(weights, [-1])
    vocabulary, count = embeddings.shape[0], states.shape[0]
    # Parts of one size: XLA compiles for each size that there is.
    rows = max(1, -(-count // max(1, -(-count * vocabulary // _MOST_LOGITS))))

    @tf.custom_gradient
    def compute(
        states: tf.Tensor, embeddings: tf.Tensor, bias: tf.Tensor
    ) -> tuple[tuple[tf.Tensor, tf.Tensor], object]:
        matrix = tf.cast(embeddings, states.dtype)
        # Slopes of a large vocabulary are too small for float16, whose loss is scaled only after this.
        exact = tf.float32 if states.dtype == tf.float16 else states.dtype
        to_states: list[tf.Tensor] = []
        sums: list[tf.Tensor] = []
        for begin in range(0, max(count, 1), rows):
            # One part after the other, or the logits of several would be held at once.
            with tf.control_dependencies([*to_states[-1:], *sums]):
                here = slice(begin, begin + rows)
                some = states[here]
                logits = tf.cast(tf.matmul(some, matrix, transpose_b=True), tf.float32) + bias
                if soft_cap is not None:
                    bent = tf.tanh(logits / soft_cap)
                    logits = soft_cap * bent
                trained, plain, slope = _softmax(logits, targets[here], weights[here], smoothing, z_loss, exact)
                if soft_cap is not None:
                    slope *= tf.cast(1.0 - tf.square(bent), exact)
                to_states.append(tf.matmul(slope, tf.cast(matrix, exact)))
                to_matrix = tf.cast(tf.matmul(slope, tf.cast(some, exact), transpose_a=True), tf.float32)
                found = [trained, plain, to_matrix, tf.reduce_sum(tf.cast(slope, tf.float32), axis=0)]
                sums = [one + other for one, other in zip(sums, found, strict=True)] if sums else found
        trained, plain, to_matrix, to_bias = sums

        def gradient(upstream: tf.Tensor, _: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
            wide = tf.cast(tf.concat(to_states, 0), tf.float32) * upstream
            return tf.cast(wide, states.dtype), to_matrix * upstream, to_bias * upstream

        return (trained, plain), gradient

    return compute(states, embeddings, tf.zeros([vocabulary]) if bias is None else bias)


def _softmax(
    logits: tf.Tensor, targets: tf.Tensor, weights: tf.Tensor, smoothing: float, z_loss: float, dtype: tf.DType
) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """Trained loss, plain loss, and the trained one's gradient by the logits: `dtype` [n, vocabulary]."""
    chances = tf.nn.softmax(logits)
    # The largest chance is never tiny, so this is exact where the target's own chance underflows.
    normalizer = tf.reduce_max(logits, axis=1) - tf.math.log(tf.reduce_max(chances, axis=1))
    chosen = tf.gather(logits, targets, batch_dims=1)
    nll = normalizer - chosen
    loss = nll + z_loss * tf.square(normalizer) if z_loss else nll
    if smoothing:
        loss += smoothing * (chosen - tf.reduce_mean(logits, axis=1))
    scale = weights * (1.0 + 2.0 * z_loss * normalizer)
    slope = _slope(float(smoothing), dtype)(chances, scale, weights, targets)
    return tf.reduce_sum(loss * weights), tf.reduce_sum(nll * weights), slope


@functools.cache
def _slope(smoothing: float, dtype: tf.DType) -> Callable[..., tf.Tensor]:
    """The gradient from the softmax in one pass over memory."""

    @functools.partial(tf.function, jit_compile=True, autograph=False, reduce_retracing=True)
    def compute(chances: tf.Tensor, scale: tf.Tensor, weights: tf.Tensor, targets: tf.Tensor) -> tf.Tensor:
        vocabulary = tf.shape(chances)[1]
        hit = tf.range(vocabulary)[None, :] == targets[:, None]
        wanted = tf.where(hit, 1.0 - smoothing, 0.0) + smoothing / tf.cast(vocabulary, tf.float32)
        return tf.cast(chances * scale[:, None] - wanted * weights[:, None], dtype)

    return compute
