"""Types of the examples' columns: inferred from values, widened over all that is read, the same in every split."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import pyarrow as pa

from lmworks.configs.errors import UserError
from lmworks.pipeline.cells import JSON_TEXT, as_text, json_text, plain
from lmworks.pipeline.tables import SOURCE_ID

_DEEPEST = 16
"""Levels of lists and structs beyond which a column becomes JSON text."""
_MOST_KEYS = 1000
"""Columns that appear after the first rows, or that nearly no row has, beyond which keys are taken for data."""
_FILLED = 0.1


class ColumnTypes:
    """The types that all cells read so far fit into, without loss.

    Null fits into every type, integers into wider ones, and into floats where each of them is exact, units of time into finer
    ones, lists and structs by their parts. What does not fit becomes JSON text; the user's own ids become plain text, for they are
    looked up by what they read as.
    """

    def __init__(self) -> None:
        self._fields: dict[str, pa.Field] = {}
        self._late = 0

    @property
    def schema(self) -> pa.Schema:
        """All columns, in the order in which they appeared."""
        return pa.schema(list(self._fields.values()))

    def combine(self, pieces: Iterable[pa.RecordBatch]) -> pa.RecordBatch:
        """Rows of several batches as one, whose types are widened to hold them.

        Raises:
            UserError: too many columns.
        """
        pieces = list(pieces)
        for piece in pieces:
            self._widen(piece)
        while True:
            try:
                return pa.concat_batches([self.fit(piece) for piece in pieces])
            except MisfitError as error:
                self.give_up(error.column)

    def fit(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        """The batch in today's types; columns that it lacks are null.

        Raises:
            MisfitError: a cell cannot be converted without loss.
        """
        schema = self.schema
        if batch.schema.equals(schema, check_metadata=True):
            return batch
        names = set(batch.schema.names)
        arrays = [
            _fitted(batch.column(field.name), batch.schema.field(field.name), field)
            if field.name in names
            else pa.nulls(len(batch), field.type)
            for field in schema
        ]
        return pa.RecordBatch.from_arrays(arrays, schema=schema)

    def give_up(self, column: str) -> None:
        """Makes a column text, into which everything fits."""
        self._fields[column] = _text_field(column)

    def _widen(self, batch: pa.RecordBatch) -> None:
        late = [name for name in batch.schema.names if name not in self._fields] if self._fields else []
        self._late += len(late)
        if self._late > _MOST_KEYS:
            raise _too_many(late)
        for field in batch.schema:
            known = self._fields.get(field.name)
            if known is None or pa.types.is_null(known.type):
                self._fields[field.name] = field
            elif not pa.types.is_null(field.type):
                is_json = JSON_TEXT in (known.metadata, field.metadata)
                common = None if is_json else common_type(known.type, field.type)
                self._fields[field.name] = _text_field(field.name) if common is None else pa.field(field.name, common)


class MisfitError(Exception):
    """A column with a cell that its type cannot hold without loss."""

    def __init__(self, column: str) -> None:
        super().__init__(column)
        self.column = column


def _fitted(column: pa.Array, field: pa.Field, target: pa.Field) -> pa.Array:
    if pa.types.is_null(column.type):
        return pa.nulls(len(column), target.type)
    if target.metadata == JSON_TEXT:
        return column if field.metadata == JSON_TEXT else json_text(column)
    if column.type == target.type:
        return column
    if target.equals(_text_field(SOURCE_ID), check_metadata=True):
        return pa.array(map(as_text, plain(column)), pa.string())
    try:
        return column.cast(target.type)
    except pa.ArrowException:
        raise MisfitError(target.name) from None


def common_type(left: pa.DataType, right: pa.DataType) -> pa.DataType | None:
    """The narrowest type that may hold the cells of both, or None."""
    kinds = pa.types
    if left == right or kinds.is_null(right):
        return left
    if kinds.is_null(left):
        return right
    if kinds.is_dictionary(left) or kinds.is_dictionary(right):
        return common_type(*(kind.value_type if kinds.is_dictionary(kind) else kind for kind in (left, right)))
    if kinds.is_list(left) and kinds.is_list(right):
        values = common_type(left.value_type, right.value_type)
        return None if values is None else pa.list_(values)
    if kinds.is_struct(left) and kinds.is_struct(right):
        names = [field.name for field in left]
        if sorted(names) != sorted(field.name for field in right) or len(set(names)) < len(names):
            return None
        fields = {name: common_type(left.field(name).type, right.field(name).type) for name in names}
        return None if None in fields.values() else pa.struct(fields)
    # Decimals in floats would be rounded, bytes beside strings would be taken for text.
    for test in (kinds.is_decimal, kinds.is_binary, kinds.is_large_binary):
        if test(left) != test(right) and not (
            test is kinds.is_decimal and kinds.is_integer(left) | kinds.is_integer(right)
        ):
            return None
    try:
        return pa.unify_schemas([pa.schema({"": left}), pa.schema({"": right})], promote_options="permissive")[0].type
    except pa.ArrowException:
        return None


def batch_of(rows: Sequence[Mapping[str, Any]]) -> pa.RecordBatch:
    """Rows of Python values as a batch; what a row lacks is null.

    Args:
        rows: values as JSON has them.

    Raises:
        UserError: nearly every row has keys of its own.
    """
    names = dict.fromkeys(name for row in rows for name in row)
    if len(names) > _MOST_KEYS and sum(map(len, rows)) < _FILLED * len(names) * len(rows):
        raise _too_many(list(names))
    arrays, fields = [], []
    for name in names:
        cells = [row.get(name) for row in rows]
        kind = type_of(cells)
        fields.append(_text_field(name) if kind is None else pa.field(name, kind))
        as_string = as_text if name == SOURCE_ID else _json
        arrays.append(pa.array(map(as_string, cells), pa.string()) if kind is None else pa.array(cells, kind))
    return pa.RecordBatch.from_arrays(arrays, schema=pa.schema(fields))


def _too_many(names: Sequence[str]) -> UserError:
    return UserError(
        f"ingest: the rows have more than {_MOST_KEYS:,} different columns, such as {', '.join(names[-3:])}; "
        "put keys that differ from row to row into an object of their own"
    )


def type_of(cells: Sequence[Any], depth: int = 0) -> pa.DataType | None:
    """The type that holds cells of JSON without loss, or None.

    Args:
        cells: None, booleans, numbers, strings, lists, dicts. Dicts share a type if they have the same keys.
        depth: lists and dicts around them.
    """
    kinds = set(map(type, cells)) - {type(None)}
    if not kinds:
        return pa.null()
    if kinds == {str}:
        return pa.string()
    if kinds == {bool}:
        return pa.bool_()
    if kinds == {int}:
        return pa.int64() if all(-(2**63) <= cell < 2**63 for cell in cells if cell is not None) else None
    if kinds <= {int, float}:
        return pa.float64() if all(_is_exact(cell) for cell in cells if type(cell) is int) else None
    values = [cell for cell in cells if cell is not None]
    if depth == _DEEPEST or len(kinds) > 1:
        return None
    if kinds == {list}:
        element = type_of(list(itertools.chain.from_iterable(values)), depth + 1)
        return None if element is None else pa.list_(element)
    names = values[0].keys()
    if not names or any(value.keys() != names for value in values):
        return None
    fields = {name: type_of([value[name] for value in values], depth + 1) for name in names}
    return None if None in fields.values() else pa.struct(fields)


def _is_exact(number: int) -> bool:
    return -(2**53) <= number <= 2**53


def _json(cell: Any) -> str | None:
    return None if cell is None else json.dumps(cell, ensure_ascii=False)


def _text_field(name: str) -> pa.Field:
    """The column of a name for cells whose types have nothing in common."""
    return pa.field(name, pa.string(), metadata=None if name == SOURCE_ID else JSON_TEXT)
