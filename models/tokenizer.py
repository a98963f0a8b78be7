"""The door to a tokenizer: raw text to model inputs, the same in the data stage and in the served graph."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol

from lmworks.models.document_ends import Ends
from lmworks.models.json_files import read_object, understanding
from lmworks.models.preset import open_preset

if TYPE_CHECKING:
    import numpy as np
    import tensorflow as tf

    from lmworks.models.wordpiece import WordPiece

EXACT = "exact_tokenizer"
"""The exact tokenizer's folder, within a model's."""
SENTENCEPIECE_FILES = ("tokenizer.model", "assets/tokenizer/vocabulary.spm")
"""Where Hugging Face's and KerasHub's formats keep SentencePiece's model."""

_AT_ONCE = 1 << 22
"""Characters of all documents that are tokenised at once: while it works, a tokenizer holds many times their size."""

Kind = Literal["wordpiece", "bpe", "sentencepiece"]


class CausalPieces(Protocol):
    """The tokenizer of a causal language model: `BytePair` or `SentencePiece`, which say what each attribute is."""

    kind: Kind
    vocabulary: list[str]
    vocabulary_size: int
    begin_id: int
    end_id: int
    pad_id: int
    end_ids: tuple[int, ...]
    border_ids: tuple[int, ...]
    token_bytes: list[bytes]
    ends: Ends

    def encode(self, texts: Sequence[str]) -> list[np.ndarray]:
        """Token ids of each text, int32 [tokens], without special ones."""

    def encode_parts(self, documents: Sequence[Sequence[str]]) -> list[list[np.ndarray]]:
        """Token ids of texts that are cut in parts: of each part, int32 [tokens]."""

    def decode(self, token_ids: Iterable[int]) -> str:
        """The text of ids."""

    def continuation(self, token_ids: Iterable[int]) -> str:
        """What ids add to a text that stands before them."""

    def tokenize(self, texts: tf.Tensor) -> tf.RaggedTensor:
        """What `encode` gives, in a graph."""

    def detokenize(self, token_ids: tf.RaggedTensor) -> tf.Tensor:
        """What `continuation` gives, in a graph."""

    def keras_hub_tokenizer(self, kind: Any) -> Any:
        """KerasHub's own tokenizer of this class, at its closest settings."""

    def save(self, folder: Path) -> None:
        """Writes it in Hugging Face's format."""


def open_tokenizer(source: str | Path) -> Tokenizer:
    """Opens the tokenizer of a folder in Hugging Face or KerasHub format, or of a KerasHub name or URL.

    Raises:
        UserError: there is none, or it is of a kind that cannot be served exactly.
    """
    return Tokenizer(open_wordpiece(source))


def open_wordpiece(source: str | Path) -> WordPiece:
    """Opens vocabulary and rules of a classifier's or a masked language model's tokenizer; see `open_tokenizer`."""
    from lmworks.models.wordpiece import WordPiece

    folder = _folder(source)
    with understanding(folder):
        return WordPiece.from_folder(folder)


def open_causal_pieces(source: str | Path) -> CausalPieces:
    """Opens vocabulary and rules of a causal language model's tokenizer; see `open_tokenizer`."""
    folder = _folder(source)
    if any((folder / name).exists() for name in SENTENCEPIECE_FILES) and not _is_byte_level(folder):
        from lmworks.models.sentencepiece import SentencePiece

        with understanding(folder):
            return SentencePiece.from_folder(folder)
    from lmworks.models.bytepair import BytePair  # needs no TensorFlow, whose import takes seconds

    with understanding(folder):
        return BytePair.from_folder(folder)


def open_pieces(folder: Path, kind: Kind) -> WordPiece | CausalPieces:
    """Opens the tokenizer of `Sequences`, whose property `tokenizer` is its kind."""
    return open_wordpiece(folder) if kind == "wordpiece" else open_causal_pieces(folder)


def _is_byte_level(folder: Path) -> bool:
    """Whether a `tokenizer.json` says so; then a `tokenizer.model` beside it is of another kind (Llama 3's is tiktoken's)."""
    path = folder / "tokenizer.json"
    described = read_object(path)
    with understanding(path):
        return (described.get("decoder") or {}).get("type") == "ByteLevel"


def _folder(source: str | Path) -> Path:
    folder = Path(source)
    folder = folder if folder.is_dir() else _download(str(source))
    # A model that we wrote has the exact tokenizer beside KerasHub's.
    return folder / EXACT if (folder / EXACT).is_dir() else folder


def encode_each(
    encode: Callable[[Sequence[str]], list[np.ndarray]], documents: Sequence[Sequence[str]]
) -> list[list[np.ndarray]]:
    """Token ids of texts that are cut in parts where tokens have a border: of each part, int32 [tokens]."""
    parts = (part for document in documents for part in document)
    found = (ids for group in groups_of(parts) for ids in encode(group))
    return [[next(found) for _ in document] for document in documents]


def detokenize(token_bytes: Sequence[bytes], token_ids: tf.RaggedTensor) -> tf.Tensor:
    """Texts of ids, bytes that are no UTF-8 as U+FFFD: ragged int32 [batch, (tokens)] to string [batch]; works inside a graph."""
    import tensorflow as tf

    pieces = token_ids.with_flat_values(tf.gather(tf.constant(token_bytes), token_ids.flat_values))
    return tf.strings.unicode_transcode(tf.strings.reduce_join(pieces, axis=1), "UTF-8", "UTF-8", errors="replace")


