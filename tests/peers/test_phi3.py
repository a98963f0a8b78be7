"""Phi-3 as `transformers` wrote it, with every setting off its default and weights large enough to show each of them."""

import json
import shutil

import numpy as np
import pytest
import tensorflow as tf

from lmworks.configs.errors import UserError
from lmworks.configs.schema import Model
from lmworks.models import causal_lm
from lmworks.models.generation import Generator, Sampling
from lmworks.models.tokenizer import open_causal_pieces
from tests.models.test_sentencepiece import sentencepiece_model

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
pytestmark = pytest.mark.peers

LENGTH = 24
SIZES = {
    "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 3, "num_attention_heads": 4, "num_key_value_heads": 2,
    "rms_norm_eps": 3e-2, "max_position_embeddings": 128, "original_max_position_embeddings": 32, "sliding_window": 40,
}  # fmt: skip
FACTORS = {"short_factor": [1.0, 1.3, 2.0, 2.5], "long_factor": [4.0, 5.0, 6.0, 7.0]}
ROPES = {
    "default": {"rope_type": "default", "rope_theta": 500.0},
    "longrope": {"rope_type": "longrope", "rope_theta": 700.0, "original_max_position_embeddings": 32, **FACTORS},
}
IDS = np.random.default_rng(3).integers(3, 1000, (2, LENGTH))


@pytest.fixture(scope="module", params=ROPES)
def pair(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp(request.param)
    sentencepiece_model(folder)
    torch.manual_seed(1)
    config = transformers.Phi3Config(
        **SIZES,
        rope_parameters=dict(ROPES[request.param]),
        vocab_size=1110,
        bos_token_id=1,
        eos_token_id=0,
        pad_token_id=0,
    )
    config.initializer_range = 0.6
    theirs = transformers.AutoModelForCausalLM.from_config(config).eval()
    with torch.no_grad():
        for parameter in theirs.parameters():
            if parameter.ndim == 1:
                parameter += 0.3 * torch.randn_like(parameter)
    theirs.save_pretrained(folder)
    return theirs, folder


def _build(folder, length=LENGTH):
    return causal_lm.build(Model(preset=str(folder)), str(folder), open_causal_pieces(folder), length)


def _changed(folder, target, **changes):
    shutil.copytree(folder, target)
    described = json.loads((target / "config.json").read_text())
    (target / "config.json").write_text(json.dumps(described | changes))
    return target


def _theirs(model):
    with torch.no_grad():
        return model(torch.tensor(IDS)).logits.numpy()


def _ours(model):
    return causal_lm.logits_of(model, tf.constant(IDS, tf.int32)).numpy()


def test_logits(pair):
    theirs, folder = pair
    expected = _theirs(theirs)
    assert expected.std() > 1
    np.testing.assert_allclose(_ours(_build(folder)), expected, atol=1e-4 * np.abs(expected).max())


def test_another_setting_shows(pair, tmp_path):
    theirs, folder = pair
    expected, rope = _theirs(theirs), json.loads((folder / "config.json").read_text())["rope_parameters"]
    changes = {
        "epsilon": {"rms_norm_eps": 1e-5},
        "theta": {"rope_parameters": rope | {"rope_theta": 10_000.0}},
        "positions": {"max_position_embeddings": 64},
    }
    longrope = rope["rope_type"] == "longrope"
    if longrope:
        changes["factors"] = {"rope_parameters": rope | {"short_factor": FACTORS["long_factor"]}}
    shown = {}
    for name, change in changes.items():
        model = _build(_changed(folder, tmp_path / name, **change))
        shown[name] = np.abs(_ours(model) - expected).max() / np.abs(expected).max()
    assert {name for name, share in shown.items() if share > 1e-2} == (
        set(changes) if longrope else {"epsilon", "theta"}
    )


def test_parts_of_the_fused_matrices_stand_where_they_belong(pair, tmp_path):
    """Each half swapped for the other gives other logits, so that the parity above tells them apart."""
    from safetensors.numpy import load_file, save_file

    theirs, folder = pair
    expected = _theirs(theirs)
    for name, order in {"gate_up_proj": [1, 0], "qkv_proj": [0, 1, 3, 2]}.items():
        target = _changed(folder, tmp_path / name)
        tensors = load_file(target / "model.safetensors")
        for key, value in tensors.items():
            if name in key:
                tensors[key] = np.concatenate([np.split(value, len(order))[part] for part in order])
        save_file(tensors, target / "model.safetensors", metadata={"format": "pt"})
        assert np.abs(_ours(_build(target)) - expected).max() > 1e-2 * np.abs(expected).max()


def test_bfloat16_weights_are_read_as_they_are(pair, tmp_path):
    theirs, folder = pair
    shutil.copytree(folder, tmp_path / "half")
    half = type(theirs)(theirs.config).to(torch.bfloat16)
    half.load_state_dict(theirs.state_dict())
    half.save_pretrained(tmp_path / "half")
    # Read anew: `to` rounds the rotary embedding's frequencies too.
    again = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "half", dtype=torch.float32).eval()
    expected = _theirs(again)
    assert np.abs(expected - _theirs(theirs)).max() > 1e-2, "the weights were rounded"
    np.testing.assert_allclose(_ours(_build(tmp_path / "half")), expected, atol=1e-4 * np.abs(expected).max())


