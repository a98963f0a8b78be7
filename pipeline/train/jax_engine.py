"""The training step on JAX: one compiled program for each shape, over all devices of all hosts.

The weights stand on every device, the rows of a micro-batch are divided among them, and the compiler puts the sums over devices
where they belong (GSPMD, Xu et al. 2021, arXiv:2105.04663). So a step is the same computation on one device and on many.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import jax
import jax.numpy as jnp
import keras
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from lmworks.configs.schema import TrainStage
from lmworks.pipeline.train import loss_scale
from lmworks.pipeline.train.checkpoints import Arrays
from lmworks.pipeline.train.loop import MicroBatch, Totals, Work, decays
from lmworks.pipeline.train.schedule import WarmupDecay


def devices_of(config: TrainStage) -> list[jax.Device]:
    """Those that are used."""
    devices = jax.devices()
    if config.strategy == "single" or (
        config.strategy == "auto" and devices[0].platform == "cpu" and jax.process_count() == 1
    ):
        devices = devices[:1]
    return devices


class JaxEngine:
    """See `loop.Engine`.

    Args:
        config: of the run.
        work: of the task.
        steps: optimizer steps of the run.
        precision: of the computation.
        devices: among which the rows of a micro-batch are divided.
    """

    def __init__(
        self, config: TrainStage, work: Work, steps: int, precision: str, devices: Sequence[jax.Device] | None = None
    ) -> None:
        self._work, self._remat, self._clip = work, config.remat, config.clip_norm
        self._scales = precision == "float16"
        self._schedule = WarmupDecay(config.learning_rate, steps, config.warmup_ratio, config.schedule)
        self._optimizer = keras.optimizers.AdamW(self._schedule, weight_decay=config.weight_decay, epsilon=1e-8)
        model = work.model
        if plain := [one for one in model.trainable_variables if not decays(one)]:
            self._optimizer.exclude_from_weight_decay(var_list=plain)
        self._optimizer.build(model.trainable_variables)
        used = list(devices or jax.devices()[:1])
        self.devices = len(used)
        mesh = Mesh(np.array(used), ("batch",))
        self._everywhere = NamedSharding(mesh, PartitionSpec())
        self._by_row = NamedSharding(mesh, PartitionSpec("batch"))
        self._by_second = NamedSharding(mesh, PartitionSpec(None, "batch"))
        self._state = self._placed({
            "trainable": [one.value for one in model.trainable_variables],
            "other": [one.value for one in model.non_trainable_variables],
            "optimizer": [one.value for one in self._optimizer.variables],
            # Since the last reading: loss, targets, gradient norm, good steps.
            "sums": np.zeros(4, np.float32),
            # Bad steps in all, in a row now, most in a row, the last one; overflows.
            "bad": np.array([0, 0, 0, -1, 0], np.int32),
            "scale": np.float32(loss_scale.FIRST if self._scales else 1.0),
            "calm": np.int32(0),
        })  # fmt: skip
        self._whole = jax.jit(self._compute_whole, donate_argnums=0)
        self._several = jax.jit(self._compute_several, donate_argnums=0)
        self._first = jax.jit(self._compute_part)
        self._more = jax.jit(self._compute_more, donate_argnums=(0, 1))
        self._end = jax.jit(self._apply, donate_argnums=(0, 1))

    def _placed(self, tree: Any) -> Any:
        # A copy: the step gives its arguments' memory away, and what stands here may be somebody else's.
        return jax.tree.map(lambda one: jax.device_put(np.array(one), self._everywhere), tree)

    def _rows(self, value: np.ndarray, stacked: bool = False) -> jax.Array:
        """Every host has the whole micro-batch, or several of them, and gives its devices their rows."""
        sharding = self._by_second if stacked else self._by_row
        return jax.make_array_from_callback(value.shape, sharding, lambda index: value[index])

    def step(self, step: int, batches: list[MicroBatch]) -> None:
        """See `loop.Engine`."""
        targets = np.float32(sum(batch.targets for batch in batches))
        place = np.int32(step)
        inputs = [{name: self._rows(value) for name, value in batch.inputs.items()} for batch in batches]
        if len(batches) == 1:
            self._state = self._whole(self._state, inputs[0], targets, place)
            return
        found, self._state["other"] = self._first(self._state, inputs[0], targets)
        for more in inputs[1:]:
            found, self._state["other"] = self._more(found, self._state.pop("other"), self._state, more, targets)
        self._state = self._end(self._state, found, targets, place)

    def steps(self, step: int, batches: list[MicroBatch]) -> None:
        """See `loop.Engine`."""
        stacked = {name: np.stack([batch.inputs[name] for batch in batches]) for name in batches[0].inputs}
        inputs = {name: self._rows(value, stacked=True) for name, value in stacked.items()}
        targets = np.array([batch.targets for batch in batches], np.float32)
        places = np.arange(step, step + len(batches), dtype=np.int32)
        self._state = self._several(self._state, inputs, targets, places)

    def _compute_several(self, state: Any, inputs: Any, targets: Any, places: Any) -> Any:
        return jax.lax.scan(
            lambda state, one: (self._compute_whole(state, *one), None), state, (inputs, targets, places)
        )[0]

    def _compute_whole(self, state: Any, inputs: Any, targets: Any, place: Any) -> Any:
        found, other = self._compute_part(state, inputs, targets)
        return self._apply({**state, "other": other}, found, targets, place)

    def _compute_more(self, found: Any, other: Any, state: Any, inputs: Any, targets: Any) -> Any:
        more, other = self._compute_part({**state, "other": other}, inputs, targets)
        return jax.tree.map(jnp.add, found, more), other

    def _compute_part(self, state: Any, inputs: Any, targets: Any) -> Any:
        """A micro-batch's share of the step's gradient with its loss, and the model's other variables after it."""
        model = self._work.model

        def loss(trainable: Any) -> Any:
            mapping = [*zip(model.trainable_variables, trainable, strict=True)]
            mapping += zip(model.non_trainable_variables, state["other"], strict=True)
            with keras.StatelessScope(state_mapping=mapping) as scope, _rematerialized(model, self._remat):
                trained, plain = self._work.loss(inputs)
            other = [scope.get_current_value(one) for one in model.non_trainable_variables]
            # A step without any target (of a conversation, questions only) has a gradient of zeros, not of 0 / 0.
            return trained / jnp.maximum(targets, 1.0) * state["scale"], (plain, other)

        gradients, (plain, other) = jax.grad(loss, has_aux=True)(state["trainable"])
        return (gradients, plain), other

    def _apply(self, state: Any, found: Any, targets: Any, place: Any) -> Any:
        gradients, plain = found
        factor = 1.0 / state["scale"]
        norm = jnp.sqrt(sum(jnp.sum(jnp.square(one.astype(jnp.float32))) for one in gradients)) * factor
        good = jnp.isfinite(norm) & jnp.isfinite(plain)
        if self._clip:
            factor *= self._clip / jnp.maximum(norm, self._clip)
        scaled = [one.astype(jnp.float32) * factor for one in gradients]
        moved = self._optimizer.stateless_apply(state["optimizer"], scaled, state["trainable"])
        before = (state["trainable"], state["optimizer"])
        trainable, optimizer = jax.tree.map(lambda new, old: jnp.where(good, new, old), tuple(moved), before)
        found = jnp.stack([plain, targets, norm, 1.0])
        overflow = ~good & jnp.isfinite(plain) & self._scales
        bad = (~good & ~overflow).astype(jnp.int32)
        total, now, most, last, overflows = state["bad"]
        now = (now + bad) * bad
        told = [total + bad, now, jnp.maximum(most, now), jnp.where(bad > 0, place, last), overflows + overflow]
        calm = jnp.where(good, state["calm"] + 1, 0)
        grow = calm >= loss_scale.STEPS_TO_DOUBLE
        rescale = jnp.where(good, jnp.where(grow, 2.0, 1.0), 0.5) if self._scales else 1.0
        return {
            "trainable": trainable,
            "optimizer": optimizer,
            "other": state["other"],
            "sums": state["sums"] + jnp.where(good, found, jnp.zeros_like(found)),
            "bad": jnp.stack([jnp.asarray(one, jnp.int32) for one in told]),
            "scale": jnp.clip(state["scale"] * rescale, 1.0, loss_scale.LARGEST),
            "calm": jnp.where(grow, 0, calm).astype(jnp.int32),
        }

    def read(self) -> Totals:
        """See `loop.Engine`."""
        loss, targets, norm, steps = np.asarray(self._state["sums"]).tolist()
        total, _, most, last, overflows = np.asarray(self._state["bad"]).tolist()
        self._state["sums"] = self._placed(np.zeros(4, np.float32))
        return Totals(loss, targets, norm, steps, total, most, last, overflows)

    def learning_rate(self) -> float:
        """See `loop.Engine`."""
        index = [one.path for one in self._optimizer.variables].index(self._optimizer.iterations.path)
        return float(self._schedule(max(int(self._state["optimizer"][index]) - 1, 0)))

    def sync(self) -> None:
        """See `loop.Engine`."""
        model = self._work.model
        for group, variables in (("trainable", model.trainable_variables), ("other", model.non_trainable_variables)):
            for variable, value in zip(variables, self._state[group], strict=True):
                variable.assign(np.array(value))

    def _flat(self) -> dict[str, Any]:
        """Everything that decides how the run goes on, by a name that sorts."""
        found: dict[str, Any] = {}
        for group, value in self._state.items():
            if isinstance(value, list):
                found |= {f"{group}/{number:05d}": one for number, one in enumerate(value)}
            else:
                found[group] = value
        return found

    def snapshot(self) -> Arrays:
        """See `loop.Engine`."""
        return {name: np.array(value) for name, value in self._flat().items()}

    def restore(self, state: Arrays) -> None:
        """See `loop.Engine`."""
        for group, value in self._state.items():
            names = [f"{group}/{number:05d}" for number in range(len(value))] if isinstance(value, list) else group
            self._state[group] = self._placed(jax.tree.map(state.__getitem__, names))


