"""Packed documents that do not see each other: the loss and its gradient are those of each document alone, in every family."""

import os
import subprocess
import sys

import keras
import keras_hub
import numpy as np
import pytest
from keras import ops

from lmworks.configs.errors import UserError
from lmworks.models import causal_lm
from lmworks.models.backend import backend
from lmworks.models.document_attention import check_attention_mask
from tests.conftest import REPOSITORY
from tests.tiny_decoders import FAMILIES, backbone, tokenizer_folder

DOCUMENTS, LENGTH = 3, 7
WITH_GRADIENT = ("GPT2", "Llama")
"""One whose layers run fused on TensorFlow and whose positions are learnt, and one with rotary positions."""


@pytest.fixture(scope="module", params=FAMILIES)
def model(request, tmp_path_factory):
    pieces = tokenizer_folder(request.param, tmp_path_factory.mktemp(request.param))
    made = backbone(request.param, pieces)
    return getattr(keras_hub.models, f"{request.param}CausalLM")(backbone=made, preprocessor=None)


def _gradients(model, compute):
    """The gradient of a loss by each variable, on this process's backend."""
    if backend() == "jax":
        import jax

        def stateless(values):
            mapping = list(zip(model.trainable_variables, values, strict=True))
            with keras.StatelessScope(state_mapping=mapping):
                return compute()

        return [np.asarray(one) for one in jax.grad(stateless)([one.value for one in model.trainable_variables])]
    import tensorflow as tf

    from lmworks.models.fused_transformer import fused_layers

    with tf.GradientTape() as tape, fused_layers(model, tf.constant(3)):
        loss = compute()
    found = tape.gradient(loss, [one.value for one in model.trainable_variables])
    return [np.asarray(tf.convert_to_tensor(one)) for one in found]


def _loss(model, token_ids, targets, documents=None):
    states = causal_lm.states(model, ops.convert_to_tensor(token_ids), training=True, documents=documents)
    logits = ops.einsum("blw,vw->blv", ops.cast(states, "float32"), causal_lm.output_embeddings(model))
    chances = ops.log_softmax(logits)
    return -ops.sum(ops.take_along_axis(chances, ops.convert_to_tensor(targets)[..., None], axis=-1))


def test_a_packed_sequence_is_its_documents_alone(model):
    random = np.random.default_rng(4)
    shape = (1, DOCUMENTS * LENGTH)
    ids, targets = (random.integers(3, model.backbone.vocabulary_size, shape, np.int32) for _ in range(2))
    documents = ops.convert_to_tensor(np.repeat([4, 5, 6], LENGTH)[None].astype(np.int32))
    parts = [np.s_[:, begin : begin + LENGTH] for begin in range(0, shape[1], LENGTH)]

    def packed():
        return _loss(model, ids, targets, documents)

    alone = sum(float(_loss(model, ids[part], targets[part])) for part in parts)
    across = float(_loss(model, ids, targets))
    assert float(packed()) == pytest.approx(alone, rel=1e-5)
    assert abs(across - alone) > 1e-3 * alone, "without the mask they see each other"
    assert float(_loss(model, ids, targets)) == across, "nothing of it stays in the model"
    if type(model).__name__.removesuffix("CausalLM") not in WITH_GRADIENT:
        return
    gradient = _gradients(model, packed)
    each = [_gradients(model, lambda part=part: _loss(model, ids[part], targets[part])) for part in parts]
    for one, variable, *others in zip(gradient, model.trainable_variables, *each, strict=True):
        expected = sum(others)
        np.testing.assert_allclose(one, expected, atol=1e-5 * max(1.0, np.abs(expected).max()), err_msg=variable.path)
    other = _gradients(model, lambda: _loss(model, ids, targets))
    assert max(np.abs(one - two).max() for one, two in zip(gradient, other, strict=True)) > 1e-2


def test_a_model_that_takes_no_mask_is_refused(model):
    check_attention_mask(model)

    class Deaf:
        def call(self, inputs):
            return inputs

    class Backbone:
        transformer_layers = [Deaf()]

    class DeafCausalLM:
        backbone = Backbone()

    with pytest.raises(
        UserError, match="attend_across_documents: the attention of DeafCausalLM takes no mask; set it to true"
    ):
        check_attention_mask(DeafCausalLM())


@pytest.mark.slow
@pytest.mark.skipif(os.environ.get("KERAS_BACKEND") == "jax", reason="is it itself")
def test_on_jax():
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "tests/models/test_document_attention.py",
        "-p",
        "no:cacheprovider",
    ]
    environment = {**os.environ, "KERAS_BACKEND": "jax"}
    done = subprocess.run(command, cwd=REPOSITORY, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-6000:]
