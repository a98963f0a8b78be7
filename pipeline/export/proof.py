"""Proves a SavedModel in a process that knows nothing but the file: it must give what was evaluated.

python -m lmworks.pipeline.export.proof TASK SPLIT SAVED_MODEL EXAMPLES SEQUENCES EVALUATION ANSWER.json
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import tensorflow as tf

from lmworks.models.chat import render
from lmworks.models.tokenizer import open_causal_pieces, open_wordpiece
from lmworks.pipeline.export.servable_folder import open_saved_model
from lmworks.pipeline.masking import MaskedRows
from lmworks.pipeline.packing import DocumentTable
from lmworks.pipeline.preprocess.documents import pieces_of
from lmworks.pipeline.sequences import SequenceTable
from lmworks.pipeline.tables import read_batches
from lmworks.tfx import process
from lmworks.tfx.artifacts import Evaluation, Examples, Sequences, read, write_json
from lmworks.tfx.progress import report, within

TOLERANCE = 1e-4
_BATCH = 64
_DOCUMENTS = 256
"""Documents of a language model that are compared, spread over the split."""


def compare(
    task: str, split: str, saved_model: Path, examples: Path, sequences: Path, evaluation: Path
) -> dict[str, Any]:
    """Largest difference over the evaluated rows, and the rows above the tolerance.

    A classifier's probabilities are compared on all rows. Of a language model's documents up to 256 are: the
    log-probabilities that raw text gets (causal), or the ids that raw text gets and the mean log-probability of the
    targets that were evaluated (masked).
    """
    served = open_saved_model(saved_model).signatures
    source, tokens = read(Examples, examples), read(Sequences, sequences)
    evaluated = read(Evaluation, evaluation)
    predictions = pq.read_table(evaluated.path / "predictions.parquet")
    judges: dict[str, Callable[..., tuple[np.ndarray, np.ndarray]]] = {
        "text_classification": _classifier,
        "causal_lm": _causal,
        "masked_lm": functools.partial(_masked, mask_ratio=float(evaluated.properties.get("mask_ratio", 0))),
    }
    rows, difference = judges[task](served, source, tokens, split, predictions)
    # A NaN is a difference too.
    different = np.flatnonzero(~(difference <= TOLERANCE))
    worst = different[np.argsort(-difference[different])][:20]
    plain = np.nan_to_num(difference, nan=1.0)
    ids = predictions.column("id")
    return {
        "rows": len(rows),
        "largest_difference": float(plain.max(initial=0.0)),
        "count": len(different),
        "different": [{"id": ids[int(rows[row])].as_py(), "difference": float(plain[row])} for row in worst],
    }


def _classifier(
    served: Any, examples: Examples, sequences: Sequences, split: str, predictions: pa.Table
) -> tuple[np.ndarray, np.ndarray]:
    columns = [name for name in (examples.properties["text"], examples.properties["text_b"]) if name]
    table = SequenceTable(sequences, split)
    texts = pa.Table.from_batches(read_batches(examples, split, columns)).take(pa.array(table.rows))
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
        found = served["serving_default"](**request)["probabilities"].numpy()
        difference[rows] = np.abs(found - expected[rows]).max(axis=1)
        report(start + len(rows), len(order), "rows")
    return np.arange(len(order)), difference


def _chosen(table: DocumentTable) -> np.ndarray:
    """Documents spread over the split, short ones first."""
    rows = np.unique(np.linspace(0, len(table) - 1, min(len(table), _DOCUMENTS)).astype(int))
    return rows[np.argsort(table.lengths[rows], kind="stable")]


def _texts(examples: Examples, split: str, table: DocumentTable, rows: np.ndarray, chat: bool = False) -> list[str]:
    """Texts of documents; of a long one the beginning, cut where its tokens stay what they are."""
    column = examples.properties["text"]
    wanted = table.rows[rows]
    found: dict[int, str] = {}
    start = 0
    for batch in read_batches(examples, split, [column], batch_size=256):
        for row in wanted[(wanted >= start) & (wanted < start + len(batch))].tolist():
            text = batch.column(0)[row - start].as_py()
            found[row] = render(text) if chat else next(pieces_of(text))
        start += len(batch)
    return [found[row] for row in wanted.tolist()]


def _causal(
    served: Any, examples: Examples, sequences: Sequences, split: str, predictions: pa.Table
) -> tuple[np.ndarray, np.ndarray]:
    table = DocumentTable(sequences, split)
    rows = _chosen(table)
    texts = _texts(examples, split, table, rows, bool(sequences.properties["chat"]))
    expected = predictions.column("first_window").take(pa.array(rows)).to_pylist()
    difference = np.zeros(len(rows))
    length = max(map(len, expected))
    vocabulary = open_causal_pieces(sequences.path / "tokenizer").vocabulary_size
    size = max(1, min(8, (1 << 25) // (max(1, length) * vocabulary)))  # texts whose logits are held at once
    for start in range(0, len(rows), size):
        found = served["score"](text=tf.constant(texts[start : start + size]))
        values, targets = found["log_probabilities"].numpy(), found["targets"].numpy()
        for place, wanted in enumerate(expected[start : start + size]):
            if targets[place] != len(wanted):
                difference[start + place] = np.nan
            else:
                difference[start + place] = np.abs(values[place, : len(wanted)] - np.array(wanted)).max(initial=0.0)
        report(min(start + size, len(rows)), len(rows), "documents")
    return rows, difference


def _masked(
    served: Any, examples: Examples, sequences: Sequences, split: str, predictions: pa.Table, mask_ratio: float
) -> tuple[np.ndarray, np.ndarray]:
    table = DocumentTable(sequences, split)
    pieces = open_wordpiece(sequences.path / "tokenizer")
    rows = _chosen(table)
    same = np.zeros(len(table), bool)
    for row, text in zip(rows, _texts(examples, split, table, rows), strict=True):
        ids = served["tokenize"](text=tf.constant([text]))["token_ids"].numpy()[0]
        same[row] = np.array_equal(ids, table.tokens(row, 0, len(ids)))
    masking = MaskedRows(pieces, int(sequences.properties["sequence_length"]), mask_ratio)
    found, counts = np.zeros(len(table)), np.zeros(len(table))
    names = ("token_ids", "segment_ids", "padding_mask", "positions", "targets")
    split_batches = masking.whole_split(table)
    for number, batch in enumerate(split_batches):
        inputs = {name: tf.constant(batch.inputs[name]) for name in names}
        values = served["tokens"](**inputs)["log_probabilities"].numpy()[batch.real]
        np.add.at(found, batch.documents, values.astype(np.float64))
        np.add.at(counts, batch.documents, 1)
        report(number + 1, len(split_batches), "batches")
    expected = predictions.column("log_probability").to_numpy()
    difference = np.abs(found - expected) / np.maximum(counts, 1)
    return rows, np.where(same, difference, np.nan)[rows]


if __name__ == "__main__":
    process.die_with_parent()
    asked, split_name, *folders, answer = sys.argv[1:]
    with within("proof"):
        result = compare(asked, split_name, *map(Path, folders))
    write_json(Path(answer), result)
