"""The id of an example, and the split that follows from it."""

from __future__ import annotations

import hashlib

SPLITS = ("train", "validation", "test")


def example_id(*texts: str) -> str:
    """64-bit hash of the texts, 16 hex digits (BLAKE2b, RFC 7693); lengths go in, so that `ab, c` is not `a, bc`."""
    digest = hashlib.blake2b(digest_size=8)
    for text in texts:
        encoded = text.encode()
        digest.update(len(encoded).to_bytes(8, "little") + encoded)
    return digest.hexdigest()


def split_of(identity: str, carved: dict[str, float]) -> str:
    """The split of a row of `ingest.train`, a pure function of its id.

    Args:
        identity: the example's id.
        carved: shares of the splits that are carved from train, in any order.
    """
    position = int(identity, 16) / 2**64
    start = 0.0
    for name in ("test", "validation"):
        if name in carved:
            if start <= position < start + carved[name]:
                return name
            start += carved[name]
    return "train"
