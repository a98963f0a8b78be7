"""BERT's WordPiece as one TensorFlow graph, exact on any Unicode text, for the data stage and the served model alike.

The rules are those of Hugging Face `tokenizers`: `BertNormalizer`, `BertPreTokenizer`, `WordPiece` (Devlin et al. 2018,
arXiv:1810.04805, and the Rust library's source for what the paper leaves open). Special tokens that are spelled out in a text
stay plain text on purpose: a user must not be able to write one.

Not equal: 568 code points (of 1.1 million) that Unicode added or reclassified after the tables of the Rust library were made,
almost all combining marks, punctuation and format characters of historic scripts (from U+061D on); here RE2's newer tables rule.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
import tensorflow_text as tf_text

from lmworks.configs.errors import UserError
from lmworks.models.json_files import read_object, understanding
from lmworks.models.tokenizer import Kind, encode_each
from lmworks.models.vocabulary import from_lines, tokens_by_id, with_added

LONGEST_WORD = 100
"""Characters; BERT takes a longer word as unknown."""

_MAX_BYTES_PER_WORD = 4 * LONGEST_WORD
_SPECIAL = {"unknown": "[UNK]", "pad": "[PAD]", "cls": "[CLS]", "sep": "[SEP]", "mask": "[MASK]"}
_CJK = (
    r"([\x{4E00}-\x{9FFF}\x{3400}-\x{4DBF}\x{20000}-\x{2A6DF}\x{2A700}-\x{2B73F}"
    r"\x{2B740}-\x{2B81F}\x{2B920}-\x{2CEAF}\x{F900}-\x{FAFF}\x{2F800}-\x{2FA1F}])"
)
# What no vocabulary holds: it stands for words that are too long, and so becomes the unknown token.
_NO_WORD = "\ufffd"


class WordPiece:
    """A vocabulary and its rules.

    Args:
        vocabulary: tokens in the order of their ids.
        lowercase: lower-case the text.
        strip_accents: remove combining marks; as `lowercase` when None.
        split_chinese: each CJK character is a word.
        clean_text: drop control characters, make every white space a blank.
    """

    kind: Kind = "wordpiece"

    def __init__(
        self,
        vocabulary: list[str],
        lowercase: bool = True,
        strip_accents: bool | None = None,
        split_chinese: bool = True,
        clean_text: bool = True,
    ) -> None:
        missing = [token for token in _SPECIAL.values() if token not in vocabulary and token != "[MASK]"]
        if missing:
            raise UserError(f"the tokenizer's vocabulary lacks the special tokens {', '.join(missing)}")
        self.vocabulary = vocabulary
        self.lowercase = lowercase
        self.strip_accents = lowercase if strip_accents is None else strip_accents
        self.split_chinese, self.clean_text = split_chinese, clean_text
        self.vocabulary_size = len(vocabulary)
        self.pad_id, self.cls_id, self.sep_id = (vocabulary.index(_SPECIAL[name]) for name in ("pad", "cls", "sep"))
        special = set(_SPECIAL.values())
        self.ordinary_ids = np.array(
            [index for index, token in enumerate(vocabulary) if token not in special], np.int32
        )
        self.mask_id = vocabulary.index("[MASK]") if "[MASK]" in vocabulary else None
        self._pieces = tf_text.FastWordpieceTokenizer(
            vocab=vocabulary,
            suffix_indicator="##",
            max_bytes_per_word=_MAX_BYTES_PER_WORD,
            token_out_type=tf.int32,
            unknown_token=_SPECIAL["unknown"],
            no_pretokenization=True,
        )

    @classmethod
    def from_folder(cls, folder: Path) -> WordPiece:
        """Opens a Hugging Face or KerasHub folder.

        Raises:
            UserError: there is no tokenizer, or it is not a WordPiece with BERT's rules.
        """
        path = folder / "tokenizer.json"
        described = read_object(path)
        with understanding(path):
            if "class_name" in described:
                return cls._from_keras_hub(folder, described)
            if described:
                return cls._from_tokenizer_json(path, described)
        if not (folder / "vocab.txt").exists():
            raise UserError(f"{folder}: has neither tokenizer.json nor vocab.txt")
        settings = read_object(folder / "tokenizer_config.json")
        with understanding(folder / "vocab.txt"):
            return cls(
                from_lines(folder / "vocab.txt"),
                settings.get("do_lower_case", True),
                settings.get("strip_accents"),
                settings.get("tokenize_chinese_chars", True),
            )

    @classmethod
    def _from_tokenizer_json(cls, path: Path, described: dict[str, Any]) -> WordPiece:
        model, normalizer = described["model"], described.get("normalizer") or {}
        if model.get("type", "WordPiece") != "WordPiece" or normalizer.get("type") != "BertNormalizer":
            kind = model.get("type", "unknown")
            raise UserError(f"{path}: is a {kind} tokenizer; a text classifier needs BERT's WordPiece in this version")
        rules = {
            "continuing_subword_prefix": (model.get("continuing_subword_prefix", "##"), "##"),
            "max_input_chars_per_word": (model.get("max_input_chars_per_word", LONGEST_WORD), LONGEST_WORD),
            "unk_token": (model.get("unk_token", _SPECIAL["unknown"]), _SPECIAL["unknown"]),
            "pre_tokenizer": ((described.get("pre_tokenizer") or {}).get("type"), "BertPreTokenizer"),
        }
        if other := [
            f"{name} {theirs!r} (BERT's is {ours!r})" for name, (theirs, ours) in rules.items() if theirs != ours
        ]:
            raise UserError(f"{path}: has {', '.join(other)}, which is not known here")
        return cls(
            tokens_by_id(with_added(model["vocab"], described, path), path)[0],
            normalizer["lowercase"],
            normalizer["strip_accents"],
            normalizer["handle_chinese_chars"],
            normalizer["clean_text"],
        )

    @classmethod
    def _from_keras_hub(cls, folder: Path, described: dict[str, Any]) -> WordPiece:
        settings = described["config"]
        path = folder / "assets" / "tokenizer" / "vocabulary.txt"
        if "lowercase" not in settings or not path.exists():
            raise UserError(
                f"{folder}: {described['class_name']}; a text classifier needs BERT's WordPiece in this version"
            )
        return cls(from_lines(path), settings["lowercase"])

    def normalize(self, texts: tf.Tensor) -> tf.Tensor:
        """`BertNormalizer`: string [batch] to string [batch]."""
        replace = tf.strings.regex_replace
        # Bytes that are no UTF-8 become U+FFFD, which cleaning drops.
        texts = tf.strings.unicode_transcode(texts, "UTF-8", "UTF-8", errors="replace")
        if self.clean_text:
            texts = replace(texts, r"[\t\n\r\p{Z}]", " ")
            texts = replace(texts, r"[\p{C}\x{FFFD}]", "")
        if self.split_chinese:
            texts = replace(texts, _CJK, r" \1 ")
        if self.strip_accents:
            texts = replace(tf_text.normalize_utf8(texts, "NFD"), r"\p{Mn}", "")
        if self.lowercase:
            # Character by character, as the reference: a final capital sigma becomes σ, and not ς.
            texts = tf.strings.lower(replace(texts, "Σ", "σ"), encoding="utf-8")
        return texts

    def tokenize(self, texts: tf.Tensor) -> tf.RaggedTensor:
        """Token ids without special tokens: string [batch] to ragged int32 [batch, (tokens)]; works inside a graph."""
        spaced = tf.strings.regex_replace(self.normalize(texts), r"([!-/:-@\[-`{-~\p{P}])", r" \1 ")
        words = tf.strings.split(tf.strings.regex_replace(spaced, r"[\s\p{Z}]+", " "))
        too_long = tf.strings.length(words.flat_values, "UTF8_CHAR") > LONGEST_WORD
        words = words.with_flat_values(tf.where(too_long, _NO_WORD, words.flat_values))
        return self._pieces.tokenize(words).merge_dims(-2, -1)

    def encode(self, texts: Sequence[str]) -> list[np.ndarray]:
        """What `tokenize` gives, int32 [tokens] of each text."""
        found = self.tokenize(tf.constant(list(texts), tf.string))
        return np.split(found.flat_values.numpy(), found.row_splits.numpy()[1:-1]) if len(texts) else []

    def encode_parts(self, documents: Sequence[Sequence[str]]) -> list[list[np.ndarray]]:
        """Token ids of texts that are cut before blanks or at line ends: of each part, int32 [tokens]."""
        return encode_each(self.encode, documents)

    def keras_hub_tokenizer(self) -> Any:
        """KerasHub's own tokenizer at its closest settings; it differs on rare characters."""
        import keras_hub

        return keras_hub.models.BertTokenizer(
            self.vocabulary, lowercase=self.lowercase, strip_accents=self.strip_accents
        )

    def save(self, folder: Path) -> None:
        """Writes it in Hugging Face's format: tokenizer.json, vocab.txt, tokenizer_config.json, special_tokens_map.json."""
        folder.mkdir(parents=True, exist_ok=True)
        self.reference().save(str(folder / "tokenizer.json"))
        (folder / "vocab.txt").write_text("\n".join(self.vocabulary) + "\n", encoding="utf-8")
        special = {f"{name.replace('unknown', 'unk')}_token": token for name, token in _SPECIAL.items()}
        settings = {
            "tokenizer_class": "BertTokenizer",
            "do_lower_case": self.lowercase,
            "strip_accents": self.strip_accents,
            "tokenize_chinese_chars": self.split_chinese,
            **special,
        }
        (folder / "tokenizer_config.json").write_text(json.dumps(settings, indent=1), encoding="utf-8")
        (folder / "special_tokens_map.json").write_text(json.dumps(special, indent=1), encoding="utf-8")

    def reference(self, special_tokens: bool = True) -> Any:
        """The same tokenizer as `tokenizers.Tokenizer`.

        Args:
            special_tokens: whether special tokens that are spelled out in a text are taken as such, as usual there.
        """
        import tokenizers

        pieces = {token: index for index, token in enumerate(self.vocabulary)}
        model = tokenizers.models.WordPiece(
            pieces, unk_token=_SPECIAL["unknown"], max_input_chars_per_word=LONGEST_WORD
        )
        result = tokenizers.Tokenizer(model)
        result.normalizer = tokenizers.normalizers.BertNormalizer(
            clean_text=self.clean_text,
            handle_chinese_chars=self.split_chinese,
            strip_accents=self.strip_accents,
            lowercase=self.lowercase,
        )
        result.pre_tokenizer = tokenizers.pre_tokenizers.BertPreTokenizer()
        result.decoder = tokenizers.decoders.WordPiece()
        if special_tokens:
            result.add_special_tokens([token for token in _SPECIAL.values() if token in pieces])
            ends = [(_SPECIAL[name], pieces[_SPECIAL[name]]) for name in ("sep", "cls")]
            result.post_processor = tokenizers.processors.BertProcessing(*ends)
        return result


