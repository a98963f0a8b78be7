"""How much arithmetic a training step is, and how much an accelerator is built for."""

from __future__ import annotations

import math
import re
from typing import TYPE_CHECKING, Any

from lmworks.models.backend import Precision, backend

if TYPE_CHECKING:
    import keras

_PEAK_TERAFLOPS = {
    "GH200": 989, "H200": 989, "H200 NVL": 836, "H100": 989, "H100 PCIe": 756, "H100 NVL": 836, "A100": 312, "L40": 181,
    "L40S": 362, "L4": 121, "A10": 125, "A10G": 70, "V100": 125, "V100 PCIe": 112, "V100S": 130, "T4": 65, "T4G": 65,
}  # fmt: skip
"""Dense matrix products in 16 bits with sums in 32, from NVIDIA's data sheets: a model, and where its forms differ also one of
them; a model alone is its SXM form."""


def peak_flops(device: str, precision: Precision) -> float | None:
    """Floating point operations a second that an accelerator is built for, where that is known.

    Args:
        device: its name, as TensorFlow or JAX tells it.
        precision: of the computation; float32 has no figure here.
    """
    if precision == "float32":
        return None
    # Whole words: an L40 is no L4, and of an H100 the form counts as well ("H100 PCIe", "V100-PCIE-16GB").
    words = re.split(r"[\s_-]+", device.upper())
    if "MIG" in words:  # a slice of a device
        return None
    known = [name for name in _PEAK_TERAFLOPS if set(name.upper().split()) <= set(words)]
    return 1e12 * _PEAK_TERAFLOPS[max(known, key=len)] if known else None


def accelerator() -> str:
    """Name of the first GPU; empty where there is none."""
    if backend() == "jax":
        import jax

        device = jax.local_devices()[0]
        return str(device.device_kind) if device.platform == "gpu" else ""
    import tensorflow as tf

    gpus = tf.config.list_physical_devices("GPU")
    return str(tf.config.experimental.get_device_details(gpus[0]).get("device_name", "")) if gpus else ""


def flops_per_token(model: keras.Model, length: int, targets: int) -> float:
    """Floating point operations of forward and backward pass for one token of a full sequence.

    Six per parameter that is multiplied, and the attention's products: 12 · layers · width · length (Chowdhery et al. 2022,
    arXiv:2204.02311, appendix B). Position and segment embeddings are looked up, not multiplied, and so are token embeddings that
    are not tied to the output. The head, with its product of states and the whole vocabulary, works at targets only.

    Args:
        model: a causal or masked one, or a classifier, whose head has no targets among the positions.
        length: tokens of a sequence.
        targets: positions of a sequence for which a prediction is computed: all of a causal model's.
    """
    backbone: Any = model.backbone
    lookup = backbone.token_embedding
    untied = None if getattr(lookup, "tie_weights", True) else lookup._embeddings
    everywhere = at_targets = 0
    for variable in model.trainable_variables:
        parts, size = variable.path.split("/"), math.prod(variable.shape)
        if variable is untied:
            continue
        if "token_embedding" in parts or "mlm_head" in parts:
            at_targets += size
        elif "position_embedding" not in parts and "segment_embedding" not in parts:
            everywhere += size
    attention = 12.0 * backbone.num_layers * backbone.hidden_dim * length
    return 6.0 * (everywhere + at_targets * targets / length) + attention
