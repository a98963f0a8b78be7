"""Token sequences for text classification."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import pyarrow as pa

from lmworks.configs.errors import UserError
from lmworks.configs.schema import PreprocessStage
from lmworks.models.tokenizer import Tokenizer, open_tokenizer
from lmworks.models.wordpiece import train_wordpiece
from lmworks.pipeline.preprocess.sequences import TOKENIZER
from lmworks.pipeline.preset import local_preset
from lmworks.tfx.artifacts import Examples, Sequences


class TextPairs:
    """One sequence per row: `[CLS] text [SEP]`, or `[CLS] text [SEP] text_b [SEP]`, truncated."""

    schema = pa.schema(
        {
            "id": pa.string(),
            "row": pa.int64(),  # of the example in its split: texts may stand twice, and then share their id
            "token_ids": pa.list_(pa.int32()),
            "length": pa.int32(),
            "first_length": pa.int32(),  # of the first segment, special tokens counted
            "label": pa.int32(),
        }
    )

    def __init__(
        self, config: PreprocessStage, examples: Examples, sequences: Sequences, training_texts: Iterable[str]
    ) -> None:
        self._length, self._columns = config.sequence_length, examples.properties
        self._tokenizer = _tokenizer(config, sequences, training_texts)
        self._number = {name: index for index, name in enumerate(self._columns["labels"])}
        self._truncated = 0

    def encode(self, batch: pa.RecordBatch, rows: np.ndarray) -> pa.RecordBatch:
        """Token ids of one batch of examples."""
        text, text_b, label = (self._columns[name] for name in ("text", "text_b", "label"))
        ids, first = self._tokenizer.pack(
            batch.column(text).to_pylist(),
            batch.column(text_b).to_pylist() if text_b else None,
            sequence_length=self._length,
        )
        offsets = ids.row_splits.numpy()
        lengths = np.diff(offsets)
        self._truncated += int(np.sum(lengths == self._length))
        labels = [self._number[name] for name in batch.column(label).to_pylist()]
        return pa.RecordBatch.from_arrays(
            [
                batch.column("id"),
                pa.array(rows, pa.int64()),
                pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), pa.array(ids.flat_values.numpy(), pa.int32())),
                pa.array(lengths, pa.int32()),
                pa.array(first.numpy(), pa.int32()),
                pa.array(labels, pa.int32()),
            ],
            schema=self.schema,
        )

    def properties(self) -> dict[str, Any]:
        """Labels and the id that fills a batch."""
        return {"labels": self._columns["labels"], "pad_id": self._tokenizer.pad_id}

    def summary(self) -> str:
        """How many rows may have lost their end."""
        return f"{self._truncated:,} at {self._length} tokens"


def _tokenizer(config: PreprocessStage, sequences: Sequences, training_texts: Iterable[str]) -> Tokenizer:
    training = config.tokenizer.train
    folder = sequences.path / TOKENIZER
    folder.mkdir()
    if training:
        try:
            train_wordpiece(training_texts, training.vocabulary_size, training.lowercase).save(folder)
        except ValueError as error:
            raise UserError(f"preprocess.tokenizer.train: {error}") from error
    else:
        preset = local_preset(config.preset)
        assert preset is not None
        open_tokenizer(preset).save(folder)
    return open_tokenizer(folder)
