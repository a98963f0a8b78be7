"""Keras callbacks that a user adds: `train.callbacks: [my_module:MyCallback]`.

They are told what `fit` tells them: `on_train_begin`, `on_train_batch_end` after every optimizer step, `on_test_end` with the
metrics of an evaluation, `on_epoch_end` with the same where that is at an epoch's end, `on_train_end`; and may set
`self.model.stop_training`. On several hosts each has its own, and they must decide alike.

The batch's number is the optimizer step of the run, so that a run that goes on from a checkpoint counts on. Losses are read from
the device now and then only: `logs` of a batch holds `loss` where TensorBoard gets one, and is empty between. At an evaluation the
model has the weights of that step. What a callback keeps for itself is not in checkpoints.
"""

from __future__ import annotations

import importlib
import inspect
import typing
from collections.abc import Callable, Sequence
from typing import Any

import keras

from lmworks.configs.errors import UserError
from lmworks.pipeline.callback_source import nearest
from lmworks.tfx.surroundings import working_directory_last


def callbacks_of(names: Sequence[str], model: keras.Model) -> keras.callbacks.CallbackList:
    """Makes the callbacks.

    Args:
        names: `module:name` each, see `makers_of`.
        model: that is trained.

    Raises:
        UserError: there is no such thing, or it is no callback.
    """
    made = [_made(name, maker) for name, maker in zip(names, makers_of(names), strict=True)]
    return keras.callbacks.CallbackList(made, model=model)


def makers_of(names: Sequence[str]) -> list[Callable[[], Any]]:
    """Imports what makes the callbacks; none of it is called.

    A recipe may be somebody else's, and `os:abort` can be named like a callback: only what is known to give one is called.

    Args:
        names: `module:name` each: a subclass of `keras.callbacks.Callback`, or a function that is annotated to return one.
            Modules are found on Python's path and in the current folder.

    Raises:
        UserError: there is no such thing, or it is neither.
    """
    if names:
        working_directory_last()
    return [_maker(name) for name in names]


def _maker(name: str) -> Callable[[], Any]:
    path, _, attribute = name.partition(":")
    module = None
    try:
        module = importlib.import_module(path)
        maker = getattr(module, attribute)
    except Exception as error:  # the module is the user's own code
        hint = nearest(name, dir(module)) if module else ""
        raise UserError(
            f"train.callbacks: {name}: cannot be imported: {error or type(error).__name__}{hint}"
        ) from error
    if not _is_callback(maker if inspect.isclass(maker) else _returned(maker)):
        kind = f"a {type(maker).__name__}" if not inspect.isclass(maker) else "no callback class"
        raise UserError(
            f"train.callbacks: {name}: is {kind}; a subclass of keras.callbacks.Callback is needed, or a function that is "
            "annotated to return one (def make() -> keras.callbacks.Callback)"
        )
    try:
        inspect.signature(maker).bind()
    except TypeError as error:
        raise UserError(f"train.callbacks: {name}: must be callable without arguments: {error}") from error
    return maker


def _returned(maker: Any) -> Any:
    """What a Python function is annotated to return; None of anything else, and where the annotation names nothing."""
    if not inspect.isfunction(maker) or inspect.iscoroutinefunction(maker):
        return None
    try:
        return typing.get_type_hints(maker).get("return")
    except Exception:  # a hint may be any expression
        return None


def _is_callback(kind: Any) -> bool:
    return inspect.isclass(kind) and issubclass(kind, keras.callbacks.Callback)


def _made(name: str, maker: Callable[[], Any]) -> keras.callbacks.Callback:
    made = maker()
    if not isinstance(made, keras.callbacks.Callback):
        raise UserError(
            f"train.callbacks: {name}: gives {type(made).__name__}, and a keras.callbacks.Callback is needed"
        )
    return made
