"""The learning rate over the steps of a run."""

from __future__ import annotations

import math
from typing import Any

import keras

from lmworks.configs.warmup import warmup_steps


@keras.saving.register_keras_serializable(package="lmworks")
class WarmupDecay(keras.optimizers.schedules.LearningRateSchedule):
    """Rises linearly to the peak, then falls towards zero.

    Of `steps` steps s = 0, 1, … the first w = ceil(steps · warmup_ratio) rise: their rate is peak · (s + 1) / w, so that the
    first step already moves and step w - 1 has the peak. From step w on the rate falls from the peak by the share
    x = (s - w) / (steps - w): linear peak · (1 - x), cosine peak · (1 + cos πx) / 2. Zero would be the step after the last.
    Schedules of `transformers` are the same from step w on; in the warm-up each step has the rate that theirs has a step
    later, whose step 0 has rate zero.

    Args:
        peak: the highest learning rate.
        steps: optimizer steps of the run.
        warmup_ratio: share of the steps that rise.
        shape: linear, cosine, or constant (no fall).
    """

    def __init__(self, peak: float, steps: int, warmup_ratio: float, shape: str) -> None:
        self.peak, self.steps, self.warmup_ratio, self.shape = peak, steps, warmup_ratio, shape

    def __call__(self, step: Any) -> Any:
        """Learning rate of the step that follows `step` finished ones."""
        ops = keras.ops
        step = ops.cast(step, "float32")
        warmup = float(warmup_steps(self.steps, self.warmup_ratio))
        rise = (step + 1.0) / max(warmup, 1.0)
        share = ops.clip((step - warmup) / max(self.steps - warmup, 1.0), 0.0, 1.0)
        fall = {
            "linear": 1.0 - share,
            "cosine": 0.5 * (1.0 + ops.cos(math.pi * share)),
            "constant": ops.ones_like(share),
        }[self.shape]
        return self.peak * ops.where(step < warmup, rise, fall)

    def get_config(self) -> dict[str, object]:
        """Arguments of the constructor."""
        names = ("peak", "steps", "warmup_ratio", "shape")
        return {name: getattr(self, name) for name in names}
