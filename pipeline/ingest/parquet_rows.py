"""Rows of Parquet files: what becomes text as Python values, all other columns as they are, with their types."""

from __future__ import annotations

from collections.abc import Iterator
from typing import IO, Any

import pyarrow as pa
import pyarrow.parquet as pq

from lmworks.configs.errors import UserError
from lmworks.pipeline.cells import is_bytes, is_text, plain
from lmworks.pipeline.ingest.rows import FileColumns, Row

_BATCH = 8192
_BATCH_BYTES = 1 << 25
_DAMAGED = "a string that is no UTF-8"


def read_parquet(file: str, stream: IO[bytes], columns: FileColumns) -> Iterator[Row]:
    """The rows of a Parquet file.

    Args:
        file: its name, for errors.
        stream: its content, which can seek.
        columns: what must be there.

    Raises:
        UserError: it is damaged, or its columns do not fit.
    """
    number = 0
    try:
        table = pq.ParquetFile(stream)
        written = table.schema_arrow.names
        names = columns.of_file(written)
        named = [place for place, name in enumerate(written) if name in columns.python]
        rest = [place for place in range(len(names)) if place not in named]
        for batch in table.iter_batches(rows_at_once(table)):
            kept = [takeable(batch.column(place)) for place in rest]
            block = pa.RecordBatch.from_arrays(kept, names=[names[place] for place in rest]) if rest else None
            damaged = _damaged(block) if block else set()
            cells = [python_cells(batch.column(place)) for place in named]
            texts = [names[place] for place in named]
            for place in range(len(batch)):
                number += 1
                if place in damaged:
                    yield columns.refused(number, _DAMAGED)
                    continue
                row = columns.row(number, texts, [column[place] for column in cells], "utf-8")
                yield (
                    columns.refused(number, _DAMAGED) if row.values is None else row._replace(block=block, place=place)
                )
    except pa.ArrowException as error:
        raise UserError(f"{file}: is no Parquet file that can be read ({error})") from error


def rows_at_once(table: pq.ParquetFile) -> int:
    """Counts the rows of a batch, fewer where they are long."""
    metadata = table.metadata
    size = sum(metadata.row_group(group).total_byte_size for group in range(metadata.num_row_groups))
    return max(1, min(_BATCH, _BATCH_BYTES * max(1, metadata.num_rows) // max(1, size)))


def python_cells(column: pa.Array) -> list[Any]:
    """Reads the cells of a column that becomes text; a byte that is no text becomes a lone surrogate."""
    if pa.types.is_dictionary(column.type):
        column = column.dictionary_decode()
    if not (is_text(column.type) or is_bytes(column.type)):
        return plain(column)
    # As bytes: writers put bytes into string columns that are no text, and those rows are refused one by one.
    cells = column.cast(pa.large_binary()).to_pylist()
    return [None if cell is None else cell.decode("utf-8", "surrogateescape") for cell in cells]


def takeable(column: pa.Array) -> pa.Array:
    """Casts a column to a type that Arrow can take rows of, and write."""
    views = {pa.string_view(): pa.large_string(), pa.binary_view(): pa.large_binary()}
    return column.cast(views[column.type]) if column.type in views else column


def _damaged(block: pa.RecordBatch) -> set[int]:
    """Rows with a string that is no text."""
    try:
        block.validate(full=True)
    except pa.ArrowInvalid:
        return {place for place in range(len(block)) if not _is_valid(block.take([place]))}
    return set()


def _is_valid(row: pa.RecordBatch) -> bool:
    try:
        row.validate(full=True)
    except pa.ArrowInvalid:
        return False
    return True
