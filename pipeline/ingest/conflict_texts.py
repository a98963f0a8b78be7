"""The texts whose labels conflict in most rows, as the statistics show them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from lmworks.pipeline.ingest.statistics import Tally

_MOST = 20
_CHARACTERS = 200


def worst_conflicts(folder: Path, tally: Tally, columns: Sequence[str]) -> list[dict[str, Any]]:
    """Looks up the worst texts in the finished shards.

    Args:
        folder: of the examples.
        tally: of all of them.
        columns: with the text, and the second text of a pair.

    Returns:
        For each text, the worst first: `id`; `text` and `text_b`, their beginnings; `labels`, rows by split by label.
    """
    worst = {f"{identity:016x}": labels for identity, labels in tally.worst_conflicts(_MOST).items()}
    texts: dict[str, list[str]] = {}
    for path in sorted(folder.glob("Split-*/*.parquet")) if worst else []:
        with pq.ParquetFile(path) as file:
            for group in range(file.num_row_groups):
                ids = file.read_row_group(group, ["id"])["id"]
                rows = pc.indices_nonzero(pc.is_in(ids, pa.array([*worst], pa.string())))
                if len(rows):
                    table = file.read_row_group(group, [*columns]).take(rows).select([*columns])
                    for identity, row in zip(ids.take(rows).to_pylist(), table.to_pylist(), strict=True):
                        texts[identity] = [row[column][:_CHARACTERS] for column in columns]
    names = ("text", "text_b")[: len(columns)]
    return [
        {"id": identity, **dict(zip(names, texts[identity], strict=True)), "labels": labels}
        for identity, labels in worst.items()
    ]
