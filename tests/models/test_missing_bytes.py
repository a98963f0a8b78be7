"""Byte-level BPE without all 256 bytes: ids as `tokenizers` itself gives them, in the data stage and in the graph."""

import json

import keras_hub
import numpy as np
import pytest
import tensorflow as tf
import tokenizers
from hypothesis import given, settings
from hypothesis import strategies as st

from lmworks.configs.errors import UserError
from lmworks.models.bytepair import BYTE_CHARACTERS, BytePair, train_bytepair
from tests.models.test_bytepair import ADVERSARIAL, CHARACTERS, TEXTS
from tests.models.test_splitting import KINDS, checkpoint
from tests.pipeline.corpora import corpus

# SmolLM2's own lacks the first 21; here also a letter, a blank's neighbour, and one half of many a character.
SMOLLM2 = [0x04, 0x06, 0x13, 0x14, 0x16, 0x1D, 0xC0, 0xC1, 0xF1, 0xF2, *range(0xF5, 0x100)]
MISSING = [*SMOLLM2, ord("q"), ord("\t"), 0xC3, 0xA9, 0xF0]
MORE = [
    "q", "qq", "aqb aqqb q qa", "ar\x04gument", "\x04", "\x04\x04 \x06x\x04", "é éé naïve Ã©", "🙂🙂x", "\t\tdef\tq", "the\x04re qthe theq",
]  # fmt: skip


def _without(folder, missing=MISSING, kind="gpt2", unknown=None, fuse=False):
    """A checkpoint of which these bytes, and all tokens and merges that hold them, are taken out; its own tokenizer."""
    checkpoint(folder, **KINDS[kind])
    described = json.loads((folder / "tokenizer.json").read_text())
    gone, model = {BYTE_CHARACTERS[byte] for byte in missing}, described["model"]
    model["vocab"] = {token: index for token, index in model["vocab"].items() if "<|" in token or not gone & set(token)}
    merges = [pair.split(" ") if isinstance(pair, str) else pair for pair in model["merges"]]
    model["merges"] = [pair for pair in merges if not gone & set("".join(pair))]
    if kind == "llama3":  # whole words that hold what no merge can make
        model["vocab"] |= {"zqx": 3000, "Ġq": 3001}
    model["unk_token"], model["fuse_unk"] = unknown, fuse
    (folder / "tokenizer.json").write_text(json.dumps(described))
    return BytePair.from_folder(folder), tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json"))


CASES = {
    "dropped": {},
    "smollm": {"kind": "smollm", "missing": SMOLLM2},
    "whole words": {"kind": "llama3"},
    "unknown": {"unknown": "<|im_start|>"},
    "fused in llama3": {"unknown": "<|im_start|>", "fuse": True, "kind": "llama3"},
}


@pytest.fixture(scope="module", params=CASES)
def opened(request, tmp_path_factory):
    return _without(tmp_path_factory.mktemp("missing"), **CASES[request.param])


def _compare(pieces, theirs, texts):
    expected = [one.ids for one in theirs.encode_batch(texts, add_special_tokens=False)]
    assert [one.tolist() for one in pieces.encode(texts)] == expected
    assert pieces.tokenize(tf.constant(texts)).to_list() == expected


def test_adversarial_text(opened):
    pieces, theirs = opened
    _compare(pieces, theirs, [*MORE, *(text for text in ADVERSARIAL if "<|" not in text), "zqx a q", TEXTS[0][:3000]])
    lossy = MORE if ord("q") in pieces.missing_bytes else ["ar\x04gument", "\x04"]
    assert all(pieces.bytes_without_token(text) for text in lossy)


@settings(max_examples=25, deadline=None)
@given(
    st.lists(
        st.text(CHARACTERS | st.sampled_from("q\t\x04\x06éã🙂\U00050000 aer"), max_size=30), min_size=1, max_size=20
    )
)
def test_random_text(opened, texts):
    _compare(*opened, [text for text in texts if "<|" not in text] or ["q"])


def test_bytes_are_counted(opened):
    pieces, _ = opened
    for text in [*MORE, *ADVERSARIAL]:
        by_hand = sum(byte in pieces.missing_bytes for byte in text.encode())
        assert pieces.bytes_without_token(text) == by_hand


def test_saved_and_opened_it_is_the_same(opened, tmp_path):
    pieces, theirs = opened
    pieces.save(tmp_path)
    again = BytePair.from_folder(tmp_path)
    assert (again.unknown, again.fuse_unknown, again.missing_bytes) == (
        pieces.unknown,
        pieces.fuse_unknown,
        pieces.missing_bytes,
    )
    _compare(again, theirs, MORE)
    _compare(pieces.stopping_at("<|eot|>"), theirs, MORE)


def test_what_cannot_be_is_refused(tmp_path):
    pieces = train_bytepair(TEXTS, 300)
    vocabulary = [token for token in pieces.vocabulary if token != "q"]
    with pytest.raises(UserError, match="lacks <unk>"):
        BytePair(vocabulary, pieces.merges, unknown="<unk>")
    with pytest.raises(UserError, match="unknown token, whose name is empty"):
        BytePair(vocabulary, pieces.merges, unknown="")
    BytePair(pieces.vocabulary, pieces.merges, unknown="")  # GPT-2's own file, which has all bytes
    BytePair(vocabulary, []).keras_hub_tokenizer(keras_hub.models.GPT2Tokenizer)
    lost = "".join(pieces.merges[3])
    with pytest.raises(UserError, match="of the merge"):
        BytePair([token for token in pieces.vocabulary if token != lost], pieces.merges)
    checkpoint(tmp_path, **KINDS["gpt2"])
    described = json.loads((tmp_path / "tokenizer.json").read_text())
    described["model"]["end_of_word_suffix"] = "</w>"
    (tmp_path / "tokenizer.json").write_text(json.dumps(described))
    with pytest.raises(UserError, match="has end_of_word_suffix '</w>', which is not known here"):
        BytePair.from_folder(tmp_path)


def test_preprocess_counts_them_and_says_so(tmp_path):
    _without(tmp_path / "tokenizer", SMOLLM2)
    (tmp_path / "tokenizer" / "config.json").write_text("{}")
    texts = [f"text number {number}" + "\x04\x06" * (number % 3 == 0) for number in range(30)]
    preset = str(tmp_path / "tokenizer")
    _, sequences = corpus(tmp_path / "corpus", "causal_lm", 16, texts, preset=preset, tokenizer={})
    assert sequences.properties["bytes_without_token"] == 20
    assert sequences.properties["rows_with_such_bytes"] == 10
    assert sequences.properties["bytes"] == sum(len(f"text number {number}") for number in range(30))
    assert (
        "21 of the 256 bytes have no token: 20 of the text, in 10 rows, are dropped" in sequences.properties["summary"]
    )
    assert np.all(np.array([len(SMOLLM2), len(MISSING)]) == (21, 26))
