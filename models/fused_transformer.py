"""KerasHub's Transformer layers in training, faster on a CPU: same weights, same mathematics, fewer passes over memory.

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

from lmworks.models.replicas import local


class Fused:
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
        """Computes the function; a gradient tape sees one operation."""
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
def _activate(activation: Callable[[Any], Any]) -> Fused:
    """[rows, width] + bias → activation."""

    def compute(x: tf.Tensor, bias: tf.Tensor) -> tf.Tensor:
        return tf.cast(activation(tf.cast(x, tf.float32) + bias), x.dtype)

    return Fused(compute)


@functools.cache
def _join(rate: float, epsilon: float) -> Fused:
    """LayerNorm(residual + dropout(x + bias)), all [rows, width]; moments in float32 (Ba et al. 2016, arXiv:1607.06450)."""

    def compute(
        x: tf.Tensor, bias: tf.Tensor, residual: tf.Tensor, gamma: tf.Tensor, beta: tf.Tensor, seed: tf.Tensor
    ) -> tf.Tensor:
        total = _dropped(tf.cast(x, tf.float32) + bias, rate, seed) + tf.cast(residual, tf.float32)
        return tf.cast(_normal(total, epsilon, gamma, beta), x.dtype)

    return Fused(compute)


def _normal(x: tf.Tensor, epsilon: float, gamma: tf.Tensor, beta: tf.Tensor) -> tf.Tensor:
    centred = x - tf.reduce_mean(x, axis=-1, keepdims=True)
    variance = tf.reduce_mean(tf.square(centred), axis=-1, keepdims=True)
    return centred * tf.math.rsqrt(variance + epsilon) * gamma + beta


@functools.cache
def _normalise(epsilon: float) -> Fused:
    """LayerNorm of x [rows, width]."""

    def compute(x: tf.Tensor, gamma: tf.Tensor, beta: tf.Tensor) -> tf.Tensor:
        return tf.cast(_normal(tf.cast(x, tf.float32), epsilon, gamma, beta), x.dtype)

    return Fused(compute)


@functools.cache
def _add(rate: float) -> Fused:
    """Residual + dropout(x + bias), all [rows, width]."""

    def compute(x: tf.Tensor, bias: tf.Tensor, residual: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
        total = _dropped(tf.cast(x, tf.float32) + bias, rate, seed) + tf.cast(residual, tf.float32)
        return tf.cast(total, x.dtype)

    return Fused(compute)


@functools.cache
def _add_normalise(rate: float, epsilon: float) -> Fused:
    """What `_add` gives, and its LayerNorm."""

    def compute(
        x: tf.Tensor, bias: tf.Tensor, residual: tf.Tensor, gamma: tf.Tensor, beta: tf.Tensor, seed: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor]:
        total = _dropped(tf.cast(x, tf.float32) + bias, rate, seed) + tf.cast(residual, tf.float32)
        return tf.cast(total, x.dtype), tf.cast(_normal(total, epsilon, gamma, beta), x.dtype)

    return Fused(compute)


@functools.cache
def _split_heads(heads: int, size: int) -> Fused:
    """[batch, length, 3 · heads · size] + bias → queries (scaled), keys, values: [batch, heads, length, size].

    The size is no shape to be read off: traced for two widths in one process, TensorFlow no longer knows the last axis.
    """

    def compute(x: tf.Tensor, bias: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        batch, length = tf.shape(x)[0], tf.shape(x)[1]
        parts = tf.reshape(tf.cast(x, tf.float32) + bias, [batch, length, 3, heads, size])
        queries, keys, values = tf.unstack(tf.transpose(parts, [2, 0, 3, 1, 4]))
        return tf.cast(queries * size**-0.5, x.dtype), tf.cast(keys, x.dtype), tf.cast(values, x.dtype)

    return Fused(compute)


@functools.cache
def _weigh(rate: float) -> Fused:
    """Scores [batch, heads, length, length], mask [batch, length] → dropout(softmax) over the last axis, where the mask is true."""

    def compute(scores: tf.Tensor, mask: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
        low = tf.where(mask[:, None, None, :], tf.cast(scores, tf.float32), -1e9)
        return tf.cast(_dropped(tf.nn.softmax(low), rate, seed), scores.dtype)

    return Fused(compute)


@functools.cache
def _weigh_causal(rate: float) -> Fused:
    """Scores [batch, heads, length, length] → dropout(softmax) over the last axis up to each position itself."""

    def compute(scores: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
        places = tf.range(tf.shape(scores)[-1])
        low = tf.where(places[None, :] <= places[:, None], tf.cast(scores, tf.float32), -1e9)
        return tf.cast(_dropped(tf.nn.softmax(low), rate, seed), scores.dtype)

    return Fused(compute)


@functools.cache
def _weigh_masked_causal(rate: float) -> Fused:
    """As `_weigh_causal`, where the mask [batch, length, length] is true too."""

    def compute(scores: tf.Tensor, mask: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
        places = tf.range(tf.shape(scores)[-1])
        seen = mask[:, None] & (places[None, :] <= places[:, None])
        low = tf.where(seen, tf.cast(scores, tf.float32), -1e9)
        return tf.cast(_dropped(tf.nn.softmax(low), rate, seed), scores.dtype)

    return Fused(compute)


@functools.cache
def _drop(rate: float) -> Fused:
    return Fused(lambda x, seed: tf.cast(_dropped(x, rate, seed), x.dtype))


def _product(x: tf.Tensor, kernel: tf.Tensor) -> tf.Tensor:
    return tf.matmul(x, tf.cast(tf.reshape(kernel, [x.shape[-1], -1]), x.dtype))


def _attend(layer: Any, rows: tf.Tensor, shape: tf.Tensor, weigh: Callable[[tf.Tensor], tf.Tensor]) -> tf.Tensor:
    """Context of self-attention before its output projection, for rows [batch · length, width].

    Args:
        layer: a `TransformerEncoder` or `TransformerDecoder`.
        rows: what attends.
        shape: int32 [2], batch and length.
        weigh: turns scores [batch, heads, length, length] into weights.
    """
    attention, width = layer._self_attention_layer, rows.shape[-1]
    projections = attention._query_dense, attention._key_dense, attention._value_dense
    kernel = tf.concat([tf.reshape(_whole(one.kernel), [width, -1]) for one in projections], axis=1)
    bias = tf.concat([tf.reshape(_whole(one.bias), [-1]) for one in projections], axis=0)
    together = tf.reshape(_product(rows, kernel), [shape[0], shape[1], 3 * width])
    queries, keys, values = _split_heads(layer.num_heads, width // layer.num_heads)(together, bias)
    weights = weigh(tf.matmul(queries, keys, transpose_b=True))
    return tf.reshape(tf.transpose(tf.matmul(weights, values), [0, 2, 1, 3]), [-1, width])


def _encode(
    layer: keras_hub.layers.TransformerEncoder, x: tf.Tensor, mask: tf.Tensor, seed: Callable[[], tf.Tensor]
) -> tf.Tensor:
    """What `layer.call` computes in training, for x [batch, length, width] and mask bool [batch, length]; post-norm."""
    rate, width = float(layer.dropout), x.shape[-1]

    def join(x: tf.Tensor, dense: Any, residual: tf.Tensor, norm: keras.layers.LayerNormalization) -> tf.Tensor:
        fused = _join(rate, float(norm.epsilon))
        product = _product(x, _whole(dense.kernel))
        return fused(product, _whole(dense.bias), residual, _whole(norm.gamma), _whole(norm.beta), seed())

    rows = tf.reshape(x, [-1, width])
    context = _attend(layer, rows, tf.shape(x)[:2], lambda scores: _weigh(rate)(scores, mask, seed()))
    rows = join(context, layer._self_attention_layer._output_dense, rows, layer._self_attention_layer_norm)
    wide = layer._feedforward_intermediate_dense
    hidden = _activate(layer.activation)(_product(rows, _whole(wide.kernel)), _whole(wide.bias))
    rows = join(hidden, layer._feedforward_output_dense, rows, layer._feedforward_layer_norm)
    return tf.reshape(rows, tf.shape(x))


def _decode(
    layer: keras_hub.layers.TransformerDecoder,
    x: tf.Tensor,
    seed: Callable[[], tf.Tensor],
    mask: tf.Tensor | None = None,
) -> tf.Tensor:
    """What `layer.call` computes in training, for x [batch, length, width]; pre-norm, causal.

    Where there is a mask, bool [batch, length, length], a token sees only where it is true. A padding mask is not needed:
    padding stands on the right, where no token before it looks.
    """
    rate, width = float(layer.dropout), x.shape[-1]
    first, second = layer._self_attention_layer_norm, layer._feedforward_layer_norm
    rows = tf.reshape(x, [-1, width])
    normal = _normalise(float(first.epsilon))(rows, _whole(first.gamma), _whole(first.beta))

    def weigh(scores: tf.Tensor) -> tf.Tensor:
        if mask is None:
            return _weigh_causal(rate)(scores, seed())
        return _weigh_masked_causal(rate)(scores, mask, seed())

    context = _attend(layer, normal, tf.shape(x)[:2], weigh)
    dense = layer._self_attention_layer._output_dense
    rows, normal = _add_normalise(rate, float(second.epsilon))(
        _product(context, _whole(dense.kernel)),
        _whole(dense.bias),
        rows,
        _whole(second.gamma),
        _whole(second.beta),
        seed(),
    )
    wide, narrow = layer._feedforward_intermediate_dense, layer._feedforward_output_dense
    hidden = _activate(layer.activation)(_product(normal, _whole(wide.kernel)), _whole(wide.bias))
    rows = _add(rate)(_product(hidden, _whole(narrow.kernel)), _whole(narrow.bias), rows, seed())
    return tf.reshape(rows, tf.shape(x))


def _whole(variable: Any) -> tf.Tensor:
    """A variable's value in the precision it is kept in, whatever scope of automatic casting is open."""
    return tf.convert_to_tensor(variable._value)


