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
from collections.abc import Sequence

import keras

from lmworks.configs.errors import UserError
from lmworks.tfx.surroundings import working_directory_last


def callbacks_of(names: Sequence[str], model: keras.Model) -> keras.callbacks.CallbackList:
    """Makes the callbacks.

    Args:
        names: `module:name` each, a class or function that gives a `keras.callbacks.Callback`; modules are found on Python's path
            and in the current folder.
        model: that is trained.

    Raises:
        UserError: there is no such thing, or it is no callback.
    """
    if names:
        working_directory_last()
    return keras.callbacks.CallbackList([_made(name) for name in names], model=model)


def _made(name: str) -> keras.callbacks.Callback:
    module, _, attribute = name.partition(":")
    try:
        made = getattr(importlib.import_module(module), attribute)()
    except (ImportError, AttributeError) as error:
        raise UserError(f"train.callbacks: {name}: cannot be imported: {error}") from error
    except TypeError as error:
        raise UserError(f"train.callbacks: {name}: must be callable without arguments: {error}") from error
    if not isinstance(made, keras.callbacks.Callback):
        raise UserError(
            f"train.callbacks: {name}: gives {type(made).__name__}, and a keras.callbacks.Callback is needed"
        )
    return made
