import datetime
import gzip
import json
import lzma

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from lmworks.configs.errors import UserError
from lmworks.configs.schema import IngestStage
from lmworks.pipeline.ingest.component import ingest
from lmworks.pipeline.ingest.splits import example_id, split_of
from lmworks.tfx.artifacts import Examples, Statistics, publish, read

ROWS = [{"text": f"text number {index}", "label": "ab"[index % 2]} for index in range(200)]


def csv_of(rows) -> str:
    return "text,label\n" + "".join(f'"{row["text"]}",{row["label"]}\n' for row in rows)


def run(tmp_path, **settings):
    config = IngestStage.model_validate({"task": "text_classification", **settings})
    folders = [tmp_path / name for name in ("examples", "statistics")]
    for folder in folders:
        folder.mkdir()
    examples, statistics = Examples(folders[0]), Statistics(folders[1])
    ingest(config=config, examples=examples, statistics=statistics)
    publish(examples, "examples", {})
    return read(Examples, folders[0]), folders[1]


def table(examples, split):
    return pa.concat_tables(
        [pq.read_table(examples.path / name) for name in examples.files if f"Split-{split}/" in name]
    )


def ids(examples):
    return {split: set(table(examples, split)["id"].to_pylist()) for split in ("train", "validation", "test")}


@pytest.mark.parametrize("kind", ["csv", "csv.gz", "tsv", "jsonl", "parquet"])
def test_every_format_gives_the_same_examples(tmp_path, kind):
    path = tmp_path / f"rows.{kind}"
    if kind == "parquet":
        pq.write_table(pa.Table.from_pylist(ROWS), path)
    elif kind == "jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    elif kind == "tsv":
        path.write_text("text\tlabel\n" + "".join(f"{row['text']}\t{row['label']}\n" for row in ROWS))
    else:
        content = csv_of(ROWS).encode()
        path.write_bytes(gzip.compress(content) if kind.endswith("gz") else content)
    examples, statistics = run(tmp_path, train=str(path))
    assert set().union(*ids(examples).values()) == {example_id(row["text"]) for row in ROWS}
    assert examples.properties["labels"] == ["a", "b"]
    assert json.loads((statistics / "statistics.json").read_text())["leakage"] == {
        "train and validation": 0, "train and test": 0, "validation and test": 0}  # fmt: skip


def test_splits_stay_when_rows_are_added(tmp_path):
    for name, count in (("few", 150), ("many", 200)):
        (tmp_path / name).mkdir()
        (tmp_path / f"{name}.csv").write_text(csv_of(ROWS[:count]))
    few, _ = run(tmp_path / "few", train=str(tmp_path / "few.csv"))
    many, _ = run(tmp_path / "many", train=str(tmp_path / "many.csv"))
    assert all(ids(few)[split] <= ids(many)[split] for split in ids(few))
    assert split_of(example_id("x"), {"test": 0.0, "validation": 0.0}) == "train"


