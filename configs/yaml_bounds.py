"""How large and how deep YAML may be, counted before anything is built of it.

Aliases make a few lines stand for gigabytes ("billion laughs", CVE-2003-1564), and nesting ends Python's recursion.
"""

from __future__ import annotations

from typing import Any

import yaml

DEPTH = 32
"""Levels of lists and mappings; a config has eight."""
SIZE = 2**20
"""Characters and nodes of a text, each alias counted as what it stands for."""
NODES = 50_000
"""Lists, mappings and values of a text, counted so too: each takes far more time and memory than a character of text."""


def check_bounds(text: str, loader: type[yaml.SafeLoader]) -> None:
    """Refuses a text that is too long, too deep, or that grows too large by its aliases.

    Args:
        text: YAML.
        loader: whose rules say where its nodes begin and end.

    Raises:
        yaml.YAMLError: it is refused, or it is no YAML.
    """
    if len(text) > SIZE:
        raise yaml.constructor.ConstructorError(
            None, None, f"is longer than {SIZE:,} characters, the most that is read"
        )
    total = nodes = 0
    sizes: dict[str | None, tuple[int, int]] = {}
    begun: list[tuple[str | None, int, int]] = []
    """Anchor of each collection that is open, and the counts before it."""
    for event in yaml.parse(text, loader):
        if isinstance(event, yaml.CollectionStartEvent):
            begun.append((event.anchor, total, nodes))
            total, nodes = total + 1, nodes + 1
            if len(begun) > DEPTH:
                raise _refusal(f"is nested more than {DEPTH} levels deep", event)
        elif isinstance(event, yaml.CollectionEndEvent):
            anchor, total_before, nodes_before = begun.pop()
            if anchor:
                sizes[anchor] = total - total_before, nodes - nodes_before
        elif isinstance(event, yaml.ScalarEvent):
            size = 1 + len(event.value)
            total, nodes = total + size, nodes + 1
            if event.anchor:
                sizes[event.anchor] = size, 1
        elif isinstance(event, yaml.AliasEvent):
            if any(event.anchor == anchor for anchor, *_ in begun):
                raise _refusal(f"*{event.anchor} stands within what it stands for", event)
            size, count = sizes.get(event.anchor, (1, 1))
            total, nodes = total + size, nodes + count
        if nodes > NODES:
            raise _refusal(f"has more than {NODES:,} values, with what its aliases stand for", event)
        if total > SIZE:
            raise _refusal(f"is larger than {SIZE:,} characters, with what its aliases stand for", event)


def _refusal(problem: str, event: Any) -> yaml.constructor.ConstructorError:
    return yaml.constructor.ConstructorError(None, None, problem, event.start_mark)
