"""Byte-level BPE with each known splitting rule: in the graph, in the data stage and by the checkpoint's own `tokenizer.json`."""

import json
import shutil

import numpy as np
import pytest
import tensorflow as tf
import tokenizers
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Regex, normalizers, pre_tokenizers, processors

from lmworks.configs.errors import UserError
from lmworks.models.bytepair import BytePair
from lmworks.models.chat import parts_of
from lmworks.models.splitting import PATTERNS
from lmworks.models.tokenizer import open_causal_pieces
from lmworks.pipeline.preprocess import documents
from tests.models.test_bytepair import ADVERSARIAL, CHARACTERS, TEXTS, assert_equal

BYTE_LEVEL = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
MORE = [
    "it'S DON'T we'LL 'ſ x'RE 'Tis", "a!\n\n b?\r\n\r\n   c;;\n\n\nd", "x  \n  y\n \n z \n", "12345 1234567 1,234.5 x1y22z333 ٣٤٥٦ ½½½½",
    "\n\n  \n", " \n", "  \t\n\tdef f():\n\t\treturn  1\n\n\n", "!\n/ //\n\n/a", "\u0301x \u0301 e\u0301 A\u030a \u1e9b\u0323", "ÉCOLE École éCole ǅ ʰx",
    "\u000b\u000c\u0085\u2028 x \u2029\u2029y", "\u1100\u1161\u11a8", "日本語 12月\n", "HTTPServer iPhone's WE'RE", "a\u00a0\u00a0b \u3000\n\u3000c", "?!\r\r x",
]  # fmt: skip


NAMES = ("<|end|>", "<|begin|>", "<|im_start|>", "<|eot|>")