def _plain(layer: Any) -> bool:
    """Whether a Transformer layer's matrices are plain weights."""
    attention = layer._self_attention_layer
    dense = [attention._query_dense, attention._key_dense, attention._value_dense, attention._output_dense]
    dense += [layer._feedforward_intermediate_dense, layer._feedforward_output_dense]
    return all(one.bias is not None and not one.lora_enabled and one.quantization_mode is None for one in dense)


def _can_encode(layer: keras.layers.Layer) -> bool:
    """Whether the layer is what `_encode` computes: post-norm as in BERT."""
    return type(layer) is keras_hub.layers.TransformerEncoder and not layer.normalize_first and _plain(layer)


def _can_decode(layer: keras.layers.Layer) -> bool:
    """Whether the layer is what `_decode` computes: pre-norm without cross-attention, as in GPT-2."""
    simple = type(layer) is keras_hub.layers.TransformerDecoder and layer.normalize_first
    return simple and layer._cross_attention_layer is None and _plain(layer)


def _can_take(layer: keras.layers.Layer) -> bool:
    """Whether the layer is an embedding with plain weights."""
    if not isinstance(layer, keras.layers.Embedding) or layer.mask_zero:
        return False
    return type(layer).call in _EMBEDDING_CALLS and not layer.lora_enabled and layer.quantization_mode is None


