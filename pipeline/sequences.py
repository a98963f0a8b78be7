"""Sequences as arrays: what train and evaluate read, memory-mapped, cut into padded batches."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from lmworks.pipeline.tables import ListColumn, read_table
from lmworks.tfx.artifacts import Sequences

_STEP = 64


class Batch(NamedTuple):
    """Padded to its longest sequence."""

    inputs: dict[str, np.ndarray]
    """`token_ids`, `segment_ids`: int32 [rows, length]; `padding_mask`: bool [rows, length], True on tokens. Rows behind the
    last one of the batch hold nothing but one padding token."""
    labels: np.ndarray
    """int32 [batch]."""
    indices: np.ndarray
    """int64 [batch], positions in the split."""


class SequenceTable:
    """One split. The token ids stay on disk until a batch needs them.

    Attributes:
        lengths: int32 [rows].
        labels: int32 [rows].
        ids: the rows' ids.
        rows: int64 [rows], their positions in the examples.
    """

    def __init__(self, sequences: Sequences, split: str) -> None:
        table = read_table(sequences, split)
        self._tokens = ListColumn(table.column("token_ids"))
        self._pad_id = int(sequences.properties["pad_id"])
        self._first = table.column("first_length").to_numpy()
        self.lengths = table.column("length").to_numpy()
        self.labels = table.column("label").to_numpy()
        self.ids = table.column("id")
        self.rows = table.column("row").to_numpy()

    def __len__(self) -> int:
        return len(self.lengths)

    def batch(self, indices: np.ndarray, allowed: np.ndarray | None = None, rows: int | None = None) -> Batch:
        """Pads sequences to the longest of them, or to the next of the allowed lengths (ascending).

        Args:
            indices: of the sequences.
            allowed: lengths to pad to.
            rows: of the arrays, at least as many as there are sequences; just as many when not given.
        """
        longest = int(self.lengths[indices].max())
        if allowed is not None:
            longest = int(allowed[np.searchsorted(allowed, longest)])
        rows = len(indices) if rows is None else rows
        token_ids = np.full((rows, longest), self._pad_id, np.int32)
        for place, index in enumerate(indices):
            tokens = self._tokens.row(int(index))
            token_ids[place, : len(tokens)] = tokens
        positions = np.arange(longest)[None, :]
        lengths, first = (
            np.ones(rows, np.int32),
            np.ones(rows, np.int32),
        )  # attention over nothing at all is not defined
        lengths[: len(indices)], first[: len(indices)] = self.lengths[indices], self._first[indices]
        mask = positions < lengths[:, None]
        segments = ((positions >= first[:, None]) & mask).astype(np.int32)
        inputs = {"token_ids": token_ids, "segment_ids": segments, "padding_mask": mask}
        return Batch(inputs, self.labels[indices], np.asarray(indices))

    def by_length(self, batch_size: int, fixed_shapes: bool = False) -> Iterator[Batch]:
        """All rows, long ones first, so that a batch holds little padding and the largest shape is met at once.

        Args:
            batch_size: rows of a batch; the last one may have fewer.
            fixed_shapes: arrays have `batch_size` rows always, and a length that is a multiple of 64 or the longest one.
        """
        order = np.argsort(-self.lengths, kind="stable")
        longest = int(self.lengths.max(initial=1))
        allowed = np.append(np.arange(_STEP, longest, _STEP), longest) if fixed_shapes else None
        for start in range(0, len(order), batch_size):
            yield self.batch(order[start : start + batch_size], allowed, batch_size if fixed_shapes else None)


def shuffled_batches(
    lengths: np.ndarray, batch_size: int, seed: int, epoch: int, most_batches: int = 50
) -> list[np.ndarray]:
    """Orders an epoch: random, yet rows of like length share a batch. A pure function of its arguments.

    Rows are permuted, cut into blocks, sorted by length within a block, cut into batches, and the batches permuted again. A
    block is at most a quarter of the epoch: were it the whole, the same rows would share a batch in every epoch. Rows are
    spread evenly over the batches: in a short last batch each row would weigh more, since a step's loss is a mean over rows.

    Args:
        lengths: int [rows].
        batch_size: most rows per batch.
        seed: of the run.
        epoch: 0, 1, ….
        most_batches: per block.

    Returns:
        int64 [batch] positions, per batch; as few batches as hold all rows, their sizes differ by at most 1.
    """
    random = np.random.Generator(np.random.PCG64([seed, epoch]))
    rows, count = len(lengths), -(-len(lengths) // batch_size)
    order = random.permutation(rows)
    sizes = random.permutation(np.arange(count) < rows % max(count, 1)) + rows // max(count, 1)
    ends = np.cumsum(sizes)
    block = max(1, min(most_batches, count // 4))
    for piece in np.split(order, ends[block - 1 : -1 : block]):  # views, so that `order` itself is sorted
        piece[:] = piece[np.argsort(lengths[piece], kind="stable")]
    batches = np.split(order, ends[:-1])
    return [batches[index] for index in random.permutation(count)]


def shape_lengths(longest: np.ndarray, multiple: int = 8, at_least: int = 24) -> np.ndarray:
    """Lengths to pad batches to, where each new length costs a compilation of about a second.

    Multiples of `multiple`; one that too few batches would use is left out, and its batches are padded to the next. How long
    the run will be is of no account: one that goes on for more steps must see what it has seen.

    Args:
        longest: int [batches], the longest sequence of each batch of an epoch.
        multiple: of every length; 8 fills the vector units.
        at_least: batches that are worth a shape of their own.

    Returns:
        int64 [lengths], ascending; the last one holds every batch.
    """
    rounded, counts = np.unique(-(-longest // multiple) * multiple, return_counts=True)
    kept, waiting = [], 0
    for length, count in zip(rounded, counts, strict=True):
        waiting += int(count)
        if waiting >= at_least or length == rounded[-1]:
            kept.append(int(length))
            waiting = 0
    return np.array(kept)
