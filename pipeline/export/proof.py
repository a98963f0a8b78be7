"""Proves a SavedModel in a process that knows nothing but the file: raw text must give the evaluated probabilities.

python -m lmworks.pipeline.export.proof SPLIT SAVED_MODEL EXAMPLES SEQUENCES EVALUATION ANSWER.json
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import tensorflow as tf

from lmworks.pipeline.export.predict import open_signature
from lmworks.pipeline.sequences import SequenceTable
from lmworks.pipeline.tables import read_batches
from lmworks.tfx import process
from lmworks.tfx.artifacts import Examples, Sequences, read, write_json

TOLERANCE = 1e-4
_BATCH = 64


def compare(split: str, saved_model: Path, examples: Path, sequences: Path, evaluation: Path) -> dict[str, object]:
    """Largest difference of a probability over all evaluated rows, and the rows above the tolerance."""
    served = open_signature(saved_model)
    source = read(Examples, examples)
    columns = [name for name in (source.properties["text"], source.properties["text_b"]) if name]
    table = SequenceTable(read(Sequences, sequences), split)
    texts = pa.Table.from_batches(read_batches(source, split, columns)).take(pa.array(table.rows))
    predictions = pq.read_table(evaluation / "predictions.parquet")
    expected = np.stack(predictions.column("scores").to_numpy())
    # Like lengths together: the graph pads to the longest text of a request.
    order = np.argsort(table.lengths, kind="stable")
    difference = np.zeros(len(order))
    for start in range(0, len(order), _BATCH):
        rows = order[start : start + _BATCH]
        request = {
            argument: tf.constant(texts.column(column).take(pa.array(rows)).to_pylist())
            for argument, column in zip(("text", "text_b"), columns, strict=False)
        }
        found = served(**request)["probabilities"].numpy()
        difference[rows] = np.abs(found - expected[rows]).max(axis=1)
    # A NaN is a difference too.
    different = np.flatnonzero(~(difference <= TOLERANCE))
    worst = different[np.argsort(-difference[different])][:20]
    ids = predictions.column("id")
    return {
        "rows": len(order),
        "largest_difference": float(np.nan_to_num(difference, nan=1.0).max(initial=0.0)),
        "count": len(different),
        "different": [
            {"id": ids[int(row)].as_py(), "difference": float(np.nan_to_num(difference[row], nan=1.0))} for row in worst
        ],
    }


if __name__ == "__main__":
    process.die_with_parent()
    split_name, *folders, answer = sys.argv[1:]
    write_json(Path(answer), json.loads(json.dumps(compare(split_name, *map(Path, folders)))))
