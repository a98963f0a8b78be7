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
_ACCELERATORS = ("/dev/nvidiactl", "/dev/kfd", "/dev/dxg", "/dev/accel0")
"""Devices by which NVIDIA's, AMD's, Windows' and Google's drivers are reached."""


def memory() -> int:
    """Bytes that this process may fill: the machine's, or the container's."""
    machine = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    with contextlib.suppress(OSError, ValueError):  # "max", or no such control group
        return min(machine, int(Path("/sys/fs/cgroup/memory.max").read_text(encoding="ascii")))
    return machine


def check_memory(config: Config) -> None:
    """Refuses a model from scratch whose parameters alone fill more than this machine's memory.

    Args:
        config: of a run whose training is done on this machine.

    Raises:
        ConfigError: naming the number of parameters and both sizes.
    """
    model, training = config.model, config.preprocess.tokenizer.train
    if model.architecture is None or training is None:
        return
    length = config.preprocess.sequence_length
    parameters = parameters_from_scratch(model, config.task, training.vocabulary_size, length)
    each = _SAVED if any(map(os.path.exists, _ACCELERATORS)) else _TRAINED
    if parameters * each > memory():
        sizes = f"layers {model.layers:,}, hidden_dim {model.hidden_dim:,}, intermediate_dim {model.intermediate_dim:,}"
        raise ConfigError(
            f"model: {sizes} and preprocess.tokenizer.train.vocabulary_size {training.vocabulary_size:,} are "
            f"{parameters / 1e6:,.0f} million parameters, which need {parameters * each / 1e9:,.0f} GB of memory to be trained, "
            f"at {each} bytes each, and activations beside them; this machine has {memory() / 1e9:,.0f} GB"
        )
