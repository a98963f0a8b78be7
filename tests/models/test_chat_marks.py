"""ChatML whose marks are special tokens of the vocabulary: ids as `tokenizers` reads a rendered conversation."""

import json

import numpy as np
import pytest
import tensorflow as tf

from lmworks.configs.schema import Model
from lmworks.models import causal_lm
from lmworks.models.bytepair import BytePair
from lmworks.models.chat import BEGIN, END, parts_of, render
from lmworks.models.chat_marks import Marks
from lmworks.pipeline.export import causal_lm as export
from lmworks.pipeline.export.continuation import Wish, continue_text
from tests.models.test_splitting import KINDS, checkpoint
from tests.tiny_decoders import backbone

CHATS = [
    [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hi, who's 12 years old?!"},
     {"role": "assistant", "content": " Nobody.\n\nReally! "}, {"role": "user", "content": ""},
     {"role": "assistant", "content": "\u0301é"}],
    [{"role": "user", "content": "x  y\n\n z"}, {"role": "assistant", "content": "ok?"}],
]  # fmt: skip


@pytest.fixture(scope="module")
def opened(tmp_path_factory):
    folder = tmp_path_factory.mktemp("qwen")
    theirs = checkpoint(folder, **KINDS["qwen2"], names=["<|endoftext|>", BEGIN, END, "<|eot|>"])
    return BytePair.from_folder(folder).stopping_at(END), theirs


def test_ids_are_those_of_the_rendered_text(opened):
    pieces, theirs = opened
    marks = Marks.of(pieces)
    texts = [json.dumps(chat) for chat in CHATS]
    rendered = [render(text) for text in texts]
    expected = [one.ids for one in theirs.encode_batch(rendered)]
    found = marks.encode([list(parts_of(text)) for text in texts])
    assert [np.concatenate(parts).tolist() for parts in found] == expected
    assert marks.tokenize(tf.constant(rendered)).to_list() == expected
    assert [expected[0].count(pieces.vocabulary.index(mark)) for mark in (BEGIN, END)] == [5, 5]


def test_what_a_user_writes_is_no_mark(opened):
    pieces, theirs = opened
    marks = Marks.of(pieces)
    (ids,) = marks.question(tf.constant([f"Hi{END}"])).to_list()
    end = pieces.vocabulary.index(END)
    assert ids.count(end) == 1
    assert ids[-len(theirs.encode(f"{END}\n{BEGIN}assistant\n").ids) :][0] == end
    (plain,) = marks.question(tf.constant(["Hi 12"])).to_list()
    assert plain == theirs.encode(f"{BEGIN}user\nHi 12{END}\n{BEGIN}assistant\n").ids


def test_a_vocabulary_without_marks_has_none(tmp_path):
    checkpoint(tmp_path, **KINDS["gpt2"], names=["<|endoftext|>", "<|im_start|>", "<|x|>", "<|y|>"])
    assert Marks.of(BytePair.from_folder(tmp_path)) is None


@pytest.mark.slow  # builds and serves a model
def test_the_served_model_reads_conversations(opened, tmp_path):
    pieces, _ = opened
    assert pieces.end_ids == (0, 3, pieces.vocabulary.index(END))
    backbone("Qwen", pieces).save_to_preset(str(tmp_path / "preset"))
    model = causal_lm.build(Model(preset="x"), str(tmp_path / "preset"), pieces, 96)
    export.write(model, pieces, 96, tmp_path / "served", chat=True)
    served = tf.saved_model.load(str(tmp_path / "served")).signatures
    text = json.dumps(CHATS[1])
    ids = [0, *np.concatenate(Marks.of(pieces).encode([list(parts_of(text))])[0]).tolist()]
    found = served["score"](text=tf.constant([render(text)]))["log_probabilities"].numpy()[0]
    logits = causal_lm.logits_of(model, tf.constant([ids[:-1]]))[0]
    expected = tf.gather(tf.nn.log_softmax(logits), ids[1:], batch_dims=1).numpy()
    np.testing.assert_allclose(found, expected, atol=1e-4)
    answer = served["serving_default"](text=tf.constant(["Hi?"]))["text"].numpy()[0].decode()
    assert answer
    assert "".join(continue_text(served, "Hi?", Wish(tokens=64))) == answer
