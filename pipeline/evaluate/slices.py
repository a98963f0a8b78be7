"""The same figures for parts of a split: the rows that share a value of a column."""

from __future__ import annotations

import datetime
import itertools
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypedDict

import numpy as np
import pyarrow as pa

from lmworks.pipeline.cells import JSON_TEXT, as_text, plain
from lmworks.pipeline.evaluate.classification import Figure, Integers, Scores, check, figures

MAX_VALUES = 50
OTHER = "(other)"

Value = str | int | float | bool | None


class Slice(TypedDict):
    """One entry of `slices` in metrics.json."""

    slice: dict[str, Value]
    examples: int
    metrics: dict[str, Figure]


def _plain(value: Any) -> Value:
    """A value that JSON has: dates, lists, bytes and NaN become text."""
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if isinstance(value, str | int | float | bool | None):
        return value
    if isinstance(value, list | dict):
        return json.dumps(value, ensure_ascii=False)
    return value.isoformat() if isinstance(value, datetime.date | datetime.time) else str(value)


def _cells(values: Any) -> Iterable[Any]:
    """Python values: Arrow's and NumPy's own scalars neither hash by value nor go into JSON."""
    if isinstance(values, pa.ChunkedArray):
        return itertools.chain.from_iterable(map(plain, values.chunks))
    if isinstance(values, pa.Array):
        return plain(values)
    return values.tolist() if isinstance(values, np.ndarray) else values


def cells_of(rows: pa.Table, column: str) -> Any:
    """The cells of a column as `groups` takes them: of JSON text what it says, as text, whatever the type was.

    Args:
        rows: the examples.
        column: of them.
    """
    cells = rows.column(column)
    if rows.schema.field(column).metadata != JSON_TEXT:
        return cells
    return [None if cell is None else as_text(json.loads(cell)) for cell in cells.to_pylist()]


def groups(values: Any) -> list[tuple[Value, list[int]]]:
    """Rows of each value, the biggest first, ties by text; beyond MAX_VALUES the rest is one group, the last.

    Args:
        values: a list, a NumPy array or an Arrow array.
    """
    rows: dict[Value, list[int]] = {}
    for row, value in enumerate(_cells(values)):
        rows.setdefault(_plain(value), []).append(row)
    groups = sorted(rows.items(), key=lambda group: (-len(group[1]), str(group[0])))
    if len(groups) <= MAX_VALUES:
        return groups
    kept = [group for group in groups if group[0] != OTHER][: MAX_VALUES - 1]
    named = {value for value, _ in kept}
    rest = sorted(row for value, group in groups if value not in named for row in group)
    return [*kept, (OTHER, rest)]


def measure_slices(
    columns: Mapping[str, Any],
    labels: Integers,
    scores: Scores,
    names: Sequence[str],
) -> list[Slice]:
    """Figures of each value of each column; null is a slice of its own.

    Args:
        columns: column name to its value per row: a list, a NumPy array or an Arrow array, length n.
        labels: int [n], in `range(classes)`.
        scores: float32 [n, classes], probabilities.
        names: the classes in label order. Each slice is measured over all of them, also those that it lacks.

    Returns:
        Columns in the given order, within each the biggest slice first. Of a column with more than 50 values the 49
        biggest are slices, and all other rows are `(other)`.

    Raises:
        UserError: the split is empty, or a score is not a finite number.
        ValueError: a column's length is not n.
    """
    check(labels, scores, names)
    slices = []
    for column, values in columns.items():
        if len(values) != len(labels):
            raise ValueError(f"column {column!r} has {len(values)} values for {len(labels)} rows")
        for value, group in groups(values):
            rows = np.asarray(group)
            part = figures(labels[rows], scores[rows], names)
            slices.append(Slice(slice={column: value}, examples=len(rows), metrics=part))
    return slices