def train_wordpiece(texts: Iterable[str], vocabulary_size: int, lowercase: bool = True) -> WordPiece:
    """Trains a vocabulary with the `tokenizers` library; the same texts give the same vocabulary in every process.

    The library numbers continuation pieces (`##a`) in the order of a hash table and breaks ties by these numbers. So the
    words are counted here first, and the pieces are numbered before it begins, in the order of their characters.

    Raises:
        ValueError: the texts do not hold that many pieces.
    """
    import tokenizers

    special = list(_SPECIAL.values())
    rules = tokenizers.Tokenizer(tokenizers.models.WordPiece(unk_token=_SPECIAL["unknown"]))
    rules.normalizer = tokenizers.normalizers.BertNormalizer(lowercase=lowercase)
    rules.pre_tokenizer = tokenizers.pre_tokenizers.BertPreTokenizer()
    words: Counter[str] = Counter()
    for text in texts:
        words.update(word for word, _ in rules.pre_tokenizer.pre_tokenize_str(rules.normalizer.normalize_str(text)))
    continuations = sorted({f"##{character}" for word in words for character in word[1:]})
    if len(special) + len(continuations) > vocabulary_size:
        needed = len(special) + len(continuations)
        raise ValueError(
            f"the training texts' characters alone need vocabulary_size {needed:,}, and it is {vocabulary_size:,}"
        )
    trainer = tokenizers.trainers.WordPieceTrainer(
        vocab_size=vocabulary_size, special_tokens=[*special, *continuations], show_progress=False
    )
    rules.train_from_iterator(([word] * count for word, count in sorted(words.items())), trainer)
    found = rules.get_vocab()
    if len(found) < vocabulary_size:
        raise ValueError(
            f"the training texts hold {len(found):,} word pieces; vocabulary_size {vocabulary_size:,} is too large"
        )
    return WordPiece(sorted(found, key=found.__getitem__), lowercase)
