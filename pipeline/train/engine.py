"""What computes a run: precision, devices and the engine of the Keras backend, chosen by the config and the machine."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import TypeVar

import keras

from lmworks.configs.errors import UserError
from lmworks.configs.schema import TrainStage
from lmworks.models.backend import Precision, backend, choose_precision, dtype_of
from lmworks.pipeline.train import batch_size, hosts, loop
from lmworks.tfx.artifacts import Logs, Model, Sequences
from lmworks.tfx.packages import cache_folder

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

    Raises:
        UserError: the config does not fit the machine, memory does not suffice, or another host is gone.
    """
    precision = choose_precision(config.precision)
    auto = config.batch_size == "auto"
    if auto:
        config = batch_size.resolved(config, lambda tried: _build(tried, make, precision), model.state)
    try:
        work, engine = _build(config, make, precision)
        trained = loop.run(config, work, engine, precision, sequences, model, logs)
        return trained._replace(auto_batch_size=config.rows if auto else None), work
    except Exception as error:
        told = batch_size.advice(config) if batch_size.is_out_of_memory(error) else hosts.lost(error)
        if told is None or isinstance(error, UserError):
            raise
        raise UserError(told) from error


def _build(config: TrainStage, make: Callable[[TrainStage, str], W], precision: Precision) -> tuple[W, loop.Engine]:
    """The work and the engine of this process's backend."""
    keras.utils.set_random_seed(config.seed)
    return (_on_jax if backend() == "jax" else _on_tensorflow)(config, make, precision)


def _on_jax(config: TrainStage, make: Callable[[TrainStage, str], W], precision: Precision) -> tuple[W, loop.Engine]:
    import jax

    from lmworks.pipeline.train.jax_engine import JaxEngine, devices_of

    devices = devices_of(config)
    if precision == "float16" and devices[0].platform == "cpu":
        raise UserError("train.precision: float16 is not computed by JAX on a processor; bfloat16 and float32 are")
    _divide(config, len(devices))
    if "tensorflow" in sys.modules:  # KerasHub's tokenizers bring it; the accelerators' memory is not for it
        sys.modules["tensorflow"].config.set_visible_devices([], "GPU")
    jax.config.update("jax_compilation_cache_dir", str(cache_folder() / "jax"))
    work = make(config, dtype_of(precision))
    _say(f"{precision} on {len(devices)} × {devices[0].device_kind} with JAX: one XLA program a step")
    return work, JaxEngine(config, work, loop.steps_of(config, work.steps_per_epoch), precision, devices)


def _on_tensorflow(
    config: TrainStage, make: Callable[[TrainStage, str], W], precision: Precision
) -> tuple[W, loop.Engine]:
    from lmworks.models.fused_transformer import fused_count
    from lmworks.pipeline.train.tensorflow_engine import TensorFlowEngine, scope, strategy_of

    strategy = strategy_of(config)
    replicas = strategy.num_replicas_in_sync if strategy else 1
    _divide(config, replicas)
    with scope(strategy):
        work = make(config, dtype_of(precision))
    where = f"{precision} on {replicas} device{'s' if replicas > 1 else ''} with TensorFlow"
    _say(f"{where}: {fused_count(work.model)} layers with XLA between the matrix products, the others kernel by kernel")
    return work, TensorFlowEngine(config, work, loop.steps_of(config, work.steps_per_epoch), precision, strategy)


def _divide(config: TrainStage, devices: int) -> None:
    if config.rows % devices:
        raise UserError(
            f"train.batch_size: {config.rows} cannot be divided among {devices} devices; set it to a multiple of {devices}, or "
            "train.strategy to single"
        )


def _say(where: str) -> None:
    print(f"train: computes in {where}", file=sys.stderr, flush=True)
