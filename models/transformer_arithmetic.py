"""Activation and norm epsilon that KerasHub takes for granted: set in a model, read off it, kept beside its preset.

KerasHub's BERT and GPT-2 have an activation and epsilons that are no arguments (BERT: the tanh approximation of GELU), and its
Gemma and Qwen 3 do not hand their epsilon on to every norm. A preset of ours says both in a file of its own, which plain
KerasHub does not read: there the folder opens with KerasHub's own functions.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from lmworks.configs.errors import UserError
from lmworks.models.config_fields import is_positive

if TYPE_CHECKING:
    import keras

FILE = "transformer_arithmetic.json"
ERF_GELU = "gelu"
"""x · Φ(x), as BERT's checkpoints have it (Hendrycks and Gimpel 2016, arXiv:1606.08415)."""
TANH_GELU = "gelu_new"
"""The approximation by tanh from section 2 of that paper, as GPT-2 has it."""
_NAMES = {
    ERF_GELU: ERF_GELU,
    TANH_GELU: TANH_GELU,
    "gelu_pytorch_tanh": TANH_GELU,
    "relu": "relu",
    "silu": "silu",
    "swish": "silu",
}
_REGISTERED_TANH_GELU = "keras_hub>gelu_approximate"


class Arithmetic(NamedTuple):
    """What a model computes beyond its weights."""

    activation: str | None
    """Of the Transformer layers, a name of `canonical`; none in families that have one only."""
    layer_norm_epsilon: float
    """Of the backbone's norms."""
    head_activation: str | None = None
    """Of a masked language model's head; none where the model has no such head."""
    head_layer_norm_epsilon: float | None = None


def canonical(name: str) -> str | None:
    """Resolves an activation's name of Hugging Face's to the one used here; none where it is not known."""
    return _NAMES.get(name)


def known_activations() -> str:
    """Lists the names that `canonical` knows."""
    return ", ".join(_NAMES)


def function_of(activation: str) -> Callable[[Any], Any]:
    """Returns Keras's function of an activation.

    Args:
        activation: a name of `canonical`; the same name gives the same object.
    """
    import keras
    import keras_hub  # noqa: F401  registers its function

    if activation == TANH_GELU:
        return keras.saving.get_registered_object(_REGISTERED_TANH_GELU)
    return keras.activations.get(activation)


def read_arithmetic(model: keras.Model) -> Arithmetic | None:
    """Reads off what a model computes.

    Args:
        model: a task's model or a backbone.

    Returns:
        None for models whose presets say all of it, and those whose norms have KerasHub's own mixture of epsilons.

    Raises:
        UserError: the layers of the model differ.
    """
    layers, norms = _parts(model)
    if not layers:
        own = {float(norm.epsilon) for norm in norms}
        return Arithmetic(None, own.pop()) if len(own) == 1 else None
    activations = {_name_of(layer._feedforward_intermediate_dense.activation) for layer in layers}
    epsilons = {float(norm.epsilon) for norm in norms}
    if len(activations) > 1 or len(epsilons) > 1:
        raise UserError(
            f"the layers of the model differ: activations {', '.join(sorted(activations))}, "
            f"layer-norm epsilons {', '.join(map(str, sorted(epsilons)))}"
        )
    head = getattr(model, "masked_lm_head", None)
    if head is None:
        return Arithmetic(activations.pop(), epsilons.pop())
    return Arithmetic(
        activations.pop(),
        epsilons.pop(),
        _name_of(head._intermediate_dense.activation),
        float(head._intermediate_layer_norm.epsilon),
    )


def set_arithmetic(model: keras.Model, arithmetic: Arithmetic) -> None:
    """Makes a model compute so, in training, evaluation and every export.

    Args:
        model: a task's model or a backbone; what is said of a head that it does not have is left out.
        arithmetic: what it is to compute.
    """
    layers, norms = _parts(model)
    for layer in layers:
        assert arithmetic.activation is not None
        layer.activation = function_of(arithmetic.activation)  # which `fused_transformer` takes
        layer._feedforward_intermediate_dense.activation = layer.activation
        layer.layer_norm_epsilon = arithmetic.layer_norm_epsilon
    for norm in norms:
        norm.epsilon = arithmetic.layer_norm_epsilon
    head = getattr(model, "masked_lm_head", None)
    if head is not None and arithmetic.head_activation is not None:
        head.intermediate_activation = function_of(arithmetic.head_activation)
        head._intermediate_dense.activation = head.intermediate_activation
    if head is not None and arithmetic.head_layer_norm_epsilon is not None:
        head._intermediate_layer_norm.epsilon = arithmetic.head_layer_norm_epsilon


def set_activation(model: keras.Model, activation: str) -> None:
    """Makes a model's layers and its masked head, where it has that, compute one activation."""
    arithmetic = read_arithmetic(model)
    assert arithmetic is not None
    set_arithmetic(model, arithmetic._replace(activation=activation, head_activation=activation))


