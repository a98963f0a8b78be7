"""Text classification: a KerasHub `TextClassifier` from a preset or from scratch."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lmworks.configs.schema import Model
from lmworks.models.compiled import compiled
from lmworks.models.huggingface import read_classifier_head
from lmworks.models.parameters import BERT_POSITIONS
from lmworks.models.preset import dropout_of, load_head, open_preset, sizes_of, task_class
from lmworks.models.preset_folder import write_preset
from lmworks.models.preset_kinds import HUGGING_FACE
from lmworks.models.tokenizer import Tokenizer
from lmworks.models.transformer_arithmetic import (
    ERF_GELU,
    load_arithmetic,
    set_activation,
    set_arithmetic,
)
from lmworks.models.transformer_settings import read_transformer_settings, refuse_other_kinds

if TYPE_CHECKING:
    import keras

LABELS = "labels.json"
_KINDS = HUGGING_FACE["text_classification"]


def build(
    settings: Model, preset: str | None, tokenizer: Tokenizer, classes: int, dtype: str = "float32"
) -> keras.Model:
    """Builds a classifier that takes token ids (no preprocessor) and gives logits.

    Args:
        settings: the config's `model` section.
        preset: what `from_preset` is given where the model does not start from scratch: a name, URL or local folder.
        tokenizer: whose vocabulary the model reads.
        classes: number of labels.
        dtype: float32, mixed_bfloat16 or mixed_float16.

    Raises:
        UserError: the preset does not exist, it is no text classifier, or it says something that cannot be computed here.
    """
    import keras_hub

    extra = dropout_of(settings)
    if preset is None:
        backbone = keras_hub.models.BertBackbone(
            vocabulary_size=tokenizer.vocabulary_size,
            max_sequence_length=BERT_POSITIONS,
            dtype=dtype,
            **sizes_of(settings),
        )
        set_activation(backbone, ERF_GELU)
        return keras_hub.models.BertTextClassifier(backbone, num_classes=classes, dtype=dtype, **extra)
    refuse_other_kinds(preset, _KINDS, "text_classification")
    described = read_transformer_settings(preset, _KINDS)
    arguments = (described.backbone if described else {}) | extra
    backbone = open_preset(preset, lambda: keras_hub.models.Backbone.from_preset(preset, dtype=dtype, **arguments))
    task = task_class(keras_hub.models.TextClassifier, type(backbone), preset)
    head = {name: arguments[name] for name in ("dropout",) if name in arguments}
    classifier = task(backbone, num_classes=classes, dtype=dtype, **head)
    if described is None:
        load_arithmetic(classifier, Path(preset))
    else:
        set_arithmetic(classifier, described.arithmetic)
    if not load_head(classifier, Path(preset)) and task is keras_hub.models.BertTextClassifier:
        read_classifier_head(classifier, Path(preset))
    return classifier


def save(model: keras.Model, tokenizer: Tokenizer, labels: Sequence[str], sequence_length: int, folder: Path) -> None:
    """Writes a preset that `keras_hub.models.TextClassifier.from_preset` opens, the exact tokenizer, and the labels.

    KerasHub's own tokenizer goes with it at its closest settings; it may differ from the exact one on rare characters.
    """

    def preprocessor_of(task: Any) -> Any:
        return task.preprocessor_cls(tokenizer.keras_hub_tokenizer(), sequence_length=sequence_length)

    write_preset(model, folder, preprocessor_of)
    tokenizer.save(folder / "exact_tokenizer")
    (folder / LABELS).write_text(json.dumps(list(labels), ensure_ascii=False), encoding="utf-8")


def load(folder: Path) -> tuple[keras.Model, list[str]]:
    """Opens a saved classifier in float32: the model without preprocessor, and its labels in the order of the scores."""
    import keras_hub

    model = keras_hub.models.TextClassifier.from_preset(str(folder), preprocessor=None, dtype="float32")
    load_arithmetic(model, folder)
    return model, json.loads((folder / LABELS).read_text(encoding="utf-8"))


def input_specs() -> dict[str, keras.InputSpec]:
    """Shapes and dtypes of model inputs, for functions that are compiled once for all batch sizes and lengths."""
    import keras

    dtypes = {"token_ids": "int32", "segment_ids": "int32", "padding_mask": "bool"}
    return {name: keras.InputSpec(shape=[None, None], dtype=dtype) for name, dtype in dtypes.items()}


def probabilities(model: keras.Model) -> Callable[[dict[str, Any]], Any]:
    """A compiled function from model inputs (see `Tokenizer.to_model_inputs`) to probabilities, float32 [batch, classes]."""
    from keras import ops

    def compute(inputs: dict[str, Any]) -> Any:
        return ops.softmax(ops.cast(model(inputs, training=False), "float32"))

    return compiled(model, compute, input_specs())


def loss(model: keras.Model, inputs: dict[str, Any], smoothing: float) -> tuple[Any, Any]:
    """Computes the loss to minimise, and the plain cross-entropy: float32 scalars in nats, summed over rows by weight.

    Args:
        model: of `build`, called in training.
        inputs: of the model, and `labels`: int32 [batch], `weights`: float32 [batch], 0 for a row that does not count.
        smoothing: label smoothing (Szegedy et al. 2016, arXiv:1512.00567, section 7) of the first of them.
    """
    from keras import ops

    features = {name: inputs[name] for name in input_specs()}
    logits = ops.cast(model(features, training=True), "float32")
    labels = ops.one_hot(inputs["labels"], logits.shape[-1])

    def total(targets: Any) -> Any:
        return ops.sum(ops.categorical_crossentropy(targets, logits, from_logits=True) * inputs["weights"])

    plain = total(labels)
    return total(labels * (1.0 - smoothing) + smoothing / logits.shape[-1]) if smoothing else plain, plain
