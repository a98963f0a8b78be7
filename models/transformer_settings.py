"""What the `config.json` of a BERT, DistilBERT or GPT-2 in Hugging Face's format says and KerasHub does not read."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from lmworks.configs.errors import UserError
from lmworks.models.config_fields import differences, read_config, refuse, shortened
from lmworks.models.transformer_arithmetic import Arithmetic, canonical, known_activations


class Settings(NamedTuple):
    """What the model of a folder is to be given."""

    backbone: dict[str, Any]
    """Arguments of KerasHub's backbone."""
    arithmetic: Arithmetic


class _Family(NamedTuple):
    """One `model_type`."""

    activation: tuple[str, str]
    """Field of the activation, and what `transformers` takes where it is missing."""
    epsilon: tuple[str, float]
    """The same of the layer norms' epsilon; an empty name where it is no field."""
    understood: tuple[str, ...]
    fixed: Mapping[str, Any]
    backbone: Mapping[str, str]
    """Fields that are given to KerasHub's backbone, and its argument."""


_FAMILIES = {
    "bert": _Family(
        ("hidden_act", "gelu"),
        ("layer_norm_eps", 1e-12),
        (
            "vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size",
            "max_position_embeddings", "tie_word_embeddings",
            # Training only, and what transformers itself does not look at.
            "attention_probs_dropout_prob", "classifier_dropout", "directionality", "pooler_fc_size",
            "pooler_num_attention_heads", "pooler_num_fc_layers", "pooler_size_per_head", "pooler_type",
        ),
        {"position_embedding_type": "absolute", "is_decoder": False},
        {"type_vocab_size": "num_segments", "hidden_dropout_prob": "dropout"},
    ),
    "distilbert": _Family(
        ("activation", "gelu"),
        ("", 1e-12),
        (
            "vocab_size", "dim", "n_layers", "n_heads", "hidden_dim", "max_position_embeddings", "dropout",
            "tie_word_embeddings", "tie_weights_", "qa_dropout", "seq_classif_dropout",
            "sinusoidal_pos_embds",  # which decides how positions begin, and they are read
        ),
        {"is_decoder": False},
        {},
    ),
    "gpt2": _Family(
        ("activation_function", "gelu_new"),
        ("layer_norm_epsilon", 1e-5),
        (
            "vocab_size", "n_embd", "n_layer", "n_head", "n_positions", "n_ctx", "resid_pdrop", "embd_pdrop", "attn_pdrop",
            "summary_activation", "summary_first_dropout", "summary_proj_to_labels", "summary_type", "summary_use_proj",
            "is_decoder",
            "reorder_and_upcast_attn",  # the same numbers in another order
        ),
        {"scale_attn_weights": True, "scale_attn_by_inverse_layer_idx": False, "tie_word_embeddings": True},
        {"n_inner": "intermediate_dim"},
    ),
}  # fmt: skip
WITH_LEARNED_POSITIONS = tuple(_FAMILIES)
"""Values of `model_type` whose config is read here."""


def read_transformer_settings(preset: str, kinds: tuple[str, ...]) -> Settings | None:
    """Reads what a model of these kinds is to compute.

    Args:
        preset: as given to `from_preset`.
        kinds: values of `model_type` that the task takes.

    Returns:
        None where the preset is no folder in Hugging Face's format, or of another kind.

    Raises:
        UserError: the config has a field that changes what is computed and that is not understood.
    """
    config = read_config(preset)
    if config is None or config[1]["model_type"] not in kinds:
        return None
    path, described = config
    family = _FAMILIES[described["model_type"]]
    fields = {family.activation[0], family.epsilon[0], *family.backbone, *family.understood}
    listed = differences(described, family.fixed, fields)
    name = described.get(family.activation[0]) or family.activation[1]
    activation = canonical(name) if isinstance(name, str) else None
    if activation is None:
        raise UserError(
            f"model.preset: {path}: {family.activation[0]} {shortened(name)} is not known; known are {known_activations()}"
        )
    refuse(path, listed)
    epsilon = described.get(family.epsilon[0])
    epsilon = family.epsilon[1] if epsilon is None else float(epsilon)
    arguments = {
        argument: described[field] for field, argument in family.backbone.items() if described.get(field) is not None
    }
    return Settings(arguments, Arithmetic(activation, epsilon, activation, epsilon))


def refuse_other_kinds(preset: str, kinds: tuple[str, ...], task: str) -> None:
    """Refuses folders in Hugging Face's format of kinds whose config is not read here.

    Raises:
        UserError: it is one.
    """
    config = read_config(preset)
    if config is not None and config[1]["model_type"] not in kinds:
        raise UserError(
            f"model.preset: {config[0]}: model_type {shortened(config[1]['model_type'])}; "
            f"{task} reads {', '.join(kinds)} in Hugging Face's format"
        )
