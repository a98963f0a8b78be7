"""Fields of a Hugging Face `config.json`: those that change nothing that is computed here, and the refusal of all others."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

from lmworks.configs.errors import UserError
from lmworks.models.json_files import read_object

Described = dict[str, Any]
_LONGEST_VALUE = 60

_METADATA = {
    "_attn_implementation", "_attn_implementation_autoset", "_commit_hash", "_name_or_path", "_num_labels",
    "architectures", "attn_implementation", "dtype", "finetuning_task", "id2label", "is_llama_config", "label2id",
    "model_max_length", "model_type", "num_labels", "prefix", "problem_type", "sentence_transformers",
    "task_specific_params", "tokenizer_class", "torch_dtype", "transformers.js_config", "transformers_version",
    "unsloth_fixed", "unsloth_version",
}  # fmt: skip
_HOW_IT_IS_RUN = {  # the same numbers but for rounding
    "chunk_size_feed_forward", "output_attentions", "output_hidden_states", "output_past", "pretraining_tp",
    "return_dict", "tf_legacy_loss", "torchscript", "use_bfloat16", "use_cache", "use_return_dict",
}  # fmt: skip
_TRAINING = {"attention_dropout", "gradient_checkpointing", "initializer_factor", "initializer_range"}
_TOKENS = {
    "bos_token_id", "cls_token_id", "decoder_start_token_id", "eos_token_id", "mask_token_id", "pad_token_id",
    "sep_token_id", "unk_token_id",
}  # fmt: skip
_GENERATION = {
    "bad_words_ids", "begin_suppress_tokens", "cache_implementation", "diversity_penalty", "do_sample", "early_stopping",
    "encoder_no_repeat_ngram_size", "exponential_decay_length_penalty", "forced_bos_token_id", "forced_eos_token_id",
    "length_penalty", "max_length", "min_length", "no_repeat_ngram_size", "num_beam_groups", "num_beams",
    "num_return_sequences", "output_scores", "remove_invalid_values", "repetition_penalty", "return_dict_in_generate",
    "suppress_tokens", "temperature", "top_k", "top_p", "typical_p",
}  # fmt: skip
HARMLESS = frozenset(_METADATA | _HOW_IT_IS_RUN | _TRAINING | _TOKENS | _GENERATION)
"""Fields that any value leaves the logits as they are, in every model that is read here."""
_PLAIN: dict[str, Any] = {
    "is_encoder_decoder": False,
    "add_cross_attention": False,
    "cross_attention_hidden_size": None,
    "tie_encoder_decoder": False,
    "pruned_heads": {},
}
"""Fields of every config, with the value that leaves the logits as they are."""

_COUNTS = {
    "vocab_size", "hidden_size", "intermediate_size", "num_attention_heads", "num_key_value_heads",
    "head_dim", "max_position_embeddings", "original_max_position_embeddings", "sliding_window", "type_vocab_size",
    "no_rope_layer_interval", "dim", "hidden_dim", "n_heads", "n_embd", "n_head", "n_inner",
    "n_positions", "n_ctx",
}  # fmt: skip
_LAYERS = {"num_hidden_layers", "n_layers", "n_layer"}
_MOST_LAYERS = 10_000
"""No model has as many; what is written for each layer must not fill the memory."""
_NUMBERS = {
    "layer_norm_eps", "layer_norm_epsilon", "rms_norm_eps", "rope_theta", "rope_local_base_freq", "query_pre_attn_scalar",
    "attn_logit_softcapping", "final_logit_softcapping",
}  # fmt: skip
_OBJECTS = {"rope_scaling", "rope_parameters"}
_LISTS = {"layer_types", "no_rope_layers"}


def read_config(preset: str) -> tuple[Path, Described] | None:
    """Reads the `config.json` of a folder in Hugging Face format; none for any other preset.

    Args:
        preset: as given to `from_preset`.

    Raises:
        UserError: the file is no JSON object, or a field that is read here has a value of another type.
    """
    path = Path(preset) / "config.json"
    described = read_object(path, "model.preset")
    if "model_type" not in described:
        return None
    if wrong := list(_of_other_types(described)):
        raise UserError(f"model.preset: {path}: {'; '.join(wrong)}")
    return path, described


def is_positive(value: Any) -> bool:
    """Tells whether a value is a finite number above 0."""
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 < value < math.inf


def _of_other_types(described: Described) -> Iterator[str]:
    """Yields what is wrong with the types of a config's values; null is no value."""
    for name, value in described.items():
        if name == "model_type":
            right, kind = isinstance(value, str), "a text"
        elif name in _LAYERS:
            right = isinstance(value, int) and is_positive(value) and value <= _MOST_LAYERS
            kind = f"an integer from 1 to {_MOST_LAYERS:,}"
        elif name in _COUNTS:
            right, kind = isinstance(value, int) and is_positive(value), "an integer above 0"
        elif name in _NUMBERS:
            right, kind = is_positive(value), "a number above 0"
        elif name in _OBJECTS:
            right, kind = isinstance(value, dict), "a JSON object"
        elif name in _LISTS:
            right, kind = isinstance(value, list), "a list"
        else:
            continue
        if not right and (value is not None or name == "model_type"):
            yield f"{name} must be {kind}, not {shortened(value)}"


def differences(described: Described, fixed: Mapping[str, Any], understood: Collection[str]) -> list[str]:
    """Lists the fields with which the model would compute something else than is computed here, or something unknown.

    Args:
        described: the config; null says the same as leaving a field out.
        fixed: fields and the only value that can be computed, or a tuple of several.
        understood: fields that are read.
    """
    allowed = {**_PLAIN, **fixed}
    listed = []
    for name, value in described.items():
        if value is None or name in understood or name in HARMLESS:
            continue
        values = allowed[name] if isinstance(allowed.get(name), tuple) else (allowed.get(name),)
        if name not in allowed or value not in values:
            listed.append(f"{name} {shortened(value)}")
    return listed


def shortened(value: Any) -> str:
    """A value for a message."""
    shown = repr(value)
    return shown if len(shown) <= _LONGEST_VALUE else shown[:_LONGEST_VALUE] + " …"


def refuse(path: Path, listed: list[str]) -> None:
    """Refuses a config by the names of its fields.

    Raises:
        UserError: there are any.
    """
    if listed:
        raise UserError(
            f"model.preset: {path}: changes what the model computes, or is not known to be harmless: {', '.join(listed)}; "
            "a field that changes nothing can be removed from the file"
        )
