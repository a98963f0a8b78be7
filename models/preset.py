"""Opening what `model.preset` names, or saying in one line why it cannot be opened; the sizes of a model without one."""

from __future__ import annotations

import contextlib
import os
import ssl
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from lmworks.configs.errors import UserError
from lmworks.configs.schema import Model
from lmworks.models.json_files import read_object, understanding
from lmworks.models.preset_kinds import keras_hub_presets, unknown_name
from lmworks.models.transformer_arithmetic import copy_arithmetic

if TYPE_CHECKING:
    import keras

T = TypeVar("T")
_LONGEST_REASON = 240
_HUGGING_FACE = "hf://"
_KAGGLE = "kaggle://"
_KAGGLE_HOST = "https://api.kaggle.com"
_PATIENCE_SECONDS = 5.0
_OFFLINE = "check the network, or give a local folder"
_NOT_LOADED = (
    ValueError, OSError, LookupError, TypeError, AttributeError, ArithmeticError, AssertionError, NotImplementedError,
)  # fmt: skip
"""What KerasHub raises on a preset that it does not understand; what is left says that the memory does not suffice."""


def open_preset(preset: str, load: Callable[[], T]) -> T:
    """Loads (a part of) a preset.

    Args:
        preset: a KerasHub name, a URL or a folder, as the user wrote it.
        load: calls KerasHub.

    Raises:
        UserError: it does not exist or is not what is asked for; a misspelt name is told the nearest known one.
    """
    try:
        if preset.startswith(_HUGGING_FACE):
            _reach_hugging_face(preset)
        return load()
    except _NOT_LOADED as error:
        if "/" not in preset and (unknown := unknown_name(preset)):
            raise UserError(f"model.preset: {preset}: {unknown}") from error
        if _is_unreached(error):
            raise UserError(f"model.preset: {preset}: cannot be downloaded: no connection; {_OFFLINE}") from error
        reason = " ".join(str(error).split()) or type(error).__name__
        reason = reason if len(reason) <= _LONGEST_REASON else reason[:_LONGEST_REASON] + " …"
        raise UserError(f"model.preset: {preset}: cannot be loaded: {reason}") from error


def _reach_hugging_face(preset: str) -> None:
    """Asks once whether the hub answers: its client tries for 23 seconds, and KerasHub then speaks of a missing file.

    Raises:
        UserError: it does not answer, and the preset is not in its client's cache.
    """
    from huggingface_hub import constants, try_to_load_from_cache

    if constants.is_offline_mode():  # the client answers at once
        return
    name, _, revision = preset.removeprefix(_HUGGING_FACE).partition("@")
    if not isinstance(try_to_load_from_cache(name, "config.json", revision=revision or None), str):
        _reach(constants.ENDPOINT, preset)


def check_reachable(preset: str) -> None:
    """Asks whether Kaggle, from which KerasHub has its presets, answers, unless the preset is in the client's cache.

    Args:
        preset: A KerasHub name or a URL.

    Raises:
        UserError: It does not answer, or the URL is none of a preset.
    """
    known = keras_hub_presets().get(preset)
    url = known.url if known else preset
    if (
        not url.startswith(_KAGGLE) or "KAGGLE_KERNEL_RUN_TYPE" in os.environ
    ):  # Kaggle's notebooks have them without a network
        return
    from kagglehub.cache import Cache
    from kagglehub.handle import parse_model_handle

    try:
        handle = parse_model_handle(url.removeprefix(_KAGGLE))
    except ValueError as error:
        raise UserError(f"model.preset: {preset}: cannot be loaded: {error}") from error
    if not handle.is_versioned() or Cache().load_from_cache(handle, "config.json") is None:
        _reach(_KAGGLE_HOST, preset)


def _reach(host: str, preset: str) -> None:
    try:
        urllib.request.urlopen(urllib.request.Request(host, method="HEAD"), timeout=_PATIENCE_SECONDS).close()
    except urllib.error.HTTPError:
        return  # it answers
    except OSError as error:
        reason = getattr(error, "reason", error)
        if not isinstance(reason, ssl.SSLError):  # certificates are the client's own matter
            raise UserError(f"model.preset: {preset}: {host} cannot be reached ({reason}); {_OFFLINE}") from error


