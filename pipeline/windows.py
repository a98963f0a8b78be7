"""Documents as windows in which every token is predicted once, with as much before it as the stride leaves."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np

from lmworks.models.backend import backend
from lmworks.models.tokenizer import CausalPieces
from lmworks.pipeline.packing import DocumentTable
from lmworks.tfx.progress import report

_LOGITS = 1 << 25
"""Of one batch: float32, so 128 MiB."""


class Window(NamedTuple):
    """A stretch of a document."""

    document: int
    begin: int
    """Its first target: the document's tokens are the targets 0, 1, …, and of plain text its end-of-text is the last one."""
    fresh: int
    """Its first target that no window before it has predicted."""
    end: int
    """The target after its last."""


def windows_of(tokens: int, length: int, stride: int, document: int, end_is_target: bool = True) -> Iterator[Window]:
    """Yields the windows of one document: each of at most `length` targets, beginning every `stride`.

    Args:
        tokens: number of the document's tokens.
        length: most tokens that the model sees.
        stride: at most `length`.
        document: number of the document.
        end_is_target: whether end-of-text is a target more, as in plain text (`DocumentTable.all_targets`).
    """
    targets, fresh = tokens + end_is_target, 0
    for begin in range(0, targets, stride):
        end = min(begin + length, targets)
        yield Window(document, begin, fresh, end)
        fresh = end
        if end == targets:
            return


class Prediction(NamedTuple):
    """What a model says of one window's fresh targets."""

    window: Window
    log_probabilities: np.ndarray
    """float32 [fresh targets], nats."""
    hits: np.ndarray
    """bool [fresh targets], where the likeliest token is the true one."""
    targets: np.ndarray
    """bool [fresh targets], those that count: all, but of a conversation only the assistant's words."""


def predictions(
    compute: Callable[..., Any], table: DocumentTable, windows: list[Window], pieces: CausalPieces
) -> Iterator[Prediction]:
    """Predicts windows, long ones first.

    Args:
        compute: of `causal_lm.log_probabilities`.
        table: the documents.
        windows: of any of them.
        pieces: the tokenizer, which says what stands before and behind a document.
    """
    windows = sorted(windows, key=lambda window: window.begin - window.end)
    done = start = longest = 0
    total = sum(window.end - window.fresh for window in windows)
    while start < len(windows):
        # JAX compiles for every shape anew, so there it is one for all.
        if backend() != "jax" or not start:
            longest = windows[start].end - windows[start].begin
        most = max(1, _LOGITS // (longest * pieces.vocabulary_size))
        group = windows[start : start + most]
        rows = min(most, len(windows)) if backend() == "jax" else len(group)
        token_ids = np.full((rows, longest), pieces.end_id, np.int32)
        targets = token_ids.copy()
        for row, window in enumerate(group):
            stream = _stream(table, window, pieces.begin_id, pieces.end_id)
            token_ids[row, : len(stream) - 1], targets[row, : len(stream) - 1] = stream[:-1], stream[1:]
        found, hits = compute({"token_ids": token_ids, "targets": targets})
        for row, window in enumerate(group):
            new = slice(window.fresh - window.begin, window.end - window.begin)
            # Only of plain text a window reaches beyond the tokens, to end-of-text.
            count = np.append(table.targets(window.document, window.fresh, window.end), True)[
                : window.end - window.fresh
            ]
            yield Prediction(window, found[row, new], hits[row, new], count)
        start += len(group)
        done += sum(window.end - window.fresh for window in group)
        report(done, total, "tokens")


def _stream(table: DocumentTable, window: Window, begin_id: int, end_id: int) -> np.ndarray:
    """The targets of a window and the token before the first one: int32 [targets + 1]."""
    tokens = table.tokens(window.document, max(window.begin - 1, 0), window.end)
    before = [begin_id] if window.begin == 0 else []
    count = window.end - window.begin + 1
    # What is missing at the end is the document's own.
    after = [end_id] * (count - len(before) - len(tokens))
    return np.concatenate([before, tokens, after]).astype(np.int32)
