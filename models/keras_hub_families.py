"""What a folder in KerasHub's format leaves out of its tokenizer: how the family's checkpoints split, begin and end texts."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from lmworks.configs.errors import UserError
from lmworks.models.document_ends import Ends
from lmworks.models.splitting import GPT2, PATTERNS, Splitting, Words


class Family(NamedTuple):
    """Byte-level BPE of a family of models."""

    splitting: Splitting
    end: str
    begin: str | None = None
    stops: tuple[str, ...] = ()
    """Those that the vocabulary has end generation too."""
    ignore_merges: bool = False

    def ends(self, pieces: Mapping[str, int]) -> Ends:
        """As a vocabulary has them."""
        return Ends(self.end, self.begin, tuple(token for token in self.stops if token in pieces))


_LLAMA3, _QWEN = Splitting((Words(PATTERNS["Llama 3 (GPT-4)"]),)), Splitting((Words(PATTERNS["Qwen 2"]),), nfc=True)
_GPT2_FAMILY = Family(GPT2, "<|endoftext|>")
_QWEN_FAMILY = Family(_QWEN, "<|endoftext|>", stops=("<|im_end|>",))
_FAMILIES = {
    "GPT2Tokenizer": _GPT2_FAMILY,
    "Llama3Tokenizer": Family(
        _LLAMA3, "<|end_of_text|>", "<|begin_of_text|>", stops=("<|eot_id|>",), ignore_merges=True
    ),
    "QwenTokenizer": _QWEN_FAMILY,
    "Qwen3Tokenizer": _QWEN_FAMILY,
    "SmolLM3Tokenizer": Family(_LLAMA3, "<|end_of_text|>", stops=("<|im_end|>",), ignore_merges=True),
}


SENTENCEPIECE_SPECIAL = (
    "<start_of_turn>", "<end_of_turn>", "<start_of_image>", "<end_of_image>", "<img>", "<|end|>", "<|user|>", "<|assistant|>",
    "<|system|>", "<|endoftext|>",
)  # fmt: skip
"""Special tokens of Gemma's and Phi-3's models, which the models themselves take for plain text."""


def sentencepiece_ends(class_name: str, own: Ends, pieces: Mapping[str, int]) -> Ends:
    """Ends of a SentencePiece tokenizer in a KerasHub folder.

    Args:
        class_name: of its tokenizer.
        own: what the model itself says.
        pieces: the vocabulary.
    """
    end = "<|endoftext|>" if class_name == "Phi3Tokenizer" else own.end
    stops = tuple(token for token in ("<end_of_turn>", "<|end|>") if token in pieces)
    return Ends(end, own.begin, stops)


def family_of(path: Path, described: Mapping[str, Any]) -> Family:
    """The family of a KerasHub folder's `tokenizer.json`; that of GPT-2 where there is none.

    Raises:
        UserError: it is not known here.
    """
    name = described.get("class_name", "GPT2Tokenizer").rpartition(">")[-1]
    if name not in _FAMILIES:
        known = ", ".join(_FAMILIES)
        raise UserError(
            f"{path}: {name} splits texts by a rule that KerasHub's format does not tell; known are {known}"
        )
    return _FAMILIES[name]
