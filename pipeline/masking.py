"""Sequences of a masked language model with their targets, drawn on the fly: by seed, epoch and sequence."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from lmworks.models.losses import log_probabilities
from lmworks.models.masked_lm import draw_mask, logits_at
from lmworks.models.wordpiece import WordPiece
from lmworks.pipeline.packing import DocumentTable, Packing
from lmworks.tfx.progress import report

_FIXED = 2**31
"""Stands for the epoch where masks are to be the same every time."""


class MaskedRows:
    """Cuts sequences `[CLS] … [SEP]` out of packed documents, which a [SEP] divides, and hides targets in them.

    Args:
        pieces: the tokenizer.
        length: of a sequence, special tokens counted.
        ratio: share of targets.
        whole_word: draw whole words.
    """

    def __init__(self, pieces: WordPiece, length: int, ratio: float, whole_word: bool) -> None:
        self.pieces, self.length, self._ratio = pieces, length, ratio
        self.most = max(1, round(ratio * (length - 2)))
        self._starts = np.array([not token.startswith("##") for token in pieces.vocabulary]) if whole_word else None

    def input_specs(self, rows: int) -> dict[str, tf.TensorSpec]:
        """Names, shapes and dtypes of `batch`."""
        sequence, targets = [rows, self.length], [rows, self.most]
        shapes = {
            "token_ids": (sequence, tf.int32),
            "segment_ids": (sequence, tf.int32),
            "padding_mask": (sequence, tf.bool),
            "positions": (targets, tf.int32),
            "targets": (targets, tf.int32),
            "weights": (targets, tf.float32),
        }
        return {name: tf.TensorSpec(shape, dtype, name) for name, (shape, dtype) in shapes.items()}

    def batch(self, table: DocumentTable, packing: Packing, rows: np.ndarray, seed: list[int]) -> dict[str, np.ndarray]:
        """Inputs of these sequences of a packing whose length is two less; -1 gives an empty one without targets."""
        shape, small = (len(rows), self.length), (len(rows), self.most)
        token_ids = np.full(shape, self.pieces.pad_id, np.int32)
        mask = np.zeros(shape, bool)
        positions, targets, weights = np.zeros(small, np.int32), np.zeros(small, np.int32), np.zeros(small, np.float32)
        for place, row in enumerate(rows):
            if row < 0:
                mask[place, 0] = True  # attention over nothing at all is not defined
                continue
            content = packing.read(table, *packing.span(int(row)))
            line = np.concatenate([[self.pieces.cls_id], content, [self.pieces.sep_id]]).astype(np.int32)
            mask[place, : len(line)] = True
            candidates = np.flatnonzero(np.isin(line, self.pieces.ordinary_ids))
            if len(candidates):
                random = np.random.Generator(np.random.PCG64([*seed, int(row)]))
                drawn = draw_mask(line, candidates, self._ratio, self.pieces, random, self._starts)
                line, count = drawn.token_ids, len(drawn.positions)
                positions[place, :count], targets[place, :count] = drawn.positions, drawn.targets
                weights[place, :count] = 1.0
            token_ids[place, : len(line)] = line
        segments = np.zeros(shape, np.int32)
        names = ("token_ids", "segment_ids", "padding_mask", "positions", "targets", "weights")
        return dict(zip(names, (token_ids, segments, mask, positions, targets, weights), strict=True))

    def whole_split(self, table: DocumentTable, tokens: int | None, rows: int) -> list[dict[str, np.ndarray]]:
        """A split in its own order, up to so many tokens, with masks that are always the same."""
        packing = Packing(table.lengths, self.length - 2, 0, None, (self.pieces.sep_id,))
        count = packing.sequences if tokens is None else min(packing.sequences, -(-tokens // self.length))
        numbers = np.concatenate([np.arange(count), np.full(-count % rows, -1)])
        return [
            self.batch(table, packing, numbers[start : start + rows], [0, _FIXED])
            for start in range(0, len(numbers), rows)
        ]

    def compiled(self, model: keras.Model, rows: int) -> Callable[..., Any]:
        """A function from inputs to the targets' log-probabilities in nats, and where the likeliest token is the target."""

        @tf.function(input_signature=[self.input_specs(rows)])
        def compute(inputs: dict[str, tf.Tensor]) -> tuple[Any, Any]:
            logits = logits_at(model, inputs, inputs["positions"])
            chosen = tf.gather(logits, inputs["targets"], batch_dims=2)
            return log_probabilities(logits, inputs["targets"]), chosen >= tf.reduce_max(logits, axis=-1)

        return compute

    def predictions(
        self, compute: Callable[..., Any], batches: list[dict[str, np.ndarray]]
    ) -> Iterator[tuple[dict[str, np.ndarray], np.ndarray, np.ndarray]]:
        """For each batch: its inputs, and what a `compiled` function says of them."""
        for number, inputs in enumerate(batches):
            found, hits = compute({name: tf.constant(value) for name, value in inputs.items()})
            yield inputs, found.numpy(), hits.numpy()
            report(number + 1, len(batches), "batches")
