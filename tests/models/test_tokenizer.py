import itertools
import subprocess
import sys
from pathlib import Path

import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from lmworks.configs.errors import UserError
from lmworks.models.tokenizer import Tokenizer, open_causal_pieces, open_tokenizer
from lmworks.models.wordpiece import WordPiece, train_wordpiece

DATA = Path(__file__).parents[2].parent / "shared" / "data"
TEXTS = [
    f"the quick brown fox {word} jumps over été straße 中文 {number}" for number in range(50) for word in ("ran", "sat")
]
ADVERSARIAL = [
    "", " ", "\t\n\r", "straße ﬁne ﬂow …", "한글 가각", "𝒜𝔅ℂ mathematical", "é é", "ΑΣ ΣΑΣ ς", "İstanbul ı", "中文字hello",
    "a\u200bb \u200d\u00ad \ufeffc", "x" * 100, "x" * 101, "é" * 100, "é" * 101, "\ufffd \x00 \x07", "👩‍👩‍👧 🇩🇪", "don't $5 a+b=c ~`^|",
    "\u00a0\u2003\u3000x\u2028y", "[CLS] [SEP] [MASK] [UNK]", "##ing", "ª º ¼ ²", "ǅ ǆ", "\u0301start", "ﷺ", "𠀀𪜀",
]  # fmt: skip


@pytest.fixture(scope="module")
def pieces() -> WordPiece:
    return train_wordpiece(TEXTS, 90)


def assert_equal(pieces, texts):
    expected = [
        found.ids for found in pieces.reference(special_tokens=False).encode_batch(texts, add_special_tokens=False)
    ]
    assert pieces.tokenize(tf.constant(texts)).to_list() == expected


@pytest.mark.parametrize("lowercase", [True, False])
@pytest.mark.parametrize("strip_accents", [True, False, None])
def test_adversarial_text_equals_the_reference(pieces, lowercase, strip_accents):
    assert_equal(WordPiece(pieces.vocabulary, lowercase, strip_accents), ADVERSARIAL)


# Assigned before Unicode 9: the reference's tables are not newer (see the module's docstring).
CHARACTERS = st.characters(max_codepoint=0x58F, exclude_categories=["Cs"]) | st.sampled_from(
    "ΣςßİıǅﬁΩ한中字🙂\u0301\u200b…“”"
)


@settings(max_examples=150, deadline=None)
@given(st.lists(st.text(CHARACTERS, max_size=40), min_size=1, max_size=20))
def test_random_unicode_equals_the_reference(texts):
    assert_equal(PIECES, texts)


PIECES = train_wordpiece(TEXTS, 90)


@pytest.mark.skipif(not DATA.exists(), reason="../shared/data is absent")
def test_real_text_equals_the_reference(pieces):
    rows = [line.split("\t")[0] for line in (DATA / "sst2" / "train.tsv").read_text().splitlines()[1:20_001]]
    german = (DATA / "multi30k" / "val.de").read_text().splitlines()
    assert_equal(train_wordpiece(rows[:2000], 3000), rows + german)


def test_saved_tokenizer_json_is_the_same_tokenizer(pieces, tmp_path):
    import tokenizers

    pieces.save(tmp_path)
    saved = tokenizers.Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
    plain = [text for text in ADVERSARIAL if "[" not in text]
    expected = [found.ids for found in saved.encode_batch(plain)]
    again = open_tokenizer(tmp_path)
    assert again.pack(plain, sequence_length=10_000)[0].to_list() == expected


def test_pairs_are_truncated_as_the_reference_does(pieces):
    texts = [" ".join(["the"] * count) for count in range(12)]
    pairs = list(itertools.product(texts, texts))
    reference = pieces.reference()
    for length in (4, 5, 8, 9, 12):
        reference.enable_truncation(length, strategy="longest_first")
        expected = reference.encode_batch(pairs)
        ids, first = Tokenizer(pieces).pack([a for a, _ in pairs], [b for _, b in pairs], sequence_length=length)
        assert ids.to_list() == [found.ids for found in expected]
        assert first.numpy().tolist() == [found.type_ids.count(0) for found in expected]


def test_training_is_the_same_in_every_process(pieces):
    code = f"from lmworks.models.wordpiece import train_wordpiece; print(train_wordpiece({TEXTS!r}, 90).vocabulary)"
    for _ in range(2):
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        assert done.stdout.strip() == str(pieces.vocabulary)


def test_too_large_and_too_small_vocabularies_are_refused():
    with pytest.raises(ValueError, match="too large"):
        train_wordpiece(["a b"], 1000)
    with pytest.raises(ValueError, match="characters alone need"):
        train_wordpiece(TEXTS, 6)


@pytest.mark.parametrize(
    ("name", "beside"),
    [
        ("tokenizer.json", ()),
        ("tokenizer_config.json", ("vocab.txt",)),
        ("vocab.json", ("merges.txt",)),
    ],
)
@pytest.mark.parametrize("content", [b"{", b"\xff", b"[1]"])
def test_a_damaged_file_is_an_error_of_one_line(tmp_path, name, beside, content):
    for other in beside:
        (tmp_path / other).touch()
    (tmp_path / name).write_bytes(content)
    read = open_causal_pieces if name == "vocab.json" else open_tokenizer
    with pytest.raises(UserError, match=f"{tmp_path / name}: (is not JSON in UTF-8|must be a JSON object, not a list)"):
        read(tmp_path)
