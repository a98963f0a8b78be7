"""The cross-entropy of `losses.py` on the JAX backend."""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp

_MOST_LOGITS = 1 << 28
"""Logits that are held at once over all devices; more positions are worked on in turn."""


def cross_entropy(
    states: jax.Array,
    embeddings: jax.Array,
    targets: jax.Array,
    weights: jax.Array,
    smoothing: float = 0.0,
    z_loss: float = 0.0,
    bias: jax.Array | None = None,
    soft_cap: float | None = None,
) -> tuple[jax.Array, jax.Array]:
    """Cross-entropy of a softmax over a vocabulary, summed over targets, in nats; see `losses.cross_entropy`.

    Args:
        states: float [batch, n, width].
        embeddings: float32 [vocabulary, width].
        targets: int32 [batch, n].
        weights: float32 [batch, n], 0 where there is no target.
        smoothing: label smoothing.
        z_loss: weight of the squared log-normaliser.
        bias: float32 [vocabulary].
        soft_cap: what logits stay within.

    Returns:
        What is trained, and the plain cross-entropy: float32 scalars.
    """
    plain_bias = jnp.zeros(embeddings.shape[0]) if bias is None else bias
    return _sums((smoothing, z_loss, soft_cap), states, embeddings, plain_bias, targets, weights)


_Options = tuple[float, float, float | None]


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _sums(options: _Options, *arrays: jax.Array) -> tuple[jax.Array, jax.Array]:
    return _with_gradient(options, *arrays)[0]


def _with_gradient(
    options: _Options,
    states: jax.Array,
    embeddings: jax.Array,
    bias: jax.Array,
    targets: jax.Array,
    weights: jax.Array,
) -> tuple[tuple[jax.Array, jax.Array], tuple[jax.Array, jax.Array, jax.Array]]:
    """The sums and their gradient, from one softmax, in chunks of positions: batches stay whole for the devices' sake."""
    smoothing, z_loss, soft_cap = options
    batch, count, _ = states.shape
    vocabulary = embeddings.shape[0]
    parts = next(n for n in range(1, count + 1) if (count % n == 0 and batch * (count // n) * vocabulary <= _MOST_LOGITS)
                 or n == count)  # fmt: skip
    matrix = embeddings.astype(states.dtype)
    # Slopes of a large vocabulary are too small for float16, whose loss is scaled only after this.
    exact = jnp.float32 if states.dtype == jnp.float16 else states.dtype

    def part(sums: Any, chunk: Any) -> Any:
        some, wanted, weight = chunk
        logits = jnp.einsum("btw,vw->btv", some, matrix, preferred_element_type=jnp.float32) + bias
        bend = None
        if soft_cap:
            bend = jnp.tanh(logits / soft_cap)
            logits = soft_cap * bend
        normalizer = jax.nn.logsumexp(logits, axis=-1)
        chosen = jnp.take_along_axis(logits, wanted[..., None], axis=-1)[..., 0]
        nll = normalizer - chosen
        loss = nll + z_loss * jnp.square(normalizer)
        loss += smoothing * (chosen - jnp.mean(logits, axis=-1))
        scale = weight * (1.0 + 2.0 * z_loss * normalizer)
        hit = jnp.arange(vocabulary) == wanted[..., None]
        aim = jnp.where(hit, 1.0 - smoothing, 0.0) + smoothing / vocabulary
        slope = jnp.exp(logits - normalizer[..., None]) * scale[..., None] - aim * weight[..., None]
        slope = slope if bend is None else slope * (1.0 - jnp.square(bend))
        to_bias = jnp.sum(slope, axis=(0, 1))
        slope = slope.astype(exact)
        to_states = jnp.einsum("btv,vw->btw", slope, matrix.astype(exact), preferred_element_type=jnp.float32)
        to_matrix = jnp.einsum("btv,btw->vw", slope, some.astype(exact), preferred_element_type=jnp.float32)
        found = (jnp.sum(loss * weight), jnp.sum(nll * weight), to_matrix, to_bias)
        return jax.tree.map(jnp.add, sums, found), to_states

    def chunks(array: jax.Array) -> jax.Array:
        cut = array.reshape(batch, parts, count // parts, *array.shape[2:])
        return jnp.moveaxis(cut, 1, 0)

    zero = (jnp.zeros(()), jnp.zeros(()), jnp.zeros(embeddings.shape, jnp.float32), jnp.zeros(vocabulary, jnp.float32))
    if parts == 1:
        sums, to_states = part(zero, (states, targets, weights))
    else:
        sums, pieces = jax.lax.scan(part, zero, (chunks(states), chunks(targets), chunks(weights)))
        to_states = jnp.moveaxis(pieces, 0, 1).reshape(states.shape)
    trained, plain, to_matrix, to_bias = sums
    return (trained, plain), (to_states, to_matrix, to_bias)


def _forward(options: _Options, *arrays: jax.Array) -> Any:
    sums, gradients = _with_gradient(options, *arrays)
    return sums, (gradients, jnp.zeros((0,), arrays[0].dtype))


def _backward(_: _Options, kept: Any, upstream: tuple[jax.Array, jax.Array]) -> Any:
    (to_states, to_matrix, to_bias), like = kept
    slope = upstream[0]
    return (to_states * slope).astype(like.dtype), to_matrix * slope, to_bias * slope, None, None


_sums.defvjp(_forward, _backward)
