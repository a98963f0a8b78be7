"""Fine-tuning and training of a text classifier."""

from __future__ import annotations

import math

import keras
import numpy as np
import tensorflow as tf

from lmworks.configs.schema import TrainStage
from lmworks.models import text_classification
from lmworks.models.backend import choose_precision, dtype_of
from lmworks.models.preset import check_positions
from lmworks.models.tokenizer import open_tokenizer
from lmworks.pipeline.evaluate.classification import confusion, measure
from lmworks.pipeline.evaluate.figures import confusion_png
from lmworks.pipeline.predict import predict
from lmworks.pipeline.preset import local_preset
from lmworks.pipeline.sequences import SequenceTable, shape_lengths, shuffled_batches
from lmworks.pipeline.train import loop
from lmworks.tfx.artifacts import Logs, Model, Sequences


def fit(config: TrainStage, sequences: Sequences, model: Model, logs: Logs) -> None:
    """Trains, evaluates after every epoch, and writes the best checkpoint."""
    keras.utils.set_random_seed(config.seed)
    precision = choose_precision(config.precision)
    tokenizer = open_tokenizer(sequences.path / "tokenizer")
    labels = sequences.properties["labels"]
    classifier = text_classification.build(
        config.model, local_preset(config.model.preset), tokenizer, len(labels), dtype_of(precision)
    )
    check_positions(classifier.backbone, sequences.properties["sequence_length"])
    trained = loop.run(config, Classification(config, classifier, sequences), precision, logs)
    text_classification.save(classifier, tokenizer, labels, sequences.properties["sequence_length"], model.path)
    model.properties |= {"labels": labels, **trained.properties(classifier)}


class Classification:
    """One target per row; rows of like length share a batch."""

    def __init__(self, config: TrainStage, classifier: keras.Model, sequences: Sequences) -> None:
        self.model, self.labels = classifier, sequences.properties["labels"]
        self._config, self._smoothing = config, config.label_smoothing
        self._training, self._validation = (SequenceTable(sequences, split) for split in ("train", "validation"))
        rows = config.batch_size * config.accumulate
        self.steps_per_epoch = math.ceil(len(self._training) / rows)
        self._epoch, self._order = -1, [np.zeros(0, np.int64)]
        # The first epoch speaks for all: later ones differ in order only, and none has a longer row.
        lengths = self._training.lengths
        longest = [lengths[indices].max() for step in range(self.steps_per_epoch) for indices in self._rows(step)]
        self._allowed = shape_lengths(
            np.array(longest), loop.steps_of(config, self.steps_per_epoch) / self.steps_per_epoch
        )

    def _rows(self, step: int) -> list[np.ndarray]:
        """Rows of a step are chosen first, and then cut into micro-batches."""
        epoch, place = divmod(step, self.steps_per_epoch)
        if epoch != self._epoch:
            rows = self._config.batch_size * self._config.accumulate
            self._epoch, self._order = epoch, shuffled_batches(self._training.lengths, rows, self._config.seed, epoch)
        chosen, size = self._order[place], self._config.batch_size
        return [chosen[start : start + size] for start in range(0, len(chosen), size)]

    def input_specs(self) -> dict[str, tf.TensorSpec]:
        """See `loop.Work`."""
        return {**text_classification.input_specs(), "labels": tf.TensorSpec([None], tf.int32)}

    def micro_batches(self, step: int) -> list[loop.MicroBatch]:
        """See `loop.Work`."""
        batches = (self._training.batch(indices, self._allowed) for indices in self._rows(step))
        return [
            loop.MicroBatch(
                {**batch.inputs, "labels": batch.labels},
                float(len(batch.labels)),
                len(batch.labels),
                int(batch.inputs["padding_mask"].sum()),
            )
            for batch in batches
        ]

    def loss(self, inputs: dict[str, tf.Tensor]) -> tuple[tf.Tensor, tf.Tensor]:
        """See `loop.Work`."""
        labels = inputs["labels"]
        features = {name: value for name, value in inputs.items() if name != "labels"}
        logits = tf.cast(self.model(features, training=True), tf.float32)
        classes = logits.shape[-1]
        targets = tf.one_hot(labels, classes) * (1.0 - self._smoothing) + self._smoothing / classes
        loss = tf.reduce_sum(tf.nn.softmax_cross_entropy_with_logits(targets, logits))
        return loss, loss

    def describe(self, loss: float, tokens_per_second: float) -> dict[str, float]:
        """See `loop.Work`."""
        return {}

    def validate(self, step: int) -> dict[str, float]:
        """Writes the confusion matrix, and returns the metrics."""
        labels, scores = self._validation.labels, predict(self.model, self._validation)
        matrix = confusion(labels, scores.argmax(1), len(self.labels))
        image = tf.io.decode_png(confusion_png(matrix, self.labels), channels=4)
        tf.summary.image("validation/confusion", image[None], step)
        return measure(labels, scores, self.labels)
