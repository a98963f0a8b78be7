"""Answers of a servable: one JSON line per text, or generated text as it comes."""

from __future__ import annotations

import codecs
import importlib
import itertools
import json
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lmworks.configs.errors import UserError

_BATCH = 64
_SHOWN = 40
"""Characters of a text that a message names it by."""


@dataclass(frozen=True)
class Wish:
    """How a causal language model is to continue a text."""

    tokens: int = 128
    temperature: float = 0.0
    top_k: int = 0
    top_p: float = 1.0
    seed: int = 0
    stop: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Refuses numbers that mean nothing.

        Raises:
            UserError: naming the flag.
        """
        checks = {
            "--tokens must be at least 1": self.tokens >= 1,
            "--temperature must not be negative; 0 takes the likeliest token": self.temperature >= 0,
            "--top_k must not be negative; 0 is all tokens": self.top_k >= 0,
            "--top_p must be above 0 and at most 1": 0 < self.top_p <= 1,
            "--stop must not be empty": all(self.stop),
        }
        for message, holds in checks.items():
            if not holds:
                raise UserError(message)


def open_saved_model(folder: Path) -> Any:
    """A SavedModel that takes strings."""
    import tensorflow as tf

    importlib.import_module("tensorflow_text")  # registers the graph's ops
    return tf.saved_model.load(str(folder))


def open_servable(servable: Path) -> Any:
    """The SavedModel of a Servable, or of its own folder.

    Raises:
        UserError: there is none.
    """
    folder = servable / "saved_model" if (servable / "saved_model").is_dir() else servable
    if not (folder / "saved_model.pb").exists():
        raise UserError(f"{servable}: holds no SavedModel; a run's servable is at <root>/<run>/export/servable")
    return open_saved_model(folder)


def answer(servable: Path, texts: Sequence[str], texts_b: Sequence[str], wish: Wish, terminal: bool) -> Iterator[str]:
    """Yields what is to be printed: JSON objects, one per text and line, or at a terminal generated text piece by piece.

    Args:
        servable: a Servable or a SavedModel.
        texts: to classify, fill or continue; lines of stdin when empty (a pair there is two columns with a tab between).
        texts_b: the second texts of pairs.
        wish: how to continue a text.
        terminal: whether a person reads.

    Raises:
        UserError: no servable, or texts that do not fit it.
    """
    if texts_b and len(texts_b) != len(texts):
        raise UserError(f"--text_b is given {len(texts_b)} times and --text {len(texts)} times; they go in pairs")
    served = open_servable(servable).signatures
    pair = "text_b" in served["serving_default"].structured_input_signature[1]
    if texts and pair != bool(texts_b):
        raise UserError(
            f"{servable}: {'takes pairs: give --text_b too' if pair else 'takes one text: --text_b is too much'}"
        )
    rows = (
        _lines(sys.stdin, pair)
        if not texts
        else zip(texts, texts_b, strict=True)
        if pair
        else ((one,) for one in texts)
    )
    # A person at a terminal wants each answer at once.
    size = 1 if not texts and sys.stdin.isatty() else _BATCH
    if "generate" in served:
        for (text,) in rows:
            pieces = continue_text(served, text, wish)
            if terminal:
                yield text
                yield from pieces
                yield "\n"
            else:
                yield json.dumps({"text": text, "continuation": "".join(pieces)}, ensure_ascii=False) + "\n"
        return
    told = _masked if "tokenize" in served else _classified
    while batch := list(itertools.islice(rows, size)):
        for line in told(served["serving_default"], batch):
            yield json.dumps(line, ensure_ascii=False) + "\n"


def _classified(served: Any, batch: list[tuple[str, ...]]) -> Iterator[dict[str, Any]]:
    import tensorflow as tf

    columns = dict(zip(("text", "text_b"), map(list, zip(*batch, strict=True)), strict=False))
    found = served(**{name: tf.constant(column) for name, column in columns.items()})
    probabilities, labels = found["probabilities"].numpy(), found["label"].numpy()
    for row, scores, label in zip(batch, probabilities, labels, strict=True):
        told = dict(zip(("text", "text_b"), row, strict=False))
        yield {**told, "label": label.decode(), "probabilities": [round(float(score), 6) for score in scores]}


def _masked(served: Any, batch: list[tuple[str, ...]]) -> Iterator[dict[str, Any]]:
    import tensorflow as tf

    texts = [text for (text,) in batch]
    if without := next((text for text in texts if "[MASK]" not in text), None):
        raise UserError(f"a masked language model fills [MASK], and this text has none: {without[:80]!r}")
    found = served(text=tf.constant(texts))
    for text, tokens, chances in zip(texts, found["token"].numpy(), found["probability"].numpy(), strict=True):
        masks = [
            [
                {"token": token.decode(), "probability": round(float(chance), 6)}
                for token, chance in zip(*one, strict=True)
            ]
            for one in zip(tokens, chances, strict=True)
            if one[0][0]
        ]
        yield {"text": text, "masks": masks}


def continue_text(served: Any, text: str, wish: Wish) -> Iterator[str]:
    """Yields a continuation piece by piece, until end-of-text, a stop string (left out) or enough tokens."""
    import tensorflow as tf

    sampling = {
        "temperature": tf.constant(wish.temperature, tf.float32),
        "top_k": tf.constant(wish.top_k),
        "top_p": tf.constant(wish.top_p, tf.float32),
        "seed": tf.constant(wish.seed),
    }
    found = served["begin"](text=tf.constant([text]), tokens=tf.constant(wish.tokens), **sampling)
    read = int(found["index"])
    most = int(found["cache"].shape[3]) - read
    if "cut" in found and (cut := int(found["cut"][0])):
        _say(text, f"{cut} of its tokens were cut, behind those that begin it, and {read} read, so that {most} new fit")
    ends = [*wish.stop, *(stop.decode() for stop in found["stop"].numpy())]
    # A token may end inside a character, and a stop string inside a token: what may still change is held back.
    decode = codecs.getincrementaldecoder("utf-8")("replace").decode
    held = ""
    for count in itertools.count(1):
        if bool(found["ended"][0]):
            break
        held += decode(found["bytes"].numpy()[0])
        stops = [place for place in (held.find(stop) for stop in ends) if place >= 0]
        if stops:
            yield held[: min(stops)]
            return
        safe = len(held) - max((_overlap(held, stop) for stop in ends), default=0)
        if safe:
            yield held[:safe]
            held = held[safe:]
        if count >= most:
            if count < wish.tokens:
                _say(
                    text,
                    f"ends after {count} of {wish.tokens} new tokens: no more fit behind the {read} that were read",
                )
            break
        state = {name: found[name] for name in ("token", "cache", "index")}
        found = served["step"](**state, **sampling)
    if rest := held + decode(b"", True):
        yield rest


def _say(text: str, what: str) -> None:
    beginning = text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…"
    print(f"predict: {beginning!r}: {what}", file=sys.stderr, flush=True)


def _overlap(text: str, stop: str) -> int:
    """Characters at the end of a text with which a stop string begins."""
    return next((size for size in range(min(len(text), len(stop)), 0, -1) if text.endswith(stop[:size])), 0)


def _lines(source: Iterable[str], pair: bool) -> Iterator[tuple[str, ...]]:
    for number, line in enumerate(source, 1):
        text = line.rstrip("\n")
        parts = tuple(text.split("\t")) if pair else (text,)
        if pair and len(parts) != 2:
            raise UserError(f"stdin:{number}: a pair is two texts with one tab between")
        yield parts
