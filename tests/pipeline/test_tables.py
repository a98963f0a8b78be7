import pyarrow as pa
import pytest

from lmworks.pipeline.tables import ShardWriter, files_of, read_batches
from lmworks.tfx.artifacts import Examples

SCHEMA = pa.schema({"id": pa.string(), "row": pa.int64()})


def batch(start: int, count: int) -> pa.RecordBatch:
    rows = range(start, start + count)
    return pa.RecordBatch.from_pydict({"id": [f"{row:x}" for row in rows], "row": list(rows)}, SCHEMA)


def written(folder, kind, batches, split="train", **options) -> Examples:
    with ShardWriter(folder, split, SCHEMA, kind, **options) as writer:
        for one in batches:
            writer.write(one)
    return Examples(folder, files=sorted(path.relative_to(folder).as_posix() for path in folder.rglob("data-*")))


@pytest.mark.parametrize("kind", ["parquet", "arrow"])
def test_rows_come_back_in_order_from_numbered_shards(tmp_path, kind):
    examples = written(tmp_path, kind, [batch(start, 10) for start in range(0, 100, 10)], rows_per_shard=30)
    assert [path.name for path in files_of(examples, "train")] == [f"data-0000{n}-of-00004.{kind}" for n in range(4)]
    table = pa.Table.from_batches(read_batches(examples, "train"))
    assert table.schema == SCHEMA
    assert table["row"].to_pylist() == list(range(100))


@pytest.mark.parametrize("kind", ["parquet", "arrow"])
def test_columns_come_in_the_order_asked(tmp_path, kind):
    examples = written(tmp_path, kind, [batch(0, 3)])
    assert next(read_batches(examples, "train", ["row"])).schema.names == ["row"]
    assert [one.column("row").to_pylist() for one in read_batches(examples, "train", ["row", "id"])] == [[0, 1, 2]]


@pytest.mark.parametrize("kind", ["parquet", "arrow"])
def test_a_batch_never_holds_more_than_was_written_at_once(tmp_path, kind):
    """Writers bound a batch's characters, and readers rely on it: a thousand documents of 10 MB do not fit into memory."""
    examples = written(tmp_path, kind, [batch(start, 3) for start in range(0, 12, 3)])
    assert [len(one) for one in read_batches(examples, "train", batch_size=1000)] == [3, 3, 3, 3]


@pytest.mark.parametrize("kind", ["parquet", "arrow"])
def test_an_empty_split_has_one_shard_with_the_schema(tmp_path, kind):
    examples = written(tmp_path, kind, [])
    assert examples.files == [f"Split-train/data-00000-of-00001.{kind}"]
    assert sum(len(one) for one in read_batches(examples, "train")) == 0


def test_only_listed_files_of_the_split_are_read(tmp_path):
    written(tmp_path, "parquet", [batch(0, 3)], split="training")
    examples = written(tmp_path, "parquet", [batch(5, 2)])
    (tmp_path / "Split-train" / "data-00001-of-00002.parquet").write_bytes(b"a stray file")
    assert [one.column("row").to_pylist() for one in read_batches(examples, "train")] == [[5, 6]]


def stop_after_one_batch(folder):
    with ShardWriter(folder, "train", SCHEMA, "parquet") as writer:
        writer.write(batch(0, 3))
        raise RuntimeError("stopped")


def test_a_writer_that_fails_leaves_no_shard_of_a_final_name(tmp_path):
    with pytest.raises(RuntimeError, match="stopped"):
        stop_after_one_batch(tmp_path)
    assert not list(tmp_path.rglob("data-*"))
