"""Presets of every family that `transformers` wrote: same ids, logits, greedy text and perplexity as there."""

import json
import logging
import math

import numpy as np
import pytest
import tensorflow as tf

from lmworks.configs.errors import UserError
from lmworks.configs.schema import Model
from lmworks.models import causal_lm, huggingface
from lmworks.models.generation import Completer, Generator, Sampling
from lmworks.models.preset import to_float32
from lmworks.models.tokenizer import open_causal_pieces
from lmworks.pipeline.windows import predictions, windows_of
from tests.models.test_sentencepiece import sentencepiece_model
from tests.models.test_splitting import KINDS, checkpoint

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
pytestmark = pytest.mark.peers
logging.getLogger("transformers").setLevel(logging.ERROR)

TEXT = "The quick brown foxes don't jump 1234 times over\n\n  lazy dogs, naïve café.\n"
SIZES = {
    "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2,
    "max_position_embeddings": 256,
}  # fmt: skip
# Every field of the arithmetic is off its default, and weighs: epsilons are not small beside the states' variance, and
# rotary bases not large beside the lengths.
NORM = {"rms_norm_eps": 3e-3}
LLAMA3_ROPE = {
    "rope_type": "llama3", "rope_theta": 500.0, "factor": 4.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
    "original_max_position_embeddings": 16,
}  # fmt: skip
DEFAULT_ROPE = {"rope_type": "default", "rope_theta": 500.0}
LINEAR_ROPE = {"rope_type": "linear", "rope_theta": 500.0, "factor": 2.5}
GEMMA = {**NORM, "head_dim": 16}
GEMMA2 = {**GEMMA, "query_pre_attn_scalar": 16, "sliding_window": 8}
CAPS = {"final_logit_softcapping": 4.0, "attn_logit_softcapping": 2.0}
GEMMA3_ROPE = {
    "full_attention": {"rope_type": "linear", "rope_theta": 1e6, "factor": 8.0},
    "sliding_attention": {"rope_type": "default", "rope_theta": 1e4},
}
# Class of the config, what it says beside SIZES, and the tokenizer.
FAMILIES = {
    "llama3": ("LlamaConfig", {**NORM, "rope_parameters": LLAMA3_ROPE}, "llama3"),
    "llama2": ("LlamaConfig", {**NORM, "rope_parameters": DEFAULT_ROPE}, "prefixed"),
    "smollm": ("LlamaConfig", {**NORM, "rope_parameters": DEFAULT_ROPE, "tie_word_embeddings": True}, "smollm"),
    "qwen2": ("Qwen2Config", {**NORM, "rope_parameters": DEFAULT_ROPE, "tie_word_embeddings": True}, "qwen2"),
    "qwen2linear": ("Qwen2Config", {**NORM, "rope_parameters": LINEAR_ROPE}, "qwen2"),
    "qwen3": ("Qwen3Config", {**NORM, "rope_parameters": LINEAR_ROPE, "head_dim": 16}, "qwen2"),
    "mistral": ("MistralConfig", {**NORM, "rope_parameters": LINEAR_ROPE, "head_dim": 16, "sliding_window": 8}, "prefixed"),
    "gemma": ("GemmaConfig", GEMMA, "unprefixed"),
    "gemma2": ("Gemma2Config", {**GEMMA2, **CAPS}, "unprefixed"),
    "gemma3": ("Gemma3TextConfig", {**GEMMA2, "num_hidden_layers": 7, "rope_parameters": GEMMA3_ROPE}, "unprefixed"),
    "gemma3capped": ("Gemma3TextConfig", {**GEMMA2, "final_logit_softcapping": 4.0, "num_hidden_layers": 7}, "unprefixed"),
    "smollm3": ("SmolLM3Config", {**NORM, "rope_parameters": DEFAULT_ROPE, "num_hidden_layers": 4, "pad_token_id": None,
                                  "no_rope_layers": [1, 0, 0, 1]}, "llama3"),
}  # fmt: skip
_ACTIVATION = ({"hidden_act": "gelu"}, {"hidden_act": "relu"})
_GEMMA_ACTIVATION = ({"hidden_activation": "gelu_python"}, {"hidden_activation": "relu"})
_BASE = {"rope_parameters": {"rope_type": "default", "rope_theta": 1e4}}
_UNSCALED = {"rope_parameters": DEFAULT_ROPE}
SWAPPED = {
    "llama3": (*_ACTIVATION, _BASE, _UNSCALED),
    "llama2": (*_ACTIVATION, _BASE),
    "smollm": (*_ACTIVATION, _BASE),
    "qwen2": (*_ACTIVATION, _BASE),
    "qwen2linear": (*_ACTIVATION, _BASE, _UNSCALED),
    "qwen3": (*_ACTIVATION, _BASE, _UNSCALED),
    "mistral": (*_ACTIVATION, _BASE, _UNSCALED, {"sliding_window": None}),
    "gemma": ({"hidden_act": "gelu_python"}, {"hidden_act": "relu"}, {"rope_parameters": DEFAULT_ROPE}),
    "gemma2": (*_GEMMA_ACTIVATION, {"rope_parameters": DEFAULT_ROPE}, {"query_pre_attn_scalar": 8}, {"sliding_window": 64},
               {"final_logit_softcapping": None}, {"attn_logit_softcapping": None}),
    "gemma3": (*_GEMMA_ACTIVATION, {"query_pre_attn_scalar": 8}, {"sliding_window": 64},
               {"rope_parameters": GEMMA3_ROPE | {"full_attention": {"rope_type": "default", "rope_theta": 1e6}}},
               {"rope_parameters": GEMMA3_ROPE | {"sliding_attention": {"rope_type": "default", "rope_theta": 1e3}}}),
    "gemma3capped": ({"final_logit_softcapping": None},),
    "smollm3": (*_ACTIVATION, _BASE, {"no_rope_layers": [1, 1, 1, 0]}),
}  # fmt: skip
"""What a test of each family must tell from what its config says; the epsilon for all."""


