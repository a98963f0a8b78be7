"""Every family of causal presets: the loss, the cache, what decays, and the way into a preset's folder and back."""

import keras_hub
import numpy as np
import pytest
import tensorflow as tf

from lmworks.configs.errors import UserError
from lmworks.configs.schema import Model
from lmworks.models import causal_lm
from lmworks.models.generation import Completer, Generator, Sampling
from lmworks.models.losses import cross_entropy
from lmworks.models.preset_checks import check_files
from lmworks.models.tokenizer import open_causal_pieces
from lmworks.pipeline.train.loop import decays
from tests.tiny_decoders import FAMILIES, backbone, read_of, tokenizer_folder

TEXT = "def parse_args(self, args=None):\n    return 12 + x\n"


@pytest.fixture(scope="module", params=FAMILIES)
def opened(request, tmp_path_factory):
    """A preset as KerasHub's own weights are: the backbone's folder; the tokenizer is given apart."""
    folder = tmp_path_factory.mktemp(request.param)
    pieces = tokenizer_folder(request.param, folder / "tokenizer")
    made = backbone(request.param, pieces)
    made.save_to_preset(str(folder / "preset"))
    check_files(folder / "preset")
    model = causal_lm.build(Model(preset=str(folder)), str(folder / "preset"), pieces, 24)
    assert type(model).__name__ == f"{request.param}CausalLM"
    return model, pieces, folder


def _ids(pieces, count=20):
    return np.array([[pieces.begin_id, *pieces.encode([TEXT])[0][: count - 1].tolist()]], np.int32)


def test_the_loss_is_that_of_the_models_own_logits(opened):
    model, pieces, _ = opened
    ids = _ids(pieces)
    logits = model({"token_ids": ids, "padding_mask": np.ones_like(ids)}, training=False).numpy()[0, :-1]
    if causal_lm.soft_cap(model):
        assert 1.0 < np.abs(logits).max() < causal_lm.soft_cap(model)
    expected = -tf.nn.log_softmax(logits.astype(np.float64)).numpy()[np.arange(len(logits)), ids[0, 1:]].sum()
    states = causal_lm.states(model, tf.constant(ids), training=True)[0, :-1]
    _, plain = cross_entropy(
        states,
        causal_lm.output_embeddings(model),
        tf.constant(ids[0, 1:]),
        tf.ones(len(logits)),
        soft_cap=causal_lm.soft_cap(model),
    )
    assert float(plain) == pytest.approx(expected, abs=1e-3)


def test_generating_with_a_cache_is_the_model_itself(opened):
    model, pieces, _ = opened
    prompts = [TEXT[:12], TEXT[:40], "", TEXT * 2]
    found = Completer(model, pieces, 24, 9, Sampling()).token_ids(prompts)
    for prompt, new in zip(prompts, found, strict=True):
        ids = read_of([pieces.begin_id, *pieces.encode([prompt])[0].tolist()], 24, 9)
        expected = []
        while len(expected) < min(9, 24 - len(ids)):
            following = int(np.argmax(causal_lm.logits_of(model, tf.constant([ids + expected])).numpy()[0, -1]))
            if following in pieces.end_ids:
                break
            expected.append(following)
        assert new.tolist() == expected


def test_logits_step_by_step(opened):
    model, pieces, _ = opened
    ids = _ids(pieces)
    whole = causal_lm.logits_of(model, tf.constant(ids)).numpy()[0]
    generator = Generator(model, pieces.end_ids, 24)
    found, cache = generator.begin(tf.constant(ids[:, :5]), tf.constant(24))
    for index in range(5, ids.shape[1]):
        np.testing.assert_allclose(found.numpy()[0], whole[index - 1], atol=1e-4)
        found, cache = generator.step(tf.constant(ids[:, index : index + 1]), cache, tf.constant(index))


def test_norms_and_biases_do_not_decay(opened):
    model, _, _ = opened
    kept = {variable.path for variable in model.trainable_variables if not decays(variable)}
    expected = {one.path for one in model.trainable_variables if one.path.endswith(("scale", "gamma", "beta", "bias"))}
    assert kept == expected
    assert len(kept) >= 5


def test_saved_and_loaded_it_is_the_same(opened, tmp_path):
    model, pieces, _ = opened
    causal_lm.save(model, pieces, 24, tmp_path)
    ids = tf.constant(_ids(pieces))
    expected = causal_lm.logits_of(model, ids).numpy()
    np.testing.assert_allclose(causal_lm.logits_of(causal_lm.load(tmp_path), ids).numpy(), expected, atol=1e-5)
    assert open_causal_pieces(tmp_path).encode([TEXT])[0].tolist() == pieces.encode([TEXT])[0].tolist()
    again = causal_lm.build(Model(preset=str(tmp_path)), str(tmp_path), open_causal_pieces(tmp_path), 24)
    assert type(again) is type(model)
    np.testing.assert_allclose(causal_lm.logits_of(again, ids).numpy(), expected, atol=1e-5)


def test_tied_embeddings_of_a_llama_stay_tied(tmp_path):
    pieces = tokenizer_folder("Llama", tmp_path / "tokenizer")
    plain = backbone("Llama", pieces)
    tied = keras_hub.models.LlamaBackbone(**plain.get_config() | {"tie_word_embeddings": True})
    model = keras_hub.models.LlamaCausalLM(tied)
    causal_lm.save(model, pieces, 24, tmp_path / "model")
    again = causal_lm.load(tmp_path / "model")
    assert again.count_params() == model.count_params() < plain.count_params()
    ids = tf.constant(_ids(pieces))
    np.testing.assert_allclose(causal_lm.logits_of(again, ids), causal_lm.logits_of(model, ids), atol=1e-5)


def test_bfloat16_computes(opened):
    model, pieces, folder = opened
    mixed = causal_lm.build(Model(preset=str(folder)), str(folder / "preset"), pieces, 24, "mixed_bfloat16")
    ids = tf.constant(_ids(pieces))
    states = causal_lm.states(mixed, ids)
    assert states.dtype == tf.bfloat16
    assert all(variable.dtype == "float32" for variable in mixed.trainable_variables)
    expected = causal_lm.logits_of(model, ids).numpy()
    np.testing.assert_allclose(causal_lm.logits_of(mixed, ids).numpy(), expected, atol=0.15 * np.abs(expected).max())


def test_other_families_are_refused(tmp_path):
    pieces = tokenizer_folder("GPT2", tmp_path / "tokenizer")
    made = keras_hub.models.BloomBackbone(
        vocabulary_size=pieces.vocabulary_size, num_layers=1, num_heads=2, hidden_dim=8, intermediate_dim=8
    )
    made.save_to_preset(str(tmp_path / "preset"))
    with pytest.raises(UserError, match="is a BloomCausalLM; causal_lm takes GPT2, Gemma"):
        causal_lm.build(Model(preset="x"), str(tmp_path / "preset"), pieces, 24)
