"""A preset's folder with the same bytes for the same model, whenever and in whatever process it is saved."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lmworks.models.preset import to_float32
from lmworks.models.transformer_arithmetic import save_arithmetic

if TYPE_CHECKING:
    import keras

_METADATA, _DATE = "metadata.json", "date_saved"
"""The time of day, which KerasHub writes and never reads."""


def write_preset(model: keras.Model, folder: Path, preprocessor_of: Callable[[Any], Any]) -> keras.Model:
    """Writes a task's model in float32 as a KerasHub preset with what it computes, without what differs between two processes.

    That is the time of day in `metadata.json`, and the numbers that Keras appends to the names of layers
    (`bert_backbone_1`), in the JSON files and in the weights' files: they count what a process has made before.

    Args:
        model: a task of KerasHub.
        folder: the preset's; is made.
        preprocessor_of: makes the preprocessor that goes with the task that it is called with, or gives None.

    Returns:
        The model that was written.
    """
    with _names_from_the_beginning():
        plain = to_float32(model)
        plain.preprocessor = preprocessor_of(plain)
        plain.save_to_preset(str(folder))
    save_arithmetic(plain, folder)
    path = folder / _METADATA
    described = json.loads(path.read_text(encoding="utf-8"))
    del described[_DATE]
    path.write_text(json.dumps(described, indent=4), encoding="utf-8")
    return plain


@contextlib.contextmanager
def _names_from_the_beginning() -> Iterator[None]:
    """Within it Keras names layers as in a process that has made none."""
    from keras.src.backend.common import global_state

    counters = "object_name_uids"
    before = global_state.get_global_attribute(counters)
    global_state.set_global_attribute(counters, None)
    try:
        yield
    finally:
        global_state.set_global_attribute(counters, before)
