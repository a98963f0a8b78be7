"""What a BERT or GPT-2 computes is what its config says: read, trained, saved, loaded, exported, on both backends."""

import json
import os
import shutil
import subprocess
import sys

import keras
import keras_hub
import numpy as np
import pytest
import tensorflow as tf

from lmworks.configs.errors import UserError
from lmworks.configs.schema import Model
from lmworks.models import causal_lm, huggingface, masked_lm, text_classification
from lmworks.models.bytepair import train_bytepair
from lmworks.models.fused_transformer import fused_count, fused_layers
from lmworks.models.preset import to_float32
from lmworks.models.tokenizer import open_tokenizer
from lmworks.models.transformer_arithmetic import FILE, Arithmetic, hand_epsilon_on, read_arithmetic, unlike_keras_hub
from lmworks.models.wordpiece import train_wordpiece
from lmworks.pipeline.export import classification
from tests.bert_reference import logits, write_bert
from tests.conftest import REPOSITORY
from tests.tiny_decoders import backbone, tokenizer_folder

TEXTS = [f"the quick brown fox {word} over {number} lazy dogs" for number in range(30) for word in ("ran", "sat")]
ACTIVATIONS = ("gelu", "gelu_pytorch_tanh", "relu", "swish")
EPSILON = 1e-3
"""Not that of any class of KerasHub's."""
LABELS = ["bad", "fair", "good"]
SIZES = {"layers": 2, "heads": 2, "hidden_dim": 16, "intermediate_dim": 24, "dropout": 0.0}


@pytest.fixture(scope="module")
def pieces():
    return train_wordpiece(TEXTS, 70)


@pytest.fixture(scope="module")
def tokenizer(pieces, tmp_path_factory):
    folder = tmp_path_factory.mktemp("tokenizer")
    pieces.save(folder)
    return open_tokenizer(folder)


@pytest.fixture(scope="module")
def folders(pieces, tmp_path_factory):
    """A BERT classifier in Hugging Face's format for each activation; the weights are the same."""
    folder = tmp_path_factory.mktemp("bert")
    for activation in ACTIVATIONS:
        write_bert(folder / activation, pieces, hidden_act=activation, layer_norm_eps=EPSILON)
    return folder


@pytest.fixture(scope="module")
def saved(folders, tokenizer):
    """The same read, and saved as presets of ours."""
    for activation in ACTIVATIONS:
        model = text_classification.build(Model(preset="x"), str(folders / activation), tokenizer, 3)
        text_classification.save(model, tokenizer, LABELS, 24, folders / "saved" / activation)
    return folders / "saved"


@pytest.fixture(scope="module")
def inputs(tokenizer):
    return tokenizer.to_model_inputs(*tokenizer.pack(["the quick fox", "lazy dogs ran over 9"], sequence_length=24))


def _reference(folder, inputs, **described):
    return logits(folder, {name: np.array(value) for name, value in inputs.items()}, **described)


