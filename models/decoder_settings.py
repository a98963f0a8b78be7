"""What a Hugging Face decoder's `config.json` says and KerasHub does not read: given to it, or refused, never ignored."""

from __future__ import annotations

import contextlib
import json
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from lmworks.configs.errors import UserError
from lmworks.models.config_fields import Described, differences, is_positive, read_config, refuse, shortened

_FIELDS = {
    "vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "num_key_value_heads",
    "head_dim", "max_position_embeddings", "rms_norm_eps", "rope_theta", "rope_scaling", "rope_parameters",
    "tie_word_embeddings", "is_decoder",
}  # fmt: skip
"""Fields that every reader understands."""
_FIXED = {"partial_rotary_factor": 1.0, "rope_interleaved": False}
_NEEDED = ("vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads")
_NEVER_NULL = ("rms_norm_eps", "max_position_embeddings", "original_max_position_embeddings", "head_dim")
"""Fields that may be left out where `transformers` has a value for them, and then must not be null."""
_ROPE_FIELDS: dict[str, tuple[str, ...]] = {
    "default": (),
    "linear": ("factor",),
    "llama3": ("factor", "low_freq_factor", "high_freq_factor", "original_max_position_embeddings"),
    "longrope": ("short_factor", "long_factor"),
    "su": ("short_factor", "long_factor"),
}
"""What a kind of rotary embedding has beside its base."""
_LONGROPE = ("longrope", "su")
"""LongRoPE (Ding et al. 2024, arXiv:2402.13753), and its older name, which KerasHub has."""
_ALSO_IN_LONGROPE = ("factor", "original_max_position_embeddings")
"""What it may have, and `_phi3_differences` checks."""


class _Reader(NamedTuple):
    """What is done with one `model_type`."""

    only: Mapping[str, Any]
    """Fields and the value that KerasHub's model takes for granted, or a tuple of several; a config may leave them out."""
    defaults: Mapping[str, Any] = {}
    """What `transformers` takes for fields that a config leaves out, where KerasHub does not."""
    given: Callable[[Described, Described], Described] = lambda described, rope: {}
    """Arguments of the backbone, from the config and its rotary embedding."""
    rope: tuple[str, ...] = ("default",)
    """Kinds of rotary embeddings that can be given."""
    also: Callable[[Described], Iterator[str]] = lambda described: iter(())
    """What else differs."""
    understood: tuple[str, ...] = ()
    """Fields that KerasHub reads, that `also` checks, or that change nothing here, beside those of every decoder."""
    limits: Callable[[Described, Described], dict[str, int | None]] = lambda described, rope: {}
    """What a sequence may not be longer than, by name, beside the positions; from the config and its rotary embedding."""


def read_decoder_settings(preset: str, sequence_length: int) -> Described:
    """Arguments of the backbone that KerasHub's conversion of a folder leaves at its defaults.

    Args:
        preset: as given to `from_preset`; only a folder in Hugging Face format has any.
        sequence_length: tokens that the model is to see at once.

    Raises:
        UserError: the config says something that KerasHub's model cannot do or that is not known, so that its logits might be
            others, or it was made for fewer tokens; or it lacks a field.
    """
    config = _complete(preset)
    if config is None:
        return {}
    path, described, reader = config
    needed = [*_NEEDED, *(name for name in _NEVER_NULL if name in reader.defaults)]
    if missing := [name for name in needed if described.get(name) is None]:
        raise UserError(f"model.preset: {path}: lacks {', '.join(missing)}")
    rope = _rope_of(described)
    refuse(
        path,
        [
            *differences(described, {**_FIXED, **reader.only}, {*_FIELDS, *reader.understood} - set(reader.only)),
            *_rope_differences(rope, reader.rope, reader.only.get("rope_theta")),
            *reader.also(described),
        ],
    )
    limits = {"positions": described.get("max_position_embeddings"), **reader.limits(described, rope)}
    for name, limit in limits.items():
        if limit is not None and sequence_length > limit:
            raise UserError(f"preprocess.sequence_length: {sequence_length} is above the model's {limit} {name}")
    return reader.given(described, rope)


@contextlib.contextmanager
def completed(preset: str) -> Iterator[str]:
    """A preset whose config says all that KerasHub's conversion asks for.

    Within it, a decoder's folder in Hugging Face format is a temporary one of links to its files, with a config in which
    every field is what `transformers` takes it for; any other preset is itself.
    """
    config = _complete(preset)
    if config is None:
        yield preset
        return
    path, described, reader = config
    if reader.rope != _NESTED:  # given by `read_decoder_settings`; the conversions understand some spellings of it
        rope = _rope_of(described)
        described = {**described, "rope_theta": rope["rope_theta"], "rope_parameters": {}, "rope_scaling": None}
    with tempfile.TemporaryDirectory() as copy:
        for file in path.parent.iterdir():
            if file.name != path.name:
                (Path(copy) / file.name).symlink_to(file.resolve())
        (Path(copy) / path.name).write_text(json.dumps(described), encoding="utf-8")
        yield copy


