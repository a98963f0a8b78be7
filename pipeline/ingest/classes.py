"""What looks wrong about classes: few rows, names that differ only in how they are written, columns that hold no classes."""

from __future__ import annotations

import difflib
import math
import unicodedata
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import TypeVar

from lmworks.tfx.readable import counted

T = TypeVar("T")

FEW_ROWS = 5
"""A class with fewer rows in a split is named: no figure of it means much."""
_NO_VALUES = {"nan", "-nan", "none", "null", "na", "n/a", "<na>", "nat", "undefined", "nil", "#n/a", "missing"}
_LISTED = 5
MANY_CLASSES = 20
"""Classes beyond which the column of the labels may hold none."""


def plain_form(label: str) -> str:
    """The label without what people and file formats write differently: case, blanks, width, the form of a number."""
    text = " ".join(unicodedata.normalize("NFKC", label).casefold().split())
    number = number_of(text)
    return text if number is None else repr(number + 0.0)  # -0.0 is 0.0


def twins(labels: Iterable[str]) -> list[list[str]]:
    """Groups of labels that differ only in how they are written."""
    groups: dict[str, list[str]] = {}
    for label in sorted(set(labels)):
        groups.setdefault(plain_form(label), []).append(label)
    return [group for group in groups.values() if len(group) > 1]


def with_nearest(label: str, known: Collection[str], where: str) -> str:
    """The label in quotes, and the known one that is probably meant.

    Args:
        label: that is unknown.
        known: labels among which it may be meant.
        where: what holds the known ones.
    """
    twin = [name for name in known if plain_form(name) == plain_form(label)]
    near = twin or difflib.get_close_matches(label, known, n=1)
    return f"{label!r} ({where} {near[0]!r})" if near else repr(label)


def class_notices(counts: Mapping[str, Mapping[str, int]], labels: Sequence[str], column: str) -> list[str]:
    """Sentences about what looks wrong, a few words each.

    Args:
        counts: rows by label, by split.
        labels: the classes in their order.
        column: the label's column.
    """
    found = []
    least = {name: min(rows.get(name, 0) for rows in counts.values()) for name in labels}
    if few := sorted((name for name in labels if least[name] < FEW_ROWS), key=lambda name: least[name]):
        found.append(_listed(few, lambda name: f"class {name!r} has only {_few_splits(counts, name)}"))
    if groups := twins(labels):
        told = _listed(groups, lambda group: " and ".join(map(repr, group)))
        found.append(f"classes that differ only in case, blanks or the form of a number: {told}")
    if missing := [name for name in labels if plain_form(name) in _NO_VALUES]:
        found.append(f"classes that look like missing values: {_listed(missing, repr)}")
    rows = sum(sum(split.values()) for split in counts.values())
    numbers = [number for name in labels if (number := number_of(name)) is not None]
    if len(labels) > MANY_CLASSES and len(numbers) == len(labels) and not all(map(float.is_integer, numbers)):
        found.append(
            f"the {len(labels):,} classes are fractional numbers: a classifier does not know that 1.5 is near 1.6; "
            "label_rule makes classes of ranges"
        )
    elif len(labels) > MANY_CLASSES and len(labels) > rows / 4:
        found.append(f"{len(labels):,} classes in {rows:,} rows: is {column!r} an id or a text?")
    return found


def _few_splits(counts: Mapping[str, Mapping[str, int]], label: str) -> str:
    few = ((rows.get(label, 0), split) for split, rows in counts.items())
    return ", ".join(counted(rows, f"{split} row") for rows, split in few if rows < FEW_ROWS)


def _listed(items: Sequence[T], told: Callable[[T], str]) -> str:
    more = f" and {len(items) - _LISTED:,} more" if len(items) > _LISTED else ""
    return "; ".join(map(told, items[:_LISTED])) + more


def number_of(text: str) -> float | None:
    """Reads a finite number; None if the text is none."""
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) else None