def test_the_weights_tell_activations_and_epsilons_apart(folders, inputs):
    """Else the other tests could not fail."""
    expected = _reference(folders / "gelu", inputs)
    for other in (
        {"hidden_act": "gelu_new"},
        {"hidden_act": "relu"},
        {"hidden_act": "silu"},
        {"layer_norm_eps": 1e-12},
    ):
        assert np.abs(_reference(folders / "gelu", inputs, **other) - expected).max() > 2e-4, (
            other
        )  # the tolerance is 1e-5


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_a_bert_computes_what_its_config_says(folders, saved, tokenizer, inputs, activation):
    expected = _reference(folders / activation, inputs)
    model = text_classification.build(Model(preset="x"), str(folders / activation), tokenizer, 3)
    names = {"gelu_pytorch_tanh": "gelu_new", "swish": "silu"}
    assert read_arithmetic(model) == Arithmetic(names.get(activation, activation), EPSILON)
    assert fused_count(model) == 3

    @tf.function
    def fused(seed):
        with fused_layers(model, seed):
            return model(inputs, training=True)

    loaded, _ = text_classification.load(saved / activation)
    plain = keras_hub.models.BertTextClassifier.from_preset(str(saved / activation), preprocessor=None, dtype="float32")
    for name, values in {
        "plain": model(inputs, training=False),
        "plain, in training": model(inputs, training=True),
        "fused, in training": fused(tf.constant(1)),
        "in float32 anew": to_float32(model)(inputs, training=False),
        "saved and loaded": loaded(inputs, training=False),
        "saved, and a preset": text_classification.build(
            Model(preset="x"), str(saved / activation), tokenizer, 3
        ).backbone(inputs)["pooled_output"] @ loaded.output_dense.kernel + loaded.output_dense.bias,
    }.items():  # fmt: skip
        np.testing.assert_allclose(values, expected, atol=1e-5, err_msg=name)
    # Plain KerasHub opens the folder, with its own activation and epsilon.
    theirs = _reference(folders / activation, inputs, hidden_act="gelu_new", layer_norm_eps=1e-12)
    np.testing.assert_allclose(plain(inputs, training=False), theirs, atol=1e-5)


def test_the_saved_model_computes_it_too(folders, saved, tokenizer, inputs, tmp_path):
    loaded, labels = text_classification.load(saved / "gelu")
    classification.write(loaded, tokenizer, labels, 24, False, tmp_path / "served")
    served = tf.saved_model.load(str(tmp_path / "served")).signatures["tokens"]
    expected = tf.nn.softmax(_reference(folders / "gelu", inputs)).numpy()
    np.testing.assert_allclose(served(**inputs)["probabilities"], expected, atol=1e-5)


@pytest.mark.slow  # a process with another backend
def test_jax_computes_it_too(folders, saved, inputs, tmp_path):
    np.savez(tmp_path / "inputs.npz", **{name: np.array(value) for name, value in inputs.items()})
    program = """
import sys
from pathlib import Path
import numpy as np
from lmworks.models import text_classification
saved, folder, *activations = sys.argv[1:]
inputs = dict(np.load(Path(folder) / "inputs.npz"))
models = {name: text_classification.load(Path(saved) / name)[0] for name in activations}
np.savez(Path(folder) / "found.npz", **{name: np.array(model(inputs)) for name, model in models.items()})
"""
    command = [sys.executable, "-c", program, str(saved), str(tmp_path), *ACTIVATIONS]
    subprocess.run(command, check=True, cwd=REPOSITORY, env={**os.environ, "KERAS_BACKEND": "jax"})
    for activation, values in np.load(tmp_path / "found.npz").items():
        np.testing.assert_allclose(values, _reference(folders / activation, inputs), atol=1e-5, err_msg=activation)


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_what_is_written_says_what_was_computed(folders, saved, pieces, inputs, tmp_path, activation):
    loaded, labels = text_classification.load(saved / activation)
    huggingface.write(loaded, pieces, 24, tmp_path / "written", labels)
    np.testing.assert_allclose(_reference(tmp_path / "written", inputs), loaded(inputs), atol=1e-5)
    described = json.loads((tmp_path / "written" / "config.json").read_text())
    assert (described["hidden_act"], described["layer_norm_eps"]) == (read_arithmetic(loaded).activation, EPSILON)


def test_from_scratch_a_bert_has_the_exact_gelu(tokenizer, pieces):
    classifier = text_classification.build(Model(architecture="bert", **SIZES), None, tokenizer, 3)
    assert read_arithmetic(classifier) == Arithmetic("gelu", 1e-12)
    masked = masked_lm.build(Model(architecture="bert", **SIZES), None, pieces, 24)
    assert read_arithmetic(masked) == Arithmetic("gelu", 1e-12, "gelu", 1e-12)