def _is_unreached(error: Exception) -> bool:
    import requests

    return isinstance(error, requests.ConnectionError | requests.Timeout)


def task_class(base: type, backbone: type, preset: str) -> Any:
    """KerasHub's class of a task on a backbone.

    Args:
        base: the task's base class, such as `keras_hub.models.CausalLM`.
        backbone: the class of the preset's backbone.
        preset: as the user wrote it.

    Raises:
        UserError: there is none.
    """
    import keras_hub

    members = (getattr(keras_hub.models, name) for name in dir(keras_hub.models))
    for kind in members:
        if isinstance(kind, type) and issubclass(kind, base) and getattr(kind, "backbone_cls", None) is backbone:
            return kind
    raise UserError(f"model.preset: {preset}: KerasHub has no {base.__name__} on a {backbone.__name__}")


def load_head(task: keras.Model, folder: Path) -> bool:
    """Gives a task's model the head that a KerasHub folder of the same task holds beside its backbone.

    Args:
        task: A model on the folder's backbone, with a head of random weights.
        folder: A preset; any other kind of preset has no such head.

    Returns:
        Whether the folder has a head of this task with as many classes.
    """
    described, weights = folder / "task.json", folder / "task.weights.h5"
    if not described.is_file() or not weights.is_file():
        return False
    saved = read_object(described, "model.preset")
    with understanding(described):
        classes = saved.get("config", {}).get("num_classes")
    if saved.get("class_name") != type(task).__name__ or classes != getattr(task, "num_classes", None):
        return False
    with understanding(weights):
        task.load_task_weights(str(weights))
    return True


def dropout_of(settings: Model) -> dict[str, float]:
    """A config's dropout as an argument of KerasHub's classes; none where the config leaves it to them."""
    return {} if settings.dropout is None else {"dropout": settings.dropout}


def sizes_of(settings: Model) -> dict[str, Any]:
    """Sizes and dropout of a model from scratch, as arguments of KerasHub's backbones."""
    return {
        "num_layers": settings.layers,
        "num_heads": settings.heads,
        "hidden_dim": settings.hidden_dim,
        "intermediate_dim": settings.intermediate_dim,
        **dropout_of(settings),
    }


def check_positions(backbone: keras.Model, sequence_length: int) -> None:
    """Refuses sequences that are longer than the model has positions.

    Raises:
        UserError: naming both lengths.
    """
    longest = getattr(backbone, "max_sequence_length", None) or getattr(backbone, "max_position_embeddings", None)
    if longest and sequence_length > longest:
        raise UserError(f"preprocess.sequence_length: {sequence_length} is above the model's {longest} positions")


def left_out(backbone: keras.Model) -> dict[str, Any]:
    """What belongs to a backbone's config and KerasHub's `get_config` forgets: whether a Llama's embeddings are tied."""
    name = "tie_word_embeddings"
    return {name: getattr(backbone, name)} if hasattr(backbone, name) else {}


@contextlib.contextmanager
def policy(dtype: str) -> Iterator[None]:
    """Within it, layers that are given no dtype have this one; not every backbone of KerasHub's hands its own on."""
    import keras

    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(dtype)
    try:
        yield
    finally:
        keras.config.set_dtype_policy(before)


def to_float32(model: keras.Model) -> keras.Model:
    """The same task's model with the same weights and functions, in float32 whatever it was trained in; no preprocessor."""
    import keras

    config = model.get_config()
    config.pop("preprocessor", None)
    config.pop("name", None)
    config["dtype"] = "float32"
    backbone = {**model.backbone.get_config(), **left_out(model.backbone), "dtype": "float32"}
    backbone.pop("name", None)
    config["backbone"] = type(model.backbone).from_config(backbone)
    with keras.name_scope(""):
        copy = type(model)(**config, preprocessor=None)
    copy.set_weights(model.get_weights())
    copy_arithmetic(model, copy)
    return copy
