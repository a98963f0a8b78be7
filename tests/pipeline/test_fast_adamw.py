import keras
import numpy as np
import pytest
import tensorflow as tf

from lmworks.pipeline.train.fast_adamw import FastAdamW


def weights_after(optimizer, dense: bool, steps: int = 8):
    """Trains an embedding and a matrix on rows in which tokens repeat."""
    random = np.random.default_rng(0)
    table = keras.Variable(random.normal(size=(20, 4)).astype("float32"), name="table")
    matrix = keras.Variable(random.normal(size=(4, 3)).astype("float32"), name="matrix")
    bias = keras.Variable(np.zeros(3, "float32"), name="bias")
    optimizer.exclude_from_weight_decay(var_list=[bias])
    variables = [table, matrix, bias]
    optimizer.build(variables)
    for _ in range(steps):
        ids = tf.constant(random.integers(0, 9, size=16))
        with tf.GradientTape() as tape:
            logits = tf.gather(table.value, ids) @ matrix.value + bias.value
            loss = tf.reduce_mean(tf.square(logits - 1.0))
        gradients = tape.gradient(loss, [variable.value for variable in variables])
        assert isinstance(gradients[0], tf.IndexedSlices)
        optimizer.apply([tf.convert_to_tensor(one) for one in gradients] if dense else gradients, variables)
    return [variable.numpy() for variable in variables]


@pytest.mark.parametrize("clip", [None, 0.5])
def test_equals_adamw_on_dense_gradients_though_tokens_repeat(clip):
    settings = {"learning_rate": 0.01, "weight_decay": 0.1, "global_clipnorm": clip}
    expected = weights_after(keras.optimizers.AdamW(**settings), dense=True)
    found = weights_after(FastAdamW(**settings), dense=False)
    for one, two in zip(expected, found, strict=True):
        np.testing.assert_allclose(one, two, atol=2e-6)


def test_gradient_norm_is_that_of_the_true_gradient():
    optimizer = FastAdamW(0.01, guarded=True)
    table = keras.Variable(np.zeros((5, 2), "float32"))
    optimizer.build([table])
    repeated = tf.IndexedSlices(
        tf.constant([[3.0, 0.0], [0.0, 4.0], [3.0, 0.0]]), tf.constant([1, 2, 1]), tf.constant([5, 2])
    )
    optimizer.apply([repeated], [table])
    assert float(optimizer.gradient_norm) == pytest.approx(np.sqrt(36 + 16))


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_gradient_that_is_no_number_changes_nothing(bad):
    optimizer = FastAdamW(0.01, weight_decay=0.1, guarded=True)
    table, matrix = (keras.Variable(np.ones((5, 2), "float32")) for _ in range(2))
    optimizer.build([table, matrix])
    rows = tf.IndexedSlices(tf.constant([[3.0, 0.0], [0.0, 4.0]]), tf.constant([1, 2]), tf.constant([5, 2]))
    optimizer.apply([rows, tf.ones((5, 2))], [table, matrix])
    before = [variable.numpy() for variable in (table, matrix, *optimizer.variables)]
    worse = tf.IndexedSlices(rows.values * bad, rows.indices, rows.dense_shape)
    optimizer.apply([worse, tf.ones((5, 2))], [table, matrix])
    for old, variable in zip(before, (table, matrix, *optimizer.variables), strict=True):
        np.testing.assert_array_equal(old, variable.numpy())
    optimizer.apply([rows, tf.ones((5, 2))], [table, matrix])
    assert int(optimizer.iterations) == 2


def test_a_scaled_gradient_gives_the_same_step():
    found = []
    for scale in (1.0, 1024.0):
        optimizer = FastAdamW(0.01, global_clipnorm=0.5, guarded=True)
        optimizer.gradient_scale = tf.Variable(scale)
        matrix = keras.Variable(np.ones((5, 2), "float32"))
        optimizer.build([matrix])
        optimizer.apply([tf.fill((5, 2), 3.0 * scale)], [matrix])
        found.append((matrix.numpy(), float(optimizer.gradient_norm)))
    np.testing.assert_allclose(found[0][0], found[1][0], rtol=1e-6)
    assert found[0][1] == pytest.approx(found[1][1])
