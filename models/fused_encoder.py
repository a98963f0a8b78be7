"""KerasHub's `TransformerEncoder` in training, faster on a CPU: same weights, same mathematics, fewer passes over memory.

Keras runs a layer as a long row of small kernels, each of which reads and writes the whole activation. Here only the matrix
products are kernels of their own; everything between two of them (bias, activation, dropout, residual, normalisation,
softmax) is one program compiled by XLA, and its backward pass computes the intermediate values again rather than reading them.
"""

from __future__ import annotations

import contextlib
import functools
import itertools
from collections.abc import Callable, Iterator
from typing import Any

import keras
import keras_hub
import tensorflow as tf


class _Fused:
    """A function of tensors as one XLA program, and its gradient as another one that starts from the same inputs.

    Inputs that are no floating point numbers (masks, seeds) get no gradient.
    """

    def __init__(self, function: Callable[..., Any]) -> None:
        def backward(upstream: list[tf.Tensor], inputs: list[tf.Tensor]) -> list[tf.Tensor]:
            real = [one for one in inputs if one.dtype.is_floating]
            with tf.GradientTape() as tape:
                tape.watch(real)
                outputs = function(*inputs)
            return tape.gradient(outputs, real, output_gradients=upstream if len(upstream) > 1 else upstream[0])

        compiled = tf.function(function, jit_compile=True, autograph=False, reduce_retracing=True)
        compiled_backward = tf.function(backward, jit_compile=True, autograph=False, reduce_retracing=True)

        @tf.custom_gradient
        def run(*inputs: tf.Tensor) -> Any:
            def grad(*upstream: tf.Tensor) -> list[tf.Tensor | None]:
                found = iter(compiled_backward(list(upstream), list(inputs)))
                return [next(found) if one.dtype.is_floating else None for one in inputs]

            return compiled(*inputs), grad

        self._run = run

    def __call__(self, *inputs: tf.Tensor) -> Any:
        return self._run(*inputs)


def _dropped(x: tf.Tensor, rate: float, seed: tf.Tensor) -> tf.Tensor:
    """Dropout whose mask is a hash of the seed and each element's position, so that the backward pass need not store it.

    The hash is MurmurHash3's 32-bit finaliser (Appleby, public domain): inside XLA on a CPU it costs a fraction of Philox.
    """
    if not rate:
        return x
    place = tf.reshape(tf.range(tf.size(x)), tf.shape(x))
    bits = tf.cast(place, tf.uint32) * tf.constant(0x9E3779B1, tf.uint32) + tf.bitcast(seed, tf.uint32)
    for shift, factor in ((16, 0x85EBCA6B), (13, 0xC2B2AE35)):
        bits = tf.bitwise.bitwise_xor(bits, tf.bitwise.right_shift(bits, tf.constant(shift, tf.uint32)))
        bits *= tf.constant(factor, tf.uint32)
    bits = tf.bitwise.bitwise_xor(bits, tf.bitwise.right_shift(bits, tf.constant(16, tf.uint32)))
    # 24 bits are exact in float32.
    chance = (
        tf.cast(tf.bitcast(tf.bitwise.right_shift(bits, tf.constant(8, tf.uint32)), tf.int32), tf.float32) * 2.0**-24
    )
    return tf.where(chance >= rate, x * (1.0 / (1.0 - rate)), tf.zeros_like(x))


@functools.cache
def _activate(activation: Callable[[Any], Any]) -> _Fused:
    """[rows, width] + bias → activation."""

    def compute(x: tf.Tensor, bias: tf.Tensor) -> tf.Tensor:
        return tf.cast(activation(tf.cast(x, tf.float32) + bias), x.dtype)

    return _Fused(compute)


