"""Token sequences for text classification."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from lmworks.configs.errors import UserError
from lmworks.configs.schema import PreprocessStage
from lmworks.models.tokenizer import Tokenizer, open_tokenizer
from lmworks.models.wordpiece import train_wordpiece
from lmworks.pipeline.preprocess.selection import KEPT, REASONS, select
from lmworks.pipeline.preset import local_preset
from lmworks.pipeline.tables import ShardWriter, read_batches
from lmworks.tfx.artifacts import Examples, Sequences
from lmworks.tfx.progress import report

TOKENIZER = "tokenizer"
"""Folder of the tokenizer inside the artifact."""

SCHEMA = pa.schema(
    {
        "id": pa.string(),
        "row": pa.int64(),  # of the example in its split: texts may stand twice, and then share their id
        "token_ids": pa.list_(pa.int32()),
        "length": pa.int32(),
        "first_length": pa.int32(),  # of the first segment, special tokens counted
        "label": pa.int32(),
    }
)
_EXCLUDED = pa.schema({"id": pa.string(), "split": pa.string(), "row": pa.int64(), "reason": pa.string()})


def write_sequences(config: PreprocessStage, examples: Examples, sequences: Sequences) -> None:
    """Writes all splits, the tokenizer and the excluded rows."""
    tokenizer = _tokenizer(config, examples, sequences)
    splits = list(examples.properties["splits"])
    total = sum(examples.properties["splits"].values())
    kept, done, truncated = {}, 0, 0
    with pq.ParquetWriter(sequences.path / "excluded.parquet", _EXCLUDED) as excluded:
        for split in splits:
            verdicts = select(config, examples, split)
            start = kept[split] = 0
            with ShardWriter(sequences.path, split, SCHEMA, "arrow") as writer:
                for batch in read_batches(examples, split):
                    verdict = verdicts[start : start + len(batch)]
                    rows = np.arange(start, start + len(batch))
                    excluded.write_batch(_dropped(batch, split, rows, verdict))
                    mask = pa.array(verdict == KEPT)
                    tokens = tokenize(batch.filter(mask), rows[verdict == KEPT], tokenizer, config, examples.properties)
                    truncated += int(np.sum(tokens.column("length").to_numpy() == config.sequence_length))
                    writer.write(tokens)
                    kept[split] += len(tokens)
                    start += len(batch)
                    done += len(batch)
                    report(done, total, "rows")
            if not kept[split]:
                raise UserError(
                    f"preprocess: no row of {split} is left; see deduplicate, decontaminate and the length bounds"
                )
    sequences.properties |= {
        "sequence_length": config.sequence_length,
        "labels": examples.properties["labels"],
        "pad_id": tokenizer.pad_id,
        "splits": kept,
        "summary": ", ".join(f"{count:,} {split}" for split, count in kept.items())
        + f" rows, {total - sum(kept.values()):,} dropped, {truncated:,} at {config.sequence_length} tokens",
    }


def tokenize(
    batch: pa.RecordBatch, rows: np.ndarray, tokenizer: Tokenizer, config: PreprocessStage, columns: dict[str, Any]
) -> pa.RecordBatch:
    """Token ids of one batch of examples: no state, so any number of workers may share the work.

    Args:
        batch: examples.
        rows: int64 [batch], their positions in the split.
        tokenizer: the stage's.
        config: of the stage.
        columns: the examples' properties, which name the columns and the labels.
    """
    text, text_b, label = (columns[name] for name in ("text", "text_b", "label"))
    ids, first = tokenizer.pack(
        batch.column(text).to_pylist(),
        batch.column(text_b).to_pylist() if text_b else None,
        sequence_length=config.sequence_length,
    )
    offsets = ids.row_splits.numpy()
    number = {name: index for index, name in enumerate(columns["labels"])}
    labels = [number[name] for name in batch.column(label).to_pylist()]
    return pa.RecordBatch.from_arrays(
        [
            batch.column("id"),
            pa.array(rows, pa.int64()),
            pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), pa.array(ids.flat_values.numpy(), pa.int32())),
            pa.array(np.diff(offsets), pa.int32()),
            pa.array(first.numpy(), pa.int32()),
            pa.array(labels, pa.int32()),
        ],
        schema=SCHEMA,
    )


def _tokenizer(config: PreprocessStage, examples: Examples, sequences: Sequences) -> Tokenizer:
    training = config.tokenizer.train
    folder = sequences.path / TOKENIZER
    folder.mkdir()
    if training:
        try:
            train_wordpiece(_texts(examples), training.vocabulary_size, training.lowercase).save(folder)
        except ValueError as error:
            raise UserError(f"preprocess.tokenizer.train: {error}") from error
    else:
        preset = local_preset(config.preset)
        assert preset is not None
        open_tokenizer(preset).save(folder)
    return open_tokenizer(folder)


def _texts(examples: Examples) -> Iterator[str]:
    columns = [name for name in (examples.properties["text"], examples.properties["text_b"]) if name]
    for batch in read_batches(examples, "train", columns):
        for column in batch.columns:
            yield from column.to_pylist()


def _dropped(batch: pa.RecordBatch, split: str, rows: np.ndarray, verdict: np.ndarray) -> pa.RecordBatch:
    dropped = verdict != KEPT
    reasons = [REASONS[int(one)] for one in verdict[dropped]]
    ids = batch.column("id").filter(pa.array(dropped))
    return pa.RecordBatch.from_arrays(
        [
            ids,
            pa.array([split] * len(reasons), pa.string()),
            pa.array(rows[dropped], pa.int64()),
            pa.array(reasons, pa.string()),
        ],
        schema=_EXCLUDED,
    )
