"""Causal language models: a KerasHub `CausalLM` from a preset or from scratch."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lmworks.configs.errors import UserError
from lmworks.configs.schema import Model
from lmworks.models.compiled import compiled
from lmworks.models.config_fields import read_config
from lmworks.models.decoder_settings import completed, read_decoder_settings
from lmworks.models.document_attention import within_documents
from lmworks.models.mistral_weights import is_mistral, read_mistral_weights
from lmworks.models.phi3 import read_phi3
from lmworks.models.preset import (
    check_positions,
    dropout_of,
    left_out,
    open_preset,
    policy,
    sizes_of,
    task_class,
)
from lmworks.models.preset_folder import write_preset
from lmworks.models.preset_kinds import CAUSAL
from lmworks.models.tokenizer import EXACT
from lmworks.models.transformer_arithmetic import hand_epsilon_on, load_arithmetic, set_arithmetic
from lmworks.models.transformer_settings import read_transformer_settings

if TYPE_CHECKING:
    import keras
    import numpy as np

    from lmworks.models.tokenizer import CausalPieces


def build(
    settings: Model, preset: str | None, pieces: CausalPieces, sequence_length: int, dtype: str = "float32"
) -> keras.Model:
    """Builds a model that takes token ids (no preprocessor) and gives logits.

    Args:
        settings: the config's `model` section.
        preset: what `from_preset` is given where the model does not start from scratch: a name, URL or local folder.
        pieces: the tokenizer whose ids the model reads.
        sequence_length: tokens that it sees at once.
        dtype: float32, mixed_bfloat16 or mixed_float16.

    Raises:
        UserError: the preset does not exist, it is no causal language model, or it has fewer positions or other tokens.
    """
    import keras_hub

    extra = dropout_of(settings)
    if preset is None:
        backbone = keras_hub.models.GPT2Backbone(
            vocabulary_size=pieces.vocabulary_size,
            max_sequence_length=sequence_length,
            dtype=dtype,
            **sizes_of(settings),
        )
        return keras_hub.models.GPT2CausalLM(backbone, dtype=dtype)
    described = read_transformer_settings(preset, ("gpt2",))
    extra |= described.backbone if described else read_decoder_settings(preset, sequence_length)
    with completed(preset) as whole, policy(dtype):
        if (config := read_config(preset)) and config[1]["model_type"] == "phi3":
            backbone = open_preset(preset, lambda: read_phi3(preset, dtype, extra))
        else:
            backbone = open_preset(preset, lambda: keras_hub.models.Backbone.from_preset(whole, dtype=dtype, **extra))
    if is_mistral(backbone, Path(preset)):
        read_mistral_weights(backbone, Path(preset))
    check_positions(backbone, sequence_length)
    if backbone.vocabulary_size < pieces.vocabulary_size:
        raise UserError(
            f"model.preset: {preset}: has {backbone.vocabulary_size:,} embeddings for {pieces.vocabulary_size:,} tokens"
        )
    # `transformers` calls every Llama the same; KerasHub's two classes differ in the tokenizer that they carry.
    old_llama = isinstance(backbone, keras_hub.models.Llama3Backbone) and pieces.kind == "sentencepiece"
    kind = keras_hub.models.LlamaBackbone if old_llama else type(backbone)
    task = task_class(keras_hub.models.CausalLM, kind, preset)
    name = task.__name__.removesuffix("CausalLM")
    if name not in CAUSAL or getattr(backbone, "vision_encoder", None) is not None:
        raise UserError(f"model.preset: {preset}: is a {task.__name__}; causal_lm takes {', '.join(CAUSAL)}, text only")
    model = task(backbone=backbone, preprocessor=None, dtype=dtype)
    if described is not None:
        set_arithmetic(model, described.arithmetic)
    elif read_config(preset) is not None:
        hand_epsilon_on(model)
    else:
        load_arithmetic(model, Path(preset))
    return model


def states(model: keras.Model, token_ids: Any, training: bool = False, documents: Any = None) -> Any:
    """Hidden states [batch, length, width] before the output projection.

    Padding on the right needs no mask: no token before it looks there.

    Args:
        model: of `build`.
        token_ids: int32 [batch, length].
        training: whether dropout is on.
        documents: int32 [batch, length], the document of each token, where attention stays within it; None where a token
            sees all before it.
    """
    from keras import ops

    within = contextlib.nullcontext() if documents is None else within_documents(model, documents)
    with within:
        return model.backbone({"token_ids": token_ids, "padding_mask": ops.ones_like(token_ids)}, training=training)


def output_embeddings(model: keras.Model) -> Any:
    """The output projection, float32 [vocabulary, width]: the token embeddings where they are tied."""
    from keras import ops

    layer = model.backbone.token_embedding
    if getattr(layer, "tie_weights", True):
        return ops.convert_to_tensor(layer._embeddings.value)
    return ops.transpose(ops.convert_to_tensor(layer.reverse_embeddings.value))


def soft_cap(model: keras.Model) -> float | None:
    """What the model's logits stay within, as in Gemma 2."""
    return getattr(model.backbone.token_embedding, "logit_soft_cap", None)