def _complete(preset: str) -> tuple[Path, Described, _Reader] | None:
    """The config of a decoder with the fields that it leaves out, and its reader."""
    config = read_config(preset)
    reader = _READERS.get(config[1]["model_type"]) if config else None
    if config is None or reader is None:
        return None
    described = {**reader.defaults, **config[1]}
    if reader is _READERS["smollm3"]:
        _number_layers(described)
    if described.get("num_key_value_heads") is None:
        described["num_key_value_heads"] = described.get("num_attention_heads")
    return config[0], described, reader


def described_with_defaults(preset: str) -> Described | None:
    """Reads the config of a decoder's folder in Hugging Face format with the fields that it leaves out; none for others."""
    config = _complete(preset)
    return config[1] if config else None


def _number_layers(described: Described) -> None:
    """Says of each layer of a SmolLM3 what its config may say of all: every `no_rope_layer_interval`-th has no positions."""
    layers = range(described.get("num_hidden_layers") or 0)
    interval = described.get("no_rope_layer_interval") or 4
    if described.get("no_rope_layers") is None:
        described["no_rope_layers"] = [int((layer + 1) % interval != 0) for layer in layers]
    if described.get("layer_types") is None:
        described["layer_types"] = ["full_attention" for _ in layers]


def _rope_of(described: Described) -> Described:
    """The rotary embedding: transformers 5 has all of it in `rope_parameters`, older ones the scaling in `rope_scaling`."""
    rope = {
        "rope_theta": described.get("rope_theta"),
        **(described.get("rope_scaling") or described.get("rope_parameters") or {}),
    }
    return {**rope, "rope_type": rope.get("rope_type", rope.get("type", "default"))}


def _rope_differences(rope: Described, kinds: tuple[str, ...], base: float | None = None) -> Iterator[str]:
    if kinds == _NESTED:  # one for each kind of layer; `also` looks at them
        return
    kind = rope["rope_type"]
    if kind not in kinds:
        yield f"rope_type {kind!r}"
        return
    if base is not None and rope["rope_theta"] != base:
        yield f"rope_theta {rope['rope_theta']} of the rotary embedding"
    if not is_positive(rope["rope_theta"]):
        yield f"rope_theta {shortened(rope['rope_theta'])} of the rotary embedding"
    for name in _ROPE_FIELDS[kind]:
        values = rope.get(name)
        if values is None:
            yield f"rope_type {kind!r} without {name}"
        elif not all(map(is_positive, values if kind in _LONGROPE and isinstance(values, list) else [values])):
            yield f"{name} {shortened(values)} of the rotary embedding"
    known = {"rope_type", "type", "rope_theta", *_ROPE_FIELDS[kind], *(_ALSO_IN_LONGROPE if kind in _LONGROPE else ())}
    for name, value in rope.items():
        if name not in known and (name, value) != ("partial_rotary_factor", 1.0) and value is not None:
            yield f"{name} {shortened(value)} of the rotary embedding"


def _llama(described: Described, rope: Described) -> Described:
    found: Described = {"layer_norm_epsilon": described["rms_norm_eps"]}
    if rope["rope_type"] == "llama3":
        found |= {
            "rope_frequency_adjustment_factor": rope["factor"],
            "rope_low_freq_factor": rope["low_freq_factor"],
            "rope_high_freq_factor": rope["high_freq_factor"],
            "rope_pretraining_sequence_length": rope["original_max_position_embeddings"],
        }
    return found


def _linear(described: Described, rope: Described) -> Described:
    return {"rope_scaling_factor": rope["factor"]} if rope["rope_type"] == "linear" else {}


def _epsilon(described: Described, rope: Described) -> Described:
    return {"layer_norm_epsilon": described["rms_norm_eps"]}


