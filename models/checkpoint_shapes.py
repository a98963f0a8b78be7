"""The shapes that a Hugging Face config promises, compared with those of the weights before a model of its sizes is built.

KerasHub builds the model that `config.json` describes and then copies weights into it, by reshaping: sizes that are not the
weights' own take memory without end, or mix up numbers without a word.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from lmworks.configs.errors import UserError
from lmworks.models.safetensors_header import Tensor

Shapes = Mapping[str, tuple[str, ...]]
"""Names of tensors behind the model's prefix, `{n}` for the number of a layer, and the names of their sizes."""


class _Family(NamedTuple):
    """The tensors of some kinds of models."""

    fields: Mapping[str, str]
    """Fields of the config with the sizes."""
    embeddings: str
    """The tensor by which the prefix of all names is recognised."""
    layer: str
    """What stands before the number of a layer."""
    shapes: Shapes
    optional: Mapping[str, tuple[str, ...]] = {}
    """Tensors that some models have, or that have another name in old files."""


def _dense(name: str, size_in: str, size_out: str) -> dict[str, tuple[str, ...]]:
    return {f"{name}.weight": (size_out, size_in), f"{name}.bias": (size_out,)}


def _norm(name: str, size: str = "width") -> dict[str, tuple[str, ...]]:
    return {f"{name}.{part}": (size,) for part in ("weight", "bias", "gamma", "beta")}


_BERT = _Family(
    {
        "vocabulary": "vocab_size", "width": "hidden_size", "inner": "intermediate_size", "layers": "num_hidden_layers",
        "heads": "num_attention_heads", "positions": "max_position_embeddings",
    },
    "embeddings.word_embeddings.weight",
    "encoder.layer.",
    {
        "embeddings.word_embeddings.weight": ("vocabulary", "width"),
        "embeddings.position_embeddings.weight": ("positions", "width"),
        **_dense("encoder.layer.{n}.attention.self.query", "width", "width"),
        **_dense("encoder.layer.{n}.attention.self.key", "width", "width"),
        **_dense("encoder.layer.{n}.attention.self.value", "width", "width"),
        **_dense("encoder.layer.{n}.attention.output.dense", "width", "width"),
        **_dense("encoder.layer.{n}.intermediate.dense", "width", "inner"),
        **_dense("encoder.layer.{n}.output.dense", "inner", "width"),
    },
    {
        "embeddings.token_type_embeddings.weight": ("segments", "width"),
        **_norm("embeddings.LayerNorm"),
        **_norm("encoder.layer.{n}.attention.output.LayerNorm"),
        **_norm("encoder.layer.{n}.output.LayerNorm"),
        **_dense("pooler.dense", "width", "width"),
    },
)  # fmt: skip
_DISTILBERT = _Family(
    {
        "vocabulary": "vocab_size", "width": "dim", "inner": "hidden_dim", "layers": "n_layers", "heads": "n_heads",
        "positions": "max_position_embeddings",
    },
    "embeddings.word_embeddings.weight",
    "transformer.layer.",
    {
        "embeddings.word_embeddings.weight": ("vocabulary", "width"),
        "embeddings.position_embeddings.weight": ("positions", "width"),
        **_dense("transformer.layer.{n}.attention.q_lin", "width", "width"),
        **_dense("transformer.layer.{n}.attention.k_lin", "width", "width"),
        **_dense("transformer.layer.{n}.attention.v_lin", "width", "width"),
        **_dense("transformer.layer.{n}.attention.out_lin", "width", "width"),
        **_dense("transformer.layer.{n}.ffn.lin1", "width", "inner"),
        **_dense("transformer.layer.{n}.ffn.lin2", "inner", "width"),
    },
    {
        **_norm("embeddings.LayerNorm"),
        **_norm("transformer.layer.{n}.sa_layer_norm"),
        **_norm("transformer.layer.{n}.output_layer_norm"),
    },
)  # fmt: skip
_GPT2 = _Family(
    {"vocabulary": "vocab_size", "width": "n_embd", "layers": "n_layer", "heads": "n_head", "positions": "n_positions"},
    "wte.weight",
    "h.",
    {
        "wte.weight": ("vocabulary", "width"),
        "wpe.weight": ("positions", "width"),
        # GPT-2's matrices stand as [in, out], unlike all others.
        "h.{n}.attn.c_attn.weight": ("width", "3 width"),
        "h.{n}.attn.c_attn.bias": ("3 width",),
        "h.{n}.attn.c_proj.weight": ("width", "width"),
        "h.{n}.attn.c_proj.bias": ("width",),
        "h.{n}.mlp.c_fc.weight": ("width", "inner"),
        "h.{n}.mlp.c_fc.bias": ("inner",),
        "h.{n}.mlp.c_proj.weight": ("inner", "width"),
        "h.{n}.mlp.c_proj.bias": ("width",),
    },
    {**_norm("h.{n}.ln_1"), **_norm("h.{n}.ln_2"), **_norm("ln_f")},
)
_DECODER_FIELDS = {
    "vocabulary": "vocab_size", "width": "hidden_size", "inner": "intermediate_size", "layers": "num_hidden_layers",
    "heads": "num_attention_heads", "key heads": "num_key_value_heads",
}  # fmt: skip
_DECODER = _Family(
    _DECODER_FIELDS,
    "embed_tokens.weight",
    "layers.",
    {
        "embed_tokens.weight": ("vocabulary", "width"),
        "layers.{n}.self_attn.q_proj.weight": ("queries", "width"),
        "layers.{n}.self_attn.k_proj.weight": ("keys", "width"),
        "layers.{n}.self_attn.v_proj.weight": ("keys", "width"),
        "layers.{n}.self_attn.o_proj.weight": ("width", "queries"),
        "layers.{n}.mlp.gate_proj.weight": ("inner", "width"),
        "layers.{n}.mlp.up_proj.weight": ("inner", "width"),
        "layers.{n}.mlp.down_proj.weight": ("width", "inner"),
        "layers.{n}.input_layernorm.weight": ("width",),
        "layers.{n}.post_attention_layernorm.weight": ("width",),
        "norm.weight": ("width",),
    },
    {
        "layers.{n}.self_attn.q_proj.bias": ("queries",),
        "layers.{n}.self_attn.k_proj.bias": ("keys",),
        "layers.{n}.self_attn.v_proj.bias": ("keys",),
        "layers.{n}.self_attn.q_norm.weight": ("head",),
        "layers.{n}.self_attn.k_norm.weight": ("head",),
        "layers.{n}.pre_feedforward_layernorm.weight": ("width",),
        "layers.{n}.post_feedforward_layernorm.weight": ("width",),
    },
)
_PHI3 = _Family(
    _DECODER_FIELDS,
    "embed_tokens.weight",
    "layers.",
    {
        "embed_tokens.weight": ("vocabulary", "width"),
        "layers.{n}.self_attn.qkv_proj.weight": ("queries, keys, values", "width"),
        "layers.{n}.self_attn.o_proj.weight": ("width", "queries"),
        "layers.{n}.mlp.gate_up_proj.weight": ("2 inner", "width"),
        "layers.{n}.mlp.down_proj.weight": ("width", "inner"),
        "layers.{n}.input_layernorm.weight": ("width",),
        "layers.{n}.post_attention_layernorm.weight": ("width",),
        "norm.weight": ("width",),
    },
)
_FAMILIES = {
    "bert": _BERT,
    "distilbert": _DISTILBERT,
    "gpt2": _GPT2,
    "phi3": _PHI3,
    **dict.fromkeys(("llama", "mistral", "qwen2", "qwen3", "gemma", "gemma2", "gemma3_text", "smollm3"), _DECODER),
}


