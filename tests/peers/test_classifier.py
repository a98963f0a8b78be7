"""A classifier beside `transformers` and PyTorch on the same weights: token ids, logits, gradients, optimizer steps."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from lmworks.configs.schema import Model
from lmworks.models import text_classification
from lmworks.models.fused_transformer import fused_layers
from lmworks.models.tokenizer import open_tokenizer
from lmworks.models.wordpiece import train_wordpiece
from lmworks.pipeline.train.fast_adamw import FastAdamW

pytestmark = pytest.mark.peers

# No special token is spelled out: we take one as plain text, on purpose (`models/wordpiece.py`).
TEXTS = [
    "the quick brown fox jumps over the lazy dog",
    "the dog sleeps",
    "été straße 中文 a\u200bb x" + "y" * 101,
    "foxes jumping " * 30,
]
PAIRS = ["a fox", "the lazy dog jumps over the quick brown fox", "", "dog " * 60]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A BERT that `transformers` wrote."""
    import torch
    from transformers import BertConfig, BertModel

    folder = tmp_path_factory.mktemp("bert")
    pieces = train_wordpiece(TEXTS + PAIRS, 90)
    pieces.save(folder)
    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 48}
    settings = BertConfig(
        vocab_size=len(pieces.vocabulary), pad_token_id=pieces.pad_id, **sizes, max_position_embeddings=64, initializer_range=0.4
    )  # fmt: skip
    BertModel(settings).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def theirs(folder):
    """Tokenizer and model of `transformers`, without dropout."""
    from transformers import BertModel, BertTokenizerFast

    return BertTokenizerFast.from_pretrained(folder), BertModel.from_pretrained(folder).eval()


@pytest.fixture
def classifier(folder):
    """Ours from the same folder, without dropout."""
    tokenizer = open_tokenizer(folder)
    return tokenizer, text_classification.build(Model(preset=str(folder), dropout=0.0), str(folder), tokenizer, 2)


@pytest.mark.parametrize("pairs", [None, PAIRS])
@pytest.mark.parametrize("sequence_length", [12, 13, 48])
def test_inputs_equal_transformers(folder, theirs, pairs, sequence_length):
    tokenizer = open_tokenizer(folder)
    found = tokenizer.to_model_inputs(*tokenizer.pack(TEXTS, pairs, sequence_length=sequence_length))
    expected = theirs[0](TEXTS, pairs, truncation=True, max_length=sequence_length, padding=True)
    for ours, name in (
        ("token_ids", "input_ids"),
        ("segment_ids", "token_type_ids"),
        ("padding_mask", "attention_mask"),
    ):
        np.testing.assert_array_equal(np.array(found[ours]).astype(int), expected[name], err_msg=name)


def test_pooled_output_and_its_gradients_equal_pytorch(theirs, classifier):
    """Through the fused layers, as training computes them; gradients of all embeddings and matrices."""
    tokenizer, model = classifier
    their_tokenizer, their_model = theirs
    packed = their_tokenizer(TEXTS, PAIRS, truncation=True, max_length=48, padding=True, return_tensors="pt")
    expected = their_model(**packed).pooler_output
    weight = np.random.default_rng(0).normal(size=expected.shape).astype("float32")
    their_model.zero_grad()
    (expected * expected.new_tensor(weight)).sum().backward()
    inputs = tokenizer.to_model_inputs(*tokenizer.pack(TEXTS, PAIRS, sequence_length=48))
    variables = {variable.path: variable.value for variable in model.backbone.trainable_variables}

    @tf.function
    def compute(seed):
        with fused_layers(model, seed), tf.GradientTape() as tape:
            found = model.backbone(inputs, training=True)["pooled_output"]
            loss = tf.reduce_sum(found * weight)
        return found, {path: tf.convert_to_tensor(g) for path, g in tape.gradient(loss, variables).items()}

    found, gradients = compute(tf.constant(3))
    np.testing.assert_allclose(found, expected.detach().numpy(), atol=1e-5)
    of = dict(their_model.named_parameters())
    first = "encoder.layer.0"
    for ours, name, turned in (
        ("token_embedding/embeddings", "embeddings.word_embeddings.weight", False),
        ("position_embedding/embeddings", "embeddings.position_embeddings.weight", False),
        ("transformer_layer_0/self_attention_layer/query/kernel", f"{first}.attention.self.query.weight", True),
        ("transformer_layer_0/self_attention_layer/value/bias", f"{first}.attention.self.value.bias", False),
        ("transformer_layer_0/feedforward_output_dense/kernel", f"{first}.output.dense.weight", True),
        ("transformer_layer_1/feedforward_layer_norm/gamma", "encoder.layer.1.output.LayerNorm.weight", False),
    ):
        expected_gradient = of[name].grad.numpy()
        gradient = next(np.array(value) for path, value in gradients.items() if path.endswith(ours))
        expected_gradient = expected_gradient.T if turned else expected_gradient
        scale = np.abs(expected_gradient).max()
        np.testing.assert_allclose(
            gradient.reshape(expected_gradient.shape), expected_gradient, atol=1e-4 * scale, err_msg=name
        )


def test_adamw_equals_pytorch():
    """Ten steps of decoupled weight decay and clipping by the global norm, on the true gradient of repeated rows.

    Keras adds epsilon before the bias correction and PyTorch after it; the difference is of epsilon's order.
    """
    import torch

    random = np.random.default_rng(0)
    table, matrix = random.normal(size=(20, 4)).astype("float32"), random.normal(size=(4, 3)).astype("float32")
    batches = [random.integers(0, 9, size=16) for _ in range(10)]
    theirs = [torch.nn.Parameter(torch.tensor(one)) for one in (table, matrix)]
    reference = torch.optim.AdamW(theirs, lr=0.01, weight_decay=0.1, eps=1e-8)
    ours = [keras.Variable(table), keras.Variable(matrix)]
    optimizer = FastAdamW(0.01, weight_decay=0.1, epsilon=1e-8, global_clipnorm=0.5)
    optimizer.build(ours)
    for batch in batches:
        reference.zero_grad()
        ((theirs[0][torch.tensor(batch)] @ theirs[1] - 10.0) ** 2).mean().backward()
        torch.nn.utils.clip_grad_norm_(theirs, 0.5)
        reference.step()
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean(tf.square(tf.gather(ours[0].value, batch) @ ours[1].value - 10.0))
        optimizer.apply(tape.gradient(loss, [one.value for one in ours]), ours)
    for one, other in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(one.numpy(), other.detach().numpy(), atol=1e-4)
