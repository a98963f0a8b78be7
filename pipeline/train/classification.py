"""Fine-tuning and training of a text classifier."""

from __future__ import annotations

import math
from typing import Any

import keras
import numpy as np

from lmworks.configs.schema import TrainStage
from lmworks.models import text_classification
from lmworks.models.preset import check_positions
from lmworks.models.tokenizer import open_tokenizer
from lmworks.pipeline.evaluate.classification import confusion, measure
from lmworks.pipeline.evaluate.figures import confusion_png
from lmworks.pipeline.predict import predict
from lmworks.pipeline.preset import local_preset
from lmworks.pipeline.sequences import SequenceTable, shape_lengths, shuffled_batches
from lmworks.pipeline.train import loop
from lmworks.pipeline.train.curves import Curves
from lmworks.pipeline.train.engine import train
from lmworks.tfx.artifacts import Logs, Model, Sequences
from lmworks.tfx.progress import doing


def fit(config: TrainStage, sequences: Sequences, model: Model, logs: Logs) -> None:
    """Trains, evaluates after every epoch, and writes the best checkpoint."""
    tokenizer = open_tokenizer(sequences.path / "tokenizer")
    labels, length = sequences.properties["labels"], sequences.properties["sequence_length"]
    doing(f"loading {config.model.preset}" if config.model.preset else "building the model")
    preset = local_preset(config.model.preset, reads_weights=True)

    def make(config: TrainStage, dtype: str) -> Classification:
        classifier = text_classification.build(config.model, preset, tokenizer, len(labels), dtype)
        check_positions(classifier.backbone, length)
        return Classification(config, classifier, sequences)

    trained, work = train(config, make, sequences, model, logs)
    doing("saving the model")
    text_classification.save(work.model, tokenizer, labels, length, model.path)
    model.properties |= {"labels": labels, **trained.properties(work.model)}


class Classification:
    """One target per row; rows of like length share a batch."""

    def __init__(self, config: TrainStage, classifier: keras.Model, sequences: Sequences) -> None:
        self.model, self.labels = classifier, sequences.properties["labels"]
        self._config, self._smoothing = config, config.label_smoothing
        self._compute = text_classification.probabilities(classifier)
        self._training, self._validation = (SequenceTable(sequences, split) for split in ("train", "validation"))
        rows = config.rows * config.accumulate
        self.steps_per_epoch = math.ceil(len(self._training) / rows)
        self._epoch, self._order = -1, [np.zeros(0, np.int64)]
        # The first epoch speaks for all: later ones differ in order only, and none has a longer row.
        lengths = self._training.lengths
        longest = [[lengths[part].max() for part in self._rows(step)] for step in range(self.steps_per_epoch)]
        self._allowed = shape_lengths(np.concatenate(longest))
        self.largest_step = int(np.argmax([max(parts) for parts in longest]))

    def _rows(self, step: int) -> list[np.ndarray]:
        """Rows of a step are chosen first, and then cut into micro-batches."""
        epoch, place = divmod(step, self.steps_per_epoch)
        if epoch != self._epoch:
            self._epoch, self._order = epoch, self._batches(epoch)
        chosen, size = self._order[place], self._config.rows
        return [chosen[start : start + size] for start in range(0, len(chosen), size)]

    def _batches(self, epoch: int) -> list[np.ndarray]:
        rows = self._config.rows * self._config.accumulate
        return shuffled_batches(self._training.lengths, rows, self._config.seed, epoch)

    def input_specs(self) -> dict[str, keras.InputSpec]:
        """See `loop.Work`."""
        own = {"labels": "int32", "weights": "float32"}
        return text_classification.input_specs() | {
            name: keras.InputSpec(shape=[None], dtype=dtype) for name, dtype in own.items()
        }

    def micro_batches(self, step: int) -> list[loop.MicroBatch]:
        """See `loop.Work`; they are filled up with rows of no weight."""
        return [self._micro_batch(indices) for indices in self._rows(step)]

    def _micro_batch(self, indices: np.ndarray) -> loop.MicroBatch:
        rows, count = self._config.rows, len(indices)
        batch = self._training.batch(indices, self._allowed, rows)
        labels, weights = np.zeros(rows, np.int32), np.zeros(rows, np.float32)
        labels[:count], weights[:count] = batch.labels, 1.0
        inputs = {**batch.inputs, "labels": labels, "weights": weights}
        return loop.MicroBatch(inputs, float(count), count, int(batch.inputs["padding_mask"][:count].sum()))

    def ids(self, step: int) -> list[str]:
        """See `loop.Work`."""
        epoch, place = divmod(step, self.steps_per_epoch)
        # Drawn anew: the thread that makes batches has moved on, and changes what `_rows` keeps.
        return [self._training.ids[int(row)].as_py() for row in self._batches(epoch)[place]]

    def loss(self, inputs: dict[str, Any]) -> tuple[Any, Any]:
        """See `loop.Work`."""
        return text_classification.loss(self.model, inputs, self._smoothing)

    def describe(self, loss: float, tokens_per_second: float, devices: int) -> dict[str, float]:
        """See `loop.Work`."""
        return {}

    def validate(self, step: int, curves: Curves) -> dict[str, float]:
        """Writes the confusion matrix, and returns the metrics."""
        labels, scores = self._validation.labels, predict(self._compute, self._validation)
        matrix = confusion(labels, scores.argmax(1), len(self.labels))
        curves.image("validation/confusion", confusion_png(matrix, self.labels), step)
        return measure(labels, scores, self.labels)
