"""Ingest in this process, for tests of what it reads."""

import shutil
import tempfile
from contextlib import contextmanager
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from lmworks.configs.schema import IngestStage
from lmworks.pipeline.ingest import split_table
from lmworks.pipeline.ingest.examples import write_examples  # here, before `batches_of` changes what it imports
from lmworks.tfx.artifacts import Examples, Statistics, publish, read

SPLITS = ("train", "validation", "test")


def ingested(folder, task="causal_lm", **settings):
    """The artifact, of a configuration."""
    config = IngestStage.model_validate({"task": task, **settings})
    paths = [Path(tempfile.mkdtemp(dir=folder)) for _ in range(2)]
    examples, statistics = Examples(paths[0]), Statistics(paths[1])
    write_examples(config, examples, statistics)
    publish(examples, "examples", {})
    return read(Examples, paths[0])


def split_of(examples, split):
    """The rows of a split; its shards must have one schema."""
    names = sorted(name for name in examples.files if name.startswith(f"Split-{split}/"))
    return pa.concat_tables([pq.read_table(examples.path / name) for name in names])


def all_rows(examples):
    """The rows of all splits, whose schemas must be the same."""
    return pa.concat_tables([split_of(examples, split) for split in SPLITS])


def rejects(examples):
    """Row and reason of what was refused."""
    return [(row["row"], row["reason"]) for row in pq.read_table(examples.path / "rejects.parquet").to_pylist()]


def trained_on(folder, path, **settings):
    """The training split of a file that is all of it, in the order of the file."""
    other = Path(folder, "other.jsonl")
    other.write_text('{"text": "another text"}\n')
    return ingested(folder, train=path if isinstance(path, dict | list) else str(path), validation=str(other),
                    test=str(other), **settings)  # fmt: skip


@contextmanager
def scratch():
    """A folder that is empty for every example of a property."""
    folder = tempfile.mkdtemp()
    try:
        yield Path(folder)
    finally:
        shutil.rmtree(folder)


@contextmanager
def batches_of(rows):
    """Tables are written in batches of so many rows, so that few rows are many batches."""
    before = split_table.BATCH
    split_table.BATCH = rows
    try:
        yield
    finally:
        split_table.BATCH = before
