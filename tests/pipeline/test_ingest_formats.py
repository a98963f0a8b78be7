"""What a file is read as: by its configuration, its extension and its content."""

import bz2
import gzip
import io
import json
import lzma
import re
import tarfile
import zipfile

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from lmworks.configs.errors import UserError
from lmworks.configs.load import ConfigError, validate
from lmworks.pipeline.ingest import documents, json_rows, separated
from tests.pipeline.ingesting import all_rows, ingested, rejects, split_of, trained_on

ROWS = [{"text": f"text {number}", "n": number} for number in range(6)]
CSV = "text,n\n" + "".join(f"{row['text']},{row['n']}\n" for row in ROWS)
JSONL = "".join(json.dumps(row) + "\n" for row in ROWS)


def texts(folder, path, **settings):
    return split_of(trained_on(folder, path, **settings), "train")["text"].to_pylist()


def written(path, content):
    path.parent.mkdir(exist_ok=True, parents=True)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def error(folder, path, **settings):
    with pytest.raises(UserError) as caught:
        trained_on(folder, path, **settings)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def zipped(members):
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        for name, text in members.items():
            archive.writestr(name, text)
    return content.getvalue()


def zstandard(content):
    sink = pa.BufferOutputStream()
    with pa.CompressedOutputStream(sink, "zstd") as stream:
        stream.write(content)
    return sink.getvalue().to_pybytes()


@pytest.mark.parametrize(
    ("name", "pack"),
    [("a.csv.gz", gzip.compress), ("a.csv", gzip.compress), ("a.csv.bz2", bz2.compress), ("a.csv.xz", lzma.compress),
     ("a.csv.zst", zstandard), ("a.csv", zstandard), ("a.csv.zst", lambda content: zstandard(content[:9]) + zstandard(content[9:])),
     ("a.zip", lambda content: zipped({"a.csv.gz": gzip.compress(content)})), ("a.zip", lambda content: zipped({"folder/a.csv": content})), ("a.csv.zip", lambda content: zipped({"a.csv": content}))],
)  # fmt: skip
def test_a_compressed_file_is_unpacked_by_its_content(tmp_path, name, pack):
    assert texts(tmp_path, written(tmp_path / name, pack(CSV.encode()))) == [row["text"] for row in ROWS]


def test_a_zip_file_with_several_files_is_read_by_name(tmp_path):
    path = written(
        tmp_path / "a.zip",
        zipped({"train.csv": CSV, "test.csv": "text\nother\n", "__MACOSX/train.csv": "", "a/.DS_Store": ""}),
    )
    message = error(tmp_path, path)
    assert "a zip file that holds 2 files (train.csv, test.csv)" in message
    assert "member" in message
    assert texts(tmp_path, {"path": str(path), "member": "train.csv"}) == [row["text"] for row in ROWS]
    assert "without a member 'valid.csv'" in error(tmp_path, {"path": str(path), "member": "valid.csv"})
    plain = written(tmp_path / "a.csv", CSV)
    assert "no zip file, and a member" in error(tmp_path, {"path": str(plain), "member": "a.csv"})


PARQUET = io.BytesIO()
pq.write_table(pa.table({"text": ["a"]}), PARQUET)
TAR = io.BytesIO()
with tarfile.open(fileobj=TAR, mode="w:gz") as archive:
    archive.add(__file__)
POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n"


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("a.csv", zipped({}), "a zip file that holds nothing"),
        ("a.jsonl", POINTER, "is a Git LFS pointer, not the file itself; run `git lfs pull`"),
        ("a.parquet", POINTER, "is a Git LFS pointer"),
        ("a.txt", POINTER, "is a Git LFS pointer"),
        ("a.csv", PARQUET.getvalue(), "is a Parquet file, and is read as csv; set ingest.train.format: parquet"),
        ("a.parquet", gzip.compress(PARQUET.getvalue()), "a Parquet file inside gzip; unpack it"),
        ("a.csv", b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1more", "old Office file"),
        ("a.csv.zst", CSV, "is no Zstandard file, as its name says"),
        ("a.csv", zstandard(CSV.encode())[:-6], "Truncated"),
        ("a.zip", b"PK\x03\x04damaged", "a damaged zip file"),
        ("a.tar.gz", TAR.getvalue(), "a tar archive; unpack it"),
        ("a.csv", b"SQLite format 3\0...", "an SQLite database"),
    ],
)
def test_what_is_no_data_is_named_for_what_it_is(tmp_path, name, content, words):
    assert words in error(tmp_path, written(tmp_path / name, content))


