"""Several hosts that train together: what the first one knows, all know. With one host, everything here is itself."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, TypeVar

import numpy as np

from lmworks.configs.errors import UserError
from lmworks.models.backend import backend
from lmworks.pipeline.train.checkpoints import Arrays
from lmworks.tfx.hosts import this_host

T = TypeVar("T")
_HEARTBEAT_SECONDS = 30


def join(name: str) -> None:
    """Meets the other hosts, if there are any; call it before the backend computes anything.

    Args:
        name: of the Keras backend.

    Raises:
        UserError: the backend knows no other hosts, or they do not answer.
    """
    host = this_host()
    if host.count == 1:
        return
    if name != "jax":
        raise UserError(f"train.backend: {name} trains on one host, and there are {host.count}; set it to jax")
    import jax

    try:
        jax.distributed.initialize(
            host.coordinator, host.count, host.index, heartbeat_timeout_seconds=_HEARTBEAT_SECONDS
        )
    except RuntimeError as error:
        reason = str(error).splitlines()[0]
        raise UserError(f"host {host.index} of {host.count}: cannot meet {host.coordinator}: {reason}") from error


def count() -> int:
    """How many there are."""
    return this_host().count if backend() == "jax" else 1


def is_first() -> bool:
    """Whether this is the one that writes."""
    return count() == 1 or this_host().index == 0


def from_first(value: T) -> T:
    """The first host's JSON value, on all."""
    if count() == 1:
        return value
    text = np.frombuffer(json.dumps(value).encode() if is_first() else b"", np.uint8)
    size = int(_broadcast(np.array(len(text))))
    padded = np.zeros(size, np.uint8)
    padded[: len(text)] = text[:size]
    return json.loads(_broadcast(padded).tobytes())


def arrays_from_first(arrays: Arrays, like: Callable[[], Arrays]) -> Arrays:
    """The first host's arrays, on all.

    Args:
        arrays: the first host's.
        like: gives arrays of the same names, shapes and dtypes.
    """
    if count() == 1:
        return arrays
    return {name: _broadcast(arrays[name] if is_first() else one) for name, one in like().items()}


def any_host(flag: bool) -> bool:
    """Whether it is true on any host."""
    if count() == 1:
        return flag
    from jax.experimental import multihost_utils

    return bool(np.any(multihost_utils.process_allgather(np.array(flag))))


def _broadcast(value: np.ndarray) -> Any:
    from jax.experimental import multihost_utils

    return np.asarray(multihost_utils.broadcast_one_to_all(value))


def lost(error: BaseException) -> str | None:
    """What to say where an error means that another host is gone, else None."""
    told = str(error)
    signs = ("Gloo", "gloo", "NCCL", "Connection closed", "Connection reset", "coordination service", "heartbeat")
    if count() > 1 and any(sign in told for sign in signs):
        return (
            f"another of the {count()} hosts is gone ({told.splitlines()[0][:160]}); start all of them again with the same "
            "command: the run goes on from its last checkpoint"
        )
    return None
