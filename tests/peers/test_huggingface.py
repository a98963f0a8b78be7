"""Weights and tokenizers go to `transformers` and come back: same logits, same greedy text, same perplexity."""

import math

import keras
import keras_hub
import numpy as np
import pytest
import tensorflow as tf

from lmworks.configs.schema import Model
from lmworks.models import causal_lm, huggingface, masked_lm, text_classification
from lmworks.models.bytepair import BytePair, train_bytepair
from lmworks.models.generation import Completer, Sampling
from lmworks.models.tokenizer import open_tokenizer
from lmworks.models.wordpiece import WordPiece, train_wordpiece
from lmworks.pipeline.windows import predictions, windows_of

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
pytestmark = pytest.mark.peers

TEXTS = [
    f"the quick brown fox {word} over {number} lazy dogs, don't you?\n"
    for number in range(60)
    for word in ("ran", "sat")
]
SIZES = {"layers": 2, "heads": 2, "hidden_dim": 32, "intermediate_dim": 48, "dropout": 0.0}


def shaken(model):
    """Weights as they might be after training: biases and norms are not zero and one."""
    random = np.random.default_rng(0)
    for variable in model.trainable_variables:
        variable.assign(variable + 0.1 * random.normal(size=variable.shape))
    return model


@pytest.fixture(scope="module")
def bytepair():
    return train_bytepair(TEXTS, 320)


@pytest.fixture(scope="module")
def wordpiece():
    return train_wordpiece(TEXTS, 70)


@pytest.fixture(scope="module")
def gpt2(bytepair):
    keras.utils.set_random_seed(1)
    return shaken(causal_lm.build(Model(architecture="gpt2", **SIZES), None, bytepair, 24))


def test_gpt2_written_has_the_same_logits_and_greedy_text(gpt2, bytepair, tmp_path):
    huggingface.write(gpt2, bytepair, 24, tmp_path)
    theirs = transformers.AutoModelForCausalLM.from_pretrained(tmp_path)
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path)
    text = "the quick brown fox"
    ids = tokenizer(text)["input_ids"]
    assert ids == bytepair.encode([text])[0].tolist()
    ours = causal_lm.logits_of(gpt2, tf.constant([ids])).numpy()
    with torch.no_grad():
        np.testing.assert_allclose(ours, theirs(torch.tensor([ids])).logits.numpy(), atol=1e-4)
    prompt = [bytepair.end_id, *ids]
    with torch.no_grad():
        greedy = theirs.generate(torch.tensor([prompt]), do_sample=False, max_new_tokens=12)[0, len(prompt) :].tolist()
    found = Completer(gpt2, bytepair, 24, 12, Sampling()).token_ids([text])[0].tolist()
    assert found == [index for index in greedy if index != bytepair.end_id]
    assert theirs.generation_config.eos_token_id == theirs.config.eos_token_id == bytepair.end_id


@pytest.mark.parametrize("stride", [24, 12, 7])
def test_perplexity_equals_theirs_with_the_same_stride(gpt2, bytepair, tmp_path, stride):
    huggingface.write(gpt2, bytepair, 24, tmp_path)
    theirs = transformers.AutoModelForCausalLM.from_pretrained(tmp_path)
    document = bytepair.encode(["".join(TEXTS[:9])])[0]

    class Table:
        def targets(self, index, begin=0, end=None):
            return np.ones(len(document[begin:end]), bool)

        def tokens(self, document_index, begin=0, end=None):
            return document[begin:end]

    windows = list(windows_of(len(document), 24, stride, 0))
    found = list(predictions(causal_lm.log_probabilities(gpt2), Table(), windows, bytepair))
    ours = -sum(float(one.log_probabilities.sum()) for one in found) / sum(len(one.hits) for one in found)
    stream = torch.tensor([[bytepair.end_id, *document.tolist(), bytepair.end_id]])
    total, count, before = 0.0, 0, 0
    for begin in range(0, stream.shape[1] - 1, stride):
        end = min(begin + 24, stream.shape[1] - 1)
        with torch.no_grad():
            logits = theirs(stream[:, begin:end]).logits
        loss = torch.nn.functional.cross_entropy(logits[0], stream[0, begin + 1 : end + 1], reduction="none")
        total, count = total + float(loss[before - begin :].sum()), count + end - before
        before = end
        if end == stream.shape[1] - 1:
            break
    assert count == len(document) + 1
    assert math.exp(ours) == pytest.approx(math.exp(total / count), rel=1e-4)


@pytest.mark.parametrize("activation", ["gelu", "gelu_new", "relu"])
def test_gpt2_that_they_wrote_is_read_with_the_same_logits(bytepair, tmp_path, activation):
    torch.manual_seed(0)
    config = transformers.GPT2Config(
        vocab_size=320, n_positions=24, n_embd=32, n_layer=2, n_head=2, bos_token_id=0, eos_token_id=0, n_inner=48,
        activation_function=activation, layer_norm_epsilon=1e-2, initializer_range=0.4,
    )  # fmt: skip
    theirs = transformers.GPT2LMHeadModel(config).eval()
    theirs.save_pretrained(tmp_path)
    bytepair.save(tmp_path)
    assert BytePair.from_folder(tmp_path).vocabulary == bytepair.vocabulary
    ours = causal_lm.build(Model(preset=str(tmp_path), dropout=0.0), str(tmp_path), bytepair, 24)
    ids = bytepair.encode(["the quick brown fox ran"])[0][None]
    with torch.no_grad():
        expected = theirs(torch.tensor(ids.astype(np.int64))).logits.numpy()
    found = causal_lm.logits_of(ours, tf.constant(ids)).numpy()
    np.testing.assert_allclose(found, expected, atol=1e-4)
    for swapped in ({"activation_function": "silu"}, {"layer_norm_epsilon": 1e-5}):
        other = transformers.GPT2LMHeadModel.from_pretrained(tmp_path, **swapped).eval()
        with torch.no_grad():
            assert np.abs(other(torch.tensor(ids.astype(np.int64))).logits.numpy() - found).max() > 1e-3, swapped