def test_quotes_and_new_lines_follow_rfc_4180(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text('text,label\r\n"said ""no"",\nand left",a\r\n' + csv_of(ROWS).partition("\n")[2])
    examples, _ = run(tmp_path, train=str(path))
    texts = [text for split in ids(examples) for text in table(examples, split)["text"].to_pylist()]
    assert 'said "no",\nand left' in texts


def test_refused_rows_are_recorded(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text(csv_of(ROWS) + "short\n" + '"  ",a\n')
    examples, statistics = run(tmp_path, train=str(path), max_rejects=0.05)
    rejects = pq.read_table(examples.path / "rejects.parquet").to_pylist()
    assert [(row["row"], row["reason"].split(":")[0]) for row in rejects] == [
        (202, "1 fields where the header has 2"), (203, "empty text")]  # fmt: skip
    assert sum(json.loads((statistics / "statistics.json").read_text())["refused"].values()) == 2


def test_label_rule_leaves_rows_out_without_refusing_them(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text("text,label\n" + "".join(f"text {index},{index % 3 - 1}\n" for index in range(300)))
    rule = {"bad": {"below": -0.5}, "good": {"above": 0.5}}
    examples, _ = run(tmp_path, train={"path": str(path), "label_rule": rule})
    assert examples.properties["labels"] == ["bad", "good"]
    assert sum(examples.properties["splits"].values()) == 200


def test_repair_is_recorded(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text(csv_of([*ROWS, {"text": "voilÃ  le cafÃ©", "label": "a"}]))
    examples, _ = run(tmp_path, train=str(path), repair=True)
    repairs = pq.read_table(examples.path / "repairs.parquet").to_pylist()
    assert [row["before"] for row in repairs] == ["voilÃ  le cafÃ©"]
    assert repairs[0]["id"] == example_id("voilà le café")


def bad(tmp_path, content, name="a.csv", **settings) -> str:
    path = tmp_path / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(UserError) as caught:
        run(tmp_path, train=str(path), **settings)
    return str(caught.value)


def test_bad_input_gets_one_clear_error(tmp_path):
    cases = [
        (lambda at: bad(at, csv_of(ROWS), label="lable"), ["no column 'lable' (ingest.label)", "did you mean label?"]),
        (lambda at: bad(at, csv_of(ROWS).replace(",b", ",a")), ["only the class 'a'"]),
        (lambda at: bad(at, gzip.compress(csv_of(ROWS).encode())[:-30], "a.csv.gz"), ["a.csv.gz", "truncated"]),
        (lambda at: bad(at, csv_of(ROWS).replace("text n", "té n").encode("latin-1")), ["utf-8", "ingest.encoding"]),
        (lambda at: bad(at, csv_of(ROWS) + "x\n" * 9), ["max_rejects", "1 fields where the header has 2"]),
        (lambda at: bad(at, csv_of(ROWS), "a.dat"), ["ingest.format"]),
        (lambda at: bad(at, csv_of(ROWS), labels=["a", "c"]), ["unknown label"]),
        (lambda at: bad(at, b"no parquet", "a.parquet"), ["is no Parquet file"]),
        (lambda at: bad(at, ""), ["no column"]),
    ]
    for number, (case, words) in enumerate(cases):
        folder = tmp_path / str(number)
        folder.mkdir()
        message = case(folder)
        assert all(word in message for word in words), message


@pytest.mark.parametrize(
    ("path", "words"), [("none.csv", "no such file"), (".", "is a directory"), ("*.csv", "the glob matches")]
)
def test_missing_files(tmp_path, path, words):
    with pytest.raises(UserError, match=words):
        run(tmp_path, train=str(tmp_path / path))


def rejects(examples):
    return [(row["row"], row["reason"]) for row in pq.read_table(examples.path / "rejects.parquet").to_pylist()]


@pytest.mark.parametrize(
    "line",
    [
        '{"text": "a", "label": "a", "\\ud800": 1}',
        '{"text": "a", "label": "a", "more": ["\\ud800"]}',
        "[" * 100_000,
        '{"text": "a", "label": NaN}',
        '{"text": "a", "lable": "a"}',
        '{"text": "a"',
        "[1]",
    ],
)
def test_a_bad_line_of_json_is_one_reject(tmp_path, line):
    path = tmp_path / "a.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in ROWS) + line + "\n")
    examples, _ = run(tmp_path, train=str(path))
    assert [row for row, _ in rejects(examples)] == [201]


def test_parquet_bytes_that_are_no_text_and_nan_labels_are_rejects(tmp_path):
    good = pa.array([row["text"].encode() for row in ROWS] + [b"caf\xe9", b"nan label"])
    # As other writers do it: a column declared a string whose bytes were never checked.
    texts = pa.Array.from_buffers(pa.string(), len(good), good.buffers())
    labels = pa.array([float(index % 2) for index in range(200)] + [1.0, float("nan")])
    nested = pa.array([[datetime.date(2020, 1, 1)]] * 202)
    pq.write_table(pa.table({"text": texts, "label": labels, "dates": nested}), tmp_path / "a.parquet")
    examples, _ = run(tmp_path, train=str(tmp_path / "a.parquet"))
    assert rejects(examples) == [(201, "a string that is no UTF-8"), (202, "missing label: column label")]
    assert examples.properties["labels"] == ["0", "1"]
    assert table(examples, "train")["dates"].to_pylist()[0] == [datetime.date(2020, 1, 1)]


def test_tsv_knows_neither_quotes_nor_carriage_returns(tmp_path):
    path = tmp_path / "a.tsv"
    extra = ['"open', "a\rb", "nul\0"]
    path.write_bytes("".join(f"{text}\t{label}\n" for text, label in [("text", "label"), *zip(extra, "aba", strict=True)])
                     .encode() + "".join(f"{row['text']}\t{row['label']}\r\n" for row in ROWS).encode())  # fmt: skip
    examples, _ = run(tmp_path, train=str(path))
    assert {example_id(text) for text in extra} < set().union(*ids(examples).values())


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_byte_order_marks_are_no_part_of_the_first_column(tmp_path, encoding):
    path = tmp_path / "a.csv"
    path.write_text(csv_of(ROWS), encoding=encoding)
    examples, _ = run(tmp_path, train=str(path), encoding=encoding.removesuffix("-sig"))
    assert table(examples, "train").column_names == ["id", "text", "label"]


@pytest.mark.parametrize("prefix", ["", "file://"])
def test_globs_skip_folders(tmp_path, prefix):
    (tmp_path / "part-0").mkdir()
    for number in (1, 2):
        (tmp_path / f"part-{number}.csv").write_text(csv_of(ROWS[number - 1 :: 2]))
    examples, _ = run(tmp_path, train={"path": f"{prefix}{tmp_path}/part-*"})
    assert sum(examples.properties["splits"].values()) == 200


@pytest.mark.parametrize(
    ("name", "content", "settings", "words"),
    [
        ("a.csv", csv_of(ROWS), {"encoding": "utf-16"}, ["is no utf-16 text", "ingest.encoding"]),
        ("a.csv", csv_of(ROWS), {"encoding": "klingon"}, ["unknown encoding: klingon"]),
        ("a.csv", "text,label,café\n".encode("latin-1"), {}, ["column names are no utf-8 text", "ingest.encoding"]),
        ("a.csv", "text,text,label\n", {}, ["more than one column 'text'"]),
        ("a.csv", "id,label\n", {"text": "id"}, ["a column 'id' (ingest.text)", "rename it"]),
        ("a.csv", csv_of(ROWS) + '"open,a\n' + csv_of(ROWS), {}, ["a.csv:202: no valid csv"]),
        ("a.txt", "some text\n", {}, ["no column 'label' (ingest.label); it has: text"]),
        ("a.jsonl", '{"text": "a", "lable": "b"}\n', {}, ["no column 'label'", "did you mean lable?"]),
        ("a.csv.gz", csv_of(ROWS), {}, ["is no gzipped file"]),
        ("a.csv.xz", lzma.compress(csv_of(ROWS).encode())[:-40], {}, ["truncated"]),
    ],
)
def test_files_that_cannot_be_read_get_one_clear_error(tmp_path, name, content, settings, words):
    message = bad(tmp_path, content, name, **settings)
    assert all(word in message for word in words), message
    assert "\n" not in message


@pytest.mark.parametrize(
    ("name", "words"), [("none.csv", "no such file"), ("", "is a directory"), ("*.csv", "the glob")]
)
def test_missing_urls(tmp_path, name, words):
    with pytest.raises(UserError, match=words):
        run(tmp_path, train=f"file://{tmp_path}/{name}")


def test_rows_without_a_class_do_not_thin_the_rejects(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text("text,label\n" + "".join(f"text {n},{n % 3 - 1}\n" for n in range(300)) + "some text,none\n" * 4)
    rule = {"bad": {"below": -0.5}, "good": {"above": 0.5}}
    with pytest.raises(UserError, match="4 of 204 rows refused"):
        run(tmp_path, train={"path": str(path), "label_rule": rule}, max_rejects=0.015)


def test_a_text_that_repair_leaves_empty_is_refused(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text(csv_of(ROWS) + "\x01,a\n")
    examples, _ = run(tmp_path, train=str(path), repair=True)
    assert rejects(examples) == [(202, "empty text: column text")]
    assert pq.read_table(examples.path / "repairs.parquet").num_rows == 0


def test_rejects_are_written_in_batches(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text(csv_of(ROWS) + "x\n" * 100)
    examples, _ = run(tmp_path, train=str(path), max_rejects=0.5)
    assert pq.ParquetFile(examples.path / "rejects.parquet").metadata.num_row_groups == 1
