"""The weights of a Mistral in Hugging Face's format as they are; KerasHub's conversion rounds them to float16."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from lmworks.models.huggingface import tensors_of


def is_mistral(backbone: Any, folder: Path) -> bool:
    """Whether a backbone was read from such a folder."""
    return type(backbone).__name__ == "MistralBackbone" and any(folder.glob("*.safetensors"))


def read_mistral_weights(backbone: Any, folder: Path) -> None:
    """Assigns them anew, in the precision of the file.

    Args:
        backbone: a `keras_hub.models.MistralBackbone` of the same sizes.
        folder: with safetensors files.
    """
    found = tensors_of(folder, "")

    def give(variable: Any, name: str, transposed: bool = True) -> None:
        value = found[f"{name}.weight"].astype(np.float32)
        variable.assign(np.reshape(value.T if transposed else value, variable.shape))

    give(backbone.token_embedding.embeddings, "model.embed_tokens", transposed=False)
    give(backbone.token_embedding.reverse_embeddings, "lm_head")
    give(backbone.layer_norm.scale, "model.norm", transposed=False)
    for number, layer in enumerate(backbone.transformer_layers):
        name = f"model.layers.{number}"
        attention = layer._self_attention_layer
        give(layer._self_attention_layernorm.scale, f"{name}.input_layernorm", transposed=False)
        give(layer._feedforward_layernorm.scale, f"{name}.post_attention_layernorm", transposed=False)
        for part in ("query", "key", "value", "output"):
            give(getattr(attention, f"_{part}_dense").kernel, f"{name}.self_attn.{part[0]}_proj")
        for ours, theirs in (("gate", "gate"), ("intermediate", "up"), ("output", "down")):
            give(getattr(layer, f"_feedforward_{ours}_dense").kernel, f"{name}.mlp.{theirs}_proj")
