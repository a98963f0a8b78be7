"""The rows of one split, collected into batches and written in shards; all splits share their columns."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa

from lmworks.pipeline.ingest.column_types import ColumnTypes, MisfitError, batch_of
from lmworks.pipeline.ingest.rows import Row
from lmworks.pipeline.tables import ShardWriter

BATCH = 8192
"""Most rows of a batch, so that a Parquet row group is never one row: many of those take time and memory."""
BATCH_CHARACTERS = 1 << 25


class SplitTable:
    """Writes the rows of a split.

    Shards are written in the types that are known when they begin; those that later rows widen are written again at the end.

    Args:
        folder: of the artifact.
        split: its name.
        types: of the columns of all splits.
    """

    def __init__(self, folder: Path, split: str, types: ColumnTypes) -> None:
        self._folder, self._split, self._types = folder, split, types
        self._writer: ShardWriter | None = None
        self._rows: list[dict[str, Any]] = []
        self._places: list[int] = []
        self._block: pa.RecordBatch | None = None
        self._pieces: list[pa.RecordBatch] = []
        self._size = self._count = 0

    def add(self, values: dict[str, Any], row: Row) -> None:
        """Appends a row.

        Args:
            values: of the example, which win over the row's.
            row: as it was read.
        """
        if row.block is not self._block:
            self._collect()
            self._block = row.block
        self._rows.append(values)
        self._places.append(row.place)
        self._size += sum(len(value) for value in values.values() if isinstance(value, str))
        self._count += 1
        if self._count >= BATCH or self._size >= BATCH_CHARACTERS:
            self.flush()

    def _collect(self) -> None:
        """Makes a batch of the rows of one block, which is then free again."""
        if not self._rows:
            return
        piece = batch_of(self._rows)
        if self._block is not None:
            rest = self._block.take(pa.array(self._places))
            # At once: appending a column copies all others.
            schema = pa.schema([*piece.schema, *rest.schema])
            piece = pa.RecordBatch.from_arrays([*piece.columns, *rest.columns], schema=schema)
            self._size += rest.nbytes
        self._pieces.append(piece)
        self._rows, self._places = [], []

    def flush(self) -> None:
        """Writes what was collected."""
        self._collect()
        if not self._pieces:
            return
        batch = self._types.combine(self._pieces)
        if self._writer is None:
            self._writer = ShardWriter(self._folder, self._split, batch.schema, "parquet")
        self._writer.write(batch)
        self._pieces = []
        self._size = self._count = 0

    def finish(self) -> None:
        """Gives the shards their names; `settle` comes before."""
        if self._writer is not None:
            self._writer.finish()

    def rewrite(self) -> None:
        """Writes shards again whose types were widened since.

        Raises:
            MisfitError: a cell does not fit.
        """
        if self._writer is not None:
            self._writer.rewrite(self._types.schema, self._types.fit)


def settle(tables: list[SplitTable], types: ColumnTypes) -> None:
    """Gives the shards of all splits the same columns, and their names."""
    for table in tables:
        table.flush()
    while True:
        try:
            for table in tables:
                table.rewrite()
            break
        except MisfitError as error:
            types.give_up(error.column)
    for table in tables:
        table.finish()
