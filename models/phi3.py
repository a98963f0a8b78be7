"""Phi-3 in Hugging Face's format (`Phi3ForCausalLM`), which KerasHub does not read: settings and weights of its own `Phi3Backbone`.

Queries, keys and values stand in one matrix there, and so do the two wide ones of the feed-forward network. Rotary embeddings of
long contexts (LongRoPE, Ding et al. 2024, arXiv:2402.13753) change with a text's length; up to the length of the pretraining they
do not, and only so far they are read.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from lmworks.configs.errors import UserError
from lmworks.models.huggingface import tensors_of

if TYPE_CHECKING:
    import keras

Described = dict[str, Any]

_ONLY = {
    "hidden_act": "silu",
    "tie_word_embeddings": False,
    "attention_bias": False,
    "partial_rotary_factor": 1.0,
    "embd_pdrop": 0.0,
    "attention_factor": None,
}
"""Keys and the value that KerasHub's model takes for granted; a config may leave them out."""
_KNOWN = {
    *_ONLY, "vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "num_key_value_heads",
    "resid_pdrop", "attention_dropout", "max_position_embeddings", "original_max_position_embeddings", "rms_norm_eps",
    "rope_theta", "rope_scaling", "rope_parameters", "sliding_window", "head_dim",
    # These change no logits.
    "model_type", "architectures", "auto_map", "initializer_range", "use_cache", "bos_token_id", "eos_token_id", "pad_token_id",
    "unk_token_id", "sep_token_id", "torch_dtype", "dtype", "transformers_version", "_name_or_path", "output_attentions",
    "output_hidden_states", "return_dict", "chunk_size_feed_forward", "is_encoder_decoder", "id2label", "label2id",
    "problem_type", "is_decoder",
}  # fmt: skip
_ROPES = {"default": None, "longrope": "su", "su": "su"}
"""Kinds of rotary embeddings, and KerasHub's names for them."""


def is_phi3(preset: str) -> bool:
    """Returns whether a preset is a folder of such a model."""
    path = Path(preset) / "config.json"
    return path.exists() and json.loads(path.read_text(encoding="utf-8")).get("model_type") == "phi3"


def read_phi3(preset: str, sequence_length: int, dtype: str, dropout: float = 0.0) -> keras.Model:
    """Reads a `keras_hub.models.Phi3Backbone` with the weights of a folder.

    Args:
        preset: the folder, with `config.json` and safetensors files.
        sequence_length: tokens that the model is to see at once.
        dtype: float32, mixed_bfloat16 or mixed_float16.
        dropout: of the whole model.

    Raises:
        UserError: the config says what KerasHub's model does not compute, so that logits would differ, or that it only
            computes for shorter sequences; or a weight is missing.
    """
    import keras_hub

    path = Path(preset) / "config.json"
    described = json.loads(path.read_text(encoding="utf-8"))
    # transformers 5 has all of it in `rope_parameters`, older ones the scaling in `rope_scaling`.
    rope = {**(described.get("rope_parameters") or {}), **(described.get("rope_scaling") or {})}
    if differs := list(_differences(described, rope)):
        raise UserError(f"model.preset: {path}: KerasHub's phi3 does not have {', '.join(differs)}")
    scaling = _ROPES[_kind(rope)]
    positions = described["max_position_embeddings"]
    pretrained = rope.get("original_max_position_embeddings") or described.get("original_max_position_embeddings")
    limits = {"positions": positions, "tokens of its sliding window": described.get("sliding_window")}
    limits |= {"positions of its pretraining, up to which its rotary embedding is one": pretrained} if scaling else {}
    for name, limit in limits.items():
        if limit is not None and sequence_length > limit:
            raise UserError(f"preprocess.sequence_length: {sequence_length} is above the model's {limit} {name}")
    backbone = keras_hub.models.Phi3Backbone(
        vocabulary_size=described["vocab_size"],
        num_layers=described["num_hidden_layers"],
        hidden_dim=described["hidden_size"],
        intermediate_dim=described["intermediate_size"],
        num_query_heads=described["num_attention_heads"],
        num_key_value_heads=described.get("num_key_value_heads") or described["num_attention_heads"],
        layer_norm_epsilon=described["rms_norm_eps"],
        dropout=dropout,
        max_sequence_length=positions,
        pretraining_sequence_length=pretrained or positions,
        rope_max_wavelength=rope.get("rope_theta", described.get("rope_theta", 10_000)),
        rope_scaling_type=scaling,
        rope_scaling_short_factor=rope["short_factor"] if scaling else None,
        rope_scaling_long_factor=rope["long_factor"] if scaling else None,
        dtype=dtype,
    )
    _read_weights(backbone, Path(preset))
    return backbone


def _kind(rope: Described) -> str:
    return str(rope.get("rope_type", rope.get("type", "default")))


def _differences(described: Described, rope: Described) -> Iterator[str]:
    """Yields what KerasHub's model computes otherwise, or what is not known to change nothing."""
    for key, value in {**described, **{key: rope[key] for key in _ONLY if key in rope}}.items():
        if key not in _KNOWN or (key in _ONLY and value not in (_ONLY[key], None)):
            yield f"{key} {value!r}"
    if (kind := _kind(rope)) not in _ROPES:
        yield f"rope_type {kind!r}"
    elif _ROPES[kind] and (factor := rope.get("factor")) is not None:
        # The scale of the embeddings follows from it; KerasHub's follows from the positions.
        pretrained = rope.get("original_max_position_embeddings") or described["original_max_position_embeddings"]
        if factor != described["max_position_embeddings"] / pretrained:
            yield f"a longrope factor {factor} other than max_position_embeddings / original_max_position_embeddings"
    even = described["hidden_size"] // described["num_attention_heads"]
    if described.get("head_dim", even) not in (even, None):
        yield f"head_dim {described['head_dim']} with {described['num_attention_heads']} heads"


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
