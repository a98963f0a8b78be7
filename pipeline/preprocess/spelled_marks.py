"""Documents that spell out a special token of the vocabulary, which is read as plain text there."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable

from lmworks.models.bytepair import BytePair
from lmworks.models.tokenizer import CausalPieces


class SpelledMarks:
    """Counts documents that spell out special tokens.

    Mostly a file that somebody else joined, with `<|endoftext|>` between its documents, was not cut there; and elsewhere
    (`transformers`) the same text gives other tokens.

    Args:
        pieces: the tokenizer.
        template: marks that a chat template writes itself.

    Attributes:
        counts: documents by special token.
    """

    def __init__(self, pieces: CausalPieces, template: Collection[str] = ()) -> None:
        special = {*pieces.ends.names, *(pieces.special if isinstance(pieces, BytePair) else ())} - {*template}
        self._special = re.compile("|".join(map(re.escape, sorted(special, key=len, reverse=True))))
        self.counts: dict[str, int] = {}

    def add(self, texts: Iterable[str]) -> None:
        """Counts documents."""
        for text in texts:
            for token in {*self._special.findall(text)}:
                self.counts[token] = self.counts.get(token, 0) + 1

    def notices(self) -> list[str]:
        """What a person must know of them, if anything."""
        return [
            f"{count:,} {'document spells' if count == 1 else 'documents spell'} out {token}, which is plain text there "
            "(ingest.separator cuts a text file at such a line)"
            for token, count in sorted(self.counts.items())
        ]
