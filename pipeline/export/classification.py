"""The SavedModel of a text classifier: raw strings in, label and probabilities out."""

from __future__ import annotations

from pathlib import Path

import keras
import tensorflow as tf

from lmworks.models import text_classification
from lmworks.models.compiled import tensor_specs
from lmworks.models.tokenizer import Tokenizer, open_tokenizer
from lmworks.pipeline.export.card import Described
from lmworks.pipeline.export.empty_batches import compute_rows
from lmworks.pipeline.markdown import escaped
from lmworks.tfx.artifacts import Examples, Model, Sequences


def save(examples: Examples, sequences: Sequences, model: Model, folder: Path) -> Described:
    """Writes the SavedModel of a trained classifier."""
    classifier, labels = text_classification.load(model.path)
    tokenizer = open_tokenizer(sequences.path / "tokenizer")
    pair = examples.properties["text_b"] is not None
    length = int(sequences.properties["sequence_length"])
    write(classifier, tokenizer, labels, length, pair, folder)
    second = ', text_b=tf.constant(["…"])' if pair else ""
    classes = ", ".join(f'"{escaped(label)}"' for label in labels)
    return Described(
        model=classifier,
        pieces=tokenizer.pieces,
        length=length,
        labels=tuple(labels),
        properties={"labels": labels, "text_pair": pair},
        about=f"Text classification{' of pairs' if pair else ''} into {classes}.",
        use=f'served(text=tf.constant(["…"]){second})  # probabilities: float32 [batch, {len(labels)}], of classes: string '
        f"[batch, {len(labels)}]; label: string [batch], the likeliest",
    )


def write(
    classifier: keras.Model, tokenizer: Tokenizer, labels: list[str], sequence_length: int, pair: bool, folder: Path
) -> None:
    """Writes a SavedModel.

    Signatures:
        serving_default: `text` (and `text_b`): string [batch] → `probabilities`: float32 [batch, classes], `classes`: string
            [batch, classes], whose they are, `label`: string [batch], the likeliest. In every row, as TensorFlow Serving's
            Classify API has it: its REST API refuses outputs that have not a row for each text.
        tokens: `token_ids`, `segment_ids`: int32 [batch, length], `padding_mask`: bool [batch, length] → the same.
    """
    names = tf.constant(labels)
    module = tf.Module()
    module.model, module.tokenizer, module.names = classifier, tokenizer, names

    def answer(inputs: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        probabilities = tf.nn.softmax(tf.cast(classifier(inputs, training=False), tf.float32))
        return {
            "probabilities": probabilities,
            "classes": tf.tile(names[None, :], [tf.shape(probabilities)[0], 1]),
            "label": tf.gather(names, tf.argmax(probabilities, axis=1)),
        }

    def from_text(text: tf.Tensor, text_b: tf.Tensor | None = None) -> dict[str, tf.Tensor]:
        return answer(tokenizer.to_model_inputs(*tokenizer.pack(text, text_b, sequence_length=sequence_length)))

    strings = {"text": tf.TensorSpec([None], tf.string, "text")}
    if pair:
        strings["text_b"] = tf.TensorSpec([None], tf.string, "text_b")

    @tf.function(input_signature=list(strings.values()))
    def serving_default(text: tf.Tensor, text_b: tf.Tensor | None = None) -> dict[str, tf.Tensor]:
        return compute_rows(from_text, *((text, text_b) if pair else (text,)))

    @tf.function(input_signature=list(tensor_specs(text_classification.input_specs()).values()))
    def tokens(token_ids: tf.Tensor, segment_ids: tf.Tensor, padding_mask: tf.Tensor) -> dict[str, tf.Tensor]:
        return answer({"token_ids": token_ids, "segment_ids": segment_ids, "padding_mask": padding_mask})

    module.serving_default, module.tokens = serving_default, tokens
    tf.saved_model.save(module, str(folder), signatures={"serving_default": serving_default, "tokens": tokens})