def set_head_as_layers(model: keras.Model) -> None:
    """Makes a masked head compute the activation and epsilon of the layers, where `read_arithmetic` reads them."""
    arithmetic = read_arithmetic(model)
    if arithmetic is not None:
        activation, epsilon = arithmetic.activation, arithmetic.layer_norm_epsilon
        set_arithmetic(model, Arithmetic(activation, epsilon, activation, epsilon))


def hand_epsilon_on(model: keras.Model) -> None:
    """Gives every norm of a backbone the epsilon that the backbone was given, where KerasHub's class forgets some."""
    if type(model.backbone).__name__ in _FORGETFUL:
        set_arithmetic(model, Arithmetic(None, model.backbone.layer_norm_epsilon))


def copy_arithmetic(source: keras.Model, target: keras.Model) -> None:
    """Makes a model that KerasHub built anew from another's config compute what that computes."""
    arithmetic = read_arithmetic(source)
    if arithmetic is not None:
        set_arithmetic(target, arithmetic)


def save_arithmetic(model: keras.Model, folder: Path) -> None:
    """Writes what a model computes beside its preset, where KerasHub's files leave that out."""
    arithmetic = read_arithmetic(model)
    if arithmetic is not None:
        (folder / FILE).write_text(json.dumps(arithmetic._asdict(), indent=1), encoding="utf-8")


def load_arithmetic(model: keras.Model, folder: Path) -> None:
    """Makes a model compute what its preset's folder says.

    Folders of plain KerasHub and of earlier versions say nothing, and keep KerasHub's functions.

    Raises:
        UserError: the file cannot be understood.
    """
    path = folder / FILE
    if not path.exists():
        return
    try:
        arithmetic = Arithmetic(**json.loads(path.read_text(encoding="utf-8")))
    except (ValueError, TypeError, RecursionError) as error:
        raise UserError(f"{path}: cannot be read: {error}") from error
    has_layers, has_head = bool(_parts(model)[0]), arithmetic.head_activation is not None
    for field, value in arithmetic._asdict().items():
        optional = not has_layers if field == "activation" else field.startswith("head_") and not has_head
        if value is None and optional:
            continue
        if field.endswith("activation") and value not in tuple(_NAMES.values()):
            raise UserError(f"{path}: {field}: knows no activation {value!r}; known are {known_activations()}")
        if field.endswith("epsilon") and not is_positive(value):
            raise UserError(f"{path}: {field} must be a number above 0, not {value!r}")
    set_arithmetic(model, arithmetic)


_KERAS_HUB = {
    "BertBackbone": Arithmetic(TANH_GELU, 1e-12, ERF_GELU, 1e-5),
    "DistilBertBackbone": Arithmetic(ERF_GELU, 1e-12, ERF_GELU, 1e-5),
    "GPT2Backbone": Arithmetic(TANH_GELU, 1e-5),
    # In the norms that the class forgets: those of queries and keys, and all but the last.
    "Qwen3Backbone": Arithmetic(None, 1e-5),
    "GemmaBackbone": Arithmetic(None, 1e-6),
    "Gemma3Backbone": Arithmetic(None, 1e-6),
}
"""What KerasHub computes by itself."""
_FORGETFUL = ("Qwen3Backbone", "GemmaBackbone", "Gemma3Backbone")
"""Classes that do not hand the epsilon that they are given on to every norm."""


def unlike_keras_hub(model: keras.Model) -> list[str]:
    """Lists what KerasHub alone, which does not read our file, computes otherwise with a model's preset."""
    theirs = _KERAS_HUB.get(type(getattr(model, "backbone", model)).__name__)
    ours = read_arithmetic(model) if theirs else None
    if theirs is None or ours is None:
        return []
    names = ("activation", "layer-norm epsilon", "activation of the head", "layer-norm epsilon of the head")
    return [
        f"{name} {value} (not {other})"
        for name, value, other in zip(names, ours, theirs, strict=True)
        if value not in (other, None)
    ]


def _parts(model: keras.Model) -> tuple[list[Any], list[Any]]:
    """Transformer layers and norms of the backbone; none of a class that says all of it."""
    import keras
    import keras_hub

    backbone = getattr(model, "backbone", model)
    inside = list(backbone._flatten_layers(include_self=False))
    if type(backbone).__name__ in _FORGETFUL:
        return [], [layer for layer in inside if isinstance(getattr(layer, "epsilon", None), float)]
    kinds = (keras_hub.layers.TransformerEncoder, keras_hub.layers.TransformerDecoder)
    layers = [layer for layer in inside if isinstance(layer, kinds)]
    norms = [layer for layer in inside if isinstance(layer, keras.layers.LayerNormalization)]
    return layers, norms if layers else []


def _name_of(function: Callable[[Any], Any]) -> str:
    for name in dict.fromkeys(_NAMES.values()):
        if function is function_of(name):
            return name
    raise UserError(f"the activation {getattr(function, '__name__', function)!r} has no name here")
