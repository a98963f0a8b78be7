import subprocess
import sys
import sysconfig
from pathlib import Path

import keras_hub
import pytest
import tensorflow as tf
import tokenizers
from hypothesis import given, settings
from hypothesis import strategies as st

from lmworks.configs.errors import UserError
from lmworks.models.bytepair import END_OF_TEXT, BytePair, train_bytepair

DATA = Path(__file__).parents[2].parent / "shared" / "data"
LIBRARY = Path(sysconfig.get_path("stdlib"))
TEXTS = [(LIBRARY / name).read_text() for name in ("argparse.py", "abc.py", "ast.py", "typing.py")]
ADVERSARIAL = [
    "", " ", "  ", "   x", "\t\n\r x", "a  b   c\n\n\n  d\t\te", "x ", "x  ", " \u00a0x \u3000 y\u2003\u2003z", "\u0085a\u1680b",
    "don't I'll we've 'S 'sx ''s", "१२३ ½ ² 10000", "straße ﬁne 한글 𝒜𝔅ℂ é é", "👩‍👩‍👧 🇩🇪!!", "६ KerasHub's own mark ६६ ६\n",
    "\x00\x01\x7f", "\ufffd\ufeff\u200b", "a" * 200, "ab" * 100, "=" * 77 + " " * 33 + "=", "aaa aaaa aaaaa", "\n" * 9,
    "<|endoftext|>", "Ġ Ċ ĉ", "\u2028\u2029 \x1c\x1d x", "\r\n\r\n  x", "'t's'", " 's 'll",
]  # fmt: skip
PIECES = train_bytepair(TEXTS, 1200)


def assert_equal(pieces, texts):
    expected = [one.ids for one in pieces.reference(special_tokens=False).encode_batch(texts)]
    assert pieces.tokenize(tf.constant(texts)).to_list() == expected
    assert [one.tolist() for one in pieces.encode(texts)] == expected
    assert [pieces.decode(ids) for ids in expected] == texts
    decoded = pieces.detokenize(tf.ragged.constant(expected, tf.int32, ragged_rank=1)).numpy()
    assert [one.decode() for one in decoded] == texts


def test_adversarial_text_equals_the_reference():
    assert_equal(PIECES, ADVERSARIAL)


def test_adversarial_text_without_merges():
    assert_equal(train_bytepair(TEXTS, 257), ADVERSARIAL)


# Assigned before Unicode 9: the tables of both libraries know them.
CHARACTERS = st.characters(max_codepoint=0x58F, exclude_categories=["Cs"]) | st.sampled_from(
    " \n\t\u00a0\u3000's  ½é中🙂६"
)


@settings(max_examples=200, deadline=None)
@given(st.lists(st.text(CHARACTERS, max_size=40), min_size=1, max_size=20))
def test_random_unicode_equals_the_reference(texts):
    assert_equal(PIECES, texts)


def test_a_megabyte_of_code_equals_the_reference():
    texts = [path.read_text() for path in sorted(LIBRARY.glob("*.py"))[:60]]
    assert sum(map(len, texts)) > 1_000_000
    assert_equal(PIECES, texts)


@pytest.mark.skipif(not DATA.exists(), reason="../shared/data is absent")
def test_gpt2s_own_vocabulary_on_real_text():
    pieces = BytePair.from_folder(DATA / "gpt2-tokenizer")
    assert pieces.vocabulary_size == 50257
    assert pieces.end_id == 50256
    assert pieces.encode(["Hello world"])[0].tolist() == [15496, 995]
    play = (DATA / "tinyshakespeare" / "input.txt").read_text()
    german = (DATA / "multi30k" / "train.de").read_text().splitlines()[:5000]
    assert_equal(pieces, [*german, *play.split("\n\n"), *ADVERSARIAL])


def test_it_works_in_a_graph():
    @tf.function(input_signature=[tf.TensorSpec([None], tf.string)])
    def both(texts):
        ids = PIECES.tokenize(texts)
        return ids.to_tensor(-1), PIECES.detokenize(ids)

    ids, texts = both(tf.constant(ADVERSARIAL))
    assert [one.decode() for one in texts.numpy()] == ADVERSARIAL
    expected = PIECES.encode(ADVERSARIAL)
    assert [[index for index in row if index >= 0] for row in ids.numpy().tolist()] == [
        one.tolist() for one in expected
    ]


def test_bytes_that_are_no_text_become_replacement_characters():
    assert PIECES.tokenize(tf.constant([b"a\xffb"])).to_list() == [PIECES.encode(["a\ufffdb"])[0].tolist()]


def test_saved_and_opened_it_is_the_same(tmp_path):
    PIECES.save(tmp_path)
    again = BytePair.from_folder(tmp_path)
    assert (again.vocabulary, again.merges, again.end_id) == (PIECES.vocabulary, PIECES.merges, 0)
    file = tokenizers.Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
    texts = [text for text in ADVERSARIAL if text != END_OF_TEXT]
    assert [one.ids for one in file.encode_batch(texts)] == [one.tolist() for one in PIECES.encode(texts)]
    (tmp_path / "tokenizer.json").unlink()
    assert BytePair.from_folder(tmp_path).vocabulary == PIECES.vocabulary


def test_kerashub_takes_a_vocabulary_without_merges():
    pieces = train_bytepair(TEXTS, 257)
    assert (
        list(pieces.keras_hub_tokenizer(keras_hub.models.GPT2Tokenizer)("aab é"))
        == pieces.encode(["aab é"])[0].tolist()
    )


def test_kerashub_holds_the_same_vocabulary():
    assert list(PIECES.keras_hub_tokenizer(keras_hub.models.GPT2Tokenizer)("def argument(self):")) == (
        PIECES.encode(["def argument(self):"])[0].tolist()
    )


def test_two_processes_learn_the_same():
    code = (
        "import hashlib; from tests.models.test_bytepair import PIECES;"
        "print(hashlib.sha256(repr([PIECES.vocabulary, PIECES.merges]).encode()).hexdigest())"
    )
    root = Path(__file__).parents[2]
    said = {
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=root).stdout
        for _ in range(2)
    }
    assert len(said) == 1


def test_a_vocabulary_that_the_texts_do_not_hold():
    with pytest.raises(ValueError, match="is too large"):
        train_bytepair(TEXTS, 500_000)


def test_another_kind_of_tokenizer_is_refused(tmp_path):
    other = tokenizers.Tokenizer(tokenizers.models.BPE(vocab={"a": 0}, merges=[]))
    other.save(str(tmp_path / "tokenizer.json"))
    with pytest.raises(UserError, match="splits by nothing; a byte-level BPE is known here with GPT-2"):
        BytePair.from_folder(tmp_path)
    with pytest.raises(UserError, match="has neither"):
        BytePair.from_folder(tmp_path / "nowhere")
