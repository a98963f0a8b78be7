"""The training loop of every task: optimizer steps, evaluations, the best checkpoint, what is watched."""

from __future__ import annotations

import math
import time
from typing import Any, NamedTuple, Protocol

import keras
import numpy as np
import tensorflow as tf

from lmworks.configs.errors import UserError
from lmworks.configs.schema import TrainStage
from lmworks.models.fused_transformer import fused_layers
from lmworks.pipeline.train.fast_adamw import FastAdamW
from lmworks.pipeline.train.schedule import WarmupDecay
from lmworks.tfx.artifacts import Logs
from lmworks.tfx.progress import report

_LOG_EVERY = 10
"""Steps between two points in TensorBoard; nothing is read back from the device in between."""
LOWER_IS_BETTER = ("loss", "log_loss")


class MicroBatch(NamedTuple):
    """What is computed at once."""

    inputs: dict[str, np.ndarray]
    targets: float
    """Sum of the weights of its targets."""
    examples: int
    tokens: int
    """Real ones."""


class Work(Protocol):
    """What a task tells the loop."""

    model: keras.Model
    steps_per_epoch: int

    def input_specs(self) -> dict[str, tf.TensorSpec]:
        """Of a micro-batch's inputs."""

    def micro_batches(self, step: int) -> list[MicroBatch]:
        """Those of the optimizer step that follows `step` finished ones; a pure function of the config."""

    def loss(self, inputs: dict[str, tf.Tensor]) -> tuple[tf.Tensor, tf.Tensor]:
        """Sums over the targets, in nats: what is trained, and what is reported. Called while the step is traced."""

    def describe(self, loss: float, tokens_per_second: float) -> dict[str, float]:
        """What TensorBoard shows beside a training loss."""

    def validate(self, step: int) -> dict[str, float]:
        """Metrics on the validation split; writes pictures and samples to TensorBoard."""


class Best:
    """The best checkpoint by the monitored validation metric, and when to stop."""

    def __init__(self, config: TrainStage) -> None:
        self.config = config
        self.value, self.step = math.nan, 0
        self.weights: list[np.ndarray] = []
        self.give_up = False
        self._waited = 0

    def judge(self, model: keras.Model, metrics: dict[str, float], step: int) -> None:
        """Keeps the weights if they are the best."""
        value = metrics[self.config.monitored]
        sign = -1 if self.config.monitored in LOWER_IS_BETTER else 1
        patience = self.config.early_stopping
        margin = patience.min_delta if patience else 0.0
        if not self.weights or sign * (value - self.value) > margin:
            self.value, self.step, self._waited = value, step, 0
            self.weights = model.get_weights()
        else:
            self._waited += 1
        self.give_up = patience is not None and self._waited >= patience.patience


class Trained(NamedTuple):
    """How a training ended; the model has the best checkpoint's weights."""

    steps: int
    best: Best
    precision: str

    def properties(self, model: keras.Model) -> dict[str, Any]:
        """What the artifact says."""
        best = self.best
        return {
            "best_step": best.step,
            "steps": self.steps,
            "precision": self.precision,
            "summary": f"{model.count_params() / 1e6:.1f}M parameters, {self.steps} steps in {self.precision}, "
            f"best validation {best.config.monitored} {best.value:.4f} at step {best.step}",
        }


def steps_of(config: TrainStage, per_epoch: int) -> int:
    """Optimizer steps of the run."""
    return config.steps or max(1, math.ceil(per_epoch * config.epochs))


def run(config: TrainStage, work: Work, precision: str, logs: Logs) -> Trained:
    """Trains, evaluates now and then, and leaves the model with the weights of the best checkpoint."""
    steps = steps_of(config, work.steps_per_epoch)
    trainer = Trainer(config, work, steps, precision)
    best = Best(config)
    writer = tf.summary.create_file_writer(str(logs.path))
    with writer.as_default():
        began = time.monotonic()
        step = 0
        while step < steps and not best.give_up:
            trainer.step(work.micro_batches(step))
            step += 1
            if step % _LOG_EVERY == 0 or step == steps:
                facts = trainer.log(step)
                left = (time.monotonic() - began) / step * (steps - step)
                report(step, steps, "steps", **facts, left=_clock(left))
            if step % (config.evaluate_every or work.steps_per_epoch) == 0 or step == steps:
                paused = time.monotonic()
                metrics = work.validate(step)
                for name, value in metrics.items():
                    tf.summary.scalar(f"validation/{name}", value, step)
                best.judge(work.model, metrics, step)
                trainer.leave_out(time.monotonic() - paused)
    writer.close()
    work.model.set_weights(best.weights)
    return Trained(step, best, precision)