def test_a_classifier_saved_by_earlier_versions_stays_what_it_was(folders, saved, pieces, inputs, tmp_path):
    (saved / "gelu" / FILE).rename(tmp_path / FILE)
    try:
        loaded, labels = text_classification.load(saved / "gelu")
    finally:
        (tmp_path / FILE).rename(saved / "gelu" / FILE)
    trained = _reference(folders / "gelu", inputs, hidden_act="gelu_new", layer_norm_eps=1e-12)
    np.testing.assert_allclose(loaded(inputs), trained, atol=1e-5)
    huggingface.write(loaded, pieces, 24, tmp_path / "written", labels)  # and one `hidden_act` can say it
    np.testing.assert_allclose(_reference(tmp_path / "written", inputs), trained, atol=1e-5)


def _masked(pieces):
    model = masked_lm.build(Model(architecture="bert", **SIZES), None, pieces, 24)
    random = np.random.default_rng(0)
    for variable in model.trainable_variables:
        variable.assign(variable + 0.5 * random.normal(size=variable.shape))
    return model


def test_a_masked_model_saved_by_earlier_versions_stays_what_it_was(pieces, inputs, tmp_path):
    model = _masked(pieces)
    masked_lm.save(model, pieces, 24, tmp_path / "model")
    positions = np.array([[1, 2], [2, 3]], np.int32)
    expected = masked_lm.logits_at(model, inputs, positions).numpy()
    again = masked_lm.logits_at(masked_lm.load(tmp_path / "model"), inputs, positions).numpy()
    np.testing.assert_allclose(again, expected, atol=1e-5)
    (tmp_path / "model" / FILE).unlink()
    old = masked_lm.load(tmp_path / "model")
    assert read_arithmetic(old) == Arithmetic("gelu_new", 1e-12, "gelu", 1e-12)
    assert np.abs(masked_lm.logits_at(old, inputs, positions).numpy() - expected).max() > 1e-4
    with pytest.raises(
        UserError, match=r"one hidden_act .*layers compute gelu_new with 1e-12, its head gelu with 1e-12"
    ):
        huggingface.write(old, pieces, 24, tmp_path / "written")
    assert not (tmp_path / "written").exists()
    # Its head goes on as it is; a new one on these layers computes what they do.
    begun = masked_lm.build(Model(preset="x"), str(tmp_path / "model"), pieces, 24)
    assert read_arithmetic(begun) == Arithmetic("gelu_new", 1e-12, "gelu", 1e-12)
    (tmp_path / "model" / "task.weights.h5").unlink()
    begun = masked_lm.build(Model(preset="x"), str(tmp_path / "model"), pieces, 24)
    assert read_arithmetic(begun) == Arithmetic("gelu_new", 1e-12, "gelu_new", 1e-12)


def test_a_new_head_on_a_classifiers_layers_computes_what_they_do(saved, pieces, tmp_path):
    """Its file says nothing of a head."""
    model = masked_lm.build(Model(preset="x"), str(saved / "relu"), pieces, 24)
    assert read_arithmetic(model) == Arithmetic("relu", EPSILON, "relu", EPSILON)
    huggingface.write(model, pieces, 24, tmp_path)
    described = json.loads((tmp_path / "config.json").read_text())
    assert (described["hidden_act"], described["layer_norm_eps"]) == ("relu", EPSILON)


def test_a_masked_model_that_is_written_and_read_computes_the_same(pieces, inputs, tmp_path):
    model = _masked(pieces)
    huggingface.write(model, pieces, 24, tmp_path)
    described = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(described | {"hidden_act": "relu"}))
    relu = masked_lm.build(Model(preset="x"), str(tmp_path), pieces, 24)
    assert read_arithmetic(relu) == Arithmetic("relu", 1e-12, "relu", 1e-12)


def _gpt2_folder(pieces, folder, **described):
    keras.utils.set_random_seed(1)
    model = causal_lm.build(Model(architecture="gpt2", **SIZES), None, pieces, 24)
    huggingface.write(model, pieces, 24, folder)
    config = json.loads((folder / "config.json").read_text())
    assert (config["activation_function"], config["layer_norm_epsilon"], config["n_inner"]) == ("gelu_new", 1e-5, 24)
    (folder / "config.json").write_text(json.dumps(config | described))
    return folder