@contextmanager
def _rematerialized(model: keras.Model, wanted: bool) -> Iterator[None]:
    """Within it the model's Transformer layers keep only their inputs for the backward pass, which runs them again."""
    layers = list(model.backbone.transformer_layers) if wanted else []

    def wrap(layer: keras.Layer) -> Callable[..., Any]:
        plain = layer.call

        def call(inputs: Any, **options: Any) -> Any:
            variables = layer.variables
            # By identity: Keras compares the values of variables.
            changing = {id(one) for one in layer.non_trainable_variables}
            own = [number for number, one in enumerate(variables) if id(one) in changing]

            # Seeds of dropout are variables that change: they go in and out, as a checkpointed function may keep nothing.
            @jax.checkpoint
            def compute(values: list[Any], inputs: Any) -> Any:
                with keras.StatelessScope(state_mapping=list(zip(variables, values, strict=True))) as scope:
                    found = plain(inputs, **options)
                return found, [scope.get_current_value(variables[number]) for number in own]

            found, changed = compute([one.value for one in variables], inputs)
            for number, value in zip(own, changed, strict=True):
                variables[number].assign(value)
            return found

        return call

    try:
        for layer in layers:
            layer.__dict__["call"] = wrap(layer)
        yield
    finally:
        for layer in layers:
            layer.__dict__.pop("call", None)
