"""Fine-tuning and training of a text classifier."""

from __future__ import annotations

import math
import time
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from lmworks.configs.errors import UserError
from lmworks.configs.schema import TrainStage
from lmworks.models import text_classification
from lmworks.models.backend import choose_precision
from lmworks.models.fused_transformer import fused_layers
from lmworks.models.tokenizer import open_tokenizer
from lmworks.pipeline.evaluate.classification import confusion, measure
from lmworks.pipeline.evaluate.figures import confusion_png
from lmworks.pipeline.predict import predict
from lmworks.pipeline.preset import local_preset
from lmworks.pipeline.sequences import Batch, SequenceTable, shape_lengths, shuffled_batches
from lmworks.pipeline.train.fast_adamw import FastAdamW
from lmworks.pipeline.train.schedule import WarmupDecay
from lmworks.tfx.artifacts import Logs, Model, Sequences
from lmworks.tfx.progress import report

_LOG_EVERY = 10
"""Steps between two points in TensorBoard; nothing is read back from the device in between."""


def fit(config: TrainStage, sequences: Sequences, model: Model, logs: Logs) -> None:
    """Trains, evaluates after every epoch, and writes the best checkpoint."""
    keras.utils.set_random_seed(config.seed)
    precision = choose_precision(config.precision)
    tokenizer = open_tokenizer(sequences.path / "tokenizer")
    labels = sequences.properties["labels"]
    dtype = "float32" if precision == "float32" else f"mixed_{precision}"
    classifier = text_classification.build(
        config.model, local_preset(config.model.preset), tokenizer, len(labels), dtype
    )
    _check_length(classifier, sequences.properties["sequence_length"])
    training, validation = SequenceTable(sequences, "train"), SequenceTable(sequences, "validation")
    per_epoch = math.ceil(len(training) / config.batch_size)
    steps = config.steps or max(1, math.ceil(per_epoch * config.epochs))
    # The first epoch speaks for all: later ones differ in order only, and none has a longer row.
    batches = shuffled_batches(training.lengths, config.batch_size, config.seed, epoch=0)
    longest = np.array([training.lengths[indices].max() for indices in batches])
    allowed = shape_lengths(longest, steps / per_epoch)
    trainer = Trainer(config, classifier, steps, precision)
    best = Best(config, labels)
    writer = tf.summary.create_file_writer(str(logs.path))
    with writer.as_default():
        began = time.monotonic()
        step = epoch = 0
        while step < steps and not best.give_up:
            for indices in shuffled_batches(training.lengths, config.batch_size, config.seed, epoch):
                batch = training.batch(indices, allowed)
                trainer.step(batch)
                step += 1
                if step % _LOG_EVERY == 0 or step == steps:
                    facts = trainer.log(step)
                    left = (time.monotonic() - began) / step * (steps - step)
                    report(step, steps, "steps", **facts, left=_clock(left))
                if step == steps:
                    break
            epoch += 1
            scores = predict(classifier, validation)
            best.judge(classifier, validation.labels, scores, step)
    writer.close()
    classifier.set_weights(best.weights)
    text_classification.save(classifier, tokenizer, labels, sequences.properties["sequence_length"], model.path)
    model.properties |= {
        "labels": labels,
        "best_step": best.step,
        "steps": step,
        "precision": precision,
        "summary": f"{classifier.count_params() / 1e6:.1f}M parameters, {step} steps in {precision}, "
        f"best validation {config.monitored} {best.value:.4f} at step {best.step}",
    }


