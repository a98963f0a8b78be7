"""Token ids of whole documents, for language models; the trainer packs them into sequences."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import pyarrow as pa

from lmworks.configs.errors import UserError
from lmworks.configs.schema import PreprocessStage
from lmworks.models.bytepair import BytePair, train_bytepair
from lmworks.models.chat import BEGIN, END, Part, parts_of, render
from lmworks.models.chat_marks import Marks
from lmworks.models.tokenizer import CausalPieces, open_causal_pieces, open_wordpiece
from lmworks.pipeline.preprocess.conversation_cuts import ConversationCuts
from lmworks.pipeline.preprocess.sequences import TOKENIZER
from lmworks.pipeline.preprocess.spelled_marks import SpelledMarks
from lmworks.pipeline.preset import local_preset
from lmworks.tfx.artifacts import Examples, Sequences

if TYPE_CHECKING:
    from lmworks.models.wordpiece import WordPiece

_PIECE = 1 << 16
"""Characters of a document that are tokenised at once, so that a long one occupies all cores and little memory."""
_LONGEST_WORD = 1 << 18
# Before a blank that follows another character, or a new line that follows a letter or digit: after a sign it may belong to it.
_BORDER = re.compile(r"(?<=[^\s\x1c-\x1f]) |(?<=[^\W_])\n")


class Documents:
    """One row per document: all of its tokens, without special ones."""

    schema = pa.schema(
        {
            "id": pa.string(),
            "row": pa.int64(),  # of the example in its split
            "token_ids": pa.list_(pa.int32()),
            "targets": pa.list_(pa.bool_()),  # of a conversation: which tokens are learnt; else null, and all are
            "length": pa.int32(),  # tokens
            "bytes": pa.int64(),  # of the text in UTF-8; those that the vocabulary lacks are not counted
        }
    )

    def __init__(
        self, config: PreprocessStage, examples: Examples, sequences: Sequences, training_texts: Iterable[str]
    ) -> None:
        self._text = examples.properties["text"]
        self._length = config.sequence_length
        self._pieces = _pieces(config, sequences, training_texts)
        self._tokens = self._bytes = self._lost_bytes = self._lost_rows = 0
        self._chat = config.chat
        self._cuts = ConversationCuts(config.sequence_length)
        self._marks = Marks.of(self._pieces)
        # Only byte-level BPE may lack bytes; other kinds have an unknown token for all that they do not know.
        lossy = isinstance(self._pieces, BytePair) and self._pieces.missing_bytes
        self._lossy = cast("BytePair", self._pieces) if lossy else None
        template = (BEGIN, END) if config.chat else ()
        causal = config.task == "causal_lm"
        self._spelled = SpelledMarks(cast("CausalPieces", self._pieces), template) if causal else None

    def encode(self, batch: pa.RecordBatch, rows: np.ndarray) -> pa.RecordBatch:
        """Token ids of one batch of examples."""
        documents = batch.column(self._text).to_pylist()
        learnt = None
        if self._chat:
            parts = [list(parts_of(text)) for text in documents]
            documents = ["".join(part.text for part in conversation) for conversation in parts]
            cut = [[part.text for part in conversation] for conversation in parts]
        else:
            cut = [list(pieces_of(text)) for text in documents]
        encoded = self._marks.encode(parts) if self._chat and self._marks else self._pieces.encode_parts(cut)
        found = [ids for one in encoded for ids in one]
        if self._chat:
            flags = [
                self._targets(part, ids)
                for conversation, of_parts in zip(parts, encoded, strict=True)
                for part, ids in zip(conversation, of_parts, strict=True)
            ]
            learnt = np.concatenate([*flags, np.zeros(0, bool)])
            self._cuts.add(parts, encoded)
        if self._spelled:
            self._spelled.add(documents)
        flat = np.concatenate([*found, np.zeros(0, np.int32)])
        of_piece = np.cumsum([0, *map(len, found)])
        offsets = of_piece[np.cumsum([0, *map(len, cut)])]
        lost = [self._lossy.bytes_without_token(text) if self._lossy else 0 for text in documents]
        self._lost_bytes += sum(lost)
        self._lost_rows += sum(map(bool, lost))
        sizes = [len(text.encode()) - without for text, without in zip(documents, lost, strict=True)]
        self._tokens += len(flat)
        self._bytes += sum(sizes)
        return pa.RecordBatch.from_arrays(
            [
                batch.column("id"),
                pa.array(rows, pa.int64()),
                pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), pa.array(flat, pa.int32())),
                pa.nulls(len(batch), pa.list_(pa.bool_()))
                if learnt is None
                else pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), pa.array(learnt)),
                pa.array(np.diff(offsets), pa.int32()),
                pa.array(sizes, pa.int64()),
            ],
            schema=self.schema,
        )

    def properties(self) -> dict[str, Any]:
        """Returns the tokenizer's kind, how much text its tokens hold, and what looks wrong."""
        counts: dict[str, Any] = {
            "tokenizer": self._pieces.kind,
            "tokens": self._tokens,
            "bytes": self._bytes,
            "chat": self._chat,
        }
        if self._spelled:
            counts["spelled_marks"] = self._spelled.counts
        if self._chat:
            counts["conversations"] = self._cuts.counts
        if self._lossy:
            counts |= {"bytes_without_token": self._lost_bytes, "rows_with_such_bytes": self._lost_rows}
        return counts

    def _targets(self, part: Part, ids: np.ndarray) -> np.ndarray:
        """Which tokens of a part are targets: bool [tokens].

        Generation stops at the mark that ends a turn, so the line break that the template writes behind it is none. Where
        a vocabulary has a token for the mark's last sign with the line break, the mark is not whole without it.
        """
        targets = np.full(len(ids), part.learnt)
        if len(ids) and cast("CausalPieces", self._pieces).token_bytes[ids[-1]] == b"\n":
            targets[-1] = False
        return targets

    def summary(self) -> str:
        """Says how many tokens there are, how many bytes one of them stands for, and what looks wrong."""
        notices = [
            *(self._cuts.notices() if self._chat else []),
            *(self._spelled.notices() if self._spelled else []),
            *(self._lossy_notices(self._lossy) if self._lossy else []),
        ]
        return (
            f"{self._tokens:,} tokens (a vocabulary of {self._pieces.vocabulary_size:,}), "
            f"{self._bytes / max(self._tokens, 1):.2f} bytes per token" + "".join(f"; {notice}" for notice in notices)
        )

    def _lossy_notices(self, tokenizer: BytePair) -> list[str]:
        became = "are dropped" if tokenizer.unknown is None else f"become {tokenizer.unknown}"
        return [
            f"{len(tokenizer.missing_bytes)} of the 256 bytes have no token: {self._lost_bytes:,} of the text, "
            f"in {self._lost_rows:,} rows, {became}"
        ]