def test_greedy_text_and_saved(pair, tmp_path):
    theirs, folder = pair
    ours, pieces = _build(folder), open_causal_pieces(folder)
    prompt = IDS[0, :8].tolist()
    with torch.no_grad():
        greedy = theirs.generate(torch.tensor([prompt]), do_sample=False, max_new_tokens=12)[0, 8:].tolist()
    while greedy and greedy[-1] in pieces.end_ids:
        greedy.pop()
    found = Generator(ours, pieces.end_ids, LENGTH).generate(
        tf.ragged.constant([prompt], tf.int32), tf.constant(12), Sampling()
    )
    assert found.to_list() == [greedy]
    causal_lm.save(ours, pieces, LENGTH, tmp_path)
    expected = _theirs(theirs)
    np.testing.assert_allclose(_ours(causal_lm.load(tmp_path)), expected, atol=1e-4 * np.abs(expected).max())


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"hidden_act": "gelu"}, "hidden_act 'gelu'"),
        ({"tie_word_embeddings": True}, "tie_word_embeddings True"),
        (
            {"rope_parameters": {"rope_type": "default", "rope_theta": 1e4, "partial_rotary_factor": 0.5}},
            "partial_rotary_factor 0.5",
        ),
        ({"rope_parameters": {"rope_type": "yarn", "rope_theta": 1e4}}, "rope_type 'yarn'"),
        ({"mup_width": 8.0}, "mup_width 8.0"),
        ({"sliding_window": 16}, "24 is above the model's 16 tokens of its sliding window"),
        ({"max_position_embeddings": 20}, "24 is above the model's 20 positions"),
    ],
)
def test_what_it_does_not_compute_is_refused(pair, tmp_path, change, words):
    with pytest.raises(UserError, match=words):
        _build(_changed(pair[1], tmp_path / "x", **change))


def test_longrope_is_read_up_to_the_length_of_its_pretraining(pair):
    theirs, folder = pair
    if theirs.config.rope_parameters["rope_type"] == "longrope":
        with pytest.raises(UserError, match="33 is above the model's 32 positions of its pretraining"):
            _build(folder, 33)
    else:
        _build(folder, 33)


def test_the_tokens_that_it_adds_end_a_document(pair, tmp_path):
    """As in the published folders: `<|endoftext|>` and the chat's marks stand beyond the ids of `tokenizer.model`."""
    _, folder = pair
    target = _changed(folder, tmp_path / "x")
    settings = json.loads((target / "tokenizer_config.json").read_text())
    size = open_causal_pieces(folder).vocabulary_size
    added = ["<|endoftext|>", "<|assistant|>", "<|end|>"]
    settings |= {"eos_token": "<|endoftext|>", "added_tokens_decoder": {
        str(size + number): {"content": token, "special": True} for number, token in enumerate(added)}}  # fmt: skip
    (target / "tokenizer_config.json").write_text(json.dumps(settings))
    (target / "generation_config.json").write_text(json.dumps({"eos_token_id": [size, size + 2]}))
    pieces = open_causal_pieces(target)
    assert (pieces.end_id, pieces.end_ids, pieces.vocabulary_size) == (size, (size, size + 2), size + 3)
    assert _build(target).backbone.vocabulary_size == 1110
