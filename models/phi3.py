"""Weights of a Phi-3 in Hugging Face's format (`Phi3ForCausalLM`), which KerasHub does not read, for its own `Phi3Backbone`.

Queries, keys and values stand in one matrix there, and so do the two wide ones of the feed-forward network.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from lmworks.configs.errors import UserError
from lmworks.models.huggingface import tensors_of

if TYPE_CHECKING:
    import keras


def read_phi3(preset: str, dtype: str, arguments: dict[str, Any]) -> keras.Model:
    """Reads a `keras_hub.models.Phi3Backbone` with the weights of a folder.

    Args:
        preset: the folder, with safetensors files.
        dtype: float32, mixed_bfloat16 or mixed_float16.
        arguments: of the backbone, from `read_decoder_settings`, and the dropout.

    Raises:
        UserError: a weight is missing, or there are others.
    """
    import keras_hub

    backbone = keras_hub.models.Phi3Backbone(dtype=dtype, **arguments)
    _read_weights(backbone, Path(preset))
    return backbone


def _read_weights(backbone: Any, folder: Path) -> None:
    """Assigns all weights, and refuses a folder that lacks some or has others.

    Raises:
        UserError: naming the tensors.
    """
    tensors = tensors_of(folder, "")

    def give(variable: Any, value: np.ndarray) -> None:
        variable.assign(np.reshape(value.astype(np.float32), variable.shape))

    def take(name: str) -> np.ndarray:
        if f"{name}.weight" not in tensors:
            raise UserError(f"model.preset: {folder}: has no tensor {name}.weight in its safetensors files")
        return tensors.pop(f"{name}.weight")

    give(backbone.token_embedding.embeddings, take("model.embed_tokens"))
    give(backbone.token_embedding.reverse_embeddings, take("lm_head").T)
    give(backbone.layer_norm.scale, take("model.norm"))
    size = backbone.hidden_dim // backbone.num_query_heads
    borders = np.cumsum([backbone.num_query_heads * size, backbone.num_key_value_heads * size])
    for number, layer in enumerate(backbone.transformer_layers):
        name, attention = f"model.layers.{number}", layer.attention
        give(layer.pre_attention_layernorm.scale, take(f"{name}.input_layernorm"))
        give(layer.post_attention_layernorm.scale, take(f"{name}.post_attention_layernorm"))
        parts = np.split(take(f"{name}.self_attn.qkv_proj"), borders)
        for dense, part in zip((attention.query_dense, attention.key_dense, attention.value_dense), parts, strict=True):
            give(dense.kernel, part.T)
        give(attention.output_dense.kernel, take(f"{name}.self_attn.o_proj").T)
        gate, up = np.split(take(f"{name}.mlp.gate_up_proj"), 2)
        give(layer.feedforward_gate_dense.kernel, gate.T)
        give(layer.feedforward_intermediate_dense.kernel, up.T)
        give(layer.feedforward_output_dense.kernel, take(f"{name}.mlp.down_proj").T)
    # Old checkpoints carry the rotary embedding's frequencies, which follow from the config.
    others = sorted(name for name in tensors if not name.endswith("rotary_emb.inv_freq"))
    if others:
        raise UserError(f"model.preset: {folder}: has tensors that KerasHub's phi3 does not: {', '.join(others[:3])}")
