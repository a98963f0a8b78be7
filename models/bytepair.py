"""Byte-level BPE as GPT-2 has it, with two faces: `tokenizers` for the data stage and a TensorFlow graph that is served.

The rules are those of Radford et al. 2019 ("Language Models are Unsupervised Multitask Learners") as Hugging Face `tokenizers`
applies them: split by GPT-2's pattern, bytes, then merges in the order in which they were learnt (Sennrich et al. 2016,
arXiv:1508.07909). No text is changed, so ids decode to the very bytes. The end-of-text token spelled out in a text stays plain
text on purpose: a user must not be able to write one.

Not equal: characters that Unicode reclassified as letters or numbers after the tables of the one or the other library were made.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from lmworks.configs.errors import UserError

if TYPE_CHECKING:
    import tensorflow as tf

END_OF_TEXT = "<|endoftext|>"

# Unicode's White_Space; RE2's own \s is ASCII.
_SPACE = r"\t-\r \x{85}\x{A0}\x{1680}\x{2000}-\x{200A}\x{2028}\x{2029}\x{202F}\x{205F}\x{3000}"
# Of several blanks before a word the last one belongs to the word. RE2 has no look-ahead, so this border is drawn first.
_LAST_SPACE = rf"([{_SPACE}])([{_SPACE}][^{_SPACE}])"
_WORDS = rf"'s|'t|'re|'ve|'m|'ll|'d| ?\p{{L}}+| ?\p{{N}}+| ?[^{_SPACE}\p{{L}}\p{{N}}]+|[{_SPACE}]+"
# A byte that UTF-8 does not have: no text holds it and no pattern matches it.
_BORDER = b"\xff"
_NEVER = np.int32(2**31 - 1)


def _byte_characters() -> list[str]:
    """The printable character that stands for each byte in vocabularies: itself where it is one, else one from U+0100 on."""
    printable = {*range(ord("!"), ord("~") + 1), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    others = iter(range(0x100, 0x200))
    return [chr(byte if byte in printable else next(others)) for byte in range(256)]


BYTE_CHARACTERS = _byte_characters()
_TO_BYTE = {character: byte for byte, character in enumerate(BYTE_CHARACTERS)}


class BytePair:
    """A vocabulary and its merges.

    Args:
        vocabulary: tokens in the order of their ids, bytes spelled as `BYTE_CHARACTERS`.
        merges: pairs of tokens, the first learnt first.
        end_of_text: the token that ends a document.
    """

    def __init__(
        self, vocabulary: Sequence[str], merges: Sequence[tuple[str, str]], end_of_text: str = END_OF_TEXT
    ) -> None:
        self.vocabulary, self.merges, self.end_of_text = list(vocabulary), list(merges), end_of_text
        self._index = {token: index for index, token in enumerate(self.vocabulary)}
        missing = [character for character in BYTE_CHARACTERS if character not in self._index]
        if end_of_text not in self._index or missing:
            lacks = end_of_text if end_of_text not in self._index else f"{len(missing)} of the 256 bytes"
            raise UserError(f"the tokenizer's vocabulary lacks {lacks}")
        self.vocabulary_size = len(self.vocabulary)
        self.end_id = self._index[end_of_text]
        self.pad_id = self.end_id
        self._fast = self.reference(special_tokens=False)
        # Raw bytes of every token; the end of a text decodes to nothing.
        self.token_bytes = [self._bytes(token) for token in self.vocabulary]
        ids = np.array([[self._index[one] for one in (*pair, "".join(pair))] for pair in self.merges], np.int64)
        ids = ids.reshape(-1, 3)
        keys = ids[:, 0] * self.vocabulary_size + ids[:, 1]
        order = np.argsort(keys, kind="stable")
        # Without merges every text is its bytes; one impossible key keeps the arrays from being empty.
        self._keys = keys[order] if len(keys) else np.array([-1], np.int64)
        self._ranks = order.astype(np.int32) if len(keys) else np.array([_NEVER])
        self._merged = ids[:, 2].astype(np.int32) if len(keys) else np.zeros(1, np.int32)
        self._of_byte = np.array([self._index[character] for character in BYTE_CHARACTERS], np.int32)

    def _bytes(self, token: str) -> bytes:
        if token == self.end_of_text or any(character not in _TO_BYTE for character in token):
            return b""
        return bytes(_TO_BYTE[character] for character in token)

    @classmethod
    def from_folder(cls, folder: Path) -> BytePair:
        """Opens a folder in Hugging Face, KerasHub or OpenAI format.

        Raises:
            UserError: there is no such tokenizer, or it splits by other rules than GPT-2's.
        """
        path = folder / "tokenizer.json"
        described = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
        if "model" in described:
            return cls._from_tokenizer_json(path, described)
        pairs = (("vocab.json", "merges.txt"), ("encoder.json", "vocab.bpe"))
        for vocabulary, merges in (*pairs, ("assets/tokenizer/vocabulary.json", "assets/tokenizer/merges.txt")):
            if (folder / vocabulary).exists() and (folder / merges).exists():
                pieces = json.loads((folder / vocabulary).read_text(encoding="utf-8"))
                lines = (folder / merges).read_text(encoding="utf-8").split("\n")
                learnt = [_pair(line) for line in lines if line and not line.startswith("#version")]
                return cls(sorted(pieces, key=pieces.__getitem__), learnt)
        raise UserError(f"{folder}: has neither tokenizer.json nor vocab.json and merges.txt")

    @classmethod
    def _from_tokenizer_json(cls, path: Path, described: dict[str, Any]) -> BytePair:
        model, splitter = described["model"], described.get("pre_tokenizer") or {}
        plain = splitter.get("type") == "ByteLevel" and splitter.get("use_regex", True)
        if model.get("type") != "BPE" or not plain or splitter.get("add_prefix_space") or described.get("normalizer"):
            raise UserError(f"{path}: a causal language model needs GPT-2's byte-level BPE in this version")
        pieces = dict(model["vocab"])
        special = [one for one in described.get("added_tokens", []) if one["special"]]
        pieces |= {one["content"]: one["id"] for one in described.get("added_tokens", [])}
        end = END_OF_TEXT if END_OF_TEXT in pieces else special[0]["content"] if special else END_OF_TEXT
        merges = [_pair(pair) for pair in model["merges"]]
        return cls(sorted(pieces, key=pieces.__getitem__), merges, end)

    def encode(self, texts: Sequence[str]) -> list[np.ndarray]:
        """Token ids of each text, int32 [tokens], without end-of-text; on all cores, outside any graph."""
        return [np.array(one.ids, np.int32) for one in self._fast.encode_batch_fast(list(texts))]

    def decode(self, token_ids: Iterable[int]) -> str:
        """The text of ids; bytes that are no UTF-8 become U+FFFD."""
        return b"".join(self.token_bytes[index] for index in token_ids).decode("utf-8", "replace")

    def tokenize(self, texts: tf.Tensor) -> tf.RaggedTensor:
        """What `encode` gives: string [batch] to ragged int32 [batch, (tokens)]; works inside a graph."""
        import tensorflow as tf

        texts = tf.strings.unicode_transcode(texts, "UTF-8", "UTF-8", errors="replace")
        bordered = tf.strings.regex_replace(texts, _LAST_SPACE, b"\\1" + _BORDER + b"\\2")
        bordered = tf.strings.regex_replace(bordered, _WORDS, b"\\0" + _BORDER)
        words = tf.strings.split(bordered, _BORDER)
        words = tf.ragged.boolean_mask(words, words.with_flat_values(tf.strings.length(words.flat_values) > 0))
        distinct, position = tf.unique(words.flat_values)
        pieces = self._merge(distinct)
        return words.with_flat_values(tf.gather(pieces, position)).merge_dims(-2, -1)

    def _merge(self, words: tf.Tensor) -> tf.RaggedTensor:
        """Applies the merges to words: string [n] to ragged int32 [n, (tokens)].

        Each round merges, of every word, the first learnt pair that it holds, wherever it stands in the word.
        """
        import tensorflow as tf

        count = tf.size(words)
        tokens = tf.gather(self._of_byte, tf.cast(tf.io.decode_raw(tf.strings.reduce_join(words), tf.uint8), tf.int32))
        owner = tf.repeat(tf.range(count), tf.strings.length(words))
        keys, ranks = tf.constant(self._keys), tf.constant(self._ranks)
        merged = tf.constant(self._merged)

        def matches(tokens: tf.Tensor, owner: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
            """Where a pair is merged, bool [n - 1], and the ranks of the pairs."""
            wide = tf.cast(tokens, tf.int64)
            pairs = wide[:-1] * self.vocabulary_size + wide[1:]
            place = tf.minimum(tf.searchsorted(keys, pairs), len(self._keys) - 1)
            known = (tf.gather(keys, place) == pairs) & (owner[:-1] == owner[1:])
            rank = tf.where(known, tf.gather(ranks, place), _NEVER)
            best = tf.gather(tf.math.unsorted_segment_min(rank, owner[:-1], count), owner[:-1])
            return known & (rank == best), rank

        def go_on(tokens: tf.Tensor, owner: tf.Tensor, match: tf.Tensor, rank: tf.Tensor) -> tf.Tensor:
            return tf.reduce_any(match)

        def merge(tokens: tf.Tensor, owner: tf.Tensor, match: tf.Tensor, rank: tf.Tensor) -> tuple[tf.Tensor, ...]:
            # In `aaa` the pairs overlap: of a run of matches every second one counts.
            begins = match & ~tf.concat([[False], match[:-1]], 0)
            places = tf.range(tf.size(match))
            begin = tf.gather(tf.boolean_mask(places, begins), tf.maximum(tf.cumsum(tf.cast(begins, tf.int32)) - 1, 0))
            match = match & ((places - begin) % 2 == 0)
            new = tf.where(match, tf.gather(merged, tf.where(match, rank, 0)), tokens[:-1])
            keep = tf.concat([[True], ~match], 0)
            tokens = tf.boolean_mask(tf.concat([new, tokens[-1:]], 0), keep)
            owner = tf.boolean_mask(owner, keep)
            return tokens, owner, *matches(tokens, owner)

        flat = tf.TensorShape([None])
        tokens, owner, _, _ = tf.while_loop(
            go_on, merge, (tokens, owner, *matches(tokens, owner)), shape_invariants=(flat, flat, flat, flat)
        )
        return tf.RaggedTensor.from_value_rowids(tokens, tf.cast(owner, tf.int64), tf.cast(count, tf.int64))

    def detokenize(self, token_ids: tf.RaggedTensor) -> tf.Tensor:
        """What `decode` gives: ragged int32 [batch, (tokens)] to string [batch]; works inside a graph."""
        import tensorflow as tf

        pieces = token_ids.with_flat_values(tf.gather(tf.constant(self.token_bytes), token_ids.flat_values))
        return tf.strings.unicode_transcode(tf.strings.reduce_join(pieces, axis=1), "UTF-8", "UTF-8", errors="replace")

    def keras_hub_tokenizer(self) -> Any:
        """KerasHub's own tokenizer at its closest settings; called from Python it splits some texts otherwise."""
        import keras_hub

        pieces = self._index
        merges = [" ".join(pair) for pair in self.merges]
        if not merges:  # KerasHub fails without any; these two bytes stand in no UTF-8 text
            never = BYTE_CHARACTERS[0xFF]
            merges, pieces = [f"{never} {never}"], {**pieces, never * 2: len(pieces)}
        return keras_hub.models.GPT2Tokenizer(pieces, merges)

    def reference(self, special_tokens: bool = True) -> Any:
        """The same tokenizer as `tokenizers.Tokenizer`.

        Args:
            special_tokens: whether the end-of-text token that is spelled out in a text is taken as such, as usual there.
        """
        import tokenizers

        model = tokenizers.models.BPE(vocab=self._index, merges=self.merges)
        result = tokenizers.Tokenizer(model)
        result.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
        result.decoder = tokenizers.decoders.ByteLevel()
        if special_tokens:
            result.add_special_tokens([self.end_of_text])
        return result

    def save(self, folder: Path) -> None:
        """Writes it in Hugging Face's format: tokenizer.json, vocab.json, merges.txt, and the files of special tokens."""
        folder.mkdir(parents=True, exist_ok=True)
        self.reference().save(str(folder / "tokenizer.json"))
        (folder / "vocab.json").write_text(json.dumps(self._index, ensure_ascii=False), encoding="utf-8")
        lines = ["#version: 0.2", *(" ".join(pair) for pair in self.merges)]
        (folder / "merges.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
        special = {f"{name}_token": self.end_of_text for name in ("bos", "eos", "unk")}
        settings = {"tokenizer_class": "GPT2Tokenizer", "add_prefix_space": False, **special}
        (folder / "tokenizer_config.json").write_text(json.dumps(settings, indent=1))
        (folder / "special_tokens_map.json").write_text(json.dumps(special, indent=1))


def _pair(merge: str | Sequence[str]) -> tuple[str, str]:
    left, right = merge.split(" ") if isinstance(merge, str) else merge
    return left, right


def train_bytepair(texts: Iterable[str], vocabulary_size: int) -> BytePair:
    """Learns merges with the `tokenizers` library; the same texts give the same vocabulary in every process.

    Ids: end-of-text is 0, then the 256 bytes, then merges in the order in which they were learnt.

    Raises:
        ValueError: `vocabulary_size` cannot hold the bytes, or the texts do not hold that many pairs.
    """
    import tokenizers

    if vocabulary_size < 257:
        raise ValueError(f"vocabulary_size {vocabulary_size} cannot hold end-of-text and the 256 bytes; 257 can")
    rules = tokenizers.Tokenizer(tokenizers.models.BPE())
    rules.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=vocabulary_size,
        special_tokens=[END_OF_TEXT],
        initial_alphabet=BYTE_CHARACTERS,
        show_progress=False,
    )
    rules.train_from_iterator(texts, trainer)
    described = json.loads(rules.to_str())["model"]
    pieces = described["vocab"]
    if len(pieces) < vocabulary_size:
        raise ValueError(
            f"the training texts hold {len(pieces):,} tokens; vocabulary_size {vocabulary_size:,} is too large"
        )
    merges = [_pair(pair) for pair in described["merges"]]
    return BytePair(sorted(pieces, key=pieces.__getitem__), merges)
