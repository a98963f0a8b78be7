"""The door to a tokenizer: raw text to model inputs, the same in the data stage and in the served graph."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast

from lmworks.models.preset import open_preset

if TYPE_CHECKING:
    import tensorflow as tf

    from lmworks.models.bytepair import BytePair
    from lmworks.models.wordpiece import WordPiece


def open_tokenizer(source: str | Path) -> Tokenizer:
    """Opens the tokenizer of a folder in Hugging Face or KerasHub format, or of a KerasHub name or URL.

    Raises:
        UserError: there is none, or it is of a kind that cannot be served exactly.
    """
    pieces = open_pieces(source, "wordpiece")
    return Tokenizer(cast("WordPiece", pieces))


def open_pieces(source: str | Path, kind: Literal["wordpiece", "bpe"]) -> WordPiece | BytePair:
    """Opens the vocabulary and rules of a tokenizer; arguments and errors as in `open_tokenizer`."""
    folder = Path(source)
    folder = folder if folder.is_dir() else _download(str(source))
    if kind == "bpe":  # needs no TensorFlow, whose import takes seconds
        from lmworks.models.bytepair import BytePair

        return BytePair.from_folder(folder)
    from lmworks.models.wordpiece import WordPiece

    return WordPiece.from_folder(folder)


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
