"""What a Hugging Face decoder's `config.json` says and KerasHub does not read: given to it, or refused, never ignored."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from lmworks.configs.errors import UserError

Described = dict[str, Any]


class _Reader(NamedTuple):
    """What is done with one `model_type`."""

    only: dict[str, Any]
    """Keys and the value that KerasHub's model takes for granted; a config may leave them out."""
    given: Callable[[Described, Described], Described] = lambda described, rope: {}
    """Arguments of the backbone, from the config and its rotary embedding."""
    rope: tuple[str, ...] = ("default",)
    """Kinds of rotary embeddings that can be given."""
    also: Callable[[Described], Iterator[str]] = lambda described: iter(())
    """What else differs."""


def read_decoder_settings(preset: str, sequence_length: int) -> Described:
    """Arguments of the backbone that KerasHub's conversion of a folder leaves at its defaults.

    Args:
        preset: as given to `from_preset`; only a folder in Hugging Face format has any.
        sequence_length: tokens that the model is to see at once.

    Raises:
        UserError: the config says something that KerasHub's model cannot do, so that its logits would be others, or it was
            made for fewer tokens.
    """
    path = Path(preset) / "config.json"
    described = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    reader = _READERS.get(described.get("model_type", ""))
    if reader is None:
        return {}
    differs = [
        f"{key} {described[key]!r}"
        for key, value in reader.only.items()
        if described.get(key, value) not in (value, None)
    ]
    # transformers 5 has all of it in `rope_parameters`, older ones the scaling in `rope_scaling`.
    rope = {**(described.get("rope_parameters") or {}), **(described.get("rope_scaling") or {})}
    kind = rope.get("rope_type", rope.get("type", "default"))
    differs += [f"rope_type {kind!r}"] if kind not in reader.rope else []
    differs += reader.also(described)
    if differs:
        raise UserError(
            f"model.preset: {path}: KerasHub's {described['model_type']} does not have {', '.join(differs)}"
        )
    longest = described.get("max_position_embeddings")
    if longest and sequence_length > longest:
        raise UserError(f"preprocess.sequence_length: {sequence_length} is above the model's {longest} positions")
    return reader.given(described, rope)


def _llama(described: Described, rope: Described) -> Described:
    found: Described = {"layer_norm_epsilon": described["rms_norm_eps"]}
    kind = rope.get("rope_type", "default")
    if kind == "linear":
        found["rope_position_scaling_factor"] = rope["factor"]
    if kind == "llama3":
        found |= {
            "rope_frequency_adjustment_factor": rope["factor"],
            "rope_low_freq_factor": rope["low_freq_factor"],
            "rope_high_freq_factor": rope["high_freq_factor"],
            "rope_pretraining_sequence_length": rope["original_max_position_embeddings"],
        }
    return found


def _even_heads(described: Described) -> Iterator[str]:
    even = described["hidden_size"] // described["num_attention_heads"]
    if (described.get("head_dim") or even) != even:
        yield f"head_dim {described['head_dim']} with {described['num_attention_heads']} heads"


def _gemma(pattern: int) -> Callable[[Described], Iterator[str]]:
    """Every `pattern`-th layer sees all tokens; the queries' scale is that of a head."""

    def check(described: Described) -> Iterator[str]:
        kinds = described.get("layer_types") or []
        expected = [
            "full_attention" if (layer + 1) % pattern == 0 else "sliding_attention" for layer in range(len(kinds))
        ]
        if kinds != expected:
            yield f"layer_types other than one full layer in {pattern}"
        scales = (described["head_dim"], described["hidden_size"] // described["num_attention_heads"], None)
        if (scale := described.get("query_pre_attn_scalar")) not in scales:
            yield f"query_pre_attn_scalar {scale}"

    return check


def _rope_of_gemma3(described: Described) -> Iterator[str]:
    yield from _gemma(6)(described)
    rope = described.get("rope_parameters") or {}
    for layers, theta in (("sliding_attention", 10_000), ("full_attention", 1_000_000)):
        one = rope.get(layers) or {}
        if one.get("rope_theta", theta) != theta or one.get("rope_type", "default") not in ("default", "linear"):
            yield f"rope_parameters.{layers} {one}"


_SILU = {"hidden_act": "silu"}
_PLAIN_GEMMA = {
    "rms_norm_eps": 1e-6,
    "attention_bias": False,
    "tie_word_embeddings": True,
    "hidden_activation": "gelu_pytorch_tanh",
    "use_bidirectional_attention": False,
    "rope_theta": 10_000,
}
_READERS = {
    "llama": _Reader(
        {**_SILU, "attention_bias": False, "mlp_bias": False}, _llama, ("default", "linear", "llama3"), _even_heads
    ),
    "mistral": _Reader({**_SILU, "tie_word_embeddings": False}),
    "qwen2": _Reader({**_SILU, "use_sliding_window": False}, also=_even_heads),
    "qwen3": _Reader({**_SILU, "use_sliding_window": False, "attention_bias": False}),
    "gemma": _Reader(_PLAIN_GEMMA),
    "gemma2": _Reader(_PLAIN_GEMMA, also=_gemma(2)),
    "gemma3_text": _Reader({**_PLAIN_GEMMA, "rope_theta": 1_000_000}, also=_rope_of_gemma3),
    "smollm3": _Reader({**_SILU, "use_sliding_window": False, "tie_word_embeddings": True}, also=_even_heads),
}
