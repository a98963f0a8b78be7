"""Tables of tens of thousands of columns cost in proportion to them."""

import time

import pyarrow as pa
import pytest

from lmworks.configs.errors import UserError
from lmworks.configs.schema import IngestStage
from lmworks.pipeline.ingest.column_types import ColumnTypes
from lmworks.pipeline.ingest.files import File
from lmworks.pipeline.ingest.rows import FileColumns, Row
from lmworks.pipeline.ingest.split_table import SplitTable

NAMES = [f"column {number}" for number in range(40_000)]


def columns(**settings) -> FileColumns:
    config = IngestStage.model_validate({"task": "text_classification", "train": "a.csv", **settings})
    return FileColumns(config, config.train, "ingest.train", File("a.csv"), {})


def test_a_header_of_many_columns_is_read_at_once():
    began = time.process_time()
    assert columns().of_file(["text", "label", *NAMES]) == ["text", "label", *NAMES]
    assert time.process_time() - began < 2  # it took 13 s


def test_an_error_lists_some_of_many_columns():
    with pytest.raises(UserError, match=r"no column 'text'.*it has: column 0, .*, column 29 and 39,970 more") as caught:
        columns().of_file(NAMES)
    assert len(str(caught.value)) < 1000
    with pytest.raises(UserError, match=r"more than one column 'column 0', .* and 39,970 more; rename") as caught:
        columns().of_file(NAMES * 2)
    assert len(str(caught.value)) < 1000


def test_typed_columns_join_the_texts_at_once(tmp_path):
    block = pa.RecordBatch.from_arrays([pa.array([1])] * 20_000, names=NAMES[:20_000])
    table = SplitTable(tmp_path, "train", ColumnTypes())
    table.add({"id": "0", "text": "a"}, Row("a.parquet", 1, {}, block=block))
    began = time.process_time()
    table._collect()
    assert time.process_time() - began < 2  # it took 10 s
    assert table._pieces[0].schema.names == ["id", "text", *NAMES[:20_000]]
