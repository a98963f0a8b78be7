"""The SavedModel of a masked language model: text with [MASK] to the likeliest tokens there, and any token's log-probability."""

from __future__ import annotations

from pathlib import Path

import keras
import tensorflow as tf

from lmworks.models import masked_lm
from lmworks.models.causal_lm import scores
from lmworks.models.tokenizer import open_wordpiece
from lmworks.models.wordpiece import WordPiece
from lmworks.pipeline.export.card import Described
from lmworks.pipeline.export.empty_batches import compute_rows
from lmworks.tfx.artifacts import Examples, Model, Sequences

_LIKELIEST = 5
_MASK = "[MASK]"


def save(examples: Examples, sequences: Sequences, model: Model, folder: Path) -> Described:
    """Writes the SavedModel of a trained model."""
    pieces = open_wordpiece(sequences.path / "tokenizer")
    length = int(sequences.properties["sequence_length"])
    loaded = masked_lm.load(model.path)
    write(loaded, pieces, length, folder)
    return Described(
        model=loaded,
        pieces=pieces,
        length=length,
        properties={"sequence_length": length, "vocabulary_size": pieces.vocabulary_size},
        about=f"A masked language model that sees {length} tokens at once.",
        use='served(text=tf.constant(["… [MASK] …"]))  # token: string, probability: float32 [batch, masks, 5]',
    )


def write(model: keras.Model, pieces: WordPiece, length: int, folder: Path) -> None:
    """Writes a SavedModel.

    Signatures:
        serving_default: `text`: string [batch] with `[MASK]` where a token is wanted → `token`: string [batch, masks, 5],
            the likeliest first, and `probability`: float32 of that shape; empty and 0 where a text has fewer masks.
        tokens: `token_ids`, `segment_ids`: int32 [batch, length], `padding_mask`: bool, `positions`, `targets`: int32
            [batch, targets] → `log_probabilities`: float32 [batch, targets], in nats.
        tokenize: `text`: string [batch] → `token_ids`: int32 [batch, longest], -1 behind the end.
    """
    module = tf.Module()
    module.model, module.pieces = model, pieces._pieces
    names = tf.constant(pieces.vocabulary)
    text = tf.TensorSpec([None], tf.string, "text")
    ids = tf.TensorSpec([None, None], tf.int32)

    def with_masks(text: tf.Tensor) -> tf.RaggedTensor:
        """Token ids of texts in which `[MASK]` is the mask token."""
        parts = tf.strings.split(text, _MASK)
        mask = tf.RaggedTensor.from_tensor(tf.fill([tf.size(parts.flat_values), 1], pieces.mask_id))
        joined = parts.with_values(tf.concat([mask, pieces.tokenize(parts.flat_values)], axis=1)).merge_dims(1, 2)
        cls, sep = (
            tf.RaggedTensor.from_tensor(tf.fill([parts.nrows(), 1], one)) for one in (pieces.cls_id, pieces.sep_id)
        )
        # Every part but the first stands behind a mask.
        return tf.concat([cls, joined[:, 1 : length - 1], sep], axis=1)

    def likeliest(text: tf.Tensor) -> dict[str, tf.Tensor]:
        rows = with_masks(text)
        dense = rows.to_tensor(pieces.pad_id)
        places = tf.broadcast_to(tf.range(tf.shape(dense)[1])[None, :], tf.shape(dense))
        masked = tf.ragged.boolean_mask(places, dense == pieces.mask_id)
        positions = masked.to_tensor(0)
        real = tf.sequence_mask(masked.row_lengths(), tf.shape(positions)[1])
        inputs = {
            "token_ids": dense,
            "segment_ids": tf.zeros_like(dense),
            "padding_mask": tf.sequence_mask(rows.row_lengths(), tf.shape(dense)[1]),
        }
        found = tf.math.top_k(tf.nn.softmax(masked_lm.logits_at(model, inputs, positions)), _LIKELIEST)
        return {
            "token": tf.where(real[..., None], tf.gather(names, found.indices), ""),
            "probability": tf.where(real[..., None], found.values, 0.0),
        }

    @tf.function(input_signature=[text])
    def serving_default(text: tf.Tensor) -> dict[str, tf.Tensor]:
        return compute_rows(likeliest, text)

    @tf.function(input_signature=[ids, ids, tf.TensorSpec([None, None], tf.bool), ids, ids])
    def tokens(
        token_ids: tf.Tensor, segment_ids: tf.Tensor, padding_mask: tf.Tensor, positions: tf.Tensor, targets: tf.Tensor
    ) -> dict[str, tf.Tensor]:
        inputs = {"token_ids": token_ids, "segment_ids": segment_ids, "padding_mask": padding_mask}
        return {"log_probabilities": scores(masked_lm.logits_at(model, inputs, positions), targets)[0]}

    @tf.function(input_signature=[text])
    def tokenize(text: tf.Tensor) -> dict[str, tf.Tensor]:
        return {"token_ids": pieces.tokenize(text).to_tensor(-1)}

    signatures = {"serving_default": serving_default, "tokens": tokens, "tokenize": tokenize}
    for name, function in signatures.items():
        setattr(module, name, function)
    tf.saved_model.save(module, str(folder), signatures=signatures)