def _phi3(described: Described, rope: Described) -> Described:
    """All arguments: KerasHub has no conversion of Phi-3."""
    longrope = rope["rope_type"] in _LONGROPE
    return {
        "vocabulary_size": described["vocab_size"],
        "num_layers": described["num_hidden_layers"],
        "hidden_dim": described["hidden_size"],
        "intermediate_dim": described["intermediate_size"],
        "num_query_heads": described["num_attention_heads"],
        "num_key_value_heads": described["num_key_value_heads"],
        "layer_norm_epsilon": described["rms_norm_eps"],
        "max_sequence_length": described["max_position_embeddings"],
        "pretraining_sequence_length": described["original_max_position_embeddings"],
        "rope_max_wavelength": rope["rope_theta"],
        "rope_scaling_type": "su" if longrope else None,
        "rope_scaling_short_factor": rope["short_factor"] if longrope else None,
        "rope_scaling_long_factor": rope["long_factor"] if longrope else None,
    }


def _phi3_limits(described: Described, rope: Described) -> dict[str, int | None]:
    """KerasHub has no sliding window here. LongRoPE's factors change with a text's length: up to the pretraining's they do not."""
    limits = {"tokens of its sliding window": described.get("sliding_window")}
    if rope["rope_type"] in _LONGROPE:
        pretrained = described["original_max_position_embeddings"]
        limits["positions of its pretraining, up to which its rotary embedding is one"] = pretrained
    return limits


