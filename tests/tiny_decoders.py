"""Small random presets of the families of causal language models, in KerasHub's format."""

import keras
import keras_hub
import numpy as np

from lmworks.models.tokenizer import open_causal_pieces
from tests.models.test_sentencepiece import sentencepiece_model
from tests.models.test_splitting import KINDS, checkpoint

SIZES = {"num_layers": 2, "hidden_dim": 32, "intermediate_dim": 48, "num_query_heads": 4, "num_key_value_heads": 2}
# Off the classes' defaults, and large enough to show where they are lost.
NORM = {"layer_norm_epsilon": 3e-3}
ROPE = NORM | {"rope_max_wavelength": 500.0}
SCALED = ROPE | {"rope_scaling_factor": 2.0}
GEMMA = SIZES | NORM | {"head_dim": 16, "query_head_dim_normalize": False}
SOFT = {
    "final_logit_soft_cap": 5.0,
    "attention_logit_soft_cap": 10.0,
    "use_post_ffw_norm": True,
    "use_post_attention_norm": True,
}
FAMILIES = {
    "GPT2": ("gpt2", {"num_layers": 2, "hidden_dim": 32, "intermediate_dim": 48, "num_heads": 4, "max_sequence_length": 64, "dropout": 0.0}),
    "Llama3": ("llama3", SIZES | ROPE),
    "Llama": ("prefixed", SIZES | ROPE),
    "Mistral": ("prefixed", SIZES | SCALED | {"sliding_window": 6}),
    "Qwen": ("qwen2", SIZES | SCALED),
    "Qwen3": ("qwen2", SIZES | SCALED | {"head_dim": 16, "tie_word_embeddings": False}),
    "Gemma": ("unprefixed", GEMMA | SOFT | {"use_sliding_window_attention": True, "sliding_window_size": 6}),
    "Gemma3": ("unprefixed", GEMMA | SOFT | {"image_size": None, "local_rope_scaling_factor": 2.0, "global_rope_scaling_factor": 4.0, "use_sliding_window_attention": True, "sliding_window_size": 6}),
    "SmolLM3": ("llama3", {
        "num_layers": 2, "hidden_dim": 32, "intermediate_dim": 48, "num_attention_heads": 4, "num_key_value_heads": 2,
        "attention_bias": False, "attention_dropout": 0.0, "rope_layer_enabled_list": [True, False], "mlp_bias": False,
        "layer_types": ["full_attention"] * 2, "layer_norm_epsilon": 3e-3, "max_position_embeddings": 128,
        "rope_theta": 500.0, "partial_rotary_factor": 1.0}),
    "Phi3": ("prefixed", SIZES | ROPE),
}  # fmt: skip


def read_of(ids, positions, tokens):
    """What is read of a prompt: all of it where a new token fits, else its first token and its end."""
    if len(ids) < positions:
        return ids
    room = positions - min(tokens, positions // 2)
    return [*ids[:1], *ids[len(ids) - room + 1 :]]


def tokenizer_folder(name, folder):
    """A folder with the exact tokenizer of a family."""
    kind = FAMILIES[name][0]
    if kind in KINDS:
        checkpoint(folder, **KINDS[kind])
    else:
        sentencepiece_model(folder, prefix=kind == "prefixed")
    return open_causal_pieces(folder)


def backbone(name, pieces, seed=1):
    """With weights as they might be after training: norms are not one."""
    keras.utils.set_random_seed(seed)
    settings = FAMILIES[name][1] | {"vocabulary_size": pieces.vocabulary_size}
    found = getattr(keras_hub.models, f"{name}Backbone")(**settings)
    random = np.random.default_rng(seed)
    for variable in found.trainable_variables:
        variable.assign(variable + 0.2 * random.normal(size=variable.shape))
    return found
