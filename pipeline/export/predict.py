"""Answers of a servable, one JSON line per text."""

from __future__ import annotations

import importlib
import itertools
import json
import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from lmworks.configs.errors import UserError

_BATCH = 64


def open_signature(saved_model: Path) -> Any:
    """`serving_default` of a SavedModel that takes strings."""
    import tensorflow as tf

    importlib.import_module("tensorflow_text")  # registers the graph's ops
    return tf.saved_model.load(str(saved_model)).signatures["serving_default"]


def answer(servable: Path, texts: Sequence[str], texts_b: Sequence[str]) -> Iterator[str]:
    """Yields one JSON object per text, in order.

    Args:
        servable: a Servable or a SavedModel.
        texts: to classify; lines of stdin when empty (a pair there is two columns with a tab between).
        texts_b: the second texts of pairs.

    Raises:
        UserError: no servable, or texts that do not fit it.
    """
    folder = servable / "saved_model" if (servable / "saved_model").is_dir() else servable
    if not (folder / "saved_model.pb").exists():
        raise UserError(f"{servable}: holds no SavedModel; a run's servable is at <root>/<run>/export/servable")
    if texts_b and len(texts_b) != len(texts):
        raise UserError(f"--text_b is given {len(texts_b)} times and --text {len(texts)} times; they go in pairs")
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    import tensorflow as tf

    served = open_signature(folder)
    pair = "text_b" in served.structured_input_signature[1]
    if texts and pair != bool(texts_b):
        raise UserError(
            f"{servable}: {'takes pairs: give --text_b too' if pair else 'takes one text: --text_b is too much'}"
        )
    rows = (
        _lines(sys.stdin, pair)
        if not texts
        else zip(texts, texts_b, strict=True)
        if pair
        else ((one,) for one in texts)
    )
    # A person at a terminal wants each answer at once.
    size = 1 if not texts and sys.stdin.isatty() else _BATCH
    while batch := list(itertools.islice(rows, size)):
        columns = dict(zip(("text", "text_b"), map(list, zip(*batch, strict=True)), strict=False))
        found = served(**{name: tf.constant(column) for name, column in columns.items()})
        probabilities, labels = found["probabilities"].numpy(), found["label"].numpy()
        for row, scores, label in zip(batch, probabilities, labels, strict=True):
            told = dict(zip(("text", "text_b"), row, strict=False))
            yield json.dumps(
                {**told, "label": label.decode(), "probabilities": [round(float(score), 6) for score in scores]},
                ensure_ascii=False,
            )


def _lines(source: Iterable[str], pair: bool) -> Iterator[tuple[str, ...]]:
    for number, line in enumerate(source, 1):
        text = line.rstrip("\n")
        parts = tuple(text.split("\t")) if pair else (text,)
        if pair and len(parts) != 2:
            raise UserError(f"stdin:{number}: a pair is two texts with one tab between")
        yield parts
