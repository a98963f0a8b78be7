"""Which rows are dropped, and why: conflicting labels, duplicates, leakage, length bounds.

Needs a few bytes a row, whatever the texts' length.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from lmworks.configs.schema import PreprocessStage
from lmworks.pipeline.label_conflicts import LabelCounts
from lmworks.pipeline.tables import read_batches
from lmworks.tfx.artifacts import Examples

KEPT, DUPLICATE, LEAKED, SHORT, LONG, CONFLICT = range(6)
REASONS = {
    DUPLICATE: "duplicate: the same text stands earlier in this split",
    LEAKED: "leakage: the same text stands in a later split",
    SHORT: "shorter than preprocess.min_characters",
    LONG: "longer than preprocess.max_characters",
    CONFLICT: "conflict: the same text stands with another label in this split, see preprocess.conflicts",
}


def select(config: PreprocessStage, examples: Examples, split: str) -> np.ndarray:
    """Verdict on every row of a split.

    Rows that a model is measured on stay: test keeps all of its rows, so that figures compare with published ones;
    validation loses only those that stand in test. So `config.conflicts` decides about training rows alone. It says which
    label a text has, and `config.deduplicate` how many of the rows with that label are kept.

    Returns:
        uint8 [rows]: `KEPT`, or why the row is dropped.
    """
    ids = _ids(examples, split)
    verdict = np.full(len(ids), KEPT, np.uint8)
    if split == "train":
        lengths = np.concatenate([*_lengths(examples, split), np.zeros(0, np.int64)])
        verdict[lengths < config.min_characters] = SHORT
        if config.max_characters is not None:
            verdict[lengths > config.max_characters] = LONG
        loses = np.zeros(len(ids), bool)
        if examples.properties["label"]:
            loses = LabelCounts(ids, label_indices(examples, split)).losers(config.conflicts)
        if config.deduplicate:
            remaining = np.flatnonzero(~loses)
            verdict[remaining] = np.where(_first_of_each(ids[remaining]), verdict[remaining], DUPLICATE)
        verdict[loses] = CONFLICT
    if config.decontaminate:
        for later in {"train": ("validation", "test"), "validation": ("test",), "test": ()}[split]:
            verdict[np.isin(ids, _ids(examples, later))] = LEAKED
    return verdict


def label_indices(examples: Examples, split: str) -> np.ndarray:
    """Each row's position in the artifact's labels: int32 [rows]."""
    names = pa.array(examples.properties["labels"], pa.string())
    columns = (batch.column(0) for batch in read_batches(examples, split, [examples.properties["label"]]))
    parts = [pc.index_in(column, names).to_numpy(zero_copy_only=False) for column in columns]
    return np.concatenate([*parts, np.zeros(0, np.int32)])


def _first_of_each(ids: np.ndarray) -> np.ndarray:
    first = np.zeros(len(ids), bool)
    first[np.unique(ids, return_index=True)[1]] = True
    return first


def _ids(examples: Examples, split: str) -> np.ndarray:
    """The ids as uint64 [rows]."""
    parts = [_hex_to_uint64(batch.column(0)) for batch in read_batches(examples, split, ["id"])]
    return np.concatenate([*parts, np.zeros(0, np.uint64)])


def _hex_to_uint64(column: pa.Array) -> np.ndarray:
    digits = "".join(column.to_pylist())
    return np.frombuffer(bytes.fromhex(digits), ">u8").astype(np.uint64)


def _lengths(examples: Examples, split: str) -> Iterator[np.ndarray]:
    columns = [name for name in (examples.properties["text"], examples.properties["text_b"]) if name]
    for batch in read_batches(examples, split, columns):
        yield sum(pc.utf8_length(column).to_numpy(zero_copy_only=False).astype(np.int64) for column in batch.columns)
