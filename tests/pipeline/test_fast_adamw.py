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
    optimizer = FastAdamW(0.01, track_gradient_norm=True)
    table = keras.Variable(np.zeros((5, 2), "float32"))
    optimizer.build([table])
    repeated = tf.IndexedSlices(
        tf.constant([[3.0, 0.0], [0.0, 4.0], [3.0, 0.0]]), tf.constant([1, 2, 1]), tf.constant([5, 2])
    )
    optimizer.apply([repeated], [table])
    assert float(optimizer.gradient_norm) == pytest.approx(np.sqrt(36 + 16))