def test_a_workbook_is_named(tmp_path):
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        archive.writestr("[Content_Types].xml", "")
        archive.writestr("xl/workbook.xml", "")
    for name in ("a.xlsx", "a.csv"):
        message = error(tmp_path, written(tmp_path / name, content.getvalue()))
        assert "an Office file (.xlsx, .docx, .ods); save it as csv" in message


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-32"])
@pytest.mark.parametrize(("name", "content"), [("a.csv", CSV), ("a.jsonl", JSONL), ("a.tsv", CSV.replace(",", "\t"))])
def test_a_byte_order_mark_says_the_encoding(tmp_path, name, content, encoding):
    table = split_of(trained_on(tmp_path, written(tmp_path / name, content.encode(encoding))), "train")
    assert table.column_names == ["id", "text", "n"]
    assert table["text"].to_pylist() == [row["text"] for row in ROWS]


def test_documents_with_a_byte_order_mark(tmp_path):
    assert texts(tmp_path, written(tmp_path / "a.txt", "één\r\n".encode("utf-16"))) == ["één\r\n"]


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (json.dumps(ROWS), ROWS),
        (json.dumps(ROWS, indent=2), ROWS),
        (" \n" + "\n".join(json.dumps(row, indent=4) for row in ROWS), ROWS),
        ("".join(json.dumps(ROWS[begin : begin + 2]) + "\n" for begin in (0, 2, 4)), ROWS),
        ("[\n" + ",\n".join(json.dumps(row) for row in ROWS) + ",\n]\n", ROWS),
        ("[]" + JSONL, ROWS),
        ("\n\n" + JSONL, ROWS),
        (JSONL.replace("\n", "\r\n"), ROWS),
        (JSONL.replace(" ", "\u2028").replace('"n":\u2028', '"n":').replace(',\u2028', ','), [{**row, "text": row["text"].replace(" ", "\u2028")} for row in ROWS]),
    ],
)  # fmt: skip
@pytest.mark.parametrize("name", ["a.json", "a.jsonl"])
def test_json_of_every_form(tmp_path, name, content, expected):
    content = content.replace('":\u2028', '": ')
    table = split_of(trained_on(tmp_path, written(tmp_path / name, content)), "train")
    assert table.select(["text", "n"]).to_pylist() == expected


def test_a_long_array_is_read_as_a_stream(tmp_path):
    """Values reach across what is read at once; line numbers hold."""
    rows = [{"text": f"{number} " + 'é"\\' * (number * 97 % 5000), "n": number} for number in range(400)] + [7]
    content = json.dumps(rows, indent=1, ensure_ascii=False)
    examples = trained_on(tmp_path, written(tmp_path / "a.json", content), max_rejects=0.1)
    assert split_of(examples, "train").select(["text", "n"]).to_pylist() == rows[:-1]
    assert rejects(examples) == [(content.count("\n"), "no JSON object")]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ('[{"text": "a"}\n{"text": "b"}]', "a.json:2: no valid JSON: a comma is missing"),
        ('[{"text": "a"},\n{"text": }]', "a.json:2: no valid JSON"),
        ('[{"text": "a"},\n', "a.json:2: no valid JSON: the array is never closed"),
        ('[{"text": "a"},\n{"text": "b', "a.json:2: no valid JSON: Unterminated string"),
        ('{\n "text": "a"\n}\n{\n "text"; "b"\n}\n', "a.json:5: no valid JSON"),
        ("[" * 100_000, "no valid JSON"),
        ('{"data": [{"text": "a"}]}', "missing column: no column 'text' (ingest.text); it has: data"),
        ('{"text": "a", "text": "b"}\n', "the key 'text' stands twice in an object"),
        ('[{"text": "a", "more": {"x": 1, "x": 2}}]\n', "the key 'x' stands twice in an object"),
        ("", "ingest.train: no rows in "),
        (" \n\n \n", "ingest.train: no rows in "),
    ],
)
def test_json_that_is_damaged(tmp_path, content, words):
    assert words in error(tmp_path, written(tmp_path / "a.json", content))