def test_a_gpt2_computes_what_its_config_says(tmp_path):
    """Also with a width between the matrices that is not four times the model's."""
    pieces = train_bytepair(TEXTS, 300)
    folder = _gpt2_folder(pieces, tmp_path / "hf", activation_function="relu", layer_norm_epsilon=1e-3)
    model = causal_lm.build(Model(preset="x"), str(folder), pieces, 24)
    assert read_arithmetic(model) == Arithmetic("relu", 1e-3)
    causal_lm.save(model, pieces, 24, tmp_path / "saved")
    assert read_arithmetic(causal_lm.load(tmp_path / "saved")) == Arithmetic("relu", 1e-3)
    huggingface.write(causal_lm.load(tmp_path / "saved"), pieces, 24, tmp_path / "written")
    written = json.loads((tmp_path / "written" / "config.json").read_text())
    assert (written["activation_function"], written["layer_norm_epsilon"]) == ("relu", 1e-3)


BERT = [
    ("hidden_act", "quick_gelu", "hidden_act 'quick_gelu' is not known; known are gelu, gelu_new"),
    ("position_embedding_type", "relative_key", "position_embedding_type 'relative_key'"),
    ("is_decoder", True, "is_decoder True"),
    ("add_cross_attention", True, "add_cross_attention True"),
    ("pruned_heads", {"0": [1]}, "pruned_heads {'0': \\[1\\]}"),
    ("quantization_config", {"bits": 4}, "quantization_config {'bits': 4}"),
    ("feed_forward_type", "geglu", "feed_forward_type 'geglu'"),
    ("model_type", "roberta", "model_type 'roberta'; text_classification reads bert, distilbert"),
]


@pytest.mark.parametrize(("field", "value", "words"), BERT)
def test_a_field_of_bert_that_is_not_understood_is_refused_by_name(folders, tokenizer, tmp_path, field, value, words):
    described = json.loads((folders / "gelu" / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(described | {field: value}))
    with pytest.raises(UserError, match=rf"model\.preset: {tmp_path}/config\.json: .*{words}"):
        text_classification.build(Model(preset="x"), str(tmp_path), tokenizer, 3)


def test_a_masked_head_with_a_matrix_of_its_own_is_refused(pieces, tmp_path):
    huggingface.write(_masked(pieces), pieces, 24, tmp_path)
    from safetensors.numpy import load_file, save_file

    tensors = load_file(tmp_path / "model.safetensors")
    own = tensors["bert.embeddings.word_embeddings.weight"] + 1
    save_file({**tensors, "cls.predictions.decoder.weight": own}, tmp_path / "model.safetensors", {"format": "pt"})
    masked_lm.build(Model(preset="x"), str(tmp_path), pieces, 24)  # tied: transformers does not look at it either
    described = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(described | {"tie_word_embeddings": False}))
    with pytest.raises(UserError, match="tie_word_embeddings False"):
        masked_lm.build(Model(preset="x"), str(tmp_path), pieces, 24)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("activation_function", "tanh"),
        ("scale_attn_by_inverse_layer_idx", True),
        ("scale_attn_weights", False),
        ("add_cross_attention", True),
        ("tie_word_embeddings", False),
        ("rope_theta", 10_000.0),
    ],
)
def test_a_field_of_gpt2_that_is_not_understood_is_refused_by_name(tmp_path, field, value):
    pieces = train_bytepair(TEXTS, 300)
    folder = _gpt2_folder(pieces, tmp_path, **{field: value})
    with pytest.raises(UserError, match=f"{field} {value!r}"):
        causal_lm.build(Model(preset="x"), str(folder), pieces, 24)


def test_the_folders_dropout_is_the_models(folders, pieces, tokenizer, tmp_path):
    write_bert(tmp_path / "bert", pieces, hidden_dropout_prob=0.25)
    model = text_classification.build(Model(preset="x"), str(tmp_path / "bert"), tokenizer, 3)
    assert (model.backbone.dropout, model.dropout) == (0.25, 0.25)
    model = text_classification.build(Model(preset="x", dropout=0.0), str(tmp_path / "bert"), tokenizer, 3)
    assert (model.backbone.dropout, model.dropout) == (0.0, 0.0)