def pieces_of(text: str) -> Iterator[str]:
    """Cuts a long text before blanks, where every tokenizer has a border: the pieces' tokens are the text's.

    A stretch of a quarter million characters without a blank is cut all the same.
    """
    begin = 0
    while len(text) - begin > _PIECE:
        border = _BORDER.search(text, begin + _PIECE, begin + _LONGEST_WORD)
        end = border.start() if border else min(begin + _LONGEST_WORD, len(text))
        yield text[begin:end]
        begin = end
    if begin < len(text) or not text:
        yield text[begin:]


def _pieces(config: PreprocessStage, sequences: Sequences, training_texts: Iterable[str]) -> WordPiece | CausalPieces:
    causal = config.task == "causal_lm"
    training = config.tokenizer.train
    folder = sequences.path / TOKENIZER
    if training:
        whole = map(render, training_texts) if config.chat else training_texts
        corpus = (piece for text in whole for piece in pieces_of(text))
        try:
            if causal:
                train_bytepair(corpus, training.vocabulary_size).save(folder)
            else:
                from lmworks.models.wordpiece import train_wordpiece

                train_wordpiece(corpus, training.vocabulary_size, training.lowercase).save(folder)
        except ValueError as error:
            raise UserError(f"preprocess.tokenizer.train: {error}") from error
    else:
        preset = local_preset(config.preset)
        assert preset is not None
        opened = open_causal_pieces(preset) if causal else open_wordpiece(preset)
        if config.chat and isinstance(opened, BytePair) and Marks.of(opened):  # an answer ends with it
            opened = opened.stopping_at(END)
        opened.save(folder)
    return open_causal_pieces(folder) if causal else open_wordpiece(folder)