def _phi3_differences(described: Described) -> Iterator[str]:
    yield from _even_heads(described)
    rope = _rope_of(described)
    if rope["rope_type"] not in _LONGROPE:
        return
    size = described["hidden_size"] // described["num_attention_heads"]
    for name in _ROPE_FIELDS["longrope"]:
        factors = rope.get(name)
        if factors is not None and (not isinstance(factors, list) or len(factors) != size // 2):
            yield f"{name} {shortened(factors)} with heads of {size} numbers"
    # `transformers` looks at the one outside the rotary embedding, which has a default.
    pretrained = described["original_max_position_embeddings"]
    if (within := rope.get("original_max_position_embeddings")) not in (pretrained, None):
        yield f"original_max_position_embeddings {within} of the rotary embedding, and {pretrained} outside it"
    # The scale of the embeddings follows from it; KerasHub's follows from the positions.
    if rope.get("factor") not in (described["max_position_embeddings"] / pretrained, None):
        yield (
            f"a longrope factor {shortened(rope['factor'])} other than "
            "max_position_embeddings / original_max_position_embeddings"
        )


def _even_heads(described: Described) -> Iterator[str]:
    even = described["hidden_size"] // described["num_attention_heads"]
    if (described.get("head_dim") or even) != even:
        yield f"head_dim {described['head_dim']} with {described['num_attention_heads']} heads"


def _full_attention(described: Described) -> Iterator[str]:
    if any(kind != "full_attention" for kind in described.get("layer_types") or ()):
        yield "layer_types other than full_attention"


def _even_full(described: Described) -> Iterator[str]:
    yield from _even_heads(described)
    yield from _full_attention(described)


def _gemma(pattern: int) -> Callable[[Described], Iterator[str]]:
    """Every `pattern`-th layer sees all tokens; the queries' scale is that of a head."""

    def check(described: Described) -> Iterator[str]:
        kinds = described.get("layer_types") or []
        expected = [
            "full_attention" if (layer + 1) % pattern == 0 else "sliding_attention" for layer in range(len(kinds))
        ]
        if kinds != expected:
            yield f"layer_types other than one full layer in {pattern}"
        # KerasHub's backbone has an argument for another scale, which its layers do not get.
        if (scale := described["query_pre_attn_scalar"]) != described["head_dim"]:
            yield f"query_pre_attn_scalar {scale} with head_dim {described['head_dim']}"

    return check


def _gemma3(described: Described) -> Iterator[str]:
    yield from _gemma(6)(described)
    bases = {"sliding_attention": 10_000, "full_attention": 1_000_000}
    nested = described.get("rope_parameters") or {}
    ropes = {f"rope_parameters.{layers}": (nested.get(layers) or {}, base) for layers, base in bases.items()}
    ropes["rope_scaling"] = (described.get("rope_scaling") or {}, bases["full_attention"])
    for name in nested.keys() - bases.keys():
        yield f"rope_parameters.{name} {shortened(nested[name])}"
    for name, (rope, base) in ropes.items():
        if not isinstance(rope, dict):
            yield f"{name} {shortened(rope)}"
            continue
        plain = _rope_of({"rope_theta": base, "rope_parameters": rope})
        if list(_rope_differences(plain, ("default", "linear"), base)):
            yield f"{name} {shortened(rope)}"


_NESTED = ("by kind of layer",)
_SILU = {"hidden_act": ("silu", "swish")}
_GEMMA = {
    "attention_bias": False,
    "tie_word_embeddings": True,
    "hidden_activation": "gelu_pytorch_tanh",
    # Checkpoints of Gemma 1 say `gelu` and mean this one; transformers takes it so.
    "hidden_act": ("gelu_pytorch_tanh", "gelu"),
    "use_bidirectional_attention": False,
    "rope_theta": 10_000,
}
_WINDOWS = ("sliding_window", "max_window_layers", "layer_types")
_READERS = {
    "llama": _Reader(
        {**_SILU, "attention_bias": False, "mlp_bias": False},
        {"rms_norm_eps": 1e-6, "rope_theta": 10_000.0, "tie_word_embeddings": False},
        _llama,
        ("default", "llama3"),  # KerasHub's Llama has an argument for a linear one, and does nothing with it
        _even_heads,
    ),
    "mistral": _Reader(
        {**_SILU, "tie_word_embeddings": False},
        {"rms_norm_eps": 1e-6, "rope_theta": 10_000.0, "num_key_value_heads": 8, "sliding_window": 4096},
        _linear,
        ("default", "linear"),
        understood=("sliding_window",),
    ),
    "qwen2": _Reader(
        {**_SILU, "use_sliding_window": False, "use_mrope": False},
        {
            "rms_norm_eps": 1e-6, "rope_theta": 10_000.0, "num_key_value_heads": 32, "use_sliding_window": False,
            "sliding_window": None, "tie_word_embeddings": False,
        },
        _linear,
        ("default", "linear"),
        _even_full,
        _WINDOWS,
    ),
    "qwen3": _Reader(
        {**_SILU, "use_sliding_window": False, "attention_bias": False},
        {
            "rms_norm_eps": 1e-6, "rope_theta": 10_000.0, "num_key_value_heads": 32, "head_dim": 128,
            "use_sliding_window": False, "tie_word_embeddings": False,
        },
        _linear,
        ("default", "linear"),
        _full_attention,
        _WINDOWS,
    ),
    "gemma": _Reader(
        _GEMMA, {"rms_norm_eps": 1e-6, "rope_theta": 10_000.0, "num_key_value_heads": 16, "head_dim": 256}, _epsilon
    ),
    "gemma2": _Reader(
        {**_GEMMA, "hidden_act": "gelu_pytorch_tanh"},
        {
            "rms_norm_eps": 1e-6, "rope_theta": 10_000.0, "num_key_value_heads": 4, "head_dim": 256,
            "query_pre_attn_scalar": 256, "sliding_window": 4096, "final_logit_softcapping": 30.0,
            "attn_logit_softcapping": 50.0,
        },
        _epsilon,
        also=_gemma(2),
        understood=(
            "query_pre_attn_scalar", "sliding_window", "layer_types", "final_logit_softcapping", "attn_logit_softcapping",
            "sliding_window_size",  # a second spelling in Google's files, which transformers does not look at
        ),
    ),
    "gemma3_text": _Reader(
        {
            **_GEMMA, "hidden_act": "gelu_pytorch_tanh", "rope_theta": 1_000_000, "rope_local_base_freq": 10_000,
            "sliding_window_pattern": 6, "_sliding_window_pattern": 6,
            "attn_logit_softcapping": None,  # which KerasHub would apply, and transformers does not
        },
        {
            "num_attention_heads": 8, "num_key_value_heads": 4, "head_dim": 256, "query_pre_attn_scalar": 256,
            "sliding_window": 4096,
        },
        also=_gemma3,
        rope=_NESTED,
        understood=(
            "query_pre_attn_scalar", "sliding_window", "layer_types", "final_logit_softcapping",
        ),
    ),
    "phi3": _Reader(
        {**_SILU, "tie_word_embeddings": False, "attention_bias": False, "embd_pdrop": 0.0},
        {
            "rms_norm_eps": 1e-5, "rope_theta": 10_000.0, "max_position_embeddings": 4096,
            "original_max_position_embeddings": 4096,
        },
        _phi3,
        ("default", *_LONGROPE),
        _phi3_differences,
        # Dropout is for training; the published folders name code that computes the same.
        ("original_max_position_embeddings", "sliding_window", "resid_pdrop", "auto_map"),
        _phi3_limits,
    ),
    "smollm3": _Reader(
        {**_SILU, "use_sliding_window": False, "tie_word_embeddings": True, "attention_bias": False, "mlp_bias": False},
        {
            "rms_norm_eps": 1e-6, "rope_theta": 2_000_000.0, "num_key_value_heads": 4, "attention_bias": False,
            "mlp_bias": False, "attention_dropout": 0.0,
        },
        also=_even_full,
        understood=(*_WINDOWS, "no_rope_layers", "no_rope_layer_interval"),
    ),
}  # fmt: skip
