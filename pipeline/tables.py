"""Split tables in shards: how stages write rows, and how later stages stream them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from lmworks.tfx.artifacts import Artifact

SOURCE_ID = "source_id"
"""The column of examples and predictions with the user's own ids (`ingest.id`)."""
_WHOLE_GROUP = 1 << 20
"""More rows than a row group has."""


class ShardWriter:
    """Streams batches into `Split-<split>/data-00000-of-0000N.<kind>`; memory does not grow with the rows.

    Args:
        folder: of the artifact.
        split: its name.
        schema: of the batches.
        kind: parquet, or arrow (the IPC file format).
        rows_per_shard: after so many rows the next shard begins.
    """

    def __init__(
        self,
        folder: Path,
        split: str,
        schema: pa.Schema,
        kind: Literal["parquet", "arrow"],
        rows_per_shard: int = 100_000,
    ) -> None:
        self.rows = 0
        self._folder, self._schema, self._kind, self._rows_per_shard = (
            folder / f"Split-{split}",
            schema,
            kind,
            rows_per_shard,
        )
        self._folder.mkdir(parents=True)
        self._drafts: list[tuple[Path, pa.Schema]] = []
        self._writer: Any = None
        self._in_shard = 0

    def write(self, batch: pa.RecordBatch) -> None:
        """Appends rows; with another schema than those before they begin a shard, which `rewrite` brings into line."""
        if (
            self._writer is None
            or self._in_shard >= self._rows_per_shard
            or not batch.schema.equals(self._schema, check_metadata=True)
        ):
            self._next(batch.schema)
        self._writer.write_batch(batch)
        self._in_shard += len(batch)
        self.rows += len(batch)

    def rewrite(self, schema: pa.Schema, convert: Callable[[pa.RecordBatch], pa.RecordBatch]) -> None:
        """Ends the shard and writes those again that have another schema; `write` may not follow.

        Args:
            schema: that all shards shall have.
            convert: a batch of any shard to this schema.
        """
        self._end()
        for index, (path, written) in enumerate(self._drafts):
            if written.equals(schema, check_metadata=True):
                continue
            changed = path.with_name(f"{path.name}-changed")
            with pq.ParquetFile(path) as file, pq.ParquetWriter(str(changed), schema) as writer:
                for group in range(file.num_row_groups):
                    for batch in file.iter_batches(_WHOLE_GROUP, [group]):
                        writer.write_batch(convert(pa.RecordBatch.from_arrays(batch.columns, schema=written)))
            changed.replace(path)
            self._drafts[index] = path, schema
        self._schema = schema

    def _next(self, schema: pa.Schema) -> None:
        self._end()
        # How many shards there will be is known at the end; until then they have other names.
        path = self._folder / f"draft-{len(self._drafts)}"
        self._drafts.append((path, schema))
        make = pq.ParquetWriter if self._kind == "parquet" else pa.ipc.new_file
        self._writer, self._schema = make(str(path), schema), schema
        self._in_shard = 0

    def _end(self) -> None:
        if self._writer is not None:
            self._writer.close()
            self._writer = None

    def finish(self) -> None:
        """Ends the last shard and gives all of them their names."""
        if not self._drafts:
            self._next(self._schema)  # an empty split has a schema too
        self._end()
        for index, (draft, _) in enumerate(self._drafts):
            draft.rename(self._folder / f"data-{index:05d}-of-{len(self._drafts):05d}.{self._kind}")

    def __enter__(self) -> ShardWriter:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None:
            self.finish()
        else:
            self._end()


class ListColumn:
    """A column of lists whose values stay on disk until a row is asked for.

    Args:
        column: memory-mapped, without nulls.
    """

    def __init__(self, column: pa.ChunkedArray) -> None:
        self._values = [chunk.values.to_numpy(zero_copy_only=False) for chunk in column.chunks]
        self._offsets = [chunk.offsets.to_numpy() for chunk in column.chunks]
        self._starts = np.cumsum([0, *(len(chunk) for chunk in column.chunks)])

    def row(self, index: int, begin: int = 0, end: int | None = None) -> np.ndarray:
        """A row's values, or those from `begin` to before `end`: a view."""
        chunk = int(np.searchsorted(self._starts, index, side="right")) - 1
        first, last = self._offsets[chunk][index - self._starts[chunk] :][:2]
        return self._values[chunk][first + begin : last if end is None else min(first + end, last)]


def read_table(artifact: Artifact, split: str) -> pa.Table:
    """All Arrow shards of a split, memory-mapped."""
    return pa.concat_tables(pa.ipc.open_file(pa.memory_map(str(path))).read_all() for path in files_of(artifact, split))


def files_of(artifact: Artifact, split: str) -> list[Path]:
    """The shards of a split, in order, as the manifest lists them."""
    return [artifact.path / name for name in sorted(artifact.files) if name.startswith(f"Split-{split}/")]


def read_batches(
    artifact: Artifact, split: str, columns: Sequence[str] | None = None, batch_size: int = 8192
) -> Iterator[pa.RecordBatch]:
    """Streams the shards of a split, of either kind.

    Args:
        artifact: an input.
        split: its name.
        columns: those to read, in this order; all when not given.
        batch_size: most rows of a Parquet batch; Arrow batches are as they were written. No batch reaches across row
            groups, whose characters ingest bounds: a thousand long documents are never in memory at once.
    """
    for path in files_of(artifact, split):
        if path.suffix == ".arrow":
            with pa.memory_map(str(path)) as source:
                shard = pa.ipc.open_file(source)
                for index in range(shard.num_record_batches):
                    batch = shard.get_batch(index)
                    yield batch.select(list(columns)) if columns else batch
        else:
            with pq.ParquetFile(path) as file:
                for group in range(file.num_row_groups):
                    for batch in file.iter_batches(batch_size, [group], list(columns) if columns else None):
                        # Parquet takes `text.raw` for a part of `text`, and reads it too.
                        yield batch.select(list(columns)) if columns else batch