def opened(folder, **config):
    """A model as `transformers` opens it; only its plain attention knows soft caps."""
    return transformers.AutoModelForCausalLM.from_pretrained(folder, attn_implementation="eager", **config).eval()


def written(name, folder):
    """A tiny model with random weights as `transformers` writes it."""
    kind, settings, tokenizer = FAMILIES[name]
    if tokenizer in KINDS:
        checkpoint(folder, **KINDS[tokenizer])
    else:
        sentencepiece_model(folder, prefix=tokenizer == "prefixed")
    size = open_causal_pieces(folder).vocabulary_size
    torch.manual_seed(1)
    config = getattr(transformers, kind)(**SIZES | settings, vocab_size=size + 8, bos_token_id=1, eos_token_id=0)
    config.initializer_range = 0.3
    model = transformers.AutoModelForCausalLM.from_config(config, attn_implementation="eager").eval()
    with torch.no_grad():  # norms and biases as they might be after training
        for parameter in model.parameters():
            if parameter.ndim == 1:
                parameter += 0.1 * torch.randn_like(parameter)
    model.save_pretrained(folder)
    return model


@pytest.fixture(scope="module", params=FAMILIES)
def pair(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp(request.param)
    theirs = written(request.param, folder)
    pieces = open_causal_pieces(folder)
    ours = causal_lm.build(Model(preset=str(folder)), str(folder), pieces, 24)
    return theirs, ours, pieces, folder


def logits(theirs, ids):
    with torch.no_grad():
        return theirs(torch.tensor(np.asarray(ids, np.int64)[None])).logits[0].numpy()


def test_logits(pair):
    theirs, ours, pieces, _ = pair
    ids = [pieces.begin_id, *pieces.encode([TEXT])[0].tolist()]
    assert len(ids) > 20
    expected = logits(theirs, ids)
    assert np.abs(expected).max() > 0.5
    for model in (ours, to_float32(ours)):
        np.testing.assert_allclose(causal_lm.logits_of(model, tf.constant([ids])).numpy()[0], expected, atol=1e-4)


def test_the_test_of_the_logits_is_not_blind(pair, request):
    """Activations work where they bend, and each field that is swapped shows in the logits."""
    theirs, ours, pieces, folder = pair
    ids = [pieces.begin_id, *pieces.encode([TEXT])[0].tolist()]
    before = []
    hooks = [
        layer.mlp.gate_proj.register_forward_hook(lambda _, __, output: before.append(float(output.std())))
        for layer in theirs.model.layers
    ]
    logits(theirs, ids)
    for hook in hooks:
        hook.remove()
    assert min(before) > 1
    mine = causal_lm.logits_of(ours, tf.constant([ids])).numpy()[0]
    for swapped in ({"rms_norm_eps": 1e-6}, *SWAPPED[_name(request)]):
        assert np.abs(logits(opened(folder, **swapped), ids) - mine).max() > 1e-3, swapped


def _name(request):
    return next(name for name in FAMILIES if request.node.name.endswith(f"[{name}]"))


def test_greedy_text(pair):
    theirs, ours, pieces, _ = pair
    prompts = [TEXT[:9], TEXT[:30]]
    found = Completer(ours, pieces, 64, 24, Sampling()).token_ids(prompts)
    for prompt, new in zip(prompts, found, strict=True):
        ids = [pieces.begin_id, *pieces.encode([prompt])[0].tolist()]
        start = len(ids)
        while len(ids) < start + 24 and (following := int(logits(theirs, ids)[-1].argmax())) not in pieces.end_ids:
            ids.append(following)
        assert new.tolist() == ids[start:]


@pytest.mark.parametrize("stride", [24, 9])
def test_perplexity(pair, stride):
    theirs, ours, pieces, _ = pair
    document = pieces.encode([TEXT * 2])[0]

    class Table:
        def tokens(self, index, begin, end):
            return document[begin:end]

        def targets(self, index, begin, end):
            return np.ones(len(document[begin:end]), bool)

    windows = list(windows_of(len(document), 24, stride, 0))
    found = predictions(causal_lm.log_probabilities(ours), Table(), windows, pieces)
    mine = -np.concatenate([one.log_probabilities for one in found]).sum()
    stream = [pieces.begin_id, *document.tolist(), pieces.end_id]
    total = 0.0
    for window in windows:
        scores = torch.tensor(logits(theirs, stream[window.begin : window.end]))
        loss = torch.nn.functional.cross_entropy(
            scores, torch.tensor(stream[window.begin + 1 : window.end + 1]), reduction="none"
        )
        total += float(loss[window.fresh - window.begin :].sum())
    count = len(document) + 1
    assert math.exp(mine / count) == pytest.approx(math.exp(total / count), rel=1e-4)


def test_ids_are_those_of_their_tokenizer(pair):
    _, _, pieces, folder = pair
    theirs = transformers.AutoTokenizer.from_pretrained(folder)
    # A text that begins with a blank gets no second one in the LlamaTokenizer of transformers 5; in SentencePiece it does.
    first = [" x"] if type(theirs).__name__ != "LlamaTokenizer" else []
    for text in (TEXT, *first, "a  b", "x\n", "日本語 12 é"):
        ids = theirs(text)["input_ids"]
        begin = [pieces.begin_id] if pieces.ends.begin else []
        assert ids == [*begin, *pieces.encode([text])[0].tolist()]
    assert json.loads((folder / "config.json").read_text())["vocab_size"] == pieces.vocabulary_size + 8


WRITTEN = {"llama3", "llama2", "smollm", "qwen2", "qwen2linear", "mistral", "gemma", "gemma3"}


def test_written_and_opened_there(pair, tmp_path, request):
    theirs, ours, pieces, _ = pair
    name = _name(request)
    plain = to_float32(ours)
    if name not in WRITTEN:
        with pytest.raises(UserError, match=r"export\.formats: huggingface"):
            huggingface.write(plain, pieces, 24, tmp_path)
        return
    for variable in plain.trainable_variables:  # it has learnt something
        variable.assign(variable * 1.05)
    huggingface.write(plain, pieces, 24, tmp_path)
    again = opened(tmp_path)
    assert type(again) is type(theirs)
    reader = transformers.AutoTokenizer.from_pretrained(tmp_path)
    ids = [pieces.begin_id, *pieces.encode([TEXT])[0].tolist()]
    assert reader(TEXT)["input_ids"][-len(ids) + 1 :] == ids[1:]
    expected = causal_lm.logits_of(plain, tf.constant([ids])).numpy()[0]
    np.testing.assert_allclose(logits(again, ids), expected, atol=1e-4)
    prompt = ids[:8]
    with torch.no_grad():
        greedy = again.generate(torch.tensor([prompt]), do_sample=False, max_new_tokens=12)[0, 8:].tolist()
    if greedy[-1] in pieces.end_ids:
        greedy.pop()
    generator = Generator(plain, pieces.end_ids, 64)
    found = generator.generate(tf.ragged.constant([prompt], tf.int32), tf.constant(12), Sampling())
    assert found.to_list() == [greedy]
    back = causal_lm.build(Model(preset="x"), str(tmp_path), open_causal_pieces(tmp_path), 24)
    np.testing.assert_allclose(causal_lm.logits_of(back, tf.constant([ids])).numpy()[0], expected, atol=1e-4)
