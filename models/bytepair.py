"""Byte-level BPE with two faces: `tokenizers` for the data stage and a TensorFlow graph that is served.

The rules are those of Radford et al. 2019 ("Language Models are Unsupervised Multitask Learners") as Hugging Face `tokenizers`
applies them: split into words (GPT-2, Llama 3, Qwen and others each by a rule of their own), bytes, then merges in the order
in which they were learnt (Sennrich et al. 2016, arXiv:1508.07909). Without a normalizer no text is changed, so ids decode to
the very bytes, but for those that a vocabulary lacks (SmolLM2's own lacks 21): they are dropped before the merges, or become
the unknown token where the model names one. Special tokens (all that a `tokenizer.json` calls added) that are spelled out in a
text stay plain text on purpose: a user must not be able to write one.

Not equal: characters that Unicode reclassified as letters or numbers after the tables of the one or the other library were made.
"""

from __future__ import annotations

import json
import unicodedata
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from lmworks.configs.errors import UserError
from lmworks.models.document_ends import Ends
from lmworks.models.json_files import check_size, read_object, understanding
from lmworks.models.keras_hub_families import family_of
from lmworks.models.splitting import GPT2, Splitting
from lmworks.models.tokenizer import Kind, detokenize, encode_each
from lmworks.models.vocabulary import tokens_by_id, with_added

if TYPE_CHECKING:
    import tensorflow as tf

END_OF_TEXT = "<|endoftext|>"

_NEVER = np.int32(2**31 - 1)


