"""`train.batch_size: auto`: the largest micro-batch whose step fits into memory; and what to do where one does not."""

from __future__ import annotations

import gc
import json
import resource
import sys
from collections.abc import Callable
from pathlib import Path

from lmworks.configs.errors import UserError
from lmworks.configs.schema import TrainStage
from lmworks.models.arithmetic import accelerator
from lmworks.pipeline.memory import memory
from lmworks.pipeline.train import hosts, loop
from lmworks.tfx.artifacts import write_json
from lmworks.tfx.progress import report, within

_MOST, _STEPS_OF_AN_EPOCH = 1024, 16
_SHARE = 0.8
"""Of the memory that may be filled."""


def resolved(
    config: TrainStage, build: Callable[[TrainStage], tuple[loop.Work, loop.Engine]], state: Path
) -> TrainStage:
    """The config with the number that `auto` stands for: found by trying, or by an earlier start of the same run.

    Args:
        config: of the stage.
        build: makes the work and the engine of a config.
        state: where the answer is kept.

    Raises:
        UserError: not even the smallest batch fits, or several hosts train together.
    """
    told = state / "batch_size.json"
    if told.exists():
        return _with(config, int(json.loads(told.read_text(encoding="utf-8"))["batch_size"]))
    if hosts.count() > 1:
        raise UserError("train.batch_size: auto is found on one host only; give a number")
    with within("finding the largest batch"):
        rows = _largest(config, build)
    state.mkdir(parents=True, exist_ok=True)
    write_json(told, {"batch_size": rows})
    print(f"train: batch_size auto: {rows}", file=sys.stderr, flush=True)
    return _with(config, rows)


def _with(config: TrainStage, rows: int) -> TrainStage:
    return config.model_copy(update={"batch_size": rows})


def _largest(config: TrainStage, build: Callable[[TrainStage], tuple[loop.Work, loop.Engine]]) -> int:
    """Tries 1, 8, 16, 32, …: the step of most memory."""
    fits, rows, before = 0, 8, _peak()
    while True:
        tried = _with(config, rows)
        try:
            work, engine = build(tried)
            most = work.steps_per_epoch * rows // _STEPS_OF_AN_EPOCH
            engine.step(0, work.micro_batches(work.largest_step))
            engine.read()
        except Exception as error:
            if not is_out_of_memory(error):
                raise
            if rows == 1:
                raise UserError(advice(tried)) from error
            if fits:
                return fits
            rows = 1
            continue
        finally:
            work = engine = None  # type: ignore[assignment]  # their memory is wanted for the next ones
            gc.collect()
        fits, now = rows, _peak()
        report(rows, None, "rows fit")
        # A processor does not say that memory is short, it ends the process: so the next one is foretold.
        too_much = not accelerator() and now + 2 * (now - before) > _SHARE * memory()
        if 2 * rows > min(_MOST, max(most, 1)) or too_much:
            return fits
        rows, before = (8 if rows == 1 else 2 * rows), now


def _peak() -> int:
    """Most memory that this process has held, bytes."""
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def is_out_of_memory(error: BaseException) -> bool:
    """Whether a device or this machine had no memory left."""
    return isinstance(error, MemoryError) or any(sign in str(error) for sign in ("RESOURCE_EXHAUSTED", "OOM when"))


def advice(config: TrainStage) -> str:
    """What to change where memory does not suffice."""
    ways = ["a shorter preprocess.sequence_length"]
    if not config.remat:
        ways.insert(0, "train.remat=true")
    if isinstance(config.batch_size, int) and config.batch_size > 1:
        half = f"train.batch_size={config.batch_size // 2} with train.accumulate={config.accumulate * 2}"
        ways.insert(0, f"{half} (the same result)")
    return f"out of memory with train.batch_size={config.batch_size}; try {', or '.join(ways)}"
