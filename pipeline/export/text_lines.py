"""Texts from the command line or from lines of stdin, and their answers as lines of JSON."""

from __future__ import annotations

import codecs
import itertools
from collections.abc import Iterable, Iterator, Sequence
from typing import IO, Any

from lmworks.pipeline.export.answers import (
    LONGEST,
    Answering,
    Continuer,
    Refusal,
    Texts,
    answer_all,
    rounded,
    text_of,
    too_long,
)

_WINDOW = 64
_CHUNK = 1 << 16
_NAMES = ("text", "text_b")


def rows_of_flags(texts: Sequence[str], texts_b: Sequence[str]) -> Iterator[Texts | Refusal]:
    """Rows of `--text` and `--text_b`; a byte that is no text is a lone surrogate in them.

    Args:
        texts: first texts.
        texts_b: second texts of pairs; none, or as many.
    """
    for parts in zip(texts, texts_b, strict=True) if texts_b else zip(texts, strict=True):
        yield _row(parts)


def rows_of_lines(stream: IO[bytes], is_pair: bool) -> Iterator[Texts | Refusal]:
    r"""Rows of lines; an empty line is an empty text.

    Args:
        stream: UTF-8; a byte order mark before it, and the end of each line, `\n` or `\r\n`, are no part of a text.
        is_pair: whether a line holds two texts with a tab between.
    """
    for number in itertools.count():
        line = stream.readline(LONGEST + 2)
        if not line:
            return
        if number == 0:
            line = line.removeprefix(codecs.BOM_UTF8)
        if len(line) > LONGEST and not line.endswith(b"\n"):
            while (rest := stream.readline(_CHUNK)) and not rest.endswith(b"\n"):
                pass
            yield too_long()
            continue
        try:
            text = line.removesuffix(b"\n").removesuffix(b"\r").decode()
        except UnicodeDecodeError as error:
            yield Refusal(f"is no UTF-8 text: byte 0x{error.object[error.start]:02x} at place {error.start + 1}")
            continue
        parts = text.split("\t") if is_pair else [text]
        if is_pair and len(parts) != 2:
            yield Refusal(f"a pair is two texts with one tab between, and this line has {len(parts) - 1} tabs")
        else:
            yield _row(parts)


def _row(parts: Sequence[str]) -> Texts | Refusal:
    texts = [text_of(part) for part in parts]
    refused = [text for text in texts if isinstance(text, Refusal)]
    return refused[0] if refused else tuple(text for text in texts if isinstance(text, str))


def answer_lines(model: Answering, rows: Iterable[Texts | Refusal], at_once: bool) -> Iterator[dict[str, Any]]:
    """Answers rows in their order: `{"text", …}`, or `{"line", "error"}` in the place of a row that has no answer.

    Args:
        model: answers them.
        rows: texts and refusals.
        at_once: whether each answer has to come before the next row is read, as a person waits for it.
    """
    size = 1 if at_once or isinstance(model, Continuer) else _WINDOW
    left = enumerate(rows, 1)
    while window := list(itertools.islice(left, size)):
        answers = answer_all(model, [row for _, row in window])
        for (number, row), answer in zip(window, answers, strict=True):
            if isinstance(row, Refusal) or isinstance(answer, Refusal):
                refusal = answer if isinstance(answer, Refusal) else row
                assert isinstance(refusal, Refusal)
                yield {"line": number, "error": refusal.reason}
            else:
                yield {**dict(zip(_NAMES, row, strict=False)), **rounded(answer)}
