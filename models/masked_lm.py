"""Masked language models: a KerasHub `MaskedLM` from a preset or from scratch, and the drawing of masks."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from lmworks.configs.errors import UserError
from lmworks.configs.schema import Model
from lmworks.models.backend import backend
from lmworks.models.huggingface import read_masked_head, with_pooler
from lmworks.models.parameters import positions_from_scratch
from lmworks.models.preset import check_positions, dropout_of, load_head, open_preset, sizes_of, task_class
from lmworks.models.preset_folder import write_preset
from lmworks.models.preset_kinds import HUGGING_FACE
from lmworks.models.tokenizer import EXACT
from lmworks.models.transformer_arithmetic import (
    ERF_GELU,
    load_arithmetic,
    set_activation,
    set_arithmetic,
    set_head_as_layers,
)
from lmworks.models.transformer_settings import read_transformer_settings, refuse_other_kinds

if TYPE_CHECKING:
    import keras

    from lmworks.models.wordpiece import WordPiece

_KINDS = HUGGING_FACE["masked_lm"]


def build(
    settings: Model, preset: str | None, pieces: WordPiece, sequence_length: int, dtype: str = "float32"
) -> keras.Model:
    """Builds a model that takes token ids and mask positions (no preprocessor) and gives logits.

    Args:
        settings: the config's `model` section.
        preset: what `from_preset` is given where the model does not start from scratch: a name, URL or local folder.
        pieces: the tokenizer whose ids the model reads.
        sequence_length: tokens that it sees at once.
        dtype: float32, mixed_bfloat16 or mixed_float16.

    Raises:
        UserError: the preset does not exist, it is no masked language model, or it has fewer positions or no mask token.
    """
    import keras_hub

    if pieces.mask_id is None:
        raise UserError("the tokenizer's vocabulary lacks [MASK], which a masked language model needs")
    extra = dropout_of(settings)
    if preset is None:
        backbone = keras_hub.models.BertBackbone(
            vocabulary_size=pieces.vocabulary_size,
            max_sequence_length=positions_from_scratch("masked_lm", sequence_length),
            dtype=dtype,
            **sizes_of(settings),
        )
        model = _as_in_bert(keras_hub.models.BertMaskedLM(backbone, dtype=dtype))
        set_activation(model, ERF_GELU)
        return model
    refuse_other_kinds(preset, _KINDS, "masked_lm")
    described = read_transformer_settings(preset, _KINDS)
    arguments = (described.backbone if described else {}) | extra
    with with_pooler(preset) as whole:
        backbone = open_preset(preset, lambda: keras_hub.models.Backbone.from_preset(whole, dtype=dtype, **arguments))
    check_positions(backbone, sequence_length)
    model = task_class(keras_hub.models.MaskedLM, type(backbone), preset)(backbone, dtype=dtype)
    has_head = load_head(model, Path(preset))
    if isinstance(model, keras_hub.models.BertMaskedLM):
        has_head = has_head or read_masked_head(model, Path(preset))
    _as_in_bert(model)
    if described is not None:
        set_arithmetic(model, described.arithmetic)
    else:
        load_arithmetic(model, Path(preset))
        if not has_head:  # it is new
            set_head_as_layers(model)
    return model


def _as_in_bert(model: keras.Model) -> keras.Model:
    """Keeps the pooler, which masked language modelling does not use, as it is, and gives BERT's head BERT's own epsilon."""
    if hasattr(model.backbone, "pooled_dense"):
        model.backbone.pooled_dense.trainable = False
        # KerasHub's head says 1e-5, the reference and all other norms of the model 1e-12.
        model.masked_lm_head._intermediate_layer_norm.epsilon = model.backbone.embeddings_layer_norm.epsilon
    return model


def target_states(
    model: keras.Model, inputs: dict[str, Any], positions: Any, training: bool = False
) -> tuple[Any, Any, Any]:
    """What the softmax over the vocabulary is computed from, at these positions.

    Args:
        model: of `build`.
        inputs: of the backbone; names that it does not take are left out.
        positions: int32 [batch, targets].
        training: whether dropout is on.

    Returns:
        States [batch, targets, width], embeddings float32 [vocabulary, width], bias float32 [vocabulary].
    """
    from keras import ops

    found = model.backbone({name: inputs[name] for name in model.backbone.input}, training=training)
    sequence = found["sequence_output"] if isinstance(found, dict) else found
    head = model.masked_lm_head
    chosen = head._intermediate_layer_norm(head._intermediate_dense(_at(sequence, positions)))
    embeddings = ops.convert_to_tensor(model.backbone.token_embedding._embeddings.value)
    return chosen, embeddings, ops.convert_to_tensor(head._bias.value)


def _at(sequence: Any, positions: Any) -> Any:
    """Rows [batch, targets, width] of a sequence [batch, length, width]."""
    from keras import ops

    if backend() == "tensorflow":
        import tensorflow as tf

        return tf.gather(sequence, positions, batch_dims=1)  # whose gradient scatters rows, not single numbers
    return ops.take_along_axis(sequence, positions[..., None], axis=1)


def logits_at(model: keras.Model, inputs: dict[str, Any], positions: Any) -> Any:
    """Float32 [batch, targets, vocabulary] at these positions; arguments as in `target_states`."""
    from keras import ops

    states, embeddings, bias = target_states(model, inputs, positions)
    return ops.einsum("btw,vw->btv", ops.cast(states, "float32"), embeddings) + bias


class Masked(NamedTuple):
    """A sequence with its targets."""

    token_ids: np.ndarray
    """int32 [length], targets mostly hidden."""
    positions: np.ndarray
    """int32 [targets], ascending."""
    targets: np.ndarray
    """int32 [targets], the true tokens."""


def draw_mask(
    token_ids: np.ndarray,
    candidates: np.ndarray,
    ratio: float,
    pieces: WordPiece,
    random: np.random.Generator,
    starts_word: np.ndarray | None = None,
    most: int | None = None,
) -> Masked:
    """Draws the targets of one sequence: 80 % become [MASK], 10 % any token, 10 % stay (Devlin et al. 2018, section 3.1).

    Args:
        token_ids: int32 [length].
        candidates: int [n], positions of tokens that are not special.
        ratio: share of the candidates that become targets: rounded, at least one. Of whole words that is the expected number.
        pieces: the tokenizer.
        random: decides.
        starts_word: bool [vocabulary], for whole words: all pieces of a word are targets together, or none is.
        most: targets of whole words at most; no limit if not given.
    """
    assert pieces.mask_id is not None
    count = max(1, round(ratio * len(candidates)))
    if starts_word is None:
        positions = np.sort(random.permutation(candidates)[:count])
    else:
        words = np.split(candidates, np.flatnonzero(starts_word[token_ids[candidates]]))
        drawn = _draw_words(np.array([len(word) for word in words]), count, most or len(candidates), random)
        positions = np.sort(np.concatenate([candidates[:0], *(words[index] for index in drawn)]))
    targets = token_ids[positions]
    kind = random.random(len(positions))
    replaced = random.choice(pieces.ordinary_ids, len(positions)).astype(np.int32)
    hidden = token_ids.copy()
    hidden[positions] = np.where(kind < 0.8, np.int32(pieces.mask_id), np.where(kind < 0.9, replaced, targets))
    return Masked(hidden, positions.astype(np.int32), targets)


def _draw_words(lengths: np.ndarray, count: int, most: int, random: np.random.Generator) -> list[int]:
    """Draws words so that every token is drawn with the same probability, however long its word is.

    Selection sampling (Knuth, The Art of Computer Programming 2, section 3.4.2, algorithm S) of tokens, whole words at a time:
    each word is drawn with the share that the tokens still needed have of the tokens that are left. Long words come first,
    so that those of one token make the number exact. A word that is longer than what is still needed, or than what may be
    left out, is drawn with that share too, and does not change the share of those after it; then the number varies. Filling up
    with words that fit, as BERT's create_pretraining_data.py does, draws long words too rarely.

    Args:
        lengths: int [words], tokens of each.
        count: tokens to draw, in the mean.
        most: tokens to draw at most; what would be more is not drawn, so a longer word never is.
        random: decides.

    Returns:
        Indices of the words.
    """
    order = random.permutation(len(lengths))
    order = order[np.argsort(-lengths[order], kind="stable")]
    chances = random.random(len(order))
    needed, left, drawn = float(count), int(lengths.sum()), 0
    words = []
    for word, length, chance in zip(order.tolist(), lengths[order].tolist(), chances.tolist(), strict=True):
        if not length:
            break
        share = needed / left
        take = chance < share and drawn + length <= most
        if take:
            words.append(word)
            drawn += length
        if length <= min(needed, left - needed):
            needed -= length * take
        else:
            needed -= length * share
        left -= length
    return words


def save(model: keras.Model, pieces: WordPiece, sequence_length: int, folder: Path) -> None:
    """Writes a preset that `keras_hub.models.MaskedLM.from_preset` opens, and the exact tokenizer."""

    def preprocessor_of(task: Any) -> Any:
        return task.preprocessor_cls(pieces.keras_hub_tokenizer(), sequence_length=sequence_length)

    write_preset(model, folder, preprocessor_of)
    pieces.save(folder / EXACT)


def load(folder: Path) -> keras.Model:
    """Opens a saved model in float32, without preprocessor."""
    import keras_hub

    model = _as_in_bert(keras_hub.models.MaskedLM.from_preset(str(folder), preprocessor=None, dtype="float32"))
    load_arithmetic(model, folder)
    return model
