"""Which Keras backend a process uses, and in which precision it computes."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Literal

from lmworks.configs.errors import UserError

Precision = Literal["float32", "bfloat16", "float16"]


def use_backend(name: str) -> None:
    """Chooses the Keras backend of this process; call it before keras is imported.

    Raises:
        UserError: keras is loaded with another backend already.
    """
    if "keras" in sys.modules:
        import keras

        if keras.backend.backend() != name:
            raise UserError(
                f"this process runs Keras on {keras.backend.backend()} and cannot switch to {name}; run without --in_process"
            )
        return
    os.environ["KERAS_BACKEND"] = name


def choose_precision(asked: str) -> Precision:
    """The computation's precision: what was asked, or for `auto` the fastest that this machine computes natively.

    bfloat16 on GPUs of compute capability 8.0 (Ampere) and newer, on TPUs, and on CPUs with AVX512-BF16 or AMX;
    float16 on older GPUs; else float32.
    """
    if asked != "auto":
        return asked  # type: ignore[return-value]
    if backend() == "jax":
        import jax

        device = jax.local_devices()[0]
        if device.platform == "gpu":
            return "bfloat16" if float(device.compute_capability) >= 8.0 else "float16"
        return "bfloat16" if device.platform == "tpu" or _computes_bfloat16() else "float32"
    import tensorflow as tf

    if tf.config.list_logical_devices("TPU"):
        return "bfloat16"
    gpus = tf.config.list_physical_devices("GPU")
    if gpus:
        capability = tf.config.experimental.get_device_details(gpus[0]).get("compute_capability", (0, 0))
        return "bfloat16" if capability >= (8, 0) else "float16"
    return "bfloat16" if _computes_bfloat16() else "float32"


def backend() -> str:
    """Name of the Keras backend of this process."""
    import keras

    return str(keras.backend.backend())


def start_profile(folder: str) -> None:
    """The backend's profiler begins to write for TensorBoard's profile plugin."""
    if backend() == "jax":
        import jax

        jax.profiler.start_trace(folder)
    else:
        import tensorflow as tf

        tf.profiler.experimental.start(folder)


def stop_profile() -> None:
    """Writes the profile that was begun."""
    if backend() == "jax":
        import jax

        jax.profiler.stop_trace()
    else:
        import tensorflow as tf

        tf.profiler.experimental.stop()


def dtype_of(precision: Precision) -> str:
    """Keras's name of a precision: weights and reductions stay in float32."""
    return "float32" if precision == "float32" else f"mixed_{precision}"


def _computes_bfloat16() -> bool:
    return bool({"avx512_bf16", "amx_bf16"} & _cpu_flags())


def _cpu_flags() -> set[str]:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:  # macOS
        return set()
    return next((set(line.partition(":")[2].split()) for line in lines if line.startswith("flags")), set())
