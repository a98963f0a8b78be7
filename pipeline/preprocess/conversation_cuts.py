"""What conversations lose where they are longer than a sequence."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from lmworks.models.chat import Part


class ConversationCuts:
    """Counts conversations that no sequence can hold whole.

    Packing cuts them: what lies behind the cut is predicted without the beginning. So what stands in the first
    `sequence_length` tokens is the most of a conversation that is surely learnt as it will be asked.

    Args:
        sequence_length: in tokens.

    Attributes:
        counts: conversations: `all` of them, `longer` than a sequence, `without_target` and `without_end` (no answer's
            end-of-turn mark) in their first `sequence_length` tokens.
    """

    def __init__(self, sequence_length: int) -> None:
        self._length = sequence_length
        self.counts = dict.fromkeys(("all", "longer", "without_target", "without_end"), 0)

    def add(self, conversations: Sequence[Sequence[Part]], token_ids: Sequence[Sequence[np.ndarray]]) -> None:
        """Counts conversations by the tokens of their parts, int32 [tokens] each."""
        for parts, ids in zip(conversations, token_ids, strict=True):
            ends = np.cumsum([len(part) for part in ids])
            learnt = np.array([part.learnt for part in parts])
            begins = np.concatenate([[0], ends[:-1]])
            self.counts["all"] += 1
            self.counts["longer"] += int(ends[-1] > self._length)
            self.counts["without_target"] += not np.any(begins[learnt] < self._length)
            self.counts["without_end"] += not np.any(ends[learnt] <= self._length)

    def notices(self) -> list[str]:
        """What a person must know of them, if anything."""
        told, length = [], f"{self._length:,} tokens"
        if longer := self.counts["longer"]:
            told.append(f"{longer:,} conversations longer than {length}, which are cut")
        if targetless := self.counts["without_target"]:
            told.append(f"{targetless:,} conversations without a target in their first {length}")
        if self.counts["without_end"] == self.counts["all"]:
            told.append(
                f"in none does an answer end within the first {length}: the model hardly learns to stop, raise "
                "preprocess.sequence_length"
            )
        return told
