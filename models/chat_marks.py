"""The chat template's marks as the special tokens that a vocabulary has for them, as in Qwen and SmolLM.

Where it has them, they are what such a model has learnt or will: one token each, which no text of a user gives. Where it does not
(GPT-2), the marks are plain text. SentencePiece models keep them as plain text too.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from lmworks.models.bytepair import BytePair
from lmworks.models.chat import BEGIN, END, QUESTION, Part

if TYPE_CHECKING:
    import tensorflow as tf

    from lmworks.models.tokenizer import CausalPieces


class Marks:
    """Tokenises conversations with marks.

    Args:
        pieces: a tokenizer whose special tokens are among others `<|im_start|>` and `<|im_end|>`.
    """

    def __init__(self, pieces: BytePair) -> None:
        self._pieces = pieces
        self._begin, self._end = (pieces.vocabulary.index(mark) for mark in (BEGIN, END))

    @classmethod
    def of(cls, pieces: object) -> Marks | None:
        """Those of a tokenizer of any kind, if it has them."""
        return cls(pieces) if isinstance(pieces, BytePair) and {BEGIN, END} <= {*pieces.special} else None

    def encode(self, conversations: Sequence[Sequence[Part]]) -> list[list[np.ndarray]]:
        """Token ids of each part, int32 [tokens]."""
        found = self._pieces.encode_parts([[_inner(part) for part in one] for one in conversations])
        line = self._pieces.encode(["\n"])[0]
        begin, end = np.array([self._begin], np.int32), np.array([self._end, *line], np.int32)
        return [
            [
                np.concatenate([begin, ids] if _opens(part) else [ids, end])
                for part, ids in zip(conversation, parts, strict=True)
            ]
            for conversation, parts in zip(conversations, found, strict=True)
        ]

    def tokenize(self, texts: tf.Tensor) -> tf.RaggedTensor:
        """Token ids of rendered conversations: string [batch] to ragged int32 [batch, (tokens)]; works inside a graph."""
        import tensorflow as tf

        outer = tf.strings.split(texts, BEGIN)
        inner = tf.strings.split(outer.flat_values, END)
        ids = self._pieces.tokenize(inner.flat_values)
        for rows, mark in ((inner, self._end), (outer, self._begin)):
            # A mark stands before each piece but the first one.
            marked = tf.concat([_column(ids.nrows(), [mark]), ids], axis=1)
            ids = rows.with_values(marked).merge_dims(1, 2)[:, 1:]
        return ids

    def encode_rendered(self, texts: Sequence[str]) -> list[np.ndarray]:
        """Token ids of rendered conversations, int32 [tokens] each; every mark in them is one."""
        import tensorflow as tf

        return [np.array(ids, np.int32) for ids in self.tokenize(tf.constant(list(texts))).to_list()]

    def question(self, texts: tf.Tensor) -> tf.RaggedTensor:
        """Token ids of user's questions, up to where the answer begins; marks that they spell out stay plain text."""
        import tensorflow as tf

        before, after = (self.tokenize(tf.constant([text])).flat_values for text in QUESTION)
        ids = self._pieces.tokenize(texts)
        return tf.concat([_column(ids.nrows(), before), ids, _column(ids.nrows(), after)], axis=1)


def head_length(pieces: CausalPieces, chat: bool) -> int:
    """Counts the tokens that begin every prompt, which a prompt that is too long keeps.

    Args:
        pieces: the tokenizer.
        chat: whether prompts are questions: then the mark and role before a question count too.
    """
    if not chat:
        return 1  # what stands before a document
    marks = Marks.of(pieces)
    encode = marks.encode_rendered if marks else pieces.encode
    return 1 + len(encode(QUESTION[:1])[0])


def _opens(part: Part) -> bool:
    """Whether it is a part that says whose turn it is; else it is what is said."""
    return not part.text.endswith(f"{END}\n")


def _inner(part: Part) -> str:
    return part.text.removeprefix(BEGIN) if _opens(part) else part.text[: -len(END) - 1]


def _column(rows: tf.Tensor, ids: tf.Tensor | list[int]) -> tf.RaggedTensor:
    import tensorflow as tf

    ids = tf.convert_to_tensor(ids, tf.int32)
    return tf.RaggedTensor.from_tensor(tf.tile(ids[None, :], [rows, 1]))
