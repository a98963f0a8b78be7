"""What computes a run: precision, devices and the engine of the Keras backend, chosen by the config and the machine."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import TypeVar

import keras

from lmworks.configs.errors import UserError
from lmworks.configs.schema import TrainStage
from lmworks.models.backend import backend, choose_precision, dtype_of
from lmworks.pipeline.train import hosts, loop
from lmworks.tfx.artifacts import Logs, Model, Sequences

W = TypeVar("W", bound=loop.Work)


def train(
    config: TrainStage, make: Callable[[TrainStage, str], W], sequences: Sequences, model: Model, logs: Logs
) -> tuple[loop.Trained, W]:
    """Trains a task's work on what this machine has; see `loop.run`.

    Args:
        config: of the stage.
        make: builds the work with its model, in a Keras dtype policy.
        sequences: what is trained on.
        model: in whose state checkpoints are written.
        logs: TensorBoard's.

    Returns:
        How it ended, and the work, whose model has the best weights.
    """
    precision = choose_precision(config.precision)
    work, engine = start(config, make, precision)
    try:
        return loop.run(config, work, engine, precision, sequences, model, logs), work
    except Exception as error:
        told = advice(config) if is_out_of_memory(error) else hosts.lost(error)
        if told is None or isinstance(error, UserError):
            raise
        raise UserError(told) from error


def start(config: TrainStage, make: Callable[[TrainStage, str], W], precision: str) -> tuple[W, loop.Engine]:
    """Builds the work and the engine of this process's backend."""
    keras.utils.set_random_seed(config.seed)
    dtype = dtype_of(precision)  # type: ignore[arg-type]
    if backend() == "jax":
        from lmworks.pipeline.train.jax_engine import JaxEngine, devices_of

        if config.strategy == "mirrored":
            raise UserError("train.strategy: mirrored is of train.backend=tensorflow; jax has single and data_parallel")
        devices = devices_of(config)
        if precision == "float16" and devices[0].platform == "cpu":
            raise UserError("train.precision: float16 is not computed by JAX on a processor; bfloat16 and float32 are")
        work = make(config, dtype)
        _say(precision, f"JAX, {len(devices)} {devices[0].device_kind}")
        steps = loop.steps_of(config, work.steps_per_epoch)
        return work, JaxEngine(config, work, steps, precision, devices)
    from lmworks.pipeline.train.tensorflow_engine import TensorFlowEngine, scope, strategy_of

    if config.strategy == "data_parallel":
        raise UserError("train.strategy: data_parallel is of train.backend=jax; tensorflow has single and mirrored")
    strategy = strategy_of(config)
    replicas = strategy.num_replicas_in_sync if strategy else 1
    if isinstance(config.batch_size, int) and config.batch_size % replicas:
        raise UserError(f"train.batch_size: {config.batch_size} cannot be divided among {replicas} devices")
    with scope(strategy):
        work = make(config, dtype)
    _say(precision, f"TensorFlow, {replicas} device{'s' if replicas > 1 else ''}")
    steps = loop.steps_of(config, work.steps_per_epoch)
    return work, TensorFlowEngine(config, work, steps, precision, strategy)


def _say(precision: str, where: str) -> None:
    print(f"train: computes in {precision} on {where}", file=sys.stderr, flush=True)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether a device or this machine had no memory left."""
    return isinstance(error, MemoryError) or "RESOURCE_EXHAUSTED" in str(error) or "OOM when" in str(error)


def advice(config: TrainStage) -> str:
    """What to change where memory does not suffice."""
    rows = config.batch_size
    ways = ["a shorter preprocess.sequence_length"]
    if not config.remat:
        ways.insert(0, "train.remat=true")
    if isinstance(rows, int) and rows > 1:
        ways.insert(0, f"train.batch_size={rows // 2} with train.accumulate={config.accumulate * 2} (the same result)")
    return f"out of memory with train.batch_size={rows}; try {', or '.join(ways)}"
