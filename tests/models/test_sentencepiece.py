"""SentencePiece: the graph, the parts of a text and the bytes of a token, against the library itself."""

import io
import json

import numpy as np
import pytest
import sentencepiece
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from lmworks.configs.errors import UserError
from lmworks.models.sentencepiece import SentencePiece
from lmworks.models.tokenizer import open_causal_pieces
from lmworks.pipeline.preprocess.documents import pieces_of
from tests.models.test_bytepair import ADVERSARIAL, CHARACTERS, TEXTS
from tests.models.test_splitting import MORE

LINES = [line for text in TEXTS for line in text.split("\n")] + ["naïve café 日本語 "] * 20


def sentencepiece_model(folder, prefix=True):
    """A folder as Llama 2's (`prefix`) or Gemma's: BPE with bytes, digits alone, blanks in rows."""
    file = io.BytesIO()
    names = {"unk_piece": "<unk>", "bos_piece": "<s>", "eos_piece": "</s>"} if prefix else {
        "unk_piece": "<unk>", "bos_piece": "<bos>", "eos_piece": "<eos>", "pad_piece": "<pad>"}  # fmt: skip
    ids = {"unk_id": 2, "bos_id": 1, "eos_id": 0} if prefix else {"pad_id": 3, "eos_id": 0, "bos_id": 1, "unk_id": 2}
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(LINES), model_writer=file, vocab_size=1100, model_type="bpe", byte_fallback=True,
        normalization_rule_name="identity", remove_extra_whitespaces=False, split_digits=True, add_dummy_prefix=prefix,
        allow_whitespace_only_pieces=True, minloglevel=2, character_coverage=0.99, **names, **ids,
        user_defined_symbols=[] if prefix else ["\n", "\n\n", "▁▁▁", "<start_of_turn>", "<end_of_turn>", "<b>"],
    )  # fmt: skip
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "tokenizer.model").write_bytes(file.getvalue())
    settings = {"tokenizer_class": "LlamaTokenizer" if prefix else "GemmaTokenizer", "legacy": True}
    settings |= {"bos_token": names["bos_piece"], "eos_token": names["eos_piece"], "unk_token": "<unk>"}
    settings["add_bos_token"] = True
    if not prefix:
        found = sentencepiece.SentencePieceProcessor(model_proto=file.getvalue())
        special = ["<start_of_turn>", "<end_of_turn>", "<bos>", "<eos>", "<pad>"]
        settings["added_tokens_decoder"] = {
            str(found.PieceToId(token)): {"content": token, "special": True} for token in special
        }
        turn = found.PieceToId("<end_of_turn>")
        (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": [0, turn]}))
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))


@pytest.fixture(scope="module", params=["prefixed", "unprefixed"])
def opened(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp(request.param)
    sentencepiece_model(folder, request.param == "prefixed")
    pieces = open_causal_pieces(folder)
    assert isinstance(pieces, SentencePiece)
    return pieces, sentencepiece.SentencePieceProcessor(model_proto=(folder / "tokenizer.model").read_bytes()), folder


def compare(pieces, theirs, texts):
    expected = [theirs.encode(text) for text in texts]
    assert [one.tolist() for one in pieces.encode(texts)] == expected
    assert pieces.tokenize(tf.constant(texts)).to_list() == expected
    assert [pieces.decode(ids) for ids in expected] == [text.replace("▁", " ") for text in texts]


def test_adversarial_text_equals_the_library(opened):
    pieces, theirs, _ = opened
    compare(pieces, theirs, [*ADVERSARIAL, *MORE, "a▁b", "<b>x</b>", TEXTS[1]])


@settings(max_examples=60, deadline=None)
@given(st.lists(st.text(CHARACTERS, max_size=40), min_size=1, max_size=20))
def test_random_unicode_equals_the_library(opened, texts):
    compare(*opened[:2], texts)


def test_special_tokens_stay_plain_text_and_stand_for_none(opened):
    pieces, _, _ = opened
    text = "<start_of_turn>x<end_of_turn></s><eos><s>"
    ids = pieces.encode([text])[0].tolist()
    assert pieces.decode([pieces.begin_id, *ids, *pieces.end_ids]) == text
    assert not {*pieces.end_ids, pieces.begin_id} & set(ids)


def test_parts_of_a_text_have_the_tokens_of_the_whole(opened):
    pieces, _, _ = opened
    long = " ".join([*TEXTS, "  three   blanks\n\nand lines\n"])
    chat = ["<|im_start|>user\n", "Hi there, 12!<|im_end|>\n", "<|im_start|>assistant\n", "é<|im_end|>\n"]
    cut = list(pieces_of(long))
    assert len(cut) > 1
    for parts in (cut, chat, ["one"], [""]):
        (found,) = pieces.encode_parts([parts])
        assert [len(found)] == [len(parts)]
        assert np.concatenate(found).tolist() == pieces.encode(["".join(parts)])[0].tolist()
    assert pieces.decode(np.concatenate(found[:1])) == ""
    pieces._reaches = True  # as of a vocabulary with pieces that reach across
    try:
        for parts in (cut[:2], chat):
            (found,) = pieces.encode_parts([parts])
            assert len(found) == len(parts)
            assert np.concatenate(found).tolist() == pieces.encode(["".join(parts)])[0].tolist()
            assert "".join(map(pieces.continuation, found)).strip() == "".join(parts).strip()
    finally:
        pieces._reaches = False


def test_what_follows_a_text_keeps_its_blank(opened):
    pieces, _, _ = opened
    ids = pieces.encode(["the words"])[0].tolist()
    at = next(place for place in range(1, len(ids)) if pieces.vocabulary[ids[place]].startswith("▁"))
    assert pieces.decode(ids[:at]) + pieces.continuation(ids[at:]) == "the words"
    told = pieces.detokenize(tf.ragged.constant([ids[at:], []], tf.int32, ragged_rank=1)).numpy().tolist()
    assert [one.decode() for one in told] == [" words", ""]
    assert b"".join(pieces.token_bytes[index] for index in pieces.encode(["𝒜"])[0]).strip() == "𝒜".encode()


def test_saved_and_opened_it_is_the_same(opened, tmp_path):
    pieces, _, _ = opened
    pieces.save(tmp_path)
    again = SentencePiece.from_folder(tmp_path)
    for attribute in ("vocabulary", "ends", "begin_id", "end_id", "end_ids", "token_bytes", "proto"):
        assert getattr(again, attribute) == getattr(pieces, attribute)


def test_what_stands_before_and_behind_a_document(opened):
    pieces, _, _ = opened
    assert (pieces.begin_id, pieces.end_id, pieces.border_ids) == (1, 0, (0, 1))
    names = [pieces.vocabulary[index] for index in pieces.end_ids]
    assert names in (["</s>"], ["<eos>", "<end_of_turn>"])


def test_no_such_file(tmp_path):
    with pytest.raises(UserError, match=r"has no tokenizer.model"):
        SentencePiece.from_folder(tmp_path)
    (tmp_path / "tokenizer.model").write_bytes(b"none")
    with pytest.raises(UserError, match="is no SentencePiece model"):
        SentencePiece.from_folder(tmp_path)