def test_a_bad_first_line_is_one_reject(tmp_path):
    path = written(tmp_path / "a.jsonl", '{"text": "a"\n' + JSONL)
    examples = trained_on(tmp_path, path, max_rejects=0.5)
    assert [row for row, _ in rejects(examples)] == [1]
    assert split_of(examples, "train").num_rows == len(ROWS)


def test_shards_in_a_folder_are_read_by_their_extension(tmp_path):
    """On the code before, each of these was one document."""
    written(tmp_path / "tree" / "a" / "0.jsonl", JSONL)
    written(tmp_path / "tree" / "a" / "1.csv.gz", gzip.compress(CSV.encode()))
    pq.write_table(pa.Table.from_pylist(ROWS), tmp_path / "tree" / "2.parquet")
    written(tmp_path / "tree" / "readme.md", "# a document\r\n")
    source = {"path": str(tmp_path / "tree"), "files": "**/*"}
    table = split_of(trained_on(tmp_path, source), "train")
    assert table.num_rows == 3 * len(ROWS) + 1
    assert set(table["file"].to_pylist()) == {"a/0.jsonl", "a/1.csv.gz", "2.parquet", "readme.md"}
    assert "# a document\r\n" in table["text"].to_pylist()
    assert texts(tmp_path, {**source, "files": "a/*.jsonl", "format": "text"}) == [JSONL]


def test_a_table_in_a_folder_without_the_column_says_how_to_read_it_as_a_document(tmp_path):
    written(tmp_path / "tree" / "package.csv", "name,version\nx,1\n")
    message = error(tmp_path, {"path": str(tmp_path / "tree"), "files": "*"})
    assert "to read all files of the folder as text documents set ingest.train.format: text" in message


def test_one_odd_file_among_documents_is_one_reject(tmp_path):
    for number in range(20):
        written(tmp_path / "tree" / f"{number}.py", f"# {number}\n")
    written(tmp_path / "tree" / "big.bin", POINTER)
    written(tmp_path / "tree" / "book.docx", zipped({"[Content_Types].xml": ""}))
    pq.write_table(pa.table({"text": ["a"]}), tmp_path / "tree" / "table.dat")
    examples = trained_on(tmp_path, {"path": str(tmp_path / "tree"), "files": "*"}, max_rejects=0.2)
    assert split_of(examples, "train").num_rows == 20
    assert sorted(reason.partition(";")[0] for _, reason in rejects(examples)) == [
        "no text: a Git LFS pointer, not the file itself",
        "no text: a Parquet file",
        "no text: an Office file (.xlsx, .docx, .ods)",
    ]


def test_folders_are_labels_of_text_files(tmp_path):
    for label in ("neg", "pos"):
        for number in range(40):
            written(tmp_path / "tree" / label / f"{number}.txt", f"{label} review\nnumber {number}\n")
    source = {"path": str(tmp_path / "tree"), "files": "*/*.txt"}
    examples = ingested(tmp_path, "text_classification", train=source, label="folder", id="file")
    table = all_rows(examples)
    assert table.column_names == ["id", "text", "source_id", "folder"]
    assert "neg/0.txt" in table["source_id"].to_pylist()
    assert examples.properties["labels"] == ["neg", "pos"]
    assert set(table["folder"].to_pylist()) == {"neg", "pos"}
    assert all(row["text"].startswith(row["folder"] + " review\nnumber") for row in table.to_pylist())