def groups_of(pieces: Iterable[str]) -> Iterator[list[str]]:
    """Pieces in order, in lists of about four million characters."""
    group: list[str] = []
    characters = 0
    for piece in pieces:
        group.append(piece)
        characters += len(piece)
        if characters >= _AT_ONCE:
            yield group
            group, characters = [], 0
    if group:
        yield group


def _download(preset: str) -> Path:
    """Folder of a preset's tokenizer, fetched by KerasHub from where the name says."""
    import tempfile

    import keras_hub

    tokenizer = open_preset(preset, lambda: keras_hub.models.Tokenizer.from_preset(preset))
    folder = Path(tempfile.mkdtemp(prefix="lmworks-tokenizer-"))
    tokenizer.save_to_preset(str(folder))
    return folder


class Tokenizer:
    """Text to token ids with special tokens, and to the dense tensors that a model takes.

    Attributes:
        vocabulary_size: number of token ids.
        pad_id: the id that fills a batch.
        pieces: the vocabulary and its rules.
    """

    def __init__(self, pieces: WordPiece) -> None:
        self.pieces = pieces
        self.vocabulary_size = pieces.vocabulary_size
        self.pad_id = pieces.pad_id

    def pack(
        self, text: tf.Tensor | Sequence[str], text_b: tf.Tensor | Sequence[str] | None = None, *, sequence_length: int
    ) -> tuple[tf.RaggedTensor, tf.Tensor]:
        """Adds special tokens and truncates, as Hugging Face with `truncation=True`; works inside a graph.

        `[CLS] text [SEP]`, or `[CLS] text [SEP] text_b [SEP]`, of which the longer one is shortened first.

        Args:
            text: string [batch].
            text_b: string [batch], the second texts of pairs.
            sequence_length: most tokens, special tokens counted.

        Returns:
            token_ids: ragged int32 [batch, (length)]; first_length: int32 [batch], positions of the first segment.
        """
        import tensorflow as tf

        first = self.pieces.tokenize(tf.convert_to_tensor(text, tf.string))
        rows = first.nrows()
        cls, sep = (
            tf.RaggedTensor.from_tensor(tf.fill([rows, 1], index)) for index in (self.pieces.cls_id, self.pieces.sep_id)
        )
        if text_b is None:
            first = first[:, : sequence_length - 2]
            packed = tf.concat([cls, first, sep], axis=1)
            return packed, tf.cast(packed.row_lengths(), tf.int32)
        second = self.pieces.tokenize(tf.convert_to_tensor(text_b, tf.string))
        keep_first, keep_second = _longest_first(first.row_lengths(), second.row_lengths(), sequence_length - 3)
        first, second = _shorten(first, keep_first), _shorten(second, keep_second)
        packed = tf.concat([cls, first, sep, second, sep], axis=1)
        return packed, tf.cast(first.row_lengths() + 2, tf.int32)

    def to_model_inputs(self, token_ids: tf.RaggedTensor, first_length: tf.Tensor) -> dict[str, tf.Tensor]:
        """Pads to the longest row of the batch.

        Args:
            token_ids: ragged int32 [batch, (length)].
            first_length: int32 [batch].

        Returns:
            token_ids, segment_ids: int32 [batch, longest]; padding_mask: bool [batch, longest], True on tokens.
        """
        import tensorflow as tf

        dense = token_ids.to_tensor(self.pad_id)
        positions = tf.range(tf.shape(dense)[1])[None, :]
        mask = positions < tf.cast(token_ids.row_lengths(), tf.int32)[:, None]
        segments = tf.cast((positions >= first_length[:, None]) & mask, tf.int32)
        return {"token_ids": dense, "segment_ids": segments, "padding_mask": mask}

    def keras_hub_tokenizer(self) -> Any:
        """KerasHub's own tokenizer at its closest settings; it differs on rare characters."""
        return self.pieces.keras_hub_tokenizer()

    def save(self, folder: Path) -> None:
        """Writes the exact tokenizer in Hugging Face's format."""
        self.pieces.save(folder)


def _longest_first(first: tf.Tensor, second: tf.Tensor, room: int) -> tuple[tf.Tensor, tf.Tensor]:
    """How many tokens of each text fit into `room` when the longer text gives way first, int64 [batch] each."""
    import tensorflow as tf

    short, long = tf.minimum(first, second), tf.maximum(first, second)
    long = tf.where(short > room, short, tf.minimum(long, tf.maximum(short, room - short)))
    both = short + long > room
    half = tf.constant(room // 2, tf.int64)
    short, long = tf.where(both, half, short), tf.where(both, half + room % 2, long)
    swapped = first > second
    return tf.where(swapped, long, short), tf.where(swapped, short, long)


def _shorten(rows: tf.RaggedTensor, lengths: tf.Tensor) -> tf.RaggedTensor:
    """The first `lengths[i]` values of row i."""
    import tensorflow as tf

    positions = tf.ragged.range(rows.row_lengths()).flat_values
    keep = positions < tf.gather(lengths, rows.value_rowids())
    return tf.ragged.boolean_mask(rows, rows.with_flat_values(keep))
