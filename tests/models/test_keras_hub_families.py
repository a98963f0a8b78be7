"""Tokenizers of folders in KerasHub's format: the family's own rules, not those that KerasHub applies to all."""

import keras_hub
import pytest

from lmworks.configs.errors import UserError
from lmworks.models.bytepair import BytePair
from lmworks.models.sentencepiece import SentencePiece
from lmworks.models.tokenizer import open_causal_pieces
from tests.models.test_bytepair import ADVERSARIAL, TEXTS
from tests.models.test_sentencepiece import sentencepiece_model
from tests.models.test_splitting import KINDS, MORE, checkpoint

FAMILIES = {
    "GPT2": ("gpt2", ["<|endoftext|>"], ["<|endoftext|>"], ["<|endoftext|>"]),
    "Llama3": ("llama3", ["<|begin_of_text|>", "<|end_of_text|>", "<|eot_id|>", "<|start_header_id|>", "<|end_header_id|>"],
               ["<|end_of_text|>", "<|begin_of_text|>"], ["<|end_of_text|>", "<|eot_id|>"]),
    "Qwen": ("qwen2", ["<|endoftext|>", "<|im_start|>", "<|im_end|>"], ["<|endoftext|>"], ["<|endoftext|>", "<|im_end|>"]),
    "SmolLM3": ("llama3", ["<|end_of_text|>", "<|begin_of_text|>", "<think>", "</think>", "<|im_end|>"], ["<|end_of_text|>"],
                ["<|end_of_text|>", "<|im_end|>"]),
}  # fmt: skip


@pytest.mark.parametrize("name", FAMILIES)
def test_ids_are_the_checkpoints_own(name, tmp_path):
    kind, names, border, ends = FAMILIES[name]
    settings = {**KINDS[kind], "ignore_merges": False, "bos": False}
    theirs = checkpoint(tmp_path / "hf", **settings, names=names)
    tokenizer = getattr(keras_hub.models, f"{name}Tokenizer")
    opened = BytePair.from_folder(tmp_path / "hf")
    opened.keras_hub_tokenizer(tokenizer).save_to_preset(str(tmp_path / "keras"))
    pieces = open_causal_pieces(tmp_path / "keras")
    assert [pieces.vocabulary[index] for index in pieces.border_ids] == border
    assert [pieces.vocabulary[index] for index in pieces.end_ids] == ends
    texts = [text for text in [*ADVERSARIAL, *MORE, TEXTS[0]] if "<|" not in text]
    assert [one.tolist() for one in pieces.encode(texts)] == [one.ids for one in theirs.encode_batch(texts)]
    assert pieces.decode([pieces.vocabulary.index(token) for token in names]) == ""


def test_sentencepiece_of_a_gemma(tmp_path):
    sentencepiece_model(tmp_path / "hf", prefix=False)
    opened = SentencePiece.from_folder(tmp_path / "hf")
    opened.keras_hub_tokenizer(keras_hub.models.GemmaTokenizer).save_to_preset(str(tmp_path / "keras"))
    pieces = open_causal_pieces(tmp_path / "keras")
    assert [pieces.vocabulary[index] for index in pieces.border_ids] == ["<eos>", "<bos>"]
    assert [pieces.vocabulary[index] for index in pieces.end_ids] == ["<eos>", "<end_of_turn>"]
    text = "<start_of_turn>user\n"
    assert pieces.encode([text])[0].tolist() == opened.encode([text])[0].tolist()


def test_a_family_that_is_not_known(tmp_path):
    checkpoint(tmp_path / "hf", **KINDS["gpt2"], names=["<|endoftext|>", "<s>", "</s>", "<pad>", "<mask>", "<unk>"])
    pieces = BytePair.from_folder(tmp_path / "hf")
    pieces.keras_hub_tokenizer(keras_hub.models.BloomTokenizer).save_to_preset(str(tmp_path / "keras"))
    with pytest.raises(UserError, match="BloomTokenizer splits texts by a rule that KerasHub's format does not tell"):
        open_causal_pieces(tmp_path / "keras")
