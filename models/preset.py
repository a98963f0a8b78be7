"""Opening what `model.preset` names, or saying in one line why it cannot be opened."""

from __future__ import annotations

import difflib
from collections.abc import Callable
from typing import TypeVar

from lmworks.configs.errors import UserError

T = TypeVar("T")
_LONGEST_REASON = 240


def open_preset(preset: str, load: Callable[[], T]) -> T:
    """Loads (a part of) a preset.

    Args:
        preset: a KerasHub name, a URL or a folder, as the user wrote it.
        load: calls KerasHub.

    Raises:
        UserError: it does not exist or is not what is asked for; a misspelt name is told the nearest known one.
    """
    import keras_hub

    try:
        return load()
    except (ValueError, OSError, KeyError, TypeError) as error:
        known = set(keras_hub.models.Backbone.presets)
        if "/" not in preset and preset not in known:
            nearest = difflib.get_close_matches(preset, known, n=1)
            hint = f"; did you mean {nearest[0]}?" if nearest else "; a folder needs a '/' in its path"
            raise UserError(f"model.preset: {preset}: KerasHub knows no such preset{hint}") from error
        reason = " ".join(str(error).split()) or type(error).__name__
        reason = reason if len(reason) <= _LONGEST_REASON else reason[:_LONGEST_REASON] + " …"
        raise UserError(f"model.preset: {preset}: cannot be loaded: {reason}") from error