CLASSIFIER = {"name": "a", "task": "text_classification", "model": {"preset": "x"}}


@pytest.mark.parametrize(
    ("ingest", "words"),
    [
        ({"train": "a.csv", "format": "text"}, "ingest.train: text files have no column with a label"),
        ({"train": {"path": "a", "format": "text"}}, "ingest.train.files and set ingest.label: folder"),
        ({"train": "a.csv", "id": "text"}, "ingest.id: 'text' is the column of ingest.text already"),
        ({"train": "a.csv", "text": "id"}, "ingest.text: 'id' is a name that examples need for their own"),
        ({"train": "a.csv", "label": "source_id"}, "ingest.label: 'source_id' is a name that examples need"),
        ({"train": "a.csv", "delimiter": ";;"}, "must be one character"),
        ({"train": "a.csv", "delimiter": '"'}, "must be one character"),
        (
            {"train": {"path": "a", "format": "parquet", "delimiter": ";"}},
            "delimiter belongs to csv and tsv, and format is",
        ),
        ({"train": "a.csv", "quoting": "all"}, "ingest.quoting"),
    ],
)
def test_keys_that_cannot_be_meant_are_refused_at_once(ingest, words):
    with pytest.raises(ConfigError) as caught:
        validate({**CLASSIFIER, "ingest": ingest}, "config")
    assert words in str(caught.value)


def test_text_files_with_folders_as_labels_are_a_config():
    source = {"path": "a", "files": "**/*.txt", "format": "text"}
    assert validate({**CLASSIFIER, "ingest": {"train": source, "label": "folder"}}, "config")


def test_a_header_that_stands_again_is_a_reject(tmp_path):
    """On the code before, `cat` of two csv files made a class "label"."""
    shard = "text,label\n" + "".join(f"text {{}} {number},{number % 2}\n" for number in range(60))
    path = written(tmp_path / "a.csv", shard.replace("{}", "a") + shard.replace("{}", "b"))
    examples = ingested(tmp_path, "text_classification", train=str(path))
    assert examples.properties["labels"] == ["0", "1"]
    assert rejects(examples) == [(62, "the header stands again")]


@pytest.mark.parametrize("delimiter", [";", "\t", "|"])
def test_the_delimiter_is_guessed_in_the_error_and_taken_from_the_key(tmp_path, delimiter):
    path = written(tmp_path / "a.csv", CSV.replace(",", delimiter))
    shown = json.dumps(delimiter)
    assert f"the delimiter seems to be {shown}: set ingest.delimiter: {shown}" in error(tmp_path, path)
    assert texts(tmp_path, path, delimiter=delimiter) == [row["text"] for row in ROWS]
    assert texts(tmp_path, {"path": str(path), "delimiter": delimiter}) == [row["text"] for row in ROWS]


def test_quotes_of_a_tsv_are_kept_noticed_and_read_by_a_key(tmp_path, capsys):
    literal = written(tmp_path / "a.tsv", 'text\tn\n"said ""no"""\t1\nplain\t2\n"open\t3\n')
    examples = trained_on(tmp_path, literal)
    assert split_of(examples, "train")["text"].to_pylist() == ['"said ""no"""', "plain", '"open']
    words = "2 of 3 rows of .*a.tsv have a field that begins with a quote, .* set ingest.quoting: standard"
    assert re.search(words, capsys.readouterr().err)
    assert re.search(words, examples.properties["summary"])
    path = written(tmp_path / "b.tsv", 'text\tn\n"said ""no""\tand\nleft"\t1\nplain\t2\n')
    assert texts(tmp_path, path, quoting="standard") == ['said "no"\tand\nleft', "plain"]
    assert texts(tmp_path, {"path": str(path), "quoting": "standard"}) == ['said "no"\tand\nleft', "plain"]
    capsys.readouterr()
    assert texts(tmp_path, path) == ['"said ""no""', 'left"', "plain"]
    assert "ingest.quoting" in capsys.readouterr().err


