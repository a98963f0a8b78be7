"""The servable of a text classifier: raw strings in, label and probabilities out."""

from __future__ import annotations

import json
import os
import shutil
import sys
import uuid
from pathlib import Path

import keras
import tensorflow as tf

from lmworks.configs.errors import UserError
from lmworks.configs.schema import ExportStage
from lmworks.models import text_classification
from lmworks.models.tokenizer import Tokenizer, open_tokenizer
from lmworks.pipeline.export.card import model_card
from lmworks.tfx import process
from lmworks.tfx.artifacts import Evaluation, Examples, Model, Sequences, Servable

SAVED_MODEL = "saved_model"


def write_servable(
    config: ExportStage,
    examples: Examples,
    sequences: Sequences,
    model: Model,
    evaluation: Evaluation,
    servable: Servable,
) -> None:
    """Exports, proves, writes the model card, and pushes where that is asked."""
    classifier, labels = text_classification.load(model.path)
    tokenizer = open_tokenizer(sequences.path / "tokenizer")
    pair = examples.properties["text_b"] is not None
    folder = servable.path / SAVED_MODEL
    save(classifier, tokenizer, labels, sequences.properties["sequence_length"], pair, folder)
    proof = prove(folder, examples, sequences, evaluation)
    card = model_card(config.name, labels, pair, model, evaluation, proof)
    (servable.path / "README.md").write_text(card, encoding="utf-8")
    servable.properties |= {
        "labels": labels,
        "text_pair": pair,
        "rows_proved": proof["rows"],
        "largest_difference": proof["largest_difference"],
        "summary": f"SavedModel gives the evaluated predictions on {proof['rows']:,} rows "
        f"(largest difference {proof['largest_difference']:.1e})",
    }
    if config.push_to:
        push(folder, Path(config.push_to) / config.name)


def save(
    classifier: keras.Model, tokenizer: Tokenizer, labels: list[str], sequence_length: int, pair: bool, folder: Path
) -> None:
    """Writes a SavedModel.

    Signatures:
        serving_default: `text` (and `text_b`): string [batch] → `probabilities`: float32 [batch, classes], `label`: string [batch].
        tokens: `token_ids`, `segment_ids`: int32 [batch, length], `padding_mask`: bool [batch, length] → the same.
    """
    names = tf.constant(labels)
    module = tf.Module()
    module.model, module.tokenizer, module.names = classifier, tokenizer, names

    def answer(inputs: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        probabilities = tf.nn.softmax(tf.cast(classifier(inputs, training=False), tf.float32))
        return {"probabilities": probabilities, "label": tf.gather(names, tf.argmax(probabilities, axis=1))}

    def from_text(text: tf.Tensor, text_b: tf.Tensor | None = None) -> dict[str, tf.Tensor]:
        return answer(tokenizer.to_model_inputs(*tokenizer.pack(text, text_b, sequence_length=sequence_length)))

    strings = {"text": tf.TensorSpec([None], tf.string, "text")}
    if pair:
        strings["text_b"] = tf.TensorSpec([None], tf.string, "text_b")

    @tf.function(input_signature=list(strings.values()))
    def serving_default(text: tf.Tensor, text_b: tf.Tensor | None = None) -> dict[str, tf.Tensor]:
        return from_text(text, text_b)

    @tf.function(input_signature=list(text_classification.input_specs().values()))
    def tokens(token_ids: tf.Tensor, segment_ids: tf.Tensor, padding_mask: tf.Tensor) -> dict[str, tf.Tensor]:
        return answer({"token_ids": token_ids, "segment_ids": segment_ids, "padding_mask": padding_mask})

    module.serving_default, module.tokens = serving_default, tokens
    tf.saved_model.save(module, str(folder), signatures={"serving_default": serving_default, "tokens": tokens})


def prove(folder: Path, examples: Examples, sequences: Sequences, evaluation: Evaluation) -> dict[str, float]:
    """Compares the SavedModel with the evaluated predictions in a fresh process.

    Returns:
        `rows` compared and the `largest_difference` of a probability.

    Raises:
        UserError: rows whose probabilities differ, by id.
    """
    split = evaluation.properties["split"]
    task = {
        "saved_model": folder,
        "examples": examples.path,
        "sequences": sequences.path,
        "evaluation": evaluation.path,
    }
    command = [sys.executable, "-m", "lmworks.pipeline.export.proof", split, *(str(path) for path in task.values())]
    answer = folder.with_name(f".proof-{uuid.uuid4().hex[:6]}.json")
    child = process.start([*command, str(answer)])
    try:
        if child.wait():
            raise UserError("export: the SavedModel could not be loaded and called in a fresh process; see the log")
        found = json.loads(answer.read_text())
    finally:
        answer.unlink(missing_ok=True)
    if found["different"]:
        shown = ", ".join(f"{one['id']} (by {one['difference']:.1e})" for one in found["different"][:5])
        raise UserError(
            f"export: refused: the SavedModel differs from the evaluated predictions on {found['count']:,} of "
            f"{found['rows']:,} rows of {split}: {shown}"
        )
    return found


def push(saved_model: Path, target: Path) -> Path:
    """Copies a SavedModel into TensorFlow Serving's layout as the next version, in one step.

    Returns:
        `<target>/<version>`.
    """
    target.mkdir(parents=True, exist_ok=True)
    draft = target / f".draft-{uuid.uuid4().hex[:8]}"
    shutil.copytree(saved_model, draft)
    version = 1 + max((int(path.name) for path in target.iterdir() if path.name.isdigit()), default=0)
    while True:
        try:
            # A rename onto an existing, non-empty folder fails: two pushes at once get two versions.
            os.rename(draft, target / str(version))
            return target / str(version)
        except OSError:
            if not (target / str(version)).exists():
                shutil.rmtree(draft, ignore_errors=True)
                raise
            version += 1