def test_what_kerashub_alone_computes_is_known(pieces, saved, tmp_path):
    """The card says where a model differs from it."""
    sizes = {"vocabulary_size": 9, "num_layers": 1, "num_heads": 1, "hidden_dim": 4, "intermediate_dim": 4}
    for kind in ("Bert", "DistilBert", "GPT2"):
        backbone = getattr(keras_hub.models, f"{kind}Backbone")(**sizes)
        task = getattr(keras_hub.models, f"{kind}CausalLM" if kind == "GPT2" else f"{kind}MaskedLM")(backbone)
        assert unlike_keras_hub(task) == unlike_keras_hub(backbone) == []
    loaded, _ = text_classification.load(saved / "relu")
    assert unlike_keras_hub(loaded) == ["activation relu (not gelu_new)", "layer-norm epsilon 0.001 (not 1e-12)"]
    masked = masked_lm.build(Model(architecture="bert", **SIZES), None, pieces, 24)
    assert unlike_keras_hub(masked) == [
        "activation gelu (not gelu_new)",
        "layer-norm epsilon of the head 1e-12 (not 1e-05)",
    ]


@pytest.mark.parametrize("kind", ["Gemma", "Gemma3", "Qwen3"])
def test_every_norm_of_a_gemma_and_qwen3_has_the_folders_epsilon(kind, tmp_path):
    """KerasHub's classes hand it on to some norms only; what was trained so, stays so."""
    pieces = tokenizer_folder(kind, tmp_path / "tokenizer")
    model = getattr(keras_hub.models, f"{kind}CausalLM")(backbone=backbone(kind, pieces), preprocessor=None)
    ids = tf.constant([pieces.encode(["the quick brown fox"])[0][:12].tolist()])
    assert read_arithmetic(model) is None
    mixed = causal_lm.logits_of(model, ids).numpy()
    causal_lm.save(model, pieces, 24, tmp_path / "earlier")
    assert not (tmp_path / "earlier" / FILE).exists()
    np.testing.assert_allclose(causal_lm.logits_of(causal_lm.load(tmp_path / "earlier"), ids), mixed, atol=1e-5)
    hand_epsilon_on(model)
    assert read_arithmetic(model) == Arithmetic(None, 3e-3)
    assert unlike_keras_hub(model)
    expected = causal_lm.logits_of(model, ids).numpy()
    assert np.abs(expected - mixed).max() > 1e-4
    causal_lm.save(model, pieces, 24, tmp_path / "saved")
    np.testing.assert_allclose(causal_lm.logits_of(causal_lm.load(tmp_path / "saved"), ids), expected, atol=1e-5)


def test_a_damaged_file_is_an_error_of_one_line(saved, tmp_path):
    shutil.copytree(saved / "gelu", tmp_path / "copy")
    for content, words in (
        ("{", "cannot be read"),
        ('{"activation": "mish", "layer_norm_epsilon": 1e-12}', "no activation 'mish'"),
        ('{"activation": null, "layer_norm_epsilon": 1e-12}', "activation: knows no activation None"),
        ('{"activation": ["gelu"], "layer_norm_epsilon": 1e-12}', r"knows no activation \['gelu'\]"),
        (
            '{"activation": "gelu", "layer_norm_epsilon": "1e-12"}',
            "layer_norm_epsilon must be a number above 0, not '1e-12'",
        ),
        (
            '{"activation": "gelu", "layer_norm_epsilon": 1e-12, "head_activation": "gelu", "head_layer_norm_epsilon": "x"}',
            "head_layer_norm_epsilon must be a number above 0, not 'x'",
        ),
    ):
        (tmp_path / "copy" / FILE).write_text(content)
        with pytest.raises(UserError, match=words):
            text_classification.load(tmp_path / "copy")