def log_probabilities(model: keras.Model) -> Callable[[dict[str, np.ndarray]], Any]:
    """A compiled function of `token_ids` and `targets`, int32 [batch, length]; it gives what `scores` does."""
    import keras

    ids = keras.InputSpec(shape=[None, None], dtype="int32")
    specs = {"token_ids": ids, "targets": ids}
    return compiled(model, lambda inputs: scores(logits_of(model, inputs["token_ids"]), inputs["targets"]), specs)


def scores(logits: Any, targets: Any) -> tuple[Any, Any]:
    """The targets' log-probabilities in nats, and whether each is the likeliest token.

    Args:
        logits: float32 [batch, n, vocabulary].
        targets: int32 [batch, n].

    Returns:
        float32 [batch, n], bool [batch, n].
    """
    from keras import ops

    chosen = ops.take_along_axis(logits, targets[..., None], axis=-1)[..., 0]
    return chosen - ops.logsumexp(logits, axis=-1), chosen >= ops.max(logits, axis=-1)


def logits_of(model: keras.Model, token_ids: Any) -> Any:
    """Float32 [batch, length, vocabulary]."""
    from keras import ops

    found = model({"token_ids": token_ids, "padding_mask": ops.ones_like(token_ids)}, training=False)
    return ops.cast(found, "float32")


def save(model: keras.Model, pieces: CausalPieces, sequence_length: int, folder: Path) -> None:
    """Writes a preset that `keras_hub.models.CausalLM.from_preset` opens, and the exact tokenizer.

    KerasHub's tokenizers insist on special tokens of their family. Without these in the vocabulary the preset has no
    tokenizer of KerasHub's, and opens with `preprocessor=None`.
    """

    def preprocessor_of(task: Any) -> Any:
        with contextlib.suppress(ValueError):
            tokenizer = pieces.keras_hub_tokenizer(task.preprocessor_cls.tokenizer_cls)
            return task.preprocessor_cls(tokenizer, sequence_length=sequence_length)
        return None

    plain = write_preset(model, folder, preprocessor_of)
    for path in (folder / "config.json", folder / "task.json"):
        described = json.loads(path.read_text(encoding="utf-8"))
        backbone = described["config"].get("backbone", described)
        backbone["config"] |= left_out(plain.backbone)
        path.write_text(json.dumps(described, indent=4), encoding="utf-8")
    pieces.save(folder / EXACT)


def load(folder: Path) -> keras.Model:
    """Opens a saved model in float32, without preprocessor."""
    import keras_hub

    model = keras_hub.models.CausalLM.from_preset(str(folder), preprocessor=None, dtype="float32")
    load_arithmetic(model, folder)
    return model