class Trainer:
    """The compiled step: forward, loss, backward, accumulation, clipping, AdamW."""

    def __init__(self, config: TrainStage, work: Work, steps: int, precision: str) -> None:
        self.work, self._seed = work, config.seed
        self.schedule = WarmupDecay(config.learning_rate, steps, config.warmup_ratio, config.schedule)
        optimizer = FastAdamW(
            self.schedule,
            weight_decay=config.weight_decay,
            epsilon=1e-8,
            global_clipnorm=config.clip_norm,
            track_gradient_norm=True,
        )
        self.variables = work.model.trainable_variables
        plain = [one for one in self.variables if not _decays(one)]
        if plain:
            optimizer.exclude_from_weight_decay(var_list=plain)
        self._adamw = optimizer
        self.optimizer = keras.optimizers.LossScaleOptimizer(optimizer) if precision == "float16" else optimizer
        self.optimizer.build(self.variables)
        # Running sums since the last log, on the device: loss over targets, gradient norm.
        self._sums = [tf.Variable(0.0), tf.Variable(0.0)]
        self._gradients: list[tf.Variable] = []
        if config.accumulate > 1:
            self._gradients = [tf.Variable(tf.zeros(one.shape), trainable=False) for one in self.variables]
        self._reset()
        # Traced once for all shapes: a trace takes seconds.
        specs = [work.input_specs(), tf.TensorSpec([], tf.float32), tf.TensorSpec([], tf.int32)]
        self._whole = tf.function(self._step, input_signature=specs)
        self._part = tf.function(self._accumulate, input_signature=specs)
        self._end = tf.function(self._apply_accumulated, input_signature=[])

    def step(self, batches: list[MicroBatch]) -> None:
        """One optimizer step; reads nothing back."""
        # A step without any target (of a conversation, questions only) has a gradient of zeros, not of 0 / 0.
        targets = tf.constant(max(1.0, sum(batch.targets for batch in batches)), tf.float32)
        compute = self._part if self._gradients else self._whole
        for number, batch in enumerate(batches):
            inputs = {name: tf.constant(value) for name, value in batch.inputs.items()}
            compute(inputs, targets, tf.constant(number))
            self._examples += batch.examples
            self._tokens += batch.tokens
        if self._gradients:
            self._end()
        self._targets += float(targets)
        self._steps += 1

    def _find(self, inputs: dict[str, tf.Tensor], targets: tf.Tensor, number: tf.Tensor) -> list[Any]:
        """This micro-batch's share of the step's gradient: its sum over the targets of the whole step."""
        seed = self._seed + tf.cast(self._adamw.iterations, tf.int32) + number * 0x3C6EF35F
        with fused_layers(self.work.model, seed), tf.GradientTape() as tape:
            trained, plain = self.work.loss(inputs)
            scaled = self.optimizer.scale_loss(trained / targets)
        self._sums[0].assign_add(plain)
        return tape.gradient(scaled, [variable.value for variable in self.variables])

    def _step(self, inputs: dict[str, tf.Tensor], targets: tf.Tensor, number: tf.Tensor) -> None:
        self._apply(self._find(inputs, targets, number))

    def _accumulate(self, inputs: dict[str, tf.Tensor], targets: tf.Tensor, number: tf.Tensor) -> None:
        for total, gradient in zip(self._gradients, self._find(inputs, targets, number), strict=True):
            if isinstance(gradient, tf.IndexedSlices):
                values = tf.cast(gradient.values, tf.float32)
                total.scatter_add(tf.IndexedSlices(values, gradient.indices))
            elif gradient is not None:
                total.assign_add(tf.cast(gradient, tf.float32))

    def _apply_accumulated(self) -> None:
        self._apply([total.value() for total in self._gradients])
        for total in self._gradients:
            total.assign(tf.zeros_like(total))

    def _apply(self, gradients: list[Any]) -> None:
        self.optimizer.apply(gradients, self.variables)
        self._sums[1].assign_add(self._adamw.gradient_norm)

    def log(self, step: int) -> dict[str, float]:
        """Writes the means since the last call to TensorBoard.

        Raises:
            UserError: the loss is no number any more.
        """
        loss, norm = float(self._sums[0]) / max(self._targets, 1.0), float(self._sums[1]) / self._steps
        seconds = time.monotonic() - self._since
        speed = self._tokens / seconds
        facts = {"loss": loss, **self.work.describe(loss, speed)}
        for name, value in facts.items():
            tf.summary.scalar(f"train/{name}", value, step)
        tf.summary.scalar("train/gradient_norm", norm, step)
        tf.summary.scalar("train/learning_rate", float(self.schedule(step - 1)), step)
        tf.summary.scalar("train/examples_per_second", self._examples / seconds, step)
        tf.summary.scalar("train/tokens_per_second", speed, step)
        if not math.isfinite(loss):
            raise UserError(
                f"train: the loss is {loss} at step {step}; lower train.learning_rate or use precision float32"
            )
        told = {"loss": loss, "examples/s": self._examples / seconds, "tokens/s": round(speed)}
        self._reset()
        return told

    def leave_out(self, seconds: float) -> None:
        """Leaves what was done in between out of the speeds."""
        self._since += seconds

    def _reset(self) -> None:
        for total in self._sums:
            total.assign(0.0)
        self._examples = self._tokens = self._steps = 0
        self._targets = 0.0
        self._since = time.monotonic()


def _decays(variable: Any) -> bool:
    """Weight decay is for matrices: biases and norms' scales have one dimension or are named so."""
    return len(variable.shape) > 1 and not any(part in variable.path for part in ("bias", "norm"))


def _clock(seconds: float) -> str:
    return f"{int(seconds) // 60}:{int(seconds) % 60:02d}"