_EMBEDDING_CALLS = (keras.layers.Embedding.call, keras.layers.ReversibleEmbedding.call)


_DROPOUTS_OF_A_LAYER = 3


def fused_count(model: keras.Model) -> int:
    """How many of the model's Transformer layers run fused within `fused_layers`."""
    return sum(_can_encode(layer) or _can_decode(layer) for layer in model._flatten_layers(include_self=False))


@contextlib.contextmanager
def fused_layers(model: keras.Model, seed: tf.Tensor, remat: bool = False) -> Iterator[None]:
    """Within it, the model's Transformer layers and dropouts run fused where they are called with `training=True`.

    Open it where a training step is traced. Layers that are not KerasHub's post-norm `TransformerEncoder` or pre-norm
    `TransformerDecoder`, or that carry LoRA or quantised weights, run as Keras has them, and so does every layer on another
    backend than TensorFlow.

    Args:
        model: the model that is called inside.
        seed: int32 scalar that decides all dropout; give it another value in every step.
        remat: rematerialisation: of a Transformer layer only the inputs are kept, and the backward pass runs it again.
    """
    layers = list(model._flatten_layers(include_self=False))
    encoders = [layer for layer in layers if _can_encode(layer)]
    decoders = [layer for layer in layers if _can_decode(layer)]
    inside = {id(part) for layer in (*encoders, *decoders) for part in layer._flatten_layers(include_self=False)}
    dropouts = [layer for layer in layers if type(layer) is keras.layers.Dropout and id(layer) not in inside]
    embeddings = [layer for layer in layers if _can_take(layer)]
    sites = itertools.count()

    def next_seed() -> tf.Tensor:
        # Two odd constants keep the seeds of steps and of places apart; overflow wraps, which is meant.
        return seed * 0x5851F42D + next(sites) * 0x14057B7F

    def whole(layer: Any, compute: Callable[[tf.Tensor, Callable[[], tf.Tensor]], tf.Tensor], inputs: Any) -> tf.Tensor:
        x = tf.cast(inputs, layer.compute_dtype)
        if not remat:
            return compute(x, next_seed)
        # Drawn here, because the layer is run twice and its dropouts must be the same.
        seeds = [next_seed() for _ in range(_DROPOUTS_OF_A_LAYER)]
        return tf.recompute_grad(lambda x: compute(x, iter(seeds).__next__))(x)

    def encoder_call(layer: Any) -> Callable[..., Any]:
        plain = layer.call

        def call(
            inputs: Any, padding_mask: Any = None, attention_mask: Any = None, training: Any = None, **others: Any
        ) -> Any:
            if training is not True or attention_mask is not None or padding_mask is None or any(others.values()):
                return plain(
                    inputs, padding_mask=padding_mask, attention_mask=attention_mask, training=training, **others
                )
            mask = tf.cast(padding_mask, tf.bool)
            return whole(layer, lambda x, seeds: _encode(layer, x, mask, seeds), inputs)

        return call

    def decoder_call(layer: Any) -> Callable[..., Any]:
        plain = layer.call

        def call(
            inputs: Any,
            decoder_padding_mask: Any = None,
            decoder_attention_mask: Any = None,
            training: Any = None,
            **others: Any,
        ) -> Any:
            if training is not True or any(one is not None for one in others.values()):
                return plain(
                    inputs,
                    decoder_padding_mask=decoder_padding_mask,
                    decoder_attention_mask=decoder_attention_mask,
                    training=training,
                    **others,
                )
            mask = None if decoder_attention_mask is None else tf.cast(decoder_attention_mask, tf.bool)
            return whole(layer, lambda x, seeds: _decode(layer, x, seeds, mask), inputs)

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
            rows = local(layer._embeddings._value).sparse_read(tf.cast(inputs, tf.int32))
            return tf.cast(rows, layer.compute_dtype)

        return call

    calls = {encoder_call: encoders, decoder_call: decoders, dropout_call: dropouts, embedding_call: embeddings}
    try:
        for make, changed in calls.items():
            for layer in changed:
                layer.__dict__["call"] = make(layer)
        yield
    finally:
        for layer in itertools.chain(*calls.values()):
            layer.__dict__.pop("call", None)
