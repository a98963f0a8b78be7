"""The memory of this machine, and whether a model from scratch can be trained in it."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

from lmworks.configs.errors import ConfigError
from lmworks.configs.schema import Config
from lmworks.models.parameters import parameters_from_scratch

_TRAINED = 16
"""Bytes of a parameter in training, at least: the weight, its gradient and AdamW's two moments, float32 each."""
_SAVED = 4
"""Bytes of a parameter in this machine's memory where it is trained in an accelerator's."""
_KEPT = 2
"""Bytes of a number that the forward pass keeps for the backward one, at least: bfloat16."""
_ACCELERATORS = ("/dev/nvidiactl", "/dev/kfd", "/dev/dxg", "/dev/accel0")
"""Devices by which NVIDIA's, AMD's, Windows' and Google's drivers are reached."""


def memory() -> int:
    """Bytes that this process may fill: the machine's, or the container's."""
    machine = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    with contextlib.suppress(OSError, ValueError):  # "max", or no such control group
        return min(machine, int(Path("/sys/fs/cgroup/memory.max").read_text(encoding="ascii")))
    return machine


def check_memory(config: Config) -> None:
    """Refuses a model from scratch that needs more than this machine's memory.

    What is counted is less than what is needed: the parameters; and of the language models, whose batches have one shape, the
    input of each layer for a micro-batch, which is kept for the backward pass also where `train.remat` keeps nothing else.

    Args:
        config: of a run whose training is done on this machine.

    Raises:
        ConfigError: naming sizes, the number of parameters and the estimate.
    """
    model, training, length = config.model, config.preprocess.tokenizer.train, config.preprocess.sequence_length
    if model.architecture is None or training is None:
        return
    parameters = parameters_from_scratch(model, config.task, training.vocabulary_size, length)
    accelerated = any(map(os.path.exists, _ACCELERATORS))
    each = _SAVED if accelerated else _TRAINED
    rows = config.train.batch_size
    counted = config.task != "text_classification" and isinstance(rows, int) and not accelerated
    batch = int(rows) * length * model.hidden_dim * model.layers * _KEPT if counted else 0
    if parameters * each + batch > memory():
        sizes = f"layers {model.layers:,}, hidden_dim {model.hidden_dim:,}, intermediate_dim {model.intermediate_dim:,}"
        activations = (
            f"train.batch_size {rows:,} of {length:,} tokens each needs {batch / 1e9:,.1f} GB or more"
            if batch
            else "activations need more"
        )
        raise ConfigError(
            f"model: {sizes} and preprocess.tokenizer.train.vocabulary_size {training.vocabulary_size:,} are "
            f"{parameters / 1e6:,.1f} million parameters, which need {parameters * each / 1e9:,.1f} GB of memory to be trained, "
            f"at {each} bytes each, and {activations} beside them; this machine has {memory() / 1e9:,.1f} GB"
        )