class Trainer:
    """The compiled step: forward, loss, backward, clipping, AdamW."""

    def __init__(self, config: TrainStage, classifier: keras.Model, steps: int, precision: str) -> None:
        self.classifier = classifier
        self._seed = config.seed
        self.smoothing = config.label_smoothing
        self.schedule = WarmupDecay(config.learning_rate, steps, config.warmup_ratio, config.schedule)
        optimizer = FastAdamW(
            self.schedule,
            weight_decay=config.weight_decay,
            epsilon=1e-8,
            global_clipnorm=config.clip_norm,
            track_gradient_norm=True,
        )
        plain = [one for one in classifier.trainable_variables if not _decays(one)]
        if plain:
            optimizer.exclude_from_weight_decay(var_list=plain)
        self._adamw = optimizer
        self.optimizer = keras.optimizers.LossScaleOptimizer(optimizer) if precision == "float16" else optimizer
        self.optimizer.build(classifier.trainable_variables)
        # Running sums since the last log, on the device: loss, gradient norm.
        self._sums = [tf.Variable(0.0), tf.Variable(0.0)]
        self._examples = self._tokens = self._steps = 0
        self._since = time.monotonic()
        # Traced once for all shapes: a trace takes seconds.
        specs = [text_classification.input_specs(), tf.TensorSpec([None], tf.int32)]
        self._compiled = tf.function(self._compute, input_signature=specs)

    def step(self, batch: Batch) -> None:
        """One optimizer step on a batch; reads nothing back."""
        self._compiled({name: tf.constant(value) for name, value in batch.inputs.items()}, tf.constant(batch.labels))
        self._examples += len(batch.labels)
        self._tokens += int(batch.inputs["padding_mask"].sum())
        self._steps += 1

    def _compute(self, inputs: dict[str, tf.Tensor], labels: tf.Tensor) -> None:
        variables = self.classifier.trainable_variables
        seed = self._seed + tf.cast(self._adamw.iterations, tf.int32)
        with fused_layers(self.classifier, seed), tf.GradientTape() as tape:
            logits = tf.cast(self.classifier(inputs, training=True), tf.float32)
            classes = logits.shape[-1]
            targets = tf.one_hot(labels, classes) * (1.0 - self.smoothing) + self.smoothing / classes
            loss = tf.reduce_mean(tf.nn.softmax_cross_entropy_with_logits(targets, logits))
            scaled = self.optimizer.scale_loss(loss)
        gradients = tape.gradient(scaled, [variable.value for variable in variables])
        self.optimizer.apply(gradients, variables)
        self._sums[0].assign_add(loss)
        self._sums[1].assign_add(self._adamw.gradient_norm)

    def log(self, step: int) -> dict[str, float]:
        """Writes the means since the last call to TensorBoard.

        Raises:
            UserError: the loss is no number any more.
        """
        seconds = time.monotonic() - self._since
        loss, norm = (float(total) / self._steps for total in self._sums)
        facts = {"loss": loss, "examples/s": self._examples / seconds}
        tf.summary.scalar("train/loss", loss, step)
        tf.summary.scalar("train/gradient_norm", norm, step)
        tf.summary.scalar("train/learning_rate", float(self.schedule(step - 1)), step)
        tf.summary.scalar("train/examples_per_second", facts["examples/s"], step)
        tf.summary.scalar("train/tokens_per_second", self._tokens / seconds, step)
        if not math.isfinite(loss):
            raise UserError(
                f"train: the loss is {loss} at step {step}; lower train.learning_rate or use precision float32"
            )
        for total in self._sums:
            total.assign(0.0)
        self._examples = self._tokens = self._steps = 0
        self._since = time.monotonic()
        return facts


class Best:
    """The best checkpoint by the monitored validation metric, and when to stop."""

    def __init__(self, config: TrainStage, labels: list[str]) -> None:
        self.config, self.labels = config, labels
        self.value, self.step = math.nan, 0
        self.weights: list[np.ndarray] = []
        self.give_up = False
        self._waited = 0

    def judge(self, classifier: keras.Model, labels: np.ndarray, scores: np.ndarray, step: int) -> None:
        """Measures a checkpoint, writes the metrics to TensorBoard, keeps the weights if they are the best."""
        metrics = measure(labels, scores, self.labels)
        for name, value in metrics.items():
            tf.summary.scalar(f"validation/{name}", value, step)
        matrix = confusion(labels, scores.argmax(1), len(self.labels))
        image = tf.io.decode_png(confusion_png(matrix, self.labels), channels=4)
        tf.summary.image("validation/confusion", image[None], step)
        value = metrics[self.config.monitored]
        sign = -1 if self.config.monitored == "log_loss" else 1
        patience = self.config.early_stopping
        margin = patience.min_delta if patience else 0.0
        if not self.weights or sign * (value - self.value) > margin:
            self.value, self.step, self._waited = value, step, 0
            self.weights = classifier.get_weights()
        else:
            self._waited += 1
        self.give_up = patience is not None and self._waited >= patience.patience


def _decays(variable: Any) -> bool:
    """Weight decay is for matrices: biases and norms' scales have one dimension or are named so."""
    return len(variable.shape) > 1 and not any(part in variable.path for part in ("bias", "norm"))


def _check_length(classifier: keras.Model, sequence_length: int) -> None:
    longest = getattr(classifier.backbone, "max_sequence_length", None)
    if longest and sequence_length > longest:
        raise UserError(f"preprocess.sequence_length: {sequence_length} is above the model's {longest} positions")


def _clock(seconds: float) -> str:
    return f"{int(seconds) // 60}:{int(seconds) % 60:02d}"
