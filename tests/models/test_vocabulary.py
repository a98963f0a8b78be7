"""Ids are those of the checkpoint's files, whatever gaps and repetitions they have; what cannot be is refused."""

import json

import pytest
import tensorflow as tf
import tokenizers

from lmworks.configs.errors import UserError
from lmworks.models.bytepair import BytePair, train_bytepair
from lmworks.models.sentencepiece import SentencePiece
from lmworks.models.vocabulary import tokens_by_id
from lmworks.models.wordpiece import WordPiece
from tests.models.test_sentencepiece import sentencepiece_model

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "b", "##c", "the", "##e", ",", "cab"]
TEXT = "the cab, ac be bc abc zz"


def _ids(theirs):
    return theirs.encode(TEXT, add_special_tokens=False).ids


def test_a_wordpiece_keeps_ids_beyond_gaps(tmp_path):
    plain = WordPiece(list(WORDS)).reference()
    described = json.loads(plain.to_str())
    # 3 lies behind nothing, 20 and 35 behind gaps; an added token stands beyond them all.
    described["model"]["vocab"] = {
        token: index if index < 6 else 15 + 5 * (index - 5) for index, token in enumerate(WORDS)
    }
    described["added_tokens"].append(described["added_tokens"][0] | {"id": 60, "content": "[NEW]"})
    (tmp_path / "tokenizer.json").write_text(json.dumps(described))
    theirs = tokenizers.Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
    pieces = WordPiece.from_folder(tmp_path)
    expected = _ids(theirs)
    assert max(expected) > len(WORDS)
    assert pieces.encode([TEXT])[0].tolist() == expected
    assert pieces.tokenize(tf.constant([TEXT])).to_list() == [expected]
    assert pieces.vocabulary_size == 61
    assert pieces.vocabulary[60] == "[NEW]"
    assert (pieces.pad_id, pieces.cls_id, pieces.mask_id) == (0, 2, 4)
    pieces.save(tmp_path / "again")
    assert WordPiece.from_folder(tmp_path / "again").encode([TEXT])[0].tolist() == expected


@pytest.mark.parametrize(
    ("place", "change", "words"),
    [
        ("model", {"continuing_subword_prefix": "@@"}, "continuing_subword_prefix '@@'"),
        ("model", {"max_input_chars_per_word": 40}, "max_input_chars_per_word 40"),
        ("model", {"unk_token": "[PAD]"}, r"unk_token '\[PAD\]'"),
        ("pre_tokenizer", {"type": "Whitespace"}, "pre_tokenizer 'Whitespace'"),
    ],
)
def test_rules_that_the_graph_does_not_have_are_refused(tmp_path, place, change, words):
    described = json.loads(WordPiece(list(WORDS)).reference().to_str())
    described[place] |= change
    (tmp_path / "tokenizer.json").write_text(json.dumps(described))
    with pytest.raises(UserError, match=f"has {words}"):
        WordPiece.from_folder(tmp_path)


def test_of_a_repeated_line_the_last_one_counts(tmp_path):
    lines = [*WORDS[:6], "b", "cab", *WORDS[6:], "the"]
    (tmp_path / "vocab.txt").write_text("\n".join(lines) + "\n")
    model = tokenizers.models.WordPiece.from_file(str(tmp_path / "vocab.txt"), unk_token="[UNK]")
    theirs = WordPiece(list(WORDS)).reference()
    theirs.model = model
    assert WordPiece.from_folder(tmp_path).encode([TEXT])[0].tolist() == _ids(theirs)


def test_byte_level_bpe_keeps_ids_beyond_gaps(tmp_path):
    pieces = train_bytepair(["the cab, the abc"] * 20, 262)
    described = json.loads(pieces.reference().to_str())
    vocabulary = described["model"]["vocab"]
    described["model"]["vocab"] = {token: index if index < 100 else 3 * index for token, index in vocabulary.items()}
    (tmp_path / "tokenizer.json").write_text(json.dumps(described))
    theirs = tokenizers.Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
    opened = BytePair.from_folder(tmp_path)
    expected = _ids(theirs)
    assert max(expected) > 700
    assert opened.encode([TEXT])[0].tolist() == expected
    assert opened.tokenize(tf.constant([TEXT])).to_list() == [expected]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"b": 5}, "tokens 'a' and 'b' have the same id 5"),
        ({"b": -1}, "token 'b' has the id -1"),
        ({"b": 10**9}, "token 'b' has the id 1000000000"),
        ({"b": 1.5}, "token 'b' has the id 1.5"),
    ],
)
def test_ids_that_cannot_be(tmp_path, change, words):
    with pytest.raises(UserError, match=words):
        tokens_by_id({token: index for index, token in enumerate(WORDS)} | change, tmp_path)


def test_an_added_token_with_another_id_is_refused(tmp_path):
    for pieces in (WordPiece(list(WORDS)), train_bytepair(["the cab, the abc"] * 20, 262)):
        described = json.loads(pieces.reference().to_str())
        described["added_tokens"][0]["id"] = 7
        (tmp_path / "tokenizer.json").write_text(json.dumps(described))
        with pytest.raises(UserError, match="has the id 7, and 0 in the vocabulary"):
            type(pieces).from_folder(tmp_path)


def test_names_of_gaps_are_no_tokens_names(tmp_path):
    tokens, unused = tokens_by_id({"a": 0, "<|unused_1|>": 3}, tmp_path)
    assert tokens == ["a", "<<|unused_1|>>", "<|unused_2|>", "<|unused_1|>"]
    assert unused == tokens[1:3]


def _added(folder, tokens):
    settings = json.loads((folder / "tokenizer_config.json").read_text())
    settings["added_tokens_decoder"] = {
        str(index): {"content": token, "special": True} for token, index in tokens.items()
    }
    settings["eos_token"] = next(iter(tokens))
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))


def test_sentencepiece_has_the_tokens_that_are_added_beyond_its_file(tmp_path):
    sentencepiece_model(tmp_path, prefix=True)
    plain = SentencePiece.from_folder(tmp_path)
    size = plain.vocabulary_size
    _added(tmp_path, {"<|endoftext|>": size + 2, "<|end|>": size, "</s>": 0})
    pieces = SentencePiece.from_folder(tmp_path)
    assert pieces.vocabulary[size:] == ["<|end|>", f"<|unused_{size + 1}|>", "<|endoftext|>"]
    assert pieces.end_id == size + 2
    texts = ["Hi <|end|> there", "naïve <|endoftext|>"]
    assert [one.tolist() for one in pieces.encode(texts)] == [one.tolist() for one in plain.encode(texts)]
    assert pieces.tokenize(tf.constant(texts)).to_list() == [one.tolist() for one in plain.encode(texts)]
    assert pieces.decode([size + 2]) == ""
    pieces.save(tmp_path / "again")
    assert SentencePiece.from_folder(tmp_path / "again").vocabulary == pieces.vocabulary


def test_sentencepiece_refuses_an_added_token_in_a_words_place(tmp_path):
    sentencepiece_model(tmp_path, prefix=True)
    plain = SentencePiece.from_folder(tmp_path)
    number = plain.encode(["the"])[0].tolist()[-1]
    _added(tmp_path, {"<|end|>": number})
    with pytest.raises(UserError, match=rf"added token '<\|end\|>' has the id {number}, .* in tokenizer.model"):
        SentencePiece.from_folder(tmp_path)
