"""Cells of typed columns as values that JSON has, whatever their type."""

from __future__ import annotations

import json
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

JSON_TEXT = {b"content": b"json"}
"""Metadata of a string column whose cells are JSON, each for itself, because their types have nothing in common."""
_TEXT = (pa.types.is_string, pa.types.is_large_string, pa.types.is_string_view)
_BYTES = (pa.types.is_binary, pa.types.is_large_binary, pa.types.is_fixed_size_binary, pa.types.is_binary_view)
_LISTS = (pa.types.is_list, pa.types.is_large_list, pa.types.is_fixed_size_list, pa.types.is_list_view,
          pa.types.is_large_list_view)  # fmt: skip


def is_text(kind: pa.DataType) -> bool:
    """Whether cells of this type are strings."""
    return any(test(kind) for test in _TEXT)


def is_bytes(kind: pa.DataType) -> bool:
    """Whether cells of this type are bytes."""
    return any(test(kind) for test in _BYTES)


def plain(column: pa.Array) -> list[Any]:
    """The cells as None, booleans, numbers, strings, lists and dicts.

    Dates, times and decimals become strings, in any year and unit; bytes become text where they are UTF-8, else hexadecimal
    digits; floats of less than 64 bits become the shortest decimal number that stands for them.

    Args:
        column: [rows], of any type.

    Returns:
        [rows].
    """
    kind = column.type
    if isinstance(kind, pa.BaseExtensionType):
        return plain(column.storage)
    if pa.types.is_dictionary(kind):
        return plain(column.dictionary_decode())
    if pa.types.is_run_end_encoded(kind):
        return plain(pc.run_end_decode(column))
    if pa.types.is_null(kind) or pa.types.is_boolean(kind) or pa.types.is_integer(kind) or pa.types.is_float64(kind):
        return column.to_pylist()
    if pa.types.is_floating(kind):
        return [
            None if cell is None else float(cell) for cell in column.cast(pa.float32()).cast(pa.string()).to_pylist()
        ]
    if is_text(kind):
        return column.to_pylist()
    if is_bytes(kind):
        return [None if cell is None else _text_of(cell) for cell in column.to_pylist()]
    if pa.types.is_struct(kind):
        names = [field.name for field in kind]
        columns = [plain(column.field(place)) for place in range(len(names))]
        cells = zip(*columns, strict=True) if columns else [()] * len(column)
        missing = column.is_null().to_pylist()
        return [None if gone else dict(zip(names, row, strict=True)) for gone, row in zip(missing, cells, strict=True)]
    if any(test(kind) for test in _LISTS):
        return _lists(plain(column.flatten()), pc.list_value_length(column).to_pylist())
    if pa.types.is_map(kind):
        keys, items = plain(column.keys), plain(column.items)
        pairs = [list(pair) for pair in zip(keys, items, strict=True)]
        missing, offsets = column.is_null().to_pylist(), column.offsets.to_pylist()
        spans = zip(missing, offsets, offsets[1:], strict=False)
        return [None if gone else pairs[begin:end] for gone, begin, end in spans]
    try:
        return column.cast(pa.string()).to_pylist()
    except pa.ArrowNotImplementedError:  # no cast, such as an interval's
        return [None if cell is None else str(cell) for cell in column.to_pylist()]


def as_text(cell: Any) -> str | None:
    """A cell as text that says nothing of its type: `7`, `7.0` and `"7"` are 7; null stays null.

    Args:
        cell: of `plain`.
    """
    if cell is None or isinstance(cell, str):
        return cell
    if isinstance(cell, float):
        return str(int(cell)) if cell.is_integer() else str(cell)
    return json.dumps(cell, ensure_ascii=False)


def _lists(values: list[Any], lengths: list[int | None]) -> list[Any]:
    lists: list[Any] = []
    begin = 0
    for length in lengths:
        lists.append(None if length is None else values[begin : begin + length])
        begin += length or 0
    return lists


def _text_of(cell: bytes) -> str:
    try:
        return cell.decode()
    except UnicodeDecodeError:
        return cell.hex()


def json_text(column: pa.Array) -> pa.Array:
    """The cells as JSON, each for itself; null stays null.

    Args:
        column: [rows], of any type.

    Returns:
        string [rows].
    """
    cells = (None if cell is None else json.dumps(cell, ensure_ascii=False) for cell in plain(column))
    return pa.array(cells, pa.string())