def test_a_csv_without_quoting(tmp_path):
    path = written(tmp_path / "a.csv", 'text,n\n5" screen,1\n"open,2\n')
    assert "ingest.quoting: none" in error(tmp_path, path)
    assert texts(tmp_path, path, quoting="none") == ['5" screen', '"open']


@pytest.mark.parametrize("text", ["a\r\nb\r\n", "a\rb\n", "\r\n\r\na", "a\u2028b\x0b\x0c\x85c"])
def test_line_ends_of_documents_stay(tmp_path, text):
    """On the code before, `\\r\\n` became `\\n`, and bits per byte counted fewer bytes than the file has."""
    assert texts(tmp_path, written(tmp_path / "a.txt", text)) == [text]
    assert texts(tmp_path, {"path": str(tmp_path / "a.txt"), "byte_range": [0, 10**6]}) == [text]


@pytest.mark.parametrize("source", [{}, {"byte_range": [0, 10**6]}])
def test_separator_lines_end_as_the_file_does(tmp_path, source):
    written(tmp_path / "a.txt", "one\r\nmore\r\n###\r\ntwo\r\n###\nthree")
    source = {"path": str(tmp_path / "a.txt"), "separator": "###", **source}
    assert texts(tmp_path, source) == ["one\r\nmore\r\n", "two\r\n", "three"]
    written(tmp_path / "a.txt", "one\r\n\r\ntwo\r\n \r\nthree")
    assert texts(tmp_path, {**source, "separator": ""}) == ["one\r\n", "two\r\n \r\nthree"]


def test_a_range_of_bytes_of_a_stream_that_cannot_seek(tmp_path):
    path = written(tmp_path / "a.txt.zst", zstandard(b"0123456789" * 1000))
    assert texts(tmp_path, {"path": str(path), "byte_range": [9995, 10_000]}) == ["56789"]
    assert texts(tmp_path, {"path": str(path), "byte_range": [3, 5]}) == ["34"]


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("a.csv", "", "no column 'text' (ingest.text); it has: none"),
        ("a.csv", "text,n\n", "ingest.train: no rows in "),
        ("a.csv", "\n\n\n", "no column 'text' (ingest.text); it has: none"),
        ("a.tsv", "\n\r\n", "no column 'text' (ingest.text); it has: none"),
        ("a.csv", "text,n\na,1\n".encode("utf-16-le"), "hold zero bytes; set the right ingest.encoding (utf-16-le"),
        ("a.csv", "sep=;\ntext;n\na;1\n", "the first line is Excel's: remove it, and set ingest.delimiter"),
        ("a.csv", "text,n,n\n", "more than one column 'n'"),
        ("a.txt", "", "ingest.train: no text: all 1 documents are empty"),
    ],
)
def test_files_without_rows(tmp_path, name, content, words):
    assert words in error(tmp_path, written(tmp_path / name, content))


def test_an_empty_parquet_file_beside_one_with_rows(tmp_path):
    pq.write_table(pa.table({"text": pa.array([], pa.string())}), tmp_path / "a.parquet")
    pq.ParquetWriter(tmp_path / "b.parquet", pa.schema({"text": pa.string()})).close()
    pq.write_table(pa.table({"text": ["a"]}), tmp_path / "c.parquet")
    assert texts(tmp_path, str(tmp_path / "?.parquet")) == ["a"]
    assert "ingest.train: no rows in " in error(tmp_path, tmp_path / "a.parquet")


LONG = "x" * 2000