def _masked_inputs(wordpiece):
    ids = wordpiece.encode(["the quick brown fox ran over 3 lazy dogs"])[0]
    line = np.concatenate([[wordpiece.cls_id], ids, [wordpiece.sep_id]]).astype(np.int32)
    line[3] = wordpiece.mask_id
    return line[None], np.array([[3, 5]], np.int32)


def _masked_logits(model, token_ids, positions):
    inputs = {
        "token_ids": tf.constant(token_ids),
        "segment_ids": tf.zeros_like(token_ids),
        "padding_mask": tf.ones_like(token_ids, tf.bool),
    }
    states, embeddings, bias = masked_lm.target_states(model, inputs, tf.constant(positions))
    ours = (tf.einsum("btw,vw->btv", states, embeddings) + bias).numpy()
    np.testing.assert_allclose(ours, model({**inputs, "mask_positions": tf.constant(positions)}).numpy(), atol=1e-5)
    return ours


def test_masked_bert_goes_there_and_comes_back(wordpiece, tmp_path):
    keras.utils.set_random_seed(2)
    model = shaken(masked_lm.build(Model(architecture="bert", **SIZES), None, wordpiece, 32))
    huggingface.write(model, wordpiece, 32, tmp_path)
    theirs = transformers.AutoModelForMaskedLM.from_pretrained(tmp_path)
    token_ids, positions = _masked_inputs(wordpiece)
    ours = _masked_logits(model, token_ids, positions)
    with torch.no_grad():
        expected = theirs(torch.tensor(token_ids.astype(np.int64))).logits.numpy()[:, positions[0]]
    np.testing.assert_allclose(ours, expected, atol=1e-4)
    filled = transformers.AutoTokenizer.from_pretrained(tmp_path)("the quick [MASK]")["input_ids"]
    assert filled[-2] == wordpiece.mask_id
    theirs.save_pretrained(tmp_path / "again")
    wordpiece.save(tmp_path / "again")
    assert WordPiece.from_folder(tmp_path / "again").vocabulary == wordpiece.vocabulary
    back = masked_lm.build(Model(preset="x", dropout=0.0), str(tmp_path / "again"), wordpiece, 32)
    np.testing.assert_allclose(_masked_logits(back, token_ids, positions), ours, atol=1e-4)


def test_a_masked_bert_that_they_wrote_is_read_with_the_same_logits(wordpiece, tmp_path):
    """Activation and epsilon, off their defaults, are the head's too."""
    torch.manual_seed(0)
    config = transformers.BertConfig(
        vocab_size=len(wordpiece.vocabulary), pad_token_id=wordpiece.pad_id, hidden_size=32, num_hidden_layers=2,
        num_attention_heads=2, intermediate_size=48, max_position_embeddings=64, type_vocab_size=3, hidden_act="relu",
        layer_norm_eps=1e-2, initializer_range=0.4,
    )  # fmt: skip
    transformers.BertForMaskedLM(config).save_pretrained(tmp_path)
    wordpiece.save(tmp_path)
    ours = masked_lm.build(Model(preset="x", dropout=0.0), str(tmp_path), wordpiece, 32)
    token_ids, positions = _masked_inputs(wordpiece)
    found = _masked_logits(ours, token_ids, positions)

    def theirs(**swapped):
        model = transformers.BertForMaskedLM.from_pretrained(tmp_path, **swapped).eval()
        with torch.no_grad():
            return model(torch.tensor(token_ids.astype(np.int64))).logits.numpy()[:, positions[0]]

    np.testing.assert_allclose(found, theirs(), atol=1e-4)
    for swapped in ({"hidden_act": "gelu"}, {"layer_norm_eps": 1e-12}):
        assert np.abs(theirs(**swapped) - found).max() > 1e-3, swapped


def test_a_classifier_goes_there_and_comes_back(wordpiece, tmp_path):
    wordpiece.save(tmp_path / "tokenizer")
    tokenizer = open_tokenizer(tmp_path / "tokenizer")
    keras.utils.set_random_seed(3)
    model = shaken(text_classification.build(Model(architecture="bert", **SIZES), None, tokenizer, 3))
    huggingface.write(model, wordpiece, 32, tmp_path / "hf", ["bad", "fair", "good"])
    theirs = transformers.AutoModelForSequenceClassification.from_pretrained(tmp_path / "hf")
    reader = transformers.AutoTokenizer.from_pretrained(tmp_path / "hf")
    text = "the quick brown fox sat"
    inputs = tokenizer.to_model_inputs(*tokenizer.pack([text], sequence_length=32))
    ours = model(inputs, training=False).numpy()
    with torch.no_grad():
        expected = theirs(**reader(text, return_tensors="pt")).logits.numpy()
    np.testing.assert_allclose(ours, expected, atol=1e-4)
    assert theirs.config.id2label == {0: "bad", 1: "fair", 2: "good"}
    back = text_classification.build(Model(preset="x", dropout=0.0), str(tmp_path / "hf"), tokenizer, 3)
    np.testing.assert_allclose(back(inputs, training=False).numpy(), ours, atol=1e-4)
    other = text_classification.build(Model(preset="x", dropout=0.0), str(tmp_path / "hf"), tokenizer, 2)
    assert isinstance(other, keras_hub.models.BertTextClassifier)
