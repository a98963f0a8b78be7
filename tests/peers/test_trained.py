"""Trained models, through all stages: the `huggingface` folder in `transformers`, as it is, gives what was evaluated."""

import json
import logging

import numpy as np
import pyarrow.parquet as pq
import pytest
import tensorflow as tf

from lmworks.models import causal_lm, masked_lm, text_classification
from lmworks.models.tokenizer import open_causal_pieces, open_tokenizer
from tests.conftest import lmworks
from tests.pipeline.corpora import story
from tests.tiny_reviews import rows

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
pytestmark = pytest.mark.peers
logging.getLogger("transformers").setLevel(logging.ERROR)
TOLERANCE = 1e-5


def _trained(folder, recipe, table, *settings):
    """A run of a recipe that writes Hugging Face's format."""
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in table))
    common = (f"ingest.train={folder}/rows.jsonl", "export.formats=[saved_model,huggingface]", *settings)
    done = lmworks(
        "run",
        "--in_process",
        f"--config=configs/{recipe}.yaml",
        f"--root={folder}/runs",
        *(f"--set={x}" for x in common),
    )
    assert done.returncode == 0, done.stderr
    return folder / "runs" / recipe


def _difference(one, other):
    return float(np.abs(np.asarray(one) - np.asarray(other)).max())


@pytest.fixture(scope="module")
def minilm(tmp_path_factory):
    train = "train={steps: 20, batch_size: 16, learning_rate: 2e-4, precision: float32}"
    return _trained(tmp_path_factory.mktemp("minilm"), "classify", rows(400), "preprocess={sequence_length: 32}", train)


def test_minilm_fine_tuned(minilm):
    exported = minilm / "export/servable/huggingface"
    reader = transformers.AutoTokenizer.from_pretrained(exported)
    predictions = pq.read_table(minilm / "evaluate/evaluation/predictions.parquet")
    rows_of_test = pq.read_table(minilm / "ingest/examples/Split-test").select(["id", "text"]).to_pylist()
    text_of = {row["id"]: row["text"] for row in rows_of_test}

    def logits(texts, **config):
        packed = reader(texts, padding=True, truncation=True, return_tensors="pt")
        model = transformers.AutoModelForSequenceClassification.from_pretrained(exported, **config).eval()
        with torch.no_grad():
            return model(**packed).logits.numpy()

    scores = np.stack(predictions.column("scores").to_numpy())
    assert np.ptp(scores) > 0.8, "it has learnt something"
    theirs = logits([text_of[name] for name in predictions.column("id").to_pylist()])
    assert _difference(tf.nn.softmax(theirs), scores) < TOLERANCE

    loaded, _ = text_classification.load(minilm / "train/model")
    tokenizer = open_tokenizer(minilm / "preprocess/sequences/tokenizer")
    # Texts of any words: on the test rows the model is so sure that little can move its logits.
    words = sorted(word for word in reader.get_vocab() if word.isalpha() and len(word) > 2)
    texts = [" ".join(line) for line in np.random.default_rng(0).choice(words, (64, 12))]
    ours = loaded(tokenizer.to_model_inputs(*tokenizer.pack(texts, sequence_length=32)), training=False).numpy()
    assert _difference(ours, logits(texts)) < TOLERANCE
    for swapped in ({"hidden_act": "gelu_new"}, {"layer_norm_eps": 1e-5}):
        assert _difference(ours, logits(texts, **swapped)) > 5 * TOLERANCE, f"blind to {swapped}"


@pytest.fixture(scope="module")
def gpt2(tmp_path_factory):
    model = "model={architecture: gpt2, layers: 3, heads: 4, hidden_dim: 64, intermediate_dim: 96}"
    train = "train={steps: 80, batch_size: 8, learning_rate: 0.01, precision: float32}"
    preprocess = "preprocess={sequence_length: 48, tokenizer: {train: {kind: bpe, vocabulary_size: 400}}}"
    table = [{"text": story(number)} for number in range(150)]
    return _trained(tmp_path_factory.mktemp("gpt2"), "pretrain", table, model, train, preprocess)


def test_our_own_gpt2(gpt2):
    exported = gpt2 / "export/servable/huggingface"
    ids = np.random.default_rng(0).integers(0, open_causal_pieces(exported).vocabulary_size, (32, 40))

    def logits(**config):
        model = transformers.AutoModelForCausalLM.from_pretrained(exported, **config).eval()
        with torch.no_grad():
            return model(torch.tensor(ids)).logits.numpy()

    theirs = logits()
    ours = causal_lm.logits_of(causal_lm.load(gpt2 / "train/model"), tf.constant(ids, tf.int32)).numpy()
    assert _difference(ours, theirs) < TOLERANCE
    for swapped in ({"activation_function": "gelu"}, {"layer_norm_epsilon": 1e-3}):
        assert _difference(ours, logits(**swapped)) > 5 * TOLERANCE, f"blind to {swapped}"


@pytest.fixture(scope="module")
def masked(tmp_path_factory):
    model = "model={architecture: bert, layers: 2, heads: 4, hidden_dim: 64, intermediate_dim: 128}"
    train = "train={steps: 150, batch_size: 16, learning_rate: 0.003, precision: float32}"
    preprocess = "preprocess={sequence_length: 48, tokenizer: {train: {kind: wordpiece, vocabulary_size: 120}}}"
    table = [{"text": story(number)} for number in range(150)]
    return _trained(tmp_path_factory.mktemp("masked"), "pretrain", table, "task=masked_lm", model, train, preprocess)


def test_our_own_masked_bert(masked):
    exported = masked / "export/servable/huggingface"
    reader = transformers.AutoTokenizer.from_pretrained(exported)
    ids = np.random.default_rng(0).integers(5, len(reader), (32, 24))
    positions = np.tile(np.array([[3, 11]], np.int32), (len(ids), 1))
    np.put_along_axis(ids, positions, reader.mask_token_id, axis=1)

    def logits(**config):
        model = transformers.AutoModelForMaskedLM.from_pretrained(exported, **config).eval()
        with torch.no_grad():
            return np.take_along_axis(model(torch.tensor(ids)).logits.numpy(), positions[..., None], axis=1)

    inputs = {
        "token_ids": ids.astype(np.int32),
        "segment_ids": np.zeros_like(ids, np.int32),
        "padding_mask": np.ones_like(ids, bool),
    }
    ours = masked_lm.logits_at(masked_lm.load(masked / "train/model"), inputs, positions).numpy()
    assert _difference(ours, logits()) < TOLERANCE
    for swapped in ({"hidden_act": "gelu_new"}, {"layer_norm_eps": 1e-3}):
        assert _difference(ours, logits(**swapped)) > 5 * TOLERANCE, f"blind to {swapped}"
