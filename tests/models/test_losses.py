import math
import re
import sys
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from lmworks.models import losses
from lmworks.models.losses import cross_entropy


def _data(rows=7, width=5, vocabulary=11):
    random = np.random.default_rng(1)
    states, embeddings = random.normal(size=(rows, width)), random.normal(size=(vocabulary, width))
    return (
        tf.constant(states, tf.float32),
        tf.constant(embeddings, tf.float32),
        tf.constant(random.integers(0, vocabulary, rows), tf.int32),
        tf.constant([1.0, 0.0, 1.0, 1.0, 0.5, 0.0, 1.0][:rows]),
        tf.constant(random.normal(size=vocabulary), tf.float32),
    )


def test_a_batch_computed_by_hand():
    # Two real targets and one of padding; logits of the rows: [0, 0], [ln 3, 0], [9, 9].
    states = tf.constant([[0.0, 0.0], [math.log(3), 0.0], [9.0, 9.0]])
    embeddings = tf.constant([[1.0, 0.0], [0.0, 1.0]])
    trained, plain = cross_entropy(states, embeddings, tf.constant([0, 1, 0]), tf.constant([1.0, 1.0, 0.0]))
    assert float(plain) == pytest.approx(math.log(2) + math.log(4), abs=1e-6)
    assert float(trained) == float(plain)
    smooth, plain = cross_entropy(states, embeddings, tf.constant([0, 1, 0]), tf.constant([1.0, 1.0, 0.0]), 0.1, 0.01)
    expected = math.log(2) + 0.95 * math.log(4) + 0.05 * math.log(4 / 3) + 0.01 * (math.log(2) ** 2 + math.log(4) ** 2)
    assert float(smooth) == pytest.approx(expected, abs=1e-6)
    assert float(plain) == pytest.approx(math.log(2) + math.log(4), abs=1e-6)


@pytest.mark.parametrize(("smoothing", "z_loss"), [(0.0, 0.0), (0.1, 0.0), (0.0, 0.01), (0.2, 0.05)])
@pytest.mark.parametrize(("most", "soft_cap"), [(1 << 26, None), (22, None), (1 << 26, 1.5), (22, 1.5)])
def test_values_and_gradients_equal_tensorflows_own(smoothing, z_loss, most, soft_cap, monkeypatch):
    monkeypatch.setattr(losses, "_MOST_LOGITS", most)  # 22 logits at once are two rows
    states, embeddings, targets, weights, bias = _data()

    def reference():
        logits = tf.matmul(states, embeddings, transpose_b=True) + bias
        logits = soft_cap * tf.tanh(logits / soft_cap) if soft_cap else logits
        wanted = tf.one_hot(targets, 11) * (1 - smoothing) + smoothing / 11
        loss = tf.nn.softmax_cross_entropy_with_logits(wanted, logits)
        return tf.reduce_sum((loss + z_loss * tf.reduce_logsumexp(logits, axis=1) ** 2) * weights)

    found = []
    for compute in (
        reference,
        lambda: cross_entropy(states, embeddings, targets, weights, smoothing, z_loss, bias, soft_cap)[0],
    ):
        with tf.GradientTape() as tape:
            tape.watch([states, embeddings, bias])
            loss = compute() * 0.25
        found.append([loss, *tape.gradient(loss, [states, embeddings, bias])])
    for one, other in zip(*found, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-6)


def test_a_target_without_any_chance_has_its_true_loss():
    states, embeddings = tf.constant([[1000.0]]), tf.constant([[1.0], [-1.0]])
    _, plain = cross_entropy(states, embeddings, tf.constant([1]), tf.constant([1.0]))
    assert float(plain) == 2000.0


def test_float16_keeps_gradients_that_are_too_small_for_it():
    width, vocabulary, scale = 4, 4096, 2.0**15
    states = tf.zeros([2, width], tf.float16)
    embeddings = tf.constant(np.random.default_rng(0).normal(size=(vocabulary, width)), tf.float32)
    with tf.GradientTape() as tape:
        tape.watch(states)
        loss = cross_entropy(states, embeddings, tf.constant([1, 2]), tf.constant([1.0, 0.0]))[0] / 1000 * scale
    found = tape.gradient(loss, states).numpy()[0] / scale * 1000
    chances = np.full(vocabulary, 1 / vocabulary)
    chances[1] -= 1
    np.testing.assert_allclose(found, chances @ embeddings.numpy(), rtol=2e-3)


def test_bfloat16_states_keep_a_float32_loss():
    states, embeddings, targets, weights, bias = _data()
    exact = float(cross_entropy(states, embeddings, targets, weights, bias=bias)[1])
    half = cross_entropy(tf.cast(states, tf.bfloat16), embeddings, targets, weights, bias=bias)[1]
    assert half.dtype == tf.float32
    assert float(half) == pytest.approx(exact, rel=0.02)


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_memory_does_not_grow_with_the_number_of_parts(monkeypatch):
    vocabulary, width, rows = 8192, 1024, 16
    monkeypatch.setattr(losses, "_MOST_LOGITS", rows * vocabulary)
    embeddings = tf.zeros([vocabulary, width])  # 32 MiB, and so is its gradient

    def peak(parts):
        @tf.function
        def compute(states, targets, weights):
            with tf.GradientTape() as tape:
                tape.watch([states, embeddings])
                loss = cross_entropy(states, embeddings, targets, weights)[0]
            return [tf.reduce_sum(one) for one in tape.gradient(loss, [states, embeddings])]

        count = parts * rows
        arguments = tf.ones([count, width]), tf.zeros([count], tf.int32), tf.ones([count])
        compute(*arguments)
        Path("/proc/self/clear_refs").write_text("5")  # begins a new peak
        compute(*arguments)
        status = Path("/proc/self/status").read_text()
        return int(re.search(r"VmHWM:\s+(\d+) kB", status)[1]) / 1024

    few = peak(3)  # first, because freed memory is not given back at once
    assert peak(32) - few < 4 * 32
