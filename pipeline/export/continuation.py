"""Text that continues a text, piece by piece as it comes, from the signatures `begin` and `step` of a servable."""

from __future__ import annotations

import codecs
import itertools
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from lmworks.configs.errors import ConfigError

_SHOWN = 40
"""Characters of a text that a message names it by."""
_MOST = 2**31 - 1
"""Largest int32, as which the graph takes numbers."""


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
            ConfigError: naming the flag.
        """
        numbers = (self.tokens, self.top_k, self.seed)
        checks = {
            "--tokens, --top_k and --seed are numbers of 32 bits": all(
                -_MOST - 1 <= number <= _MOST for number in numbers
            ),
            "--tokens must be at least 1": self.tokens >= 1,
            "--temperature must not be negative; 0 takes the likeliest token": self.temperature >= 0,
            "--top_k must not be negative; 0 is all tokens": self.top_k >= 0,
            "--top_p must be above 0 and at most 1": 0 < self.top_p <= 1,
            "--stop must not be empty": all(self.stop),
        }
        for message, holds in checks.items():
            if not holds:
                raise ConfigError(message)


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