def _byte_characters() -> list[str]:
    """The printable character that stands for each byte in vocabularies: itself where it is one, else one from U+0100 on."""
    printable = {*range(ord("!"), ord("~") + 1), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    others = iter(range(0x100, 0x200))
    return [chr(byte if byte in printable else next(others)) for byte in range(256)]


GPT2_ENDS = Ends(END_OF_TEXT)
BYTE_CHARACTERS = _byte_characters()
_TO_BYTE = {character: byte for byte, character in enumerate(BYTE_CHARACTERS)}


class BytePair:
    """A vocabulary and its merges.

    Args:
        vocabulary: tokens in the order of their ids, bytes spelled as `BYTE_CHARACTERS`.
        merges: pairs of tokens, the first learnt first.
        special: tokens that no text gives and that stand for no text; those of `ends` are among them.
        ends: what each tells.
        splitting: how a text is cut into words.
        ignore_merges: whether a word that is a token is that token, whatever the merges make of it.
        unknown: the token for bytes that the vocabulary lacks; they are dropped where there is none.
        fuse_unknown: whether such bytes in a row, within a word, are one unknown token.

    Attributes:
        missing_bytes: those that the vocabulary lacks.
        begin_id: stands before a document.
        end_id: ends it.
        end_ids: end a generated text.
        border_ids: stand between two documents.
    """

    kind: Kind = "bpe"

    def __init__(
        self,
        vocabulary: Sequence[str],
        merges: Sequence[tuple[str, str]],
        ends: Ends = GPT2_ENDS,
        special: Sequence[str] = (),
        splitting: Splitting = GPT2,
        ignore_merges: bool = False,
        unknown: str | None = None,
        fuse_unknown: bool = False,
    ) -> None:
        self.vocabulary, self.merges, self.ends = list(vocabulary), list(merges), ends
        self.special = list(dict.fromkeys([*special, *ends.names]))
        self.splitting, self.ignore_merges = splitting, ignore_merges
        self.unknown, self.fuse_unknown = unknown, fuse_unknown
        self._index = {token: index for index, token in enumerate(self.vocabulary)}
        self.missing_bytes = bytes(byte for byte, one in enumerate(BYTE_CHARACTERS) if one not in self._index)
        # An unknown token that no text can give need not exist: GPT-2's file names the empty one.
        named = [unknown] if unknown is not None and self.missing_bytes else []
        lacks = next((token for token in [*self.special, *named] if token not in self._index), None)
        if lacks is not None:
            raise UserError(f"the tokenizer's vocabulary lacks {lacks or 'the unknown token, whose name is empty'}")
        if len(self.missing_bytes) == len(BYTE_CHARACTERS):
            raise UserError("the tokenizer's vocabulary lacks all of the 256 bytes; it is no byte-level BPE")
        parts = ((pair, part) for pair in self.merges for part in (*pair, "".join(pair)))
        if lost := next(((pair, part) for pair, part in parts if part not in self._index), None):
            raise UserError(f"the tokenizer's vocabulary lacks {lost[1]}, of the merge {' '.join(lost[0])}")
        self.vocabulary_size = len(self.vocabulary)
        self.end_id, self.begin_id = self._index[ends.end], self._index[ends.begin or ends.end]
        self.end_ids, self.border_ids = (
            tuple(self._index[token] for token in tokens) for tokens in ((ends.end, *ends.stops), ends.border)
        )
        self.pad_id = self.end_id
        self._fast = self.reference(special_tokens=False)
        # Raw bytes of every token; special ones decode to nothing.
        special_ids = {self._index[token] for token in self.special}
        self.token_bytes = [
            b"" if index in special_ids else _bytes(token) for index, token in enumerate(self.vocabulary)
        ]
        ids = np.array([[self._index[one] for one in (*pair, "".join(pair))] for pair in self.merges], np.int64)
        ids = ids.reshape(-1, 3)
        keys = ids[:, 0] * self.vocabulary_size + ids[:, 1]
        order = np.argsort(keys, kind="stable")
        # Without merges every text is its bytes; one impossible key keeps the arrays from being empty.
        self._keys = keys[order] if len(keys) else np.array([-1], np.int64)
        self._ranks = order.astype(np.int32) if len(keys) else np.array([_NEVER])
        self._merged = ids[:, 2].astype(np.int32) if len(keys) else np.zeros(1, np.int32)
        self._of_byte = np.array([self._index.get(character, -1) for character in BYTE_CHARACTERS], np.int32)
        self._whole = self._against_merges() if ignore_merges else []

    def _against_merges(self) -> list[int]:
        """Tokens of which the merges make something else when they are a word."""
        import tokenizers

        model = tokenizers.models.BPE(vocab=self._index, merges=self.merges, **self._for_unknown())
        texts = [index for index, piece in enumerate(self.token_bytes) if piece]
        return [index for index in texts if [one.id for one in model.tokenize(self.vocabulary[index])] != [index]]

    @classmethod
    def from_folder(cls, folder: Path) -> BytePair:
        """Opens a folder in Hugging Face, KerasHub or OpenAI format.

        Raises:
            UserError: there is no such tokenizer, or it splits by rules that are not known.
        """
        path = folder / "tokenizer.json"
        described = read_object(path)
        if "model" in described:
            with understanding(path):
                return cls._from_tokenizer_json(path, described)
        pairs = (("vocab.json", "merges.txt"), ("encoder.json", "vocab.bpe"))
        for vocabulary, merges in (*pairs, ("assets/tokenizer/vocabulary.json", "assets/tokenizer/merges.txt")):
            if (folder / vocabulary).exists() and (folder / merges).exists():
                pieces = read_object(folder / vocabulary)
                check_size(folder / merges)
                with understanding(folder / merges):
                    lines = (folder / merges).read_text(encoding="utf-8").split("\n")
                    learnt = [_pair(line) for line in lines if line and not line.startswith("#version")]
                family = family_of(path, described)
                tokens, _ = tokens_by_id(pieces, folder / vocabulary)
                # What is no byte and what no merge makes stands for no text.
                made = {*BYTE_CHARACTERS, *("".join(pair) for pair in learnt)}
                special = [token for token in tokens if token not in made]
                ends = family.ends(pieces)
                return cls(tokens, learnt, ends, special, family.splitting, family.ignore_merges)
        raise UserError(f"{folder}: has neither tokenizer.json nor vocab.json and merges.txt")

    @classmethod
    def _from_tokenizer_json(cls, path: Path, described: dict[str, Any]) -> BytePair:
        model = described["model"]
        # The ids of single bytes that SentencePiece falls back to; byte-level BPE knows bytes by characters.
        falls_back = model.get("byte_fallback") and any(token.startswith("<0x") for token in model["vocab"])
        if model.get("type") != "BPE" or falls_back:
            kind = "BPE of SentencePiece" if falls_back else model.get("type", "unknown")
            hint = "; put its tokenizer.model beside it" if kind != "WordPiece" else ""
            raise UserError(f"{path}: is a {kind} tokenizer; a causal language model needs a byte-level BPE{hint}")
        rules = ("continuing_subword_prefix", "end_of_word_suffix", "dropout")
        if other := [f"{name} {model[name]!r}" for name in rules if model.get(name)]:
            raise UserError(f"{path}: has {', '.join(other)}, which is not known here")
        splitting = Splitting.parse(path, described)
        blank = [one["content"] for one in described.get("added_tokens", []) if not one["content"].strip()]
        if blank:
            raise UserError(f"{path}: has {len(blank)} added tokens of blanks, {blank[0]!r}; that is not known here")
        added = [one["content"] for one in described.get("added_tokens", [])]
        pieces = with_added(model["vocab"], described, path)
        merges = [_pair(pair) for pair in model["merges"]]
        special = [one["content"] for one in described.get("added_tokens", []) if one["special"]]
        default = END_OF_TEXT if END_OF_TEXT in pieces or not special else special[0]
        ends = Ends.of_folder(path.parent, pieces, default, described.get("post_processor") or {})
        vocabulary, unused = tokens_by_id(pieces, path)
        return cls(
            vocabulary,
            merges,
            ends,
            [*added, *unused],
            splitting,
            bool(model.get("ignore_merges")),
            model.get("unk_token"),
            bool(model.get("fuse_unk")),
        )

    def stopping_at(self, token: str) -> BytePair:
        """The same tokenizer, of which this special token ends a generated text too."""
        ends = self.ends if token in self.ends.names else self.ends._replace(stops=(*self.ends.stops, token))
        rules = (self.splitting, self.ignore_merges, self.unknown, self.fuse_unknown)
        return BytePair(self.vocabulary, self.merges, ends, self.special, *rules)

    def _for_unknown(self) -> dict[str, Any]:
        """Arguments of `tokenizers`' model: what becomes of bytes that the vocabulary lacks."""
        return {"unk_token": self.unknown, "fuse_unk": self.fuse_unknown}

    def bytes_without_token(self, text: str) -> int:
        """Counts the bytes of a text, as UTF-8, that the vocabulary lacks."""
        if not self.missing_bytes:
            return 0
        data = (unicodedata.normalize("NFC", text) if self.splitting.nfc else text).encode()
        return len(data) - len(data.translate(None, self.missing_bytes))

    def encode(self, texts: Sequence[str]) -> list[np.ndarray]:
        """Token ids of each text, int32 [tokens], without special ones; on all cores, outside any graph."""
        return [np.array(one.ids, np.int32) for one in self._fast.encode_batch_fast(list(texts))]

    def encode_parts(self, documents: Sequence[Sequence[str]]) -> list[list[np.ndarray]]:
        """Token ids of texts that are cut where every rule has a border: of each part, int32 [tokens]."""
        return encode_each(self.encode, documents)

    def decode(self, token_ids: Iterable[int]) -> str:
        """The text of ids; bytes that are no UTF-8 become U+FFFD."""
        return b"".join(self.token_bytes[index] for index in token_ids).decode("utf-8", "replace")

    continuation = decode
    """What tokens add to a text that stands before them: the same, with this tokenizer."""

    def tokenize(self, texts: tf.Tensor) -> tf.RaggedTensor:
        """What `encode` gives: string [batch] to ragged int32 [batch, (tokens)]; works inside a graph."""
        import tensorflow as tf

        words = self.splitting.split(self.splitting.normalize(texts))
        # Tokens that the merges do not make stand first among the distinct words, so that each is found by its place.
        whole = tf.constant([self.token_bytes[index] for index in self._whole], tf.string)
        distinct, position = tf.unique(tf.concat([whole, words.flat_values], 0))
        pieces = self._merge(distinct[len(self._whole) :])
        if self._whole:
            pieces = tf.concat([tf.RaggedTensor.from_tensor(tf.constant(self._whole)[:, None]), pieces], 0)
        found = tf.gather(pieces, position[len(self._whole) :])
        return words.with_flat_values(found).merge_dims(-2, -1)

    def _merge(self, words: tf.Tensor) -> tf.RaggedTensor:
        """Applies the merges to words: string [n] to ragged int32 [n, (tokens)].

        Each round merges, of every word, the first learnt pair that it holds, wherever it stands in the word.
        """
        import tensorflow as tf

        count = tf.size(words)
        tokens = tf.gather(self._of_byte, tf.cast(tf.io.decode_raw(tf.strings.reduce_join(words), tf.uint8), tf.int32))
        owner = tf.repeat(tf.range(count), tf.strings.length(words))
        if self.missing_bytes:
            lacks = tokens < 0
            keep = ~lacks
            if self.unknown is not None:
                tokens = tf.where(lacks, self._index[self.unknown], tokens)
                again = lacks[1:] & lacks[:-1] & (owner[1:] == owner[:-1]) & self.fuse_unknown
                keep = ~tf.concat([tf.zeros_like(lacks[:1]), again], 0)
            tokens, owner = tf.boolean_mask(tokens, keep), tf.boolean_mask(owner, keep)
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
        """What `continuation` gives: ragged int32 [batch, (tokens)] to string [batch]; works inside a graph."""
        return detokenize(self.token_bytes, token_ids)

    def keras_hub_tokenizer(self, kind: Any) -> Any:
        """KerasHub's own tokenizer at its closest settings; called from Python it splits some texts otherwise.

        Args:
            kind: its class.

        Raises:
            ValueError: it insists on special tokens that this vocabulary does not have.
        """
        pieces = self._index
        merges = [" ".join(pair) for pair in self.merges]
        if not merges:  # KerasHub fails without any; these two bytes stand in no UTF-8 text
            never = BYTE_CHARACTERS[0xFF]
            merges, pieces = [f"{never} {never}"], {**pieces, never * 2: len(pieces)}
        extra: dict[str, Any] = {}
        if kind.__name__ == "Llama3Tokenizer":
            extra = {"bos_token": self.ends.begin or self.ends.end, "eos_token": self.ends.end}
            extra["misc_special_tokens"] = set()
        elif kind.__name__ != "GPT2Tokenizer":
            extra = {"unsplittable_tokens": self.special}
        return kind(pieces, merges, **extra)

    def reference(self, special_tokens: bool = True) -> Any:
        """The same tokenizer as `tokenizers.Tokenizer`.

        Args:
            special_tokens: whether special tokens that are spelled out in a text are taken as such, and one is put before
                it where the model wants that, as usual there.
        """
        import tokenizers

        model = tokenizers.models.BPE(
            vocab=self._index, merges=self.merges, ignore_merges=self.ignore_merges, **self._for_unknown()
        )
        result = tokenizers.Tokenizer(model)
        self.splitting.apply_to(result)
        result.decoder = tokenizers.decoders.ByteLevel()
        if special_tokens:
            result.add_special_tokens(self.special)
            if self.ends.begin:
                begin = (self.ends.begin, self.begin_id)
                result.post_processor = tokenizers.processors.TemplateProcessing(
                    single=f"{self.ends.begin} $A",
                    pair=f"{self.ends.begin} $A {self.ends.begin} $B",
                    special_tokens=[begin],
                )
        return result

    def save(self, folder: Path) -> None:
        """Writes it in Hugging Face's format: tokenizer.json, vocab.json, merges.txt, and the files of special tokens."""
        folder.mkdir(parents=True, exist_ok=True)
        self.reference().save(str(folder / "tokenizer.json"))
        (folder / "vocab.json").write_text(json.dumps(self._index, ensure_ascii=False), encoding="utf-8")
        lines = ["#version: 0.2", *(" ".join(pair) for pair in self.merges)]
        (folder / "merges.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
        # Other classes of `transformers` have rules of their own; this one does what tokenizer.json says.
        kind = "GPT2Tokenizer" if self.splitting == GPT2 else "PreTrainedTokenizerFast"
        self.ends.save(folder, {"tokenizer_class": kind, "add_prefix_space": False}, self._index)


def _bytes(token: str) -> bytes:
    if any(character not in _TO_BYTE for character in token):
        return b""
    return bytes(_TO_BYTE[character] for character in token)


def _pair(merge: str | Sequence[str]) -> tuple[str, str]:
    left, right = merge.split(" ") if isinstance(merge, str) else merge
    return left, right


def train_bytepair(texts: Iterable[str], vocabulary_size: int) -> BytePair:
    """Learns merges with the `tokenizers` library; the same texts give the same vocabulary in every process.

    Ids: end-of-text is 0, then the 256 bytes, then merges in the order in which they were learnt.

    Raises:
        ValueError: The texts do not hold that many pairs.
    """
    import tokenizers

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