def checkpoint(folder, steps, normalizer=None, ignore_merges=False, bos=False, names=NAMES):
    """A folder as published checkpoints have it, its tokenizer trained by the library itself."""
    made = tokenizers.Tokenizer(tokenizers.models.BPE())
    made.pre_tokenizer = pre_tokenizers.Sequence(steps)
    made.normalizer = normalizer
    made.decoder = tokenizers.decoders.ByteLevel()
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=1400,
        special_tokens=list(names),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    made.train_from_iterator([*TEXTS, "naïve café 日本語 12345 " * 20], trainer)
    if bos:
        made.post_processor = processors.Sequence(
            [
                processors.ByteLevel(trim_offsets=False),
                processors.TemplateProcessing(single="<|begin|> $A", special_tokens=[("<|begin|>", 1)]),
            ]
        )
    folder.mkdir(parents=True, exist_ok=True)
    described = json.loads(made.to_str())
    if ignore_merges:  # words that the merges do not make
        described["model"]["ignore_merges"] = True
        for word in ("zqxj", "Ġargument_qz", "ĠzyX", "123"):
            described["model"]["vocab"].setdefault(word, len(described["model"]["vocab"]))
    (folder / "tokenizer.json").write_text(json.dumps(described))
    (folder / "tokenizer_config.json").write_text(json.dumps({"eos_token": "<|end|>", "bos_token": "<|begin|>"}))
    (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": [0, 3]}))
    return tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json"))


def _split(name):
    return pre_tokenizers.Split(Regex(PATTERNS[name]), "isolated")


KINDS = {
    "gpt2": {"steps": [pre_tokenizers.ByteLevel(add_prefix_space=False)]},
    "llama3": {"steps": [_split("Llama 3 (GPT-4)"), BYTE_LEVEL], "ignore_merges": True, "bos": True},
    "qwen2": {"steps": [_split("Qwen 2"), BYTE_LEVEL], "normalizer": normalizers.NFC()},
    "smollm": {"steps": [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]},
    "digits": {"steps": [pre_tokenizers.Digits(individual_digits=False), _split("Qwen 2"), BYTE_LEVEL]},
    "gpt4o": {"steps": [_split("GPT-4o"), BYTE_LEVEL]},
    "tekken": {"steps": [_split("Tekken"), BYTE_LEVEL]},
}  # fmt: skip


@pytest.fixture(scope="module")
def opened(tmp_path_factory):
    folder = tmp_path_factory.mktemp("checkpoints")
    theirs = {name: checkpoint(folder / name, **settings) for name, settings in KINDS.items()}
    return {name: (BytePair.from_folder(folder / name), theirs[name], folder / name) for name in KINDS}


def compare(pieces, theirs, texts):
    expected = [one.ids for one in theirs.encode_batch(texts, add_special_tokens=False)]
    assert [one.tolist() for one in pieces.encode(texts)] == expected
    assert pieces.tokenize(tf.constant(texts)).to_list() == expected


@pytest.mark.parametrize("name", KINDS)
def test_adversarial_text_equals_the_checkpoints_own(opened, name):
    pieces, theirs, _ = opened[name]
    compare(pieces, theirs, [*ADVERSARIAL, *MORE, "zqxj", "an argument_qz zyX", *TEXTS[:1]])
    if name != "qwen2":
        assert_equal(pieces, [*ADVERSARIAL, *MORE])


# Case-insensitive contractions, numbers, marks, cases and new lines, close together.
DENSE = st.text(st.sampled_from(" \n\r\t'sSſtTrReEvVmMlLdD12३½./!éA\u0301\u00a0\u2028ǅʰ中"), max_size=25)

# Hypothesis also tries strings that stand in our code; marks spelled out are plain text with us, on purpose.
ANY = st.text(CHARACTERS, max_size=40).filter(lambda text: "<|" not in text)


@pytest.mark.parametrize("name", KINDS)
@settings(max_examples=60, deadline=None)
@given(st.lists(DENSE | ANY, min_size=1, max_size=30))
def test_random_unicode_equals_the_checkpoints_own(opened, name, texts):
    compare(*opened[name][:2], texts)


@pytest.mark.parametrize("name", KINDS)
def test_long_texts_are_cut_where_every_rule_has_a_border(opened, name, monkeypatch):
    monkeypatch.setattr(documents, "_PIECE", 20)
    pieces, _, _ = opened[name]
    for text in (*TEXTS[1:3], "".join([*ADVERSARIAL, *MORE] * 4)):
        parts = list(documents.pieces_of(text))
        assert len(parts) > 10
        assert np.concatenate(pieces.encode(parts)).tolist() == pieces.encode([text])[0].tolist()


@pytest.mark.parametrize("name", KINDS)
def test_parts_of_a_chat_have_the_tokens_of_the_whole(opened, name):
    pieces, _, _ = opened[name]
    said = ("Hi!", "\u0301x?", "12 'S", "")
    chat = [{"role": role, "content": text} for text in said for role in ("user", "assistant")]
    parts = [part.text for part in parts_of(json.dumps(chat))]
    assert np.concatenate(pieces.encode(parts)).tolist() == pieces.encode(["".join(parts)])[0].tolist()


def test_words_that_are_tokens_stay_whole(opened):
    pieces, _, _ = opened["llama3"]
    assert [pieces.vocabulary[index] for index in pieces.encode(["zqxj"])[0]] == ["zqxj"]
    assert len(pieces.encode(["zqxjzqxj"])[0]) > 2


@pytest.mark.parametrize("name", KINDS)
def test_saved_and_opened_it_is_the_same(opened, name, tmp_path):
    pieces, theirs, _ = opened[name]
    pieces.save(tmp_path)
    again = BytePair.from_folder(tmp_path)
    for attribute in ("vocabulary", "merges", "ends", "special", "splitting", "ignore_merges", "begin_id", "end_ids"):
        assert getattr(again, attribute) == getattr(pieces, attribute)
    saved = tokenizers.Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
    texts = [text for text in [*ADVERSARIAL, *MORE] if "<|" not in text]
    assert [one.ids for one in saved.encode_batch(texts)] == [one.ids for one in theirs.encode_batch(texts)]


def test_what_stands_before_and_behind_a_document(opened):
    llama, qwen = opened["llama3"][0], opened["qwen2"][0]
    assert (llama.begin_id, llama.end_id, llama.end_ids, llama.border_ids) == (1, 0, (0, 3), (0, 1))
    assert (qwen.begin_id, qwen.end_id, qwen.border_ids) == (0, 0, (0,))


def test_special_tokens_stay_plain_text_and_stand_for_none(opened):
    for pieces, _, _ in opened.values():
        ids = pieces.encode(["<|im_start|><|end|>"])[0].tolist()
        assert not {0, 1, 2, 3} & set(ids)
        assert pieces.decode([0, 1, *ids, 2]) == "<|im_start|><|end|>"


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"pre_tokenizer": {"type": "Whitespace"}}, "splits by Whitespace; a byte-level BPE is known here with GPT-2, Llama 3"),
        ({"pre_tokenizer": {"type": "Split", "pattern": {"Regex": "[ab]+"}, "behavior": "Isolated", "invert": False}},
         r"a pattern that is not known here, '\[ab\]\+'; known are GPT-2"),
        ({"normalizer": {"type": "NFKC"}}, "normalises with NFKC"),
        ({"pre_tokenizer": {"type": "Digits", "individual_digits": True}}, "does not end with ByteLevel"),
        ({"added_tokens": [{"content": "  ", "id": 3, "special": False}]}, "added tokens of blanks"),
    ],
)  # fmt: skip
def test_an_unknown_rule_is_named(opened, tmp_path, changed, words):
    described = json.loads((opened["gpt2"][2] / "tokenizer.json").read_text())
    (tmp_path / "tokenizer.json").write_text(json.dumps(described | changed))
    with pytest.raises(UserError, match=words):
        BytePair.from_folder(tmp_path)


def test_a_tokenizer_model_of_another_kind_beside_it_is_left_alone(opened, tmp_path):
    shutil.copytree(opened["llama3"][2], tmp_path, dirs_exist_ok=True)
    (tmp_path / "tokenizer.model").write_text("IQ== 0\nIg== 1\n")
    assert isinstance(open_causal_pieces(tmp_path), BytePair)


def test_gaps_between_ids_are_kept(opened, tmp_path):
    described = json.loads((opened["gpt2"][2] / "tokenizer.json").read_text())
    described["added_tokens"].append({**described["added_tokens"][0], "content": "<|far|>", "id": 2000})
    (tmp_path / "tokenizer.json").write_text(json.dumps(described))
    pieces = BytePair.from_folder(tmp_path)
    assert pieces.vocabulary_size == 2001
    assert pieces.vocabulary[2000] == "<|far|>"
    assert pieces.decode([1999, 2000]) == ""
    pieces.save(tmp_path / "again")
    assert BytePair.from_folder(tmp_path / "again").vocabulary == pieces.vocabulary
