"""The fused layers against Keras's own."""

import keras
import keras_hub
import numpy as np
import pytest
import tensorflow as tf

from lmworks.models import fused_transformer
from lmworks.models.fused_transformer import fused_layers


def _classifier(dropout: float, dtype: str = "float32", kind: str = "Bert", width: int = 16):
    keras.utils.set_random_seed(3)
    sizes = {"vocabulary_size": 50, "num_layers": 2, "num_heads": 2, "hidden_dim": width, "intermediate_dim": 24}
    backbone = getattr(keras_hub.models, f"{kind}Backbone")(**sizes, dropout=dropout, dtype=dtype)
    extra = {"hidden_dim": 16} if kind != "Bert" else {}
    return getattr(keras_hub.models, f"{kind}TextClassifier")(
        backbone, num_classes=3, dropout=dropout, dtype=dtype, **extra
    )


def _inputs(kind: str = "Bert"):
    lengths = np.array([7, 3, 5, 1])
    mask = np.arange(7)[None] < lengths[:, None]
    found = {"token_ids": np.random.default_rng(0).integers(0, 50, (4, 7)).astype("int32"), "padding_mask": mask}
    return found | ({"segment_ids": np.zeros((4, 7), "int32")} if kind == "Bert" else {})


def _step(model, inputs, seed=None):
    @tf.function
    def compute(seed):
        with tf.GradientTape() as tape:
            logits = model(inputs, training=True)
            loss = tf.reduce_sum(tf.cast(logits, tf.float32) * tf.constant([1.0, -2.0, 0.5]))
        return logits, [
            tf.convert_to_tensor(one) for one in tape.gradient(loss, [v.value for v in model.trainable_variables])
        ]

    if seed is None:
        return compute(0)
    with fused_layers(model, seed):
        return compute(seed)


@pytest.mark.parametrize("kind", ["Bert", "DistilBert", "Roberta"])
def test_same_values_and_gradients_without_dropout(kind, monkeypatch):
    model, inputs = _classifier(0.0, kind=kind), _inputs(kind)
    calls = []
    plain = fused_transformer._encode
    monkeypatch.setattr(fused_transformer, "_encode", lambda *a: calls.append(1) or plain(*a))
    logits, gradients = _step(model, inputs)
    fused_logits, fused_gradients = _step(model, inputs, tf.constant(5))
    assert len(calls) == 2, "both layers must have run fused"
    np.testing.assert_allclose(fused_logits, logits, atol=1e-5)
    for one, other, variable in zip(fused_gradients, gradients, model.trainable_variables, strict=True):
        np.testing.assert_allclose(one, other, atol=2e-5, err_msg=variable.path)


def _language_model(dropout: float = 0.0, dtype: str = "float32"):
    keras.utils.set_random_seed(3)
    sizes = {"vocabulary_size": 50, "num_layers": 2, "num_heads": 2, "hidden_dim": 16, "intermediate_dim": 24}
    backbone = keras_hub.models.GPT2Backbone(**sizes, max_sequence_length=16, dropout=dropout, dtype=dtype)
    return keras_hub.models.GPT2CausalLM(backbone, dtype=dtype)


def test_a_decoder_has_the_same_values_and_gradients_on_real_tokens(monkeypatch):
    model = _language_model()
    for variable in model.trainable_variables:  # biases and norms that are not zero and one
        variable.assign(variable + 0.05 * keras.random.normal(variable.shape, seed=len(variable.path)))
    inputs = _inputs("GPT2")
    weights = tf.constant(inputs["padding_mask"][..., None] * np.linspace(-1, 1, 50), tf.float32)
    calls = []
    plain = fused_transformer._decode
    monkeypatch.setattr(fused_transformer, "_decode", lambda *a: calls.append(1) or plain(*a))

    @tf.function
    def compute(seed):
        with tf.GradientTape() as tape:
            logits = tf.cast(model(inputs, training=True), tf.float32)
            loss = tf.reduce_sum(tf.nn.log_softmax(logits) * weights)
        found = tape.gradient(loss, [one.value for one in model.trainable_variables])
        return logits, [tf.convert_to_tensor(one) for one in found]

    logits, gradients = compute(0)
    with fused_layers(model, tf.constant(5)):
        fused_logits, fused_gradients = compute(tf.constant(5))
    assert len(calls) == 2, "both layers must have run fused"
    real = inputs["padding_mask"]
    np.testing.assert_allclose(fused_logits[real], logits[real], atol=1e-5)
    for one, other, variable in zip(fused_gradients, gradients, model.trainable_variables, strict=True):
        np.testing.assert_allclose(one, other, atol=5e-5, err_msg=variable.path)


def test_bfloat16_is_no_further_from_float32_than_keras():
    inputs = _inputs()
    exact = _step(_classifier(0.0), inputs)[0].numpy()
    half = _classifier(0.0, "mixed_bfloat16")
    plain = np.abs(_step(half, inputs)[0].numpy().astype("float32") - exact).max()
    fused = np.abs(_step(half, inputs, tf.constant(5))[0].numpy().astype("float32") - exact).max()
    assert fused < max(2 * plain, 0.02)


def test_dropout_is_a_function_of_the_seed():
    model, inputs = _classifier(0.3), _inputs()
    first, again, other = (_step(model, inputs, tf.constant(seed))[0].numpy() for seed in (1, 1, 2))
    np.testing.assert_array_equal(first, again)
    assert np.abs(first - other).max() > 1e-3


def test_dropout_keeps_the_asked_share_and_the_mean():
    ones = tf.ones([1000, 384])
    drop = fused_transformer._drop(0.1)
    masks = np.stack([drop(ones, tf.constant(seed)).numpy() != 0 for seed in (7, 8, -9)])
    # Standard error of the share over 384,000 draws is 0.0005; of a column over 1,000 it is 0.0095.
    np.testing.assert_allclose(masks.mean((1, 2)), 0.9, atol=0.0025)
    assert np.abs(masks.mean(1) - 0.9).max() < 0.055
    # Seeds are independent: two masks agree in 0.9² + 0.1² of the places.
    np.testing.assert_allclose((masks[0] == masks[1]).mean(), 0.82, atol=0.004)
    np.testing.assert_allclose((masks[0][:, 1:] == masks[0][:, :-1]).mean(), 0.82, atol=0.004)
    np.testing.assert_allclose(drop(ones, tf.constant(1)).numpy().max(), 1 / 0.9, rtol=1e-6)


def test_the_layers_are_theirs_again_afterwards():
    model, inputs = _classifier(0.0), _inputs()
    before = [layer.call for layer in model._flatten_layers()]
    with pytest.raises(RuntimeError), fused_layers(model, tf.constant(1)):
        raise RuntimeError
    assert [layer.call for layer in model._flatten_layers()] == before
    with fused_layers(model, tf.constant(1)):
        evaluated = model(inputs, training=False)
    np.testing.assert_array_equal(evaluated, model(inputs, training=False))


def test_models_of_several_widths_and_as_many_heads_share_a_process():
    for width in (8, 24, 16):
        model, inputs = _classifier(0.0, width=width), _inputs()
        np.testing.assert_allclose(_step(model, inputs, tf.constant(5))[0], _step(model, inputs)[0], atol=1e-5)