def check_shapes(path: Path, described: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> None:
    """Refuses a config whose sizes are not those of the weights beside it.

    Args:
        path: The `config.json`, for messages.
        described: What it says, with the defaults of its family; its counts are integers above 0 or absent.
        tensors: Of the weights' files.

    Raises:
        UserError: A size is missing or differs, or a tensor is missing.
    """
    family = _FAMILIES.get(described["model_type"])
    if family is None:
        return
    if absent := [field for field in family.fields.values() if described.get(field) is None]:
        raise UserError(f"model.preset: {path}: lacks {', '.join(absent)}")
    sizes = _sizes(path, described, family)
    prefix = _prefix(family.embeddings, tensors)
    if prefix is None:
        raise UserError(f"model.preset: {path}: the weights beside it have no tensor {family.embeddings}")
    layers = _layers(prefix + family.layer, tensors)
    if sizes["layers"] > layers:
        raise UserError(
            f"model.preset: {path}: {family.fields['layers']} {sizes['layers']:,}, and the weights beside it have {layers:,} layers"
        )
    for name, shape, needed in _promised(family, sizes["layers"]):
        tensor = tensors.get(prefix + name)
        if tensor is None and needed:
            raise UserError(f"model.preset: {path}: the weights beside it have no tensor {prefix}{name}")
        expected = tuple(sizes[size] for size in shape if size in sizes)
        if tensor is not None and len(expected) == len(shape) and tensor.shape != expected:
            raise UserError(
                f"model.preset: {path}: says that tensor {prefix}{name} is of the shape {list(expected)}, and it is of "
                f"{list(tensor.shape)}"
            )


def _sizes(path: Path, described: Mapping[str, Any], family: _Family) -> dict[str, int]:
    sizes = {size: int(described[field]) for size, field in family.fields.items()}
    heads, key_heads = sizes["heads"], sizes.get("key heads", sizes["heads"])
    head = described.get("head_dim")
    if head is None and sizes["width"] % heads:
        raise UserError(
            f"model.preset: {path}: {family.fields['width']} {sizes['width']} is not divisible by "
            f"{family.fields['heads']} {heads}"
        )
    if heads % key_heads:
        raise UserError(
            f"model.preset: {path}: num_attention_heads {heads} is not divisible by num_key_value_heads {key_heads}"
        )
    head = head or sizes["width"] // heads
    inner = sizes.get("inner") or described.get("n_inner") or 4 * sizes["width"]
    if segments := described.get("type_vocab_size"):
        sizes["segments"] = segments
    return sizes | {
        "head": head,
        "queries": heads * head,
        "keys": key_heads * head,
        "queries, keys, values": (heads + 2 * key_heads) * head,
        "inner": inner,
        "2 inner": 2 * inner,
        "3 width": 3 * sizes["width"],
    }


def _prefix(name: str, tensors: Mapping[str, Tensor]) -> str | None:
    """What stands before the name in the weights, such as `bert.`; none where no tensor is called so."""
    whole = (full for full in tensors if full == name or full.endswith(f".{name}"))
    return min((full.removesuffix(name) for full in whole), key=len, default=None)


def _layers(prefix: str, tensors: Mapping[str, Tensor]) -> int:
    pattern = re.compile(re.escape(prefix) + r"(\d{1,9})\.")
    return len({match[1] for name in tensors if (match := pattern.match(name))})


def _promised(family: _Family, layers: int) -> Iterator[tuple[str, tuple[str, ...], bool]]:
    for shapes, needed in ((family.shapes, True), (family.optional, False)):
        for name, shape in shapes.items():
            for number in range(layers if "{n}" in name else 1):
                yield name.replace("{n}", str(number)), shape, needed