@functools.cache
def _join(rate: float, epsilon: float) -> _Fused:
    """LayerNorm(residual + dropout(x + bias)), all [rows, width]; moments in float32 (Ba et al. 2016, arXiv:1607.06450)."""

    def compute(
        x: tf.Tensor, bias: tf.Tensor, residual: tf.Tensor, gamma: tf.Tensor, beta: tf.Tensor, seed: tf.Tensor
    ) -> tf.Tensor:
        total = _dropped(tf.cast(x, tf.float32) + bias, rate, seed) + tf.cast(residual, tf.float32)
        centred = total - tf.reduce_mean(total, axis=-1, keepdims=True)
        variance = tf.reduce_mean(tf.square(centred), axis=-1, keepdims=True)
        return tf.cast(centred * tf.math.rsqrt(variance + epsilon) * gamma + beta, x.dtype)

    return _Fused(compute)


@functools.cache
def _split_heads(heads: int) -> _Fused:
    """[batch, length, 3 · width] + bias → queries (scaled), keys, values: [batch, heads, length, width / heads]."""

    def compute(x: tf.Tensor, bias: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        batch, length, size = tf.shape(x)[0], tf.shape(x)[1], x.shape[-1] // 3 // heads
        parts = tf.reshape(tf.cast(x, tf.float32) + bias, [batch, length, 3, heads, size])
        queries, keys, values = tf.unstack(tf.transpose(parts, [2, 0, 3, 1, 4]))
        return tf.cast(queries * size**-0.5, x.dtype), tf.cast(keys, x.dtype), tf.cast(values, x.dtype)

    return _Fused(compute)


@functools.cache
def _weigh(rate: float) -> _Fused:
    """Scores [batch, heads, length, length], mask [batch, length] → dropout(softmax) over the last axis, where the mask is true."""

    def compute(scores: tf.Tensor, mask: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
        low = tf.where(mask[:, None, None, :], tf.cast(scores, tf.float32), -1e9)
        return tf.cast(_dropped(tf.nn.softmax(low), rate, seed), scores.dtype)

    return _Fused(compute)


@functools.cache
def _drop(rate: float) -> _Fused:
    return _Fused(lambda x, seed: tf.cast(_dropped(x, rate, seed), x.dtype))


def _encode(
    layer: keras_hub.layers.TransformerEncoder, x: tf.Tensor, mask: tf.Tensor, seed: Callable[[], tf.Tensor]
) -> tf.Tensor:
    """What `layer.call` computes in training, for x [batch, length, width] and mask bool [batch, length]."""
    dtype, width = x.dtype, x.shape[-1]
    batch, length = tf.shape(x)[0], tf.shape(x)[1]
    attention, rate = layer._self_attention_layer, float(layer.dropout)
    projections = attention._query_dense, attention._key_dense, attention._value_dense

    def product(x: tf.Tensor, kernel: tf.Tensor) -> tf.Tensor:
        return tf.matmul(x, tf.cast(tf.reshape(kernel, [x.shape[-1], -1]), dtype))

    def join(x: tf.Tensor, dense: Any, residual: tf.Tensor, norm: keras.layers.LayerNormalization) -> tf.Tensor:
        x, fused = product(x, _whole(dense.kernel)), _join(rate, float(norm.epsilon))
        return fused(x, _whole(dense.bias), residual, _whole(norm.gamma), _whole(norm.beta), seed())

    rows = tf.reshape(x, [-1, width])
    kernel = tf.concat([tf.reshape(_whole(one.kernel), [width, -1]) for one in projections], axis=1)
    bias = tf.concat([tf.reshape(_whole(one.bias), [-1]) for one in projections], axis=0)
    together = tf.reshape(product(rows, kernel), [batch, length, 3 * width])
    queries, keys, values = _split_heads(layer.num_heads)(together, bias)
    weights = _weigh(rate)(tf.matmul(queries, keys, transpose_b=True), mask, seed())
    context = tf.reshape(tf.transpose(tf.matmul(weights, values), [0, 2, 1, 3]), [-1, width])
    rows = join(context, attention._output_dense, rows, layer._self_attention_layer_norm)
    wide = layer._feedforward_intermediate_dense
    hidden = _activate(layer.activation)(product(rows, _whole(wide.kernel)), _whole(wide.bias))
    rows = join(hidden, layer._feedforward_output_dense, rows, layer._feedforward_layer_norm)
    return tf.reshape(rows, [batch, length, width])


def _whole(variable: Any) -> tf.Tensor:
    """A variable's value in the precision it is kept in, whatever scope of automatic casting is open."""
    return tf.convert_to_tensor(variable._value)


def _can_fuse(layer: keras.layers.Layer) -> bool:
    """Whether the layer is what `_encode` computes: post-norm as in BERT, trained with plain weights."""
    if type(layer) is not keras_hub.layers.TransformerEncoder or layer.normalize_first:
        return False
    attention = layer._self_attention_layer
    dense = [attention._query_dense, attention._key_dense, attention._value_dense, attention._output_dense]
    dense += [layer._feedforward_intermediate_dense, layer._feedforward_output_dense]
    return all(one.bias is not None and not one.lora_enabled and one.quantization_mode is None for one in dense)


def _can_take(layer: keras.layers.Layer) -> bool:
    """Whether the layer is an embedding with plain weights."""
    if not isinstance(layer, keras.layers.Embedding) or layer.mask_zero:
        return False
    return type(layer).call in _EMBEDDING_CALLS and not layer.lora_enabled and layer.quantization_mode is None


_EMBEDDING_CALLS = (keras.layers.Embedding.call, keras.layers.ReversibleEmbedding.call)


@contextlib.contextmanager
def fused_encoders(model: keras.Model, seed: tf.Tensor) -> Iterator[None]:
    """Within it, the model's encoder layers and dropouts run fused where they are called with `training=True`.

    Open it where a training step is traced. Layers that are not KerasHub's post-norm `TransformerEncoder`, or that carry LoRA
    or quantised weights, run as Keras has them, and so does every layer on another backend than TensorFlow.

    Args:
        model: the model that is called inside.
        seed: int32 scalar that decides all dropout; give it another value in every step.
    """
    layers = list(model._flatten_layers(include_self=False))
    encoders = [layer for layer in layers if _can_fuse(layer)]
    inside = {id(part) for encoder in encoders for part in encoder._flatten_layers(include_self=False)}
    dropouts = [layer for layer in layers if type(layer) is keras.layers.Dropout and id(layer) not in inside]
    embeddings = [layer for layer in layers if _can_take(layer)]
    sites = itertools.count()

    def next_seed() -> tf.Tensor:
        # Two odd constants keep the seeds of steps and of places apart; overflow wraps, which is meant.
        return seed * 0x5851F42D + next(sites) * 0x14057B7F

    def encoder_call(layer: Any) -> Callable[..., Any]:
        plain = layer.call

        def call(
            inputs: Any, padding_mask: Any = None, attention_mask: Any = None, training: Any = None, **others: Any
        ) -> Any:
            if training is not True or attention_mask is not None or padding_mask is None or any(others.values()):
                return plain(
                    inputs, padding_mask=padding_mask, attention_mask=attention_mask, training=training, **others
                )
            return _encode(layer, tf.cast(inputs, layer.compute_dtype), tf.cast(padding_mask, tf.bool), next_seed)

        return call

    def dropout_call(layer: Any) -> Callable[..., Any]:
        plain = layer.call

        def call(inputs: Any, training: Any = False) -> Any:
            simple = training is True and layer.rate > 0 and layer.noise_shape is None
            return _drop(float(layer.rate))(inputs, next_seed()) if simple else plain(inputs, training=training)

        return call

    def embedding_call(layer: Any) -> Callable[..., Any]:
        plain = layer.call

        def call(inputs: Any, **others: Any) -> Any:
            if any(others.values()):
                return plain(inputs, **others)
            # Keras reads the whole table and then takes rows of the copy.
            rows = layer._embeddings._value.sparse_read(tf.cast(inputs, tf.int32))
            return tf.cast(rows, layer.compute_dtype)

        return call

    calls = {encoder_call: encoders, dropout_call: dropouts, embedding_call: embeddings}
    try:
        for make, changed in calls.items():
            for layer in changed:
                layer.__dict__["call"] = make(layer)
        yield
    finally:
        for layer in itertools.chain(*calls.values()):
            layer.__dict__.pop("call", None)
