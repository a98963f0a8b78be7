"""Documents as one long stream of tokens, cut into full sequences: no token is lost or repeated."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from lmworks.pipeline.tables import ListColumn, read_table
from lmworks.tfx.artifacts import Sequences


class DocumentTable:
    """One split of tokenised documents. The token ids stay on disk until they are asked for.

    Attributes:
        lengths: int32 [documents], tokens of each.
        bytes: int64 [documents], of each one's text in UTF-8.
        all_targets: whether every token is learnt and each document's end with them, as in plain text. Of a conversation
            only what the assistant says is: the mark behind it ends generation, so nothing learns to end the document.
        ids: the documents' ids.
        rows: int64 [documents], their positions in the examples.
    """

    def __init__(self, sequences: Sequences, split: str) -> None:
        table = read_table(sequences, split)
        self._tokens = ListColumn(table.column("token_ids"))
        learnt = table.column("targets")
        self.all_targets = learnt.null_count == len(learnt)
        self._learnt = None if self.all_targets else ListColumn(learnt)
        self.lengths = table.column("length").to_numpy()
        self.bytes = table.column("bytes").to_numpy()
        self.ids = table.column("id")
        self.rows = table.column("row").to_numpy()

    def __len__(self) -> int:
        return len(self.lengths)

    def tokens(self, document: int, begin: int = 0, end: int | None = None) -> np.ndarray:
        """Token ids of a document, or those from `begin` to before `end`: int32 [tokens], a view."""
        return self._tokens.row(document, begin, end)

    def targets(self, document: int, begin: int = 0, end: int | None = None) -> np.ndarray:
        """Which of these tokens are learnt: bool [tokens]."""
        if self._learnt is None:
            return np.ones(len(self.tokens(document, begin, end)), bool)
        return self._learnt.row(document, begin, end)


@dataclass(frozen=True)
class Packing:
    """One epoch: documents in an order of its own, each followed by a border, cut into sequences.

    The stream's tokens are numbered 0, 1, … `tokens`; sequence r holds those from `length * r - offset` on, `length` of
    them. Where the cuts fall differs from epoch to epoch, by `offset`; the first and the last sequence may be short. All of
    it is a pure function of the arguments.

    Args:
        lengths: int [documents], tokens of each, without the border.
        length: tokens per sequence.
        seed: of the run.
        epoch: 0, 1, …; None keeps the documents' own order and cuts at 0.
        border: tokens between two documents. The first one ends a document; where there are more, they begin the next one:
            they stand before the first document too, and not behind the last one.
    """

    lengths: np.ndarray
    length: int
    seed: int
    epoch: int | None
    border: tuple[int, ...]

    @functools.cached_property
    def order(self) -> np.ndarray:
        """The documents' order: int64 [documents]."""
        count = len(self.lengths)
        return np.arange(count) if self.epoch is None else self._random(0).permutation(count)

    @functools.cached_property
    def starts(self) -> np.ndarray:
        """Where each document begins in the stream, in stream order, and the stream's end: int64 [documents + 1]."""
        return np.concatenate([[0], np.cumsum(self.lengths[self.order].astype(np.int64) + len(self.border))])

    @property
    def tokens(self) -> int:
        """Tokens of the stream, borders counted."""
        return int(self.starts[-1]) - (len(self.border) - 1)

    @functools.cached_property
    def offset(self) -> int:
        """Tokens that the first sequence lacks, of those that the last one would: every epoch has as many sequences."""
        return 0 if self.epoch is None else int(self._random(1).integers(-self.tokens % self.length + 1))

    @property
    def sequences(self) -> int:
        """How many sequences there are."""
        return -(-(self.tokens + self.offset) // self.length)

    @functools.cached_property
    def sequence_order(self) -> np.ndarray:
        """The order in which sequences are trained on: int64 [sequences]."""
        return np.arange(self.sequences) if self.epoch is None else self._random(2).permutation(self.sequences)

    def span(self, sequence: int) -> tuple[int, int]:
        """First token of a sequence, and the one after its last."""
        begin = sequence * self.length - self.offset
        return max(begin, 0), min(begin + self.length, self.tokens)

    def read(self, table: DocumentTable, begin: int, end: int) -> np.ndarray:
        """The stream's tokens from `begin` to before `end`: int32 [end - begin]; what stands before token 0 is a border's end."""
        return self._join(table.tokens, begin, end, np.array(self.border, np.int32))

    def read_targets(self, table: DocumentTable, begin: int, end: int) -> np.ndarray:
        """Which of these tokens are learnt: bool [end - begin].

        Of plain text a document's end is; its beginning never is, and nothing of a border between conversations.
        """
        return self._join(table.targets, begin, end, (np.arange(len(self.border)) == 0) & table.all_targets)

    def documents(self, begin: int, end: int) -> np.ndarray:
        """Numbers of the documents in which these tokens are read: int32 [end - begin].

        The last token of a border begins the next document, as the token before its first one does when it stands alone.
        """
        places = np.arange(begin, end) + 1
        return (np.searchsorted(self.starts, places, side="right") - 1).astype(np.int32)

    def _join(
        self, take: Callable[[int, int, int], np.ndarray], begin: int, end: int, border: np.ndarray
    ) -> np.ndarray:
        parts = [np.full(max(0, -begin), border[-1])]
        begin = max(begin, 0)
        place = int(np.searchsorted(self.starts, begin, side="right")) - 1
        while begin < end:
            document, start, after = int(self.order[place]), int(self.starts[place]), int(self.starts[place + 1])
            size = after - start - len(border)
            parts.append(take(document, min(begin - start, size), end - start))
            parts.append(border[max(0, begin - start - size) : max(0, end - start - size)])
            begin, place = after, place + 1
        return np.concatenate(parts)

    def _random(self, purpose: int) -> np.random.Generator:
        return np.random.Generator(np.random.PCG64([self.seed, self.epoch or 0, purpose]))
