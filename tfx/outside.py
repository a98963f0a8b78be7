"""What a component reads outside the pipeline: looked at again when it was read, so that no result has another's digest."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping

_look: Callable[[], None] | None = None
_digests: Mapping[str, str] = {}


@contextlib.contextmanager
def watching(look: Callable[[], None], digests: Mapping[str, str]) -> Iterator[None]:
    """Within it a component works; what it reads outside is looked at when it says so, else when it has returned.

    Args:
        look: raises `UserError` if something changed since the component began.
        digests: of what it reads outside, by name, as its key has them.
    """
    global _look, _digests
    _look, _digests = look, digests
    try:
        yield
        has_been_read()
    finally:
        _look, _digests = None, {}


def digest_of(name: str) -> str | None:
    """Returns the digest that the key of the working component has of a path or URL; None where none works, or reads it."""
    return _digests.get(name)


def has_been_read() -> None:
    """Says that nothing outside the pipeline is read from now on, so that a later change there does no harm.

    A component that reads a file and then works for hours calls this between the two.

    Raises:
        UserError: something changed while it was read.
    """
    global _look
    look, _look = _look, None
    if look:
        look()
