"""Sequences of a masked language model with their targets, drawn on the fly: by seed, epoch and sequence."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import keras
import numpy as np

from lmworks.models.causal_lm import scores
from lmworks.models.compiled import compiled
from lmworks.models.masked_lm import draw_mask, logits_at
from lmworks.models.wordpiece import WordPiece
from lmworks.pipeline.packing import DocumentTable, Packing
from lmworks.tfx.progress import report

_FIXED = 2**31
"""Stands for the epoch where masks are to be the same every time."""
_WORD_ROOM = 16
"""Targets for which a sequence has room beyond the expected number, so that a long word is drawn as often as a short one."""
_ROWS = 32
_LOGITS = 1 << 25
"""Sequences that are predicted at once, unless they have more logits than this: float32, so 128 MiB."""


class MaskedRows:
    """Cuts sequences `[CLS] … [SEP]` out of packed documents, which a [SEP] divides, and hides targets in them.

    Args:
        pieces: the tokenizer.
        length: of a sequence, special tokens counted.
        ratio: share of targets.
        whole_word: draw whole words.

    Attributes:
        most: targets of a sequence at most.
    """

    def __init__(self, pieces: WordPiece, length: int, ratio: float, whole_word: bool = False) -> None:
        self.pieces, self.length, self._ratio = pieces, length, ratio
        self.most = max(1, round(ratio * (length - 2)))
        self._starts: np.ndarray | None = None
        if whole_word:
            self.most = min(self.most + _WORD_ROOM, length - 2)
            self._starts = np.array([not token.startswith("##") for token in pieces.vocabulary])

    def input_specs(self, rows: int) -> dict[str, keras.InputSpec]:
        """Shapes and dtypes of `batch`."""
        sequence, targets = [rows, self.length], [rows, self.most]
        shapes = {
            "token_ids": (sequence, "int32"),
            "segment_ids": (sequence, "int32"),
            "padding_mask": (sequence, "bool"),
            "positions": (targets, "int32"),
            "targets": (targets, "int32"),
            "weights": (targets, "float32"),
        }
        return {name: keras.InputSpec(shape=shape, dtype=dtype) for name, (shape, dtype) in shapes.items()}

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
                drawn = draw_mask(line, candidates, self._ratio, self.pieces, random, self._starts, self.most)
                line, count = drawn.token_ids, len(drawn.positions)
                positions[place, :count], targets[place, :count] = drawn.positions, drawn.targets
                weights[place, :count] = 1.0
            token_ids[place, : len(line)] = line
        segments = np.zeros(shape, np.int32)
        names = ("token_ids", "segment_ids", "padding_mask", "positions", "targets", "weights")
        return dict(zip(names, (token_ids, segments, mask, positions, targets, weights), strict=True))

    @property
    def rows(self) -> int:
        """Sequences of a batch of `whole_split`."""
        return max(1, min(_ROWS, _LOGITS // (self.most * self.pieces.vocabulary_size)))

    def whole_split(self, table: DocumentTable, tokens: int | None = None) -> WholeSplit:
        """A split in its own order, or sequences of about so many tokens drawn from all of it, with masks that never change."""
        return WholeSplit(self, table, tokens)

    def compiled(self, model: keras.Model) -> Callable[..., Any]:
        """A function from inputs to the targets' log-probabilities in nats, and where the likeliest token is the target."""

        def compute(inputs: dict[str, Any]) -> tuple[Any, Any]:
            return scores(logits_at(model, inputs, inputs["positions"]), inputs["targets"])

        return compiled(model, compute, self.input_specs(self.rows))


class MaskedBatch(NamedTuple):
    """Some sequences of a split, and whose their targets are."""

    inputs: dict[str, np.ndarray]
    """As `MaskedRows.input_specs` says."""
    real: np.ndarray
    """bool [rows, targets], where there is a target; what follows is of these."""
    sequences: np.ndarray
    """int64 [real targets], the sequence that each stands in."""
    documents: np.ndarray
    """int64 [real targets], the document that each comes from."""


class MaskedPrediction(NamedTuple):
    """What a model says of the targets of some sequences; all are [targets]."""

    sequences: np.ndarray
    documents: np.ndarray
    log_probabilities: np.ndarray
    """float32, nats."""
    hits: np.ndarray
    """bool, where the likeliest token is the true one."""


class WholeSplit:
    """The batches of a split, made when they are asked for and the same every time; see `MaskedRows.whole_split`."""

    def __init__(self, masking: MaskedRows, table: DocumentTable, tokens: int | None) -> None:
        self._masking, self._table = masking, table
        self._packing = Packing(table.lengths, masking.length - 2, 0, None, (masking.pieces.sep_id,))
        self._numbers = np.arange(self._packing.sequences)
        if tokens is not None:
            most = -(-tokens // masking.length)
            self._numbers = np.sort(np.random.default_rng(0).permutation(self._numbers)[:most])

    def __len__(self) -> int:
        return -(-len(self._numbers) // self._masking.rows)

    def __iter__(self) -> Iterator[MaskedBatch]:
        packing, rows = self._packing, self._masking.rows
        for start in range(0, len(self._numbers), rows):
            chosen = self._numbers[start : start + rows]
            numbers = np.append(chosen, np.full(rows - len(chosen), -1))
            inputs = self._masking.batch(self._table, packing, numbers, [0, _FIXED])
            real = inputs["weights"] > 0
            sequences = np.broadcast_to(numbers[:, None], real.shape)[real]
            # Where a target stands in the stream says whose it is.
            places = sequences * packing.length + inputs["positions"][real] - 1
            documents = np.searchsorted(packing.starts, places, side="right") - 1
            yield MaskedBatch(inputs, real, sequences, documents)


def predictions(compute: Callable[..., Any], split: WholeSplit) -> Iterator[MaskedPrediction]:
    """What a function of `MaskedRows.compiled` says of a split, batch by batch."""
    for number, batch in enumerate(split):
        found, hits = compute(batch.inputs)
        yield MaskedPrediction(batch.sequences, batch.documents, found[batch.real], hits[batch.real])
        report(number + 1, len(split), "batches")