@pytest.mark.parametrize(
    ("name", "content", "row", "settings"),
    [
        ("a.csv", f"text,n\na,1\n{LONG},1\nb,1\n", 3, {"quoting": "none"}),
        ("a.tsv", f"text\tn\na\t1\nb\t1\n{LONG}", 4, {}),
        ("a.jsonl", f'{{"text": "a"}}\n{{"text": "{LONG}"}}\n{{"text": "b"}}\n', 2, {}),
        ("a.jsonl", "\n" * 70_000 + f'{{"text": "a"}}\n{{"text": "{LONG}"}}\n{{"text": "b"}}\n', 70_002, {}),
        ("a.txt", f"a\n#\n{LONG}\n#\nb", 3, {"separator": "#"}),
        ("a.txt", f"a\n#\nb\n#\n{'x' * 999}\n{LONG}", 6, {"separator": "#"}),
        ("a.txt", "a\n#\n" + "line\n" * 400 + "#\nb", 402, {"separator": "#"}),
    ],
)
def test_a_row_of_any_length_is_refused_by_itself(tmp_path, monkeypatch, name, content, row, settings):
    for module in (separated, json_rows):
        monkeypatch.setattr(module, "LONGEST_ROW", 1000)
    monkeypatch.setattr(documents, "LONGEST_DOCUMENT", 1000)
    path = written(tmp_path / f"{name}.gz", gzip.compress(content.encode()))
    source = {"path": str(path), **({"separator": settings.pop("separator")} if "separator" in settings else {})}
    examples = trained_on(tmp_path, source, max_rejects=0.5, **settings)
    assert [text.strip() for text in split_of(examples, "train")["text"].to_pylist()] == ["a", "b"]
    (refused,) = rejects(examples)
    assert refused[0] == row
    assert "has more than 1,000 characters, the most that is read" in refused[1]


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("a.csv", f"text,n\na,1\n{LONG},1\n", "a.csv.gz:3: no valid csv: the row has more than 1,000 characters"),
        ("a.csv", 'text,n\na,1\n"' + "x\n" * 2000, "a.csv.gz:3: no valid csv: the row has more than 1,000 characters"),
        ("a.csv", "text,n\na,1\n" + '"\n",' * 2000, "a.csv.gz:3: no valid csv: the row has more than 1,000 characters"),
        ("a.csv", f"text{LONG},n\na,1\n", "a.csv.gz:1: the first line has more than 1,000 characters"),
        ("a.tsv", f"text{LONG}\tn\na\t1\n", "a.tsv.gz:1: the first line has more than 1,000 characters"),
        (
            "a.json",
            f'[{{"text": "a"}},\n{{"text": "{"y" * 200_000}"}}]',
            "a.json.gz:2: no valid JSON: an object has more",
        ),
        ("a.txt", LONG, "the document has more than 1,000 characters"),
    ],
)
def test_a_row_of_any_length_that_cannot_be_passed_over(tmp_path, monkeypatch, name, content, words):
    for module in (separated, json_rows):
        monkeypatch.setattr(module, "LONGEST_ROW", 1000)
    monkeypatch.setattr(documents, "LONGEST_DOCUMENT", 1000)
    assert words in error(tmp_path, written(tmp_path / f"{name}.gz", gzip.compress(content.encode())))


def test_columns_without_a_name_keep_their_cells(tmp_path):
    path = written(tmp_path / "a.csv", ",text,,\n0,a,x,y\n1,b,z,\n")
    table = split_of(trained_on(tmp_path, path), "train")
    assert table.column_names == ["id", "column 1", "text", "column 3", "column 4"]
    assert table["column 3"].to_pylist() == ["x", "z"]


def test_odd_cells_stay_as_they_are(tmp_path):
    cells = ["nul \0 in it", "\ufeffmark", " blanks ", "x" * 300_000, "=1+1", "NULL", "1e5", "01"]
    path = written(tmp_path / "a.csv", "text\r\n" + "".join(f'"{cell}"\r\n' for cell in cells))
    assert texts(tmp_path, path) == cells


def test_a_stream_that_cannot_seek_is_read_from_its_beginning(tmp_path):
    import fsspec

    system = fsspec.filesystem("memory")
    with system.open("/ingest/a.csv", "wb") as file:
        file.write(CSV.encode())
    assert texts(tmp_path, "memory://ingest/a.csv") == [row["text"] for row in ROWS]
    system.rm("/ingest/a.csv")
