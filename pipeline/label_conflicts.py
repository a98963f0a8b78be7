"""The same text with different labels: which rows lose, and how much accuracy such texts cost."""

from __future__ import annotations

from typing import Literal, NamedTuple

import numpy as np

Policy = Literal["keep_first", "majority", "drop"]


class LabelCounts:
    """How often each text stands with each label.

    Args:
        ids: uint64 [rows], hashes of the texts.
        labels: int [rows], at least 0.

    Attributes:
        texts: uint64 [texts], the distinct ids, ascending.
        first: int64 [texts], the first row of each.
        text: int64 [pairs], index into `texts` of each distinct pair of a text and a label, ascending.
        label: int64 [pairs], its label, ascending within a text.
        count: int64 [pairs], its rows.
    """

    def __init__(self, ids: np.ndarray, labels: np.ndarray) -> None:
        self.texts, self.first, self._text_of_row = np.unique(ids, return_index=True, return_inverse=True)
        self._labels = np.asarray(labels, np.int64)
        classes = int(self._labels.max(initial=0)) + 1
        pairs, self.count = np.unique(self._text_of_row * classes + self._labels, return_counts=True)
        self.text, self.label = np.divmod(pairs, classes)

    def conflicting(self) -> np.ndarray:
        """Which texts have more than one label: bool [texts]."""
        return np.bincount(self.text, minlength=len(self.texts)) > 1

    def rows(self) -> np.ndarray:
        """Rows of each text: int64 [texts]."""
        return np.bincount(self.text, self.count, minlength=len(self.texts)).astype(np.int64)

    def agreeing(self) -> np.ndarray:
        """Rows of each text with its most frequent label: int64 [texts]."""
        most = np.zeros(len(self.texts), np.int64)
        np.maximum.at(most, self.text, self.count)
        return most

    def losers(self, policy: Policy) -> np.ndarray:
        """Rows that must go so that no text has more than one label: bool [rows].

        Args:
            policy: `keep_first` keeps the label of a text's first row; `majority` its most frequent one, and no row
                where several are the most frequent; `drop` keeps no row of such a text.
        """
        if policy == "drop":
            return self.conflicting()[self._text_of_row]
        if policy == "keep_first":
            winner = self._labels[self.first]
        else:
            best = self.count == self.agreeing()[self.text]
            winner = np.full(len(self.texts), -1)
            winner[self.text[best]] = self.label[best]
            winner[np.bincount(self.text[best], minlength=len(self.texts)) > 1] = -1
        return self._labels != winner[self._text_of_row]


class Conflicts(NamedTuple):
    """Conflicting labels of a split."""

    texts: int
    """Distinct texts with more than one label."""
    rows: int
    """Rows of these texts."""
    best_accuracy: float
    """Accuracy of a classifier that gives every text of the split its most frequent label: none that sees the text
    alone can have a higher one."""

    def notice(self, split: str) -> str:
        """The same for a person.

        Args:
            split: whose conflicts they are.
        """
        told = f"{self.texts:,} {'text' if self.texts == 1 else 'texts'} of {split} with different labels"
        return told if split == "train" else f"{told}: accuracy at most {self.best_accuracy:.4f} there"


def conflicts_of(ids: np.ndarray, labels: np.ndarray) -> Conflicts:
    """Counts the conflicting labels of a split; arguments as of `LabelCounts`."""
    counts = LabelCounts(ids, labels)
    among, rows = counts.conflicting(), counts.rows()
    return Conflicts(int(among.sum()), int(rows[among].sum()), float(counts.agreeing().sum() / max(len(ids), 1)))
