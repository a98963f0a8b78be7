"""Examples to token sequences, whatever the task: selection, the record of dropped rows, sharded tables."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from lmworks.configs.errors import UserError
from lmworks.configs.schema import PreprocessStage
from lmworks.pipeline.label_conflicts import Conflicts
from lmworks.pipeline.preprocess.selection import CONFLICT, KEPT, REASONS, label_indices, select
from lmworks.pipeline.tables import ShardWriter, read_batches
from lmworks.tfx.artifacts import Examples, Sequences
from lmworks.tfx.progress import doing, report, within

TOKENIZER = "tokenizer"
"""Folder of the tokenizer inside the artifact."""

_EXCLUDED = pa.schema({"id": pa.string(), "split": pa.string(), "row": pa.int64(), "reason": pa.string()})
_BATCH = 1024


class Encoder(Protocol):
    """What a task knows of its sequences."""

    schema: pa.Schema

    def encode(self, batch: pa.RecordBatch, rows: np.ndarray) -> pa.RecordBatch:
        """Sequences of a batch of examples that stand at these int64 [batch] positions of their split."""

    def properties(self) -> dict[str, Any]:
        """What the artifact says of all sequences; read at the end."""

    def summary(self) -> str:
        """The same for the user, in a few words."""


def write_sequences(config: PreprocessStage, examples: Examples, sequences: Sequences) -> None:
    """Writes all splits, the tokenizer and the excluded rows."""
    splits = list(examples.properties["splits"])
    total = sum(examples.properties["splits"].values())
    columns = ["id", *(name for key in ("text", "text_b", "label") if (name := examples.properties[key]))]
    doing("selecting rows")
    verdicts = {split: select(config, examples, split) for split in splits}
    for split, verdict in verdicts.items():
        if not np.any(verdict == KEPT):
            raise UserError(
                f"preprocess: no row of {split} is left; see deduplicate, conflicts, decontaminate and the length bounds"
            )
    notices = _class_notices(examples, verdicts)
    with within("training the tokenizer" if config.tokenizer.train else "opening the tokenizer"):
        encoder = encoder_of(config)(config, examples, sequences, _kept_texts(examples, verdicts["train"]))
    kept, done = {}, 0
    with pq.ParquetWriter(sequences.path / "excluded.parquet", _EXCLUDED) as excluded:
        for split in splits:
            start = kept[split] = 0
            with ShardWriter(sequences.path, split, encoder.schema, "arrow") as writer:
                for batch in read_batches(examples, split, columns, _BATCH):
                    verdict = verdicts[split][start : start + len(batch)]
                    rows = np.arange(start, start + len(batch))
                    excluded.write_batch(_dropped(batch, split, rows, verdict))
                    found = encoder.encode(batch.filter(pa.array(verdict == KEPT)), rows[verdict == KEPT])
                    writer.write(found)
                    kept[split] += len(found)
                    start += len(batch)
                    done += len(batch)
                    report(done, total, "rows")
    told = ", ".join(f"{count:,} {split}" for split, count in kept.items())
    sequences.properties |= {
        "sequence_length": config.sequence_length,
        "splits": kept,
        **encoder.properties(),
        "summary": ", ".join([f"{told} rows", f"{total - sum(kept.values()):,} dropped", *notices, encoder.summary()]),
    }


def _kept_texts(examples: Examples, verdict: np.ndarray) -> Iterator[str]:
    """The texts that are trained on, for training a tokenizer: it must know of no others."""
    columns = [name for name in (examples.properties["text"], examples.properties["text_b"]) if name]
    start = 0
    for batch in read_batches(examples, "train", columns):
        kept = pa.array(verdict[start : start + len(batch)] == KEPT)
        start += len(batch)
        for column in batch.filter(kept).columns:
            yield from column.to_pylist()
        report(start, len(verdict), "rows")
    doing("merging pieces")


def _class_notices(examples: Examples, verdicts: dict[str, np.ndarray]) -> list[str]:
    """What a classifier's user must know of the rows that are dropped.

    Raises:
        UserError: fewer than two classes are left to train on.
    """
    names, notices = examples.properties["labels"], []
    if not names:
        return []
    train = verdicts["train"]
    left = np.bincount(label_indices(examples, "train")[train == KEPT], minlength=len(names))
    gone = [repr(name) for name, rows in zip(names, left, strict=True) if not rows]
    if len(names) - len(gone) < 2:
        raise UserError(
            f"preprocess: no row of {', '.join(gone)} is left in train, and a classifier needs two classes; "
            "see deduplicate, conflicts, decontaminate and the length bounds"
        )
    if conflicts := int(np.sum(train == CONFLICT)):
        notices.append(f"{conflicts:,} of them for conflicting labels")
    if gone:
        notices.append(f"no training row of {', '.join(gone)}")
    held_out = ((split, Conflicts(**of)) for split, of in examples.properties["conflicts"].items() if split != "train")
    notices += [of.notice(split) for split, of in held_out if of.texts]
    return notices


def encoder_of(config: PreprocessStage) -> Callable[..., Encoder]:
    """The task's encoder; importing it is slow."""
    if config.task == "text_classification":
        from lmworks.pipeline.preprocess.classification import TextPairs

        return TextPairs
    from lmworks.pipeline.preprocess.documents import Documents

    if config.task == "masked_lm":
        import lmworks.models.wordpiece  # noqa: F401  (with TensorFlow, while there is time)
    return Documents


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
