"""The training step on TensorFlow: compiled once for all shapes, on one device or mirrored on all of a machine."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import numpy as np
import tensorflow as tf

from lmworks.configs.schema import TrainStage
from lmworks.models.compiled import tensor_specs
from lmworks.models.fused_transformer import fused_layers
from lmworks.models.replicas import local, replica
from lmworks.pipeline.train import loss_scale
from lmworks.pipeline.train.checkpoints import Arrays
from lmworks.pipeline.train.fast_adamw import FastAdamW
from lmworks.pipeline.train.loop import MicroBatch, Totals, Work, decays
from lmworks.pipeline.train.schedule import WarmupDecay


def strategy_of(config: TrainStage) -> tf.distribute.Strategy | None:
    """What variables must be made under; None for one device."""
    accelerators = tf.config.list_logical_devices("GPU")
    devices = accelerators or tf.config.list_logical_devices("CPU")
    wanted = config.strategy == "mirrored" or (config.strategy == "auto" and len(accelerators) > 1)
    return tf.distribute.MirroredStrategy([one.name for one in devices]) if wanted else None


@contextlib.contextmanager
def scope(strategy: tf.distribute.Strategy | None) -> Iterator[None]:
    """Variables made within it are mirrored."""
    with strategy.scope() if strategy else contextlib.nullcontext():
        yield


class TensorFlowEngine:
    """See `loop.Engine`.

    Args:
        config: of the run.
        work: of the task; its model's variables were made under `strategy`.
        steps: optimizer steps of the run.
        precision: of the computation.
        strategy: of several devices. A micro-batch is cut into as many parts as there are, and every device updates its own
            copy of the weights with the gradient of all.
    """

    def __init__(
        self,
        config: TrainStage,
        work: Work,
        steps: int,
        precision: str,
        strategy: tf.distribute.Strategy | None = None,
    ) -> None:
        self._work, self._seed, self._strategy = work, config.seed, strategy
        self.devices = strategy.num_replicas_in_sync if strategy else 1
        self._remat, self._scales = config.remat, precision == "float16"
        self._schedule = WarmupDecay(config.learning_rate, steps, config.warmup_ratio, config.schedule)
        self._variables = work.model.trainable_variables
        with scope(strategy):
            self._optimizer = FastAdamW(
                self._schedule,
                weight_decay=config.weight_decay,
                epsilon=1e-8,
                global_clipnorm=config.clip_norm,
                guarded=True,
            )
            plain = [one for one in self._variables if not decays(one)]
            if plain:
                self._optimizer.exclude_from_weight_decay(var_list=plain)
            self._optimizer.build(self._variables)
            # Of the step that is computed: loss. Since the last reading: loss, targets, gradient norm, good steps.
            self._current, self._sums = self._variable(0.0), self._variable([0.0] * 4)
            # Bad steps in all, in a row now, most in a row, the last one; overflows.
            self._bad = self._variable([0, 0, 0, -1, 0])
            self._scale, self._calm = self._variable(loss_scale.FIRST if self._scales else 1.0), self._variable(0)
            self._gradients = [
                self._variable(tf.zeros(one.shape)) for one in (self._variables if config.accumulate > 1 else [])
            ]
        self._optimizer.gradient_scale = self._scale
        specs = [
            tensor_specs(work.input_specs()),
            tf.TensorSpec([], tf.float32),
            tf.TensorSpec([2], tf.int32),
        ]
        # Traced once for all shapes: a trace takes seconds.
        options: dict[str, Any] = {"autograph": False} | ({} if strategy else {"input_signature": specs})
        self._whole = tf.function(self._on_every_device(self._step), **options)
        stacked = {name: tf.TensorSpec([None, *one.shape], one.dtype, name) for name, one in specs[0].items()}
        several = [stacked, tf.TensorSpec([None], tf.float32), tf.TensorSpec([], tf.int32)]
        self._several = tf.function(self._steps, input_signature=several, autograph=False)
        self._part = tf.function(self._on_every_device(self._accumulate), **options)
        self._end = tf.function(self._on_every_device(self._apply_accumulated), autograph=False)

    def _variable(self, value: Any) -> tf.Variable:
        aggregation = tf.VariableAggregation.ONLY_FIRST_REPLICA
        return tf.Variable(value, trainable=False, aggregation=aggregation)

    def _on_every_device(self, function: Any) -> Any:
        return (lambda *arguments: self._strategy.run(function, arguments)) if self._strategy else function

    def step(self, step: int, batches: list[MicroBatch]) -> None:
        """See `loop.Engine`."""
        targets = tf.constant(sum(batch.targets for batch in batches), tf.float32)
        compute = self._part if self._gradients else self._whole
        for number, batch in enumerate(batches):
            compute(self._placed(batch.inputs), targets, tf.constant([step, number]))
        if self._gradients:
            self._end(targets, tf.constant([step, 0]))

    def steps(self, step: int, batches: list[MicroBatch]) -> None:
        """See `loop.Engine`."""
        if self._strategy:  # what its devices say to each other cannot stand in a loop
            for number, batch in enumerate(batches):
                self.step(step + number, [batch])
            return
        stacked = {name: tf.constant(np.stack([batch.inputs[name] for batch in batches])) for name in batches[0].inputs}
        targets = tf.constant([batch.targets for batch in batches], tf.float32)
        self._several(stacked, targets, tf.constant(step))

    def _steps(self, inputs: dict[str, tf.Tensor], targets: tf.Tensor, first: tf.Tensor) -> None:
        def one(number: tf.Tensor) -> tuple[tf.Tensor]:
            place = tf.stack([first + number, 0])
            self._step({name: value[number] for name, value in inputs.items()}, targets[number], place)
            return (number + 1,)

        tf.while_loop(lambda number: number < tf.size(targets), one, [tf.constant(0)])

    def _placed(self, inputs: dict[str, np.ndarray]) -> dict[str, Any]:
        strategy = self._strategy
        if strategy is None:
            return {name: tf.constant(value) for name, value in inputs.items()}
        parts = {name: np.split(value, self.devices) for name, value in inputs.items()}

        def part(name: str) -> Any:
            of = lambda context: tf.constant(parts[name][context.replica_id_in_sync_group])  # noqa: E731
            return strategy.experimental_distribute_values_from_function(of)

        return {name: part(name) for name in inputs}

    def _sum_over_devices(self, values: list[Any]) -> list[Any]:
        if self.devices == 1:
            return values
        context = tf.distribute.get_replica_context()
        return context.all_reduce(tf.distribute.ReduceOp.SUM, [tf.convert_to_tensor(one) for one in values])

    def _find(self, inputs: dict[str, tf.Tensor], targets: tf.Tensor, place: tf.Tensor) -> tuple[list[Any], tf.Tensor]:
        """This micro-batch's share of the step's gradient (its sum over the targets of the whole step), and its loss."""
        seed = self._seed + place[0] + (place[1] * self.devices + replica()) * 0x3C6EF35F
        scale = local(self._scale).read_value()
        with fused_layers(self._work.model, seed, self._remat), tf.GradientTape() as tape:
            trained, plain = self._work.loss(inputs)
            # A step without any target (of a conversation, questions only) has a gradient of zeros, not of 0 / 0.
            scaled = trained / tf.maximum(targets, 1.0) * scale
        gradients = tape.gradient(scaled, [local(variable.value) for variable in self._variables])
        return gradients, plain

    def _step(self, inputs: dict[str, tf.Tensor], targets: tf.Tensor, place: tf.Tensor) -> None:
        gradients, plain = self._find(inputs, targets, place)
        *gradients, plain = self._sum_over_devices([*self._whole_gradients(gradients), plain])
        self._apply(gradients, plain, targets, place)

    def _whole_gradients(self, gradients: list[Any]) -> list[Any]:
        """Weights that the loss does not depend on have a gradient of zeros."""
        pairs = zip(gradients, self._variables, strict=True)
        return [tf.zeros(variable.shape) if one is None else one for one, variable in pairs]

    def _accumulate(self, inputs: dict[str, tf.Tensor], targets: tf.Tensor, place: tf.Tensor) -> None:
        gradients, plain = self._find(inputs, targets, place)
        local(self._current).assign_add(plain)
        for total, gradient in zip(map(local, self._gradients), gradients, strict=True):
            if isinstance(gradient, tf.IndexedSlices):
                values = tf.cast(gradient.values, tf.float32)
                total.scatter_add(tf.IndexedSlices(values, gradient.indices))
            elif gradient is not None:
                total.assign_add(tf.cast(gradient, tf.float32))

    def _apply_accumulated(self, targets: tf.Tensor, place: tf.Tensor) -> None:
        totals = [local(total) for total in self._gradients]
        current = local(self._current)
        *gradients, plain = self._sum_over_devices([*(total.read_value() for total in totals), current.read_value()])
        self._apply(gradients, plain, targets, place)
        for total in totals:
            total.assign(tf.zeros_like(total))
        current.assign(0.0)

    def _apply(self, gradients: list[Any], plain: tf.Tensor, targets: tf.Tensor, place: tf.Tensor) -> None:
        self._optimizer.allowed = tf.math.is_finite(plain)
        self._optimizer.apply(gradients, self._variables)
        norm = local(self._optimizer.gradient_norm)
        good = tf.math.is_finite(norm)
        found = tf.stack([plain, targets, norm, 1.0])
        local(self._sums).assign_add(tf.where(good, found, tf.zeros_like(found)))
        overflow = ~good & tf.math.is_finite(plain) & self._scales
        bad = tf.cast(~good & ~overflow, tf.int32)
        total, now, most, last, overflows = tf.unstack(local(self._bad).read_value())
        now = (now + bad) * bad
        told = [total + bad, now, tf.maximum(most, now), tf.where(bad > 0, place[0], last)]
        local(self._bad).assign([*told, overflows + tf.cast(overflow, tf.int32)])
        if self._scales:
            self._adjust_scale(good)

    def _adjust_scale(self, good: tf.Tensor) -> None:
        scale, calm = local(self._scale), local(self._calm)
        count = tf.where(good, calm + 1, 0)
        grow = count >= loss_scale.STEPS_TO_DOUBLE
        factor = tf.where(good, tf.where(grow, 2.0, 1.0), 0.5)
        scale.assign(tf.clip_by_value(scale * factor, 1.0, loss_scale.LARGEST))
        calm.assign(tf.where(grow, 0, count))

    def read(self) -> Totals:
        """See `loop.Engine`."""
        loss, targets, norm, steps = local(self._sums).numpy().tolist()
        total, _, most, last, overflows = local(self._bad).numpy().tolist()
        self._sums.assign(tf.zeros_like(local(self._sums)))
        return Totals(loss, targets, norm, steps, total, most, last, overflows)

    def learning_rate(self) -> float:
        """See `loop.Engine`."""
        return float(self._schedule(max(int(local(self._optimizer.iterations.value)) - 1, 0)))

    def sync(self) -> None:
        """See `loop.Engine`: the model's variables are those that are trained."""

    def _state(self) -> dict[str, Any]:
        """Everything that decides how the run goes on, by a name that sorts."""
        groups = {"model": self._work.model.variables, "optimizer": self._optimizer.variables}
        found = {f"{group}/{number:05d}": one.value for group, all in groups.items() for number, one in enumerate(all)}
        own = {"sums": self._sums, "bad": self._bad, "scale": self._scale, "calm": self._calm}
        return {**found, **own}

    def snapshot(self) -> Arrays:
        """See `loop.Engine`."""
        return {name: np.array(local(one)) for name, one in self._state().items()}

    def restore(self, state: Arrays) -> None:
        """See `loop.Engine`."""
        for name, variable in self._state().items():
            variable.assign(state[name])
