"""What users really pass in: odd files, configs, environments and requests, each with its exit code, message and rows.

Each case is the command as a user gives it, in this process, most up to ingest. A message is a regular expression that stderr
holds; `rows` are those of the training split, `None` where nothing is made.
"""

from __future__ import annotations

import bz2
import copy
import gzip
import io
import json
import lzma
import os
import re
import socket
import zipfile
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from lmworks.pipeline.main import main
from lmworks.tfx.artifacts import Examples, read

CLASSIFY = {
    "name": "x",
    "task": "text_classification",
    "ingest": {"train": "train.csv", "validation": "other.csv", "test": "other.csv"},
    "model": {"preset": "nowhere"},
}
WRITE = {
    "name": "x",
    "task": "causal_lm",
    "ingest": {"train": "train.txt", "validation": "other.txt", "test": "other.txt"},
    "model": {"architecture": "gpt2"},
    "preprocess": {"tokenizer": {"train": {"kind": "bpe", "vocabulary_size": 300}}},
}
CHAT = WRITE | {
    "ingest": {"train": "train.jsonl", "validation": "other.jsonl", "test": "other.jsonl", "text": "messages", "max_rejects": 0.5},
    "preprocess": {"chat": "chatml", "tokenizer": {"train": {"kind": "bpe", "vocabulary_size": 300}}},
}  # fmt: skip
ROWS = [("good film", "pos"), ("bad film", "neg"), ("fine film", "pos"), ("poor film", "neg")]
CSV = "text,label\n" + "".join(f"{text},{label}\n" for text, label in ROWS)
JSONL = "".join(json.dumps({"text": text, "label": label}) + "\n" for text, label in ROWS)
TALK = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello."}]


SCRATCH = {
    "model": {"architecture": "bert", "layers": 1, "heads": 2, "hidden_dim": 16, "intermediate_dim": 16},
    "preprocess": {"tokenizer": {"train": {"kind": "wordpiece", "vocabulary_size": 100}}},
}
"""Changes that make of `CLASSIFY` a model from scratch."""


class Case(NamedTuple):
    """One odd input."""

    name: str
    code: int
    message: str = ""
    rows: int | None = None
    files: dict[str, str | bytes] = {}
    changes: dict[str, Any] = {}
    """Keys of the recipe, dotted."""
    flags: tuple[str, ...] = ()
    recipe: dict[str, Any] = CLASSIFY


def table(**columns: Any) -> bytes:
    buffer = io.BytesIO()
    pq.write_table(pa.table(columns), buffer)
    return buffer.getvalue()


def texts(**columns: Any) -> bytes:
    """A Parquet file of the four rows with other columns beside them."""
    return table(text=[text for text, _ in ROWS], label=[label for _, label in ROWS], **columns)


def zipped(**members: str) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, content in members.items():
            archive.writestr(name.replace("__", "."), content)
    return buffer.getvalue()


def marked_zip(flags: int = 0, method: int = 0, version: int = 0, mode: int = 0) -> bytes:
    """A zip file whose member says that it needs something else to be read, or is something else.

    Args:
        flags: of both headers; 1 is encrypted.
        method: of compression.
        version: of the program that can read it.
        mode: of the file, as Unix has it.
    """
    content = bytearray(zipped(train__csv=CSV))
    central = content.index(b"PK\x01\x02")
    for place, value in ((6, flags), (8, method), (central + 8, flags), (central + 10, method), (central + 6, version)):
        content[place] |= value
    content[central + 40 : central + 42] = mode.to_bytes(2, "little")
    return bytes(content)


def deflated(damage: bytes) -> bytes:
    """A zip file of one deflated member in which these bytes stand in the place of others."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("train.csv", CSV)
    content = buffer.getvalue()
    return content[:45] + damage + content[45 + len(damage) :]


def zstd(content: str) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.CompressedOutputStream(sink, "zstd") as stream:
        stream.write(content.encode())
    return sink.getvalue().to_pybytes()


@pytest.fixture
def place(tmp_path, monkeypatch):
    """An empty folder with valid splits beside what a case brings."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("NOWHERE", raising=False)
    Path("other.csv").write_text(CSV.replace("film", "book"))
    Path("other.txt").write_text("Another document.\n")
    Path("other.jsonl").write_text(json.dumps({"messages": [*TALK, *TALK]}) + "\n")
    return tmp_path


def run(case: Case) -> tuple[int, int | None]:
    """Exit code, and rows of the training split."""
    for name, content in case.files.items():
        path = Path(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    recipe = json.loads(json.dumps(case.recipe))
    for key, value in case.changes.items():
        *parents, last = key.split(".")
        node = recipe
        for parent in parents:
            node = node.setdefault(parent, {})
        node[last] = copy.deepcopy(value)
    Path("recipe.yaml").write_text(yaml.safe_dump(recipe))
    code = main(["run", "--config=recipe.yaml", "--until=ingest", "--in_process", *case.flags])
    examples = Path("runs/x/ingest/examples")
    return code, read(Examples, examples).properties["splits"]["train"] if examples.exists() else None


def check(case: Case, capsys: pytest.CaptureFixture[str]) -> None:
    code, rows = run(case)
    stderr = capsys.readouterr().err
    assert code == case.code, stderr
    assert rows == case.rows, stderr
    assert re.search(case.message, stderr), stderr
    assert "Traceback" not in stderr


def train(path: Any = "train.csv", **options: Any) -> dict[str, Any]:
    return {"ingest.train": {"path": path, **options} if options else path}


FILES = [
    Case("a zip whose content is damaged", 1, r"ingest\.train: train\.zip: the compressed file is truncated or damaged \(member train\.csv: Bad CRC-32", files={"train.zip": zipped(train__csv=CSV).replace(b"good", b"bood")}, changes=train("train.zip")),
    Case("parquet with a string that is no text", 1, r"1 × train\.parquet:2: a string that is no UTF-8; mend them", files={"train.parquet": table(text=pa.array([b"a", b"\xff"]), label=["pos", "neg"])}, changes=train("train.parquet")),
    Case("jsonl with half of a character", 1, r"1 × train\.jsonl:5: a lone surrogate.*; mend them", files={"train.jsonl": JSONL + '{"text": "\\ud83d", "label": "pos"}\n'}, changes=train("train.jsonl")),
    Case("no header, and it stands there", 1, r"ingest\.train: 1 of 5 rows refused.*train\.csv:1: the names of the columns", files={"train.csv": CSV}, changes=train(header=False, columns=["text", "label"])),
    Case("other column names, and they stand there", 0, r"1 refused", rows=4, files={"train.csv": CSV.replace("text,label", "x,y") + "text,label\n"}, changes={**train(columns=["text", "label"]), "ingest.max_rejects": 0.5}),
    Case("many good rows in train, nearly none in test", 1, r"ingest\.test: 9 of 10 rows refused, more than .*9 × test\.csv:2: empty text", files={"train.csv": CSV * 500, "test.csv": "text,label\n" + ",pos\n" * 9 + "a,pos\n"}, changes={"ingest.test": "test.csv", "ingest.max_rejects": 0.1}),
    Case("two sources with bad rows", 1, r"ingest\.train: 1 of 5 .*\n.*ingest\.test: 1 of 2 ", files={"train.csv": CSV + ",pos\n", "test.csv": "text,label\n,pos\na,neg\n"}, changes={"ingest.test": "test.csv"}),
    Case("a test source of refused rows only, allowed", 1, r"the split test is empty.*2 × test\.csv:2: empty text", files={"train.csv": CSV, "test.csv": "text,label\n" + ",pos\n" * 2}, changes={"ingest.test": "test.csv", "ingest.max_rejects": 1}),
    Case("one class is left, and why", 1, r"only the class 'pos'.*2 × train\.csv:3: empty text", files={"train.csv": "text,label\na,pos\n,neg\n,neg\n"}, changes={"ingest.max_rejects": 0.7}),
    Case("source ids beside the file as id", 1, r"a\.jsonl:1: has a column 'source_id' beside 'file'", files={"data/a.jsonl": JSONL.replace("}", ', "source_id": 5}')}, changes={**train("data", files="*.jsonl"), "ingest.id": "file", "ingest.validation": None, "ingest.test": None}),
    Case("csv with semicolons and quotes", 1, r'train\.csv:1: no valid csv.*set ingest\.delimiter: ";"', files={"train.csv": '"text";"label"\n"a";"pos"\n"b";"neg"\n'}),
    Case("Excel's line, and the delimiter is set", 1, r"the first line is Excel's: remove it", files={"train.csv": "sep=;\n" + CSV.replace(",", ";")}, changes=train(delimiter=";")),
    Case("jsonl whose first line is bad", 1, r"ingest\.train: 1 of 5 rows refused.*train\.jsonl:1: no JSON", files={"train.jsonl": '{"text": "a", "label": "pos"} x\n' + JSONL}, changes=train("train.jsonl")),
    Case("jsonl whose first line is bad, allowed", 0, r"1 refused", rows=4, files={"train.jsonl": '{"text": "a", "label": "pos"}}\n' + JSONL}, changes={**train("train.jsonl"), "ingest.max_rejects": 0.5}),
    Case("jsonl with commas at the line ends", 1, r"train\.jsonl:1: no JSON", files={"train.jsonl": JSONL.replace("\n", ",\n")}, changes=train("train.jsonl")),
    Case("objects in one line", 0, rows=4, files={"train.jsonl": JSONL.replace("\n", "") + "\n"}, changes=train("train.jsonl")),
    Case("a delimiter for jsonl", 1, r"ingest\.train\.delimiter: .*train\.jsonl is read as jsonl", files={"train.jsonl": JSONL}, changes=train("train.jsonl", delimiter=";")),
    Case("column names for jsonl", 1, r"ingest\.train\.columns: .*train\.jsonl is read as jsonl", files={"train.jsonl": JSONL}, changes=train("train.jsonl", columns=["x", "y"])),
    Case("no header in parquet", 1, r"ingest\.train\.header: .*train\.parquet is read as parquet", files={"train.parquet": texts()}, changes=train("train.parquet", header=False, columns=["text", "label"])),
    Case("an encoding of parquet", 1, r"ingest\.train\.encoding: .*train\.parquet is read as parquet", files={"train.parquet": texts()}, changes=train("train.parquet", encoding="latin-1")),
    Case("csv without rows, and why there is none", 1, r"ingest\.train: no rows in train\.csv", files={"train.csv": "text,label\n"}),
    Case("an empty JSON array", 1, r"ingest\.train: no rows in train\.json", files={"train.json": "[]"}, changes=train("train.json")),
    Case("an empty jsonl as test", 1, r"ingest\.test: no rows in test\.jsonl", files={"train.csv": CSV, "test.jsonl": ""}, changes={"ingest.test": "test.jsonl"}),
    Case("two rows of two classes", 1, r"the split \w+ is empty; give ingest\.\w+, more rows", files={"train.csv": "text,label\na,pos\nb,neg\n"}, changes={"ingest.validation": None, "ingest.test": None}),
    Case("a class for each of many rows", 1, r"is it an id", files={"train.csv": "text,label\n" + "".join(f"text {n},{n}\n" for n in range(30))}, changes={"ingest.validation": None, "ingest.test": None, "ingest.splits": {"test": 0.9, "validation": 0.001}}),
    Case("a label that is not a number, by a rule", 1, r"train\.csv:2: label is no number: 'nan'", files={"train.csv": "text,label\na,nan\nb,1\nc,-1\n"}, changes=train(label_rule={"neg": {"below": 0}, "pos": {"above": 0}})),
    Case("a label that is infinite, by a rule", 1, r"train\.csv:2: label is no number: '-inf'", files={"train.csv": "text,label\na,-inf\nb,1\nc,-1\n"}, changes=train(label_rule={"neg": {"below": 0}, "pos": {"above": 0}})),
    Case("a file that two names match", 0, r"train\.csv", rows=4, files={"train.csv": CSV}, changes=train(["train.csv", "./tr*.csv"])),
    Case("plain csv", 0, rows=4, files={"train.csv": CSV}),
    Case("csv of Windows", 0, rows=4, files={"train.csv": CSV.replace("\n", "\r\n")}),
    Case("csv with a byte order mark", 0, rows=4, files={"train.csv": "\ufeff" + CSV}),
    Case("csv without a last new line", 0, rows=4, files={"train.csv": CSV.rstrip()}),
    Case("csv with empty lines", 0, rows=4, files={"train.csv": CSV.replace("\n", "\n\n")}),
    Case("csv with new lines in quotes", 0, rows=5, files={"train.csv": CSV + '"a\nb",pos\n'}),
    Case("csv with quotes in quotes", 0, rows=5, files={"train.csv": CSV + '"a ""b""",pos\n'}),
    Case("csv with a quote that is never closed", 1, r"train\.csv:6: no valid csv", files={"train.csv": CSV + '"a,pos\nb,pos\n'}),
    Case("csv with a row too long", 1, r"ingest\.train: 1 of 5 rows refused.*train\.csv:6: 3 fields where the header has 2", files={"train.csv": CSV + "a,b,pos\n"}),
    Case("csv with a row too long, allowed", 0, rows=4, files={"train.csv": CSV + "a,b,pos\n"}, changes={"ingest.max_rejects": 0.5}),
    Case("csv that is empty", 1, r"train\.csv", files={"train.csv": ""}),
    Case("csv with a header only", 1, r"train", files={"train.csv": "text,label\n"}),
    Case("csv whose header stands again", 0, rows=8, message="", files={"train.csv": CSV + CSV}, changes={"ingest.max_rejects": 0.5}),
    Case("csv whose header stands again, not allowed", 1, r"train\.csv:6: the header", files={"train.csv": CSV + CSV}),
    Case("csv with semicolons", 1, r"delimiter", files={"train.csv": CSV.replace(",", ";")}),
    Case("csv with semicolons, said", 0, rows=4, files={"train.csv": CSV.replace(",", ";"), "other.csv": CSV.replace(",", ";").replace("film", "book")}, changes={"ingest.delimiter": ";"}),
    Case("csv with tabs", 1, r"delimiter", files={"train.csv": CSV.replace(",", "\t")}),
    Case("csv with bars, said of the source", 0, rows=4, files={"train.csv": CSV.replace(",", "|")}, changes=train(delimiter="|")),
    Case("csv with another column name", 1, r"no column 'text' \(ingest\.text\); it has: Text, label; did you mean Text\?", files={"train.csv": CSV.replace("text,", "Text,")}),
    Case("csv with a column twice", 1, r"more than one column 'label'", files={"train.csv": CSV.replace("text,label", "label,label")}),
    Case("csv in latin-1", 1, r"no utf-8 text.*set the right ingest\.encoding", files={"train.csv": (CSV + "café,pos\n").encode("latin-1")}),
    Case("csv in latin-1, said", 0, rows=5, files={"train.csv": (CSV + "café,pos\n").encode("latin-1")}, changes={"ingest.encoding": "latin-1"}),
    Case("csv in utf-16, which says so in its first bytes", 0, rows=4, files={"train.csv": CSV.encode("utf-16")}),
    Case("csv in utf-16, said", 0, rows=4, files={"train.csv": CSV.encode("utf-16")}, changes={"ingest.train": {"path": "train.csv", "encoding": "utf-16"}}),
    Case("an encoding that does not exist", 1, r"unknown encoding", files={"train.csv": CSV}, changes={"ingest.encoding": "utf-99"}),
    Case("csv with zero bytes", 1, r"train\.csv", files={"train.csv": b"\0" * 100}),
    Case("an empty text", 1, r"empty text: column text", files={"train.csv": CSV + " ,pos\n"}),
    Case("a missing label", 1, r"missing label: column label", files={"train.csv": CSV + "a,\n"}),
    Case("one class only", 1, r"only the class 'pos'", files={"train.csv": CSV.replace("neg", "pos")}),
    Case("classes that differ in case", 1, r"(?i)'Pos'.*pos|pos.*'Pos'", files={"train.csv": CSV, "other.csv": CSV.replace("pos", "Pos").replace("film", "book")}),
    Case("a label outside ingest.labels", 1, r"unknown label: 'neg'", files={"train.csv": CSV}, changes={"ingest.labels": ["pos", "negative"]}),
    Case("a test file that is not there is said before train is read", 1, r"ingest\.test: gone\.csv: no such file", files={"train.csv": CSV + ",pos\n" * 50}, changes={"ingest.test": "gone.csv"}),
    Case("a test file without the label, said before train is read", 1, r"test\.csv: has no column 'label'", files={"train.csv": CSV + ",pos\n" * 50, "test.csv": "text\na\n"}, changes={"ingest.test": "test.csv"}),
    Case("gzip", 0, rows=4, files={"train.csv.gz": gzip.compress(CSV.encode())}, changes=train("train.csv.gz")),
    Case("bzip2", 0, rows=4, files={"train.csv.bz2": bz2.compress(CSV.encode())}, changes=train("train.csv.bz2")),
    Case("xz", 0, rows=4, files={"train.csv.xz": lzma.compress(CSV.encode())}, changes=train("train.csv.xz")),
    Case("zst", 0, rows=4, files={"train.csv.zst": zstd(CSV)}, changes=train("train.csv.zst")),
    Case("gzip that is cut", 1, r"truncated or damaged", files={"train.csv.gz": gzip.compress(CSV.encode())[:-12]}, changes=train("train.csv.gz")),
    Case("gzip without the extension", 0, rows=4, files={"train.csv": gzip.compress(CSV.encode())}),
    Case("a zip with one member", 0, rows=4, files={"train.zip": zipped(train__csv=CSV)}, changes=train("train.zip", format="csv")),
    Case("a zip with two members", 1, r"a\.csv.*b\.csv", files={"train.zip": zipped(a__csv=CSV, b__csv=CSV)}, changes=train("train.zip", format="csv")),
    Case("xlsx", 1, r"(?i)spreadsheet|xlsx", files={"train.xlsx": zipped(**{"xl/workbook__xml": "<a/>", "[Content_Types]__xml": "<a/>"})}, changes=train("train.xlsx", format="csv")),
    Case("a pointer of Git LFS", 1, r"Git LFS", files={"train.csv": "version https://git-lfs.github.com/spec/v1\noid sha256:" + "0" * 64 + "\nsize 12\n"}),
    Case("tsv", 0, rows=4, files={"train.tsv": CSV.replace(",", "\t")}, changes=train("train.tsv")),
    Case("tsv with quotes", 0, r"ingest\.quoting", rows=4, files={"train.tsv": 'text\tlabel\n"good ""old"" film"\t"pos"\n"a"\t"neg"\n"b"\t"pos"\n"c"\t"neg"\n', "other.csv": 'text,label\nx,"""pos"""\ny,"""neg"""\n'}, changes=train("train.tsv")),
    Case("tsv with quotes, said", 0, rows=2, files={"train.tsv": 'text\tlabel\n"good ""old"" film"\tpos\n"a\nb"\tneg\n'}, changes=train("train.tsv", quoting="standard")),
    Case("jsonl", 0, rows=4, files={"train.jsonl": JSONL}, changes=train("train.jsonl")),
    Case("jsonl with a wrong line", 1, r"train\.jsonl:5: no JSON", files={"train.jsonl": JSONL + "{\n"}, changes=train("train.jsonl")),
    Case("jsonl with a number as its line", 1, r"train\.jsonl:5: no JSON object", files={"train.jsonl": JSONL + "5\n"}, changes=train("train.jsonl")),
    Case("jsonl without a column in one line", 1, r"missing column.*label", files={"train.jsonl": JSONL + '{"text": "a"}\n'}, changes=train("train.jsonl")),
    Case("jsonl with a list as its text", 1, r"train\.jsonl:5: .*(list|object)", files={"train.jsonl": JSONL + '{"text": ["a"], "label": "pos"}\n'}, changes=train("train.jsonl")),
    Case("jsonl with an object as its label", 1, r"train\.jsonl:5: .*(list|object)", files={"train.jsonl": JSONL + '{"text": "a", "label": {"a": 1}}\n'}, changes=train("train.jsonl")),
    Case("jsonl with truth values as labels", 0, rows=2, files={"train.jsonl": '{"text": "a", "label": true}\n{"text": "b", "label": false}\n', "other.csv": "text,label\nc,true\nd,false\n"}, changes=train("train.jsonl")),
    Case("a JSON array", 0, rows=4, files={"train.json": json.dumps([json.loads(line) for line in JSONL.splitlines()])}, changes=train("train.json")),
    Case("pretty-printed JSON", 0, rows=4, files={"train.json": json.dumps([json.loads(line) for line in JSONL.splitlines()], indent=2)}, changes=train("train.json")),
    Case("pretty-printed objects, one after the other", 0, rows=4, files={"train.jsonl": "\n".join(json.dumps(json.loads(line), indent=1) for line in JSONL.splitlines())}, changes=train("train.jsonl")),
    Case("jsonl in very deep brackets", 1, r"train\.jsonl:5: no JSON", files={"train.jsonl": JSONL + "[" * 100_000 + "\n"}, changes=train("train.jsonl")),
    Case("jsonl with a column that comes late", 0, rows=4, files={"train.jsonl": JSONL.replace('"label": "neg"', '"label": "neg", "late": 1')}, changes=train("train.jsonl")),
    Case("parquet", 0, rows=4, files={"train.parquet": texts(n=[1, 2, 3, 4])}, changes=train("train.parquet")),
    Case("parquet with a user's id", 0, rows=4, files={"train.parquet": texts(id=[7, 8, 9, 10])}, changes=train("train.parquet")),
    Case("parquet with ids and source ids", 1, r"source_id", files={"train.parquet": texts(id=[7, 8, 9, 10], source_id=[1, 2, 3, 4])}, changes=train("train.parquet")),
    Case("parquet with times of every unit", 0, rows=4, files={"train.parquet": texts(a=pa.array([1, None, 2**60, -(2**60)], pa.timestamp("ns")), b=pa.array([0, 1, 2, 3], pa.date32()))}, changes=train("train.parquet")),
    Case("parquet with years beyond 9999", 0, rows=4, files={"train.parquet": texts(a=pa.array([2**31 - 1, -(2**31), 0, 1], pa.date32()), b=pa.array([2**61, 0, 0, 0], pa.timestamp("us")))}, changes=train("train.parquet")),
    Case("parquet with structs and lists", 0, rows=4, files={"train.parquet": texts(a=[{"b": 1}, None, {"b": 2}, {"b": None}], c=[[1], [], None, [2, 3]])}, changes=train("train.parquet")),
    Case("parquet with numbers as labels, csv beside it", 1, r"1\.0", files={"train.parquet": table(text=["a", "b"], label=[0, 1]), "other.csv": "text,label\nc,1.0\nd,0.0\n"}, changes=train("train.parquet")),
    Case("parquet without rows", 1, r"train", files={"train.parquet": table(text=pa.array([], pa.string()), label=pa.array([], pa.string()))}, changes=train("train.parquet")),
    Case("parquet that is none", 1, r"is no Parquet file", files={"train.parquet": "hello"}, changes=train("train.parquet")),
    Case("an extension that says nothing", 1, r"its extension names no format; set ingest\.format", files={"train.dat": CSV}, changes=train("train.dat")),
    Case("an extension that says nothing, format said", 0, rows=4, files={"train.dat": CSV}, changes=train("train.dat", format="csv")),
    Case("no such file", 1, r"ingest\.train: nothing\.csv: no such file", changes=train("nothing.csv")),
    Case("a glob that matches nothing", 1, r"the glob matches nothing", changes=train("*.nothing.csv")),
    Case("a glob", 0, rows=8, files={"a1.csv": CSV, "a2.csv": CSV.replace("film", "song")}, changes=train("a?.csv")),
    Case("a list of files", 0, rows=8, files={"a1.csv": CSV, "a2.csv": CSV.replace("film", "song")}, changes=train(["a1.csv", "a2.csv"])),
    Case("brackets in a name", 0, rows=4, files={"a[1].csv": CSV}, changes=train("a[1].csv")),
    Case("a folder", 1, r"is a directory; name a file, a glob", files={"data/a.csv": CSV}, changes=train("data")),
    Case("a pattern of files in a folder", 0, rows=4, files={"data/a.csv": CSV, "data/b.md": "x"}, changes=train("data", files="*.csv")),
    Case("jsonl shards by files", 0, rows=8, files={"data/a.jsonl": JSONL, "data/b.jsonl": JSONL.replace("film", "song")}, changes=train("data", files="*.jsonl")),
    Case("a home", 0, rows=4, files={"train.csv": CSV}, changes=train("~/train.csv")),
    Case("a variable that is not set", 2, r"ingest\.train: \$NOWHERE/a\.csv: the environment variable NOWHERE is not set", changes=train("$NOWHERE/a.csv")),
    Case("a header that is missing, columns said", 0, rows=4, files={"train.csv": CSV.split("\n", 1)[1]}, changes=train(header=False, columns=["text", "label"])),
    Case("text for a classifier", 2, r"ingest\.train: text files have no column with a label; use csv", files={"train.txt": "a\nb\n"}, changes={"ingest.train": {"path": "train.txt", "format": "text"}}),
    Case("a rule for labels", 0, rows=3, files={"train.csv": "text,label\na,-1\nb,1\nc,0\nd,2\n", "other.csv": "text,label\ne,-1\nf,1\n"}, changes={"ingest": {name: {"path": f, "label_rule": {"neg": {"below": -0.5}, "pos": {"above": 0.5}}} for name, f in (("train", "train.csv"), ("validation", "other.csv"), ("test", "other.csv"))}}),
    Case("a rule for labels that are no numbers", 1, r"label is no number: 'pos'", files={"train.csv": CSV}, changes=train(label_rule={"a": {"below": 0}, "b": {"above": 0}})),
    Case("a rule that names a class outside ingest.labels", 2, r"label_rule.*negativ", files={"train.csv": CSV}, changes={"ingest.labels": ["negative", "positive"], "ingest.train": {"path": "train.csv", "label_rule": {"negativ": {"below": 0}, "positive": {"above": 0}}}}),
    Case("a class twice in ingest.labels", 2, r"ingest\.labels", files={"train.csv": CSV}, changes={"ingest.labels": ["pos", "neg", "pos"]}),
    Case("one column as text and label", 2, r"ingest\.label: 'text' is the column of ingest\.text already", files={"train.csv": CSV}, changes={"ingest.label": "text"}),
    Case("the label as a second text", 2, r"ingest\.label: 'label' is the column of ingest\.text_b already", files={"train.csv": CSV}, changes={"ingest.text_b": "label"}),
    Case("a delimiter of all sources, all jsonl", 2, r"ingest: delimiter belongs to csv and tsv, and format is jsonl: leave it out", files={"train.csv": CSV}, changes={"ingest.format": "jsonl", "ingest.delimiter": ";"}),
    Case("a share of nothing for test", 2, r"ingest: splits\.test: 0 leaves the split empty: set ingest\.test", files={"train.csv": CSV}, changes={"ingest.test": None, "ingest.splits": {"test": 0}}),
    Case("patterns at a URL", 2, r"ingest\.train: files names patterns of files in folders of this machine, and s3://b/c is a URL", changes=train("s3://b/c", files="*.csv")),
    Case("a number that a shell gives as a label", 2, r"ingest\.label: 16: .*quote it as you wrote it", flags=("--set=ingest.label=0x10",)),
    Case("a column called as our own", 2, r"ingest\.text: 'id' is a name that examples need", files={"train.csv": CSV.replace("text,", "id,")}, changes={"ingest.text": "id"}),
    Case("an encrypted zip", 1, r"ingest\.train: train\.zip: is a zip file whose member train\.csv cannot be unpacked \(File .* is encrypted, password required", files={"train.zip": marked_zip(flags=1)}, changes=train("train.zip")),
    Case("a zip with an unknown compression", 1, r"ingest\.train: train\.zip: is a zip file whose member train\.csv cannot be unpacked \(That compression method is not supported\)", files={"train.zip": marked_zip(method=97)}, changes=train("train.zip")),
    Case("a zip of a later version", 1, r"train\.zip: is a damaged zip file, or one of a later version \(zip file version 25\.5\)", files={"train.zip": marked_zip(version=255)}, changes=train("train.zip")),
    Case("a zip with a link", 1, r"ingest\.train: train\.zip: is a zip file whose member train\.csv is a link or a device", files={"train.zip": marked_zip(mode=0o120777)}, changes=train("train.zip")),
    Case("a zip with a member twice", 1, r"train\.zip: is a zip file that holds train\.csv more than once", files={"train.zip": zipped(train__csv=CSV, train_csv=CSV).replace(b"train_csv", b"train.csv")}, changes=train("train.zip", member="train.csv")),
    Case("a zip whose compressed member is damaged", 1, r"train\.zip: the compressed file is truncated or damaged \(member train\.csv: ", files={"train.zip": deflated(b"\xff" * 20)}, changes=train("train.zip")),
    Case("gzip in gzip", 0, rows=4, files={"train.csv.gz": gzip.compress(gzip.compress(CSV.encode()))}, changes=train("train.csv.gz")),
    Case("a damaged xz", 1, r"ingest\.train: train\.csv\.xz: the compressed file is truncated or damaged", files={"train.csv.xz": lzma.compress(CSV.encode())[:40] + b"x" * 60}, changes=train("train.csv.xz")),
    Case("a cut xz", 1, r"ingest\.train: train\.csv\.xz: the compressed file is truncated or damaged", files={"train.csv.xz": lzma.compress(CSV.encode())[:-30]}, changes=train("train.csv.xz")),
    Case("a damaged bzip2", 1, r"ingest\.train: train\.csv\.bz2: .*(damaged|Invalid data stream)", files={"train.csv.bz2": bz2.compress(CSV.encode())[:30] + b"x" * 60}, changes=train("train.csv.bz2")),
    Case("a damaged zst", 1, r"ingest\.train: train\.csv\.zst: cannot be read: ZSTD", files={"train.csv.zst": zstd(CSV)[:20] + b"x" * 60}, changes=train("train.csv.zst")),
    Case("a device as source", 1, r"ingest\.train: /dev/zero: is a device, and a source must be a regular file", changes=train("/dev/zero", format="csv")),
    Case("a device by its URL", 1, r"ingest\.train: file:///dev/zero: is a device", changes=train("file:///dev/zero", format="csv")),
]  # fmt: skip

DOCUMENTS = [
    Case("a pointer of Git LFS among documents", 1, r"1 × .*a\.txt:1: no text: a Git LFS pointer.*ingest\.train\.files", files={"src/a.txt": "version https://git-lfs.github.com/spec/v1\noid x\n", "src/b.txt": "b"}, changes=train("src", files="*.txt")),
    Case("JSON that is no table in a folder", 1, r"x\.json.*as text documents set ingest\.train\.format: text", files={"src/a.py": "a", "src/x.json": "[1, 2,\n"}, changes=train("src", files="*")),
    Case("JSON without the column in a folder", 1, r"missing column.*as text documents set ingest\.train\.format: text", files={"src/a.py": "a", "src/x.json": '{\n "name": "x"\n}\n'}, changes=train("src", files="*")),
    Case("csv without the column in a folder", 1, r"as text documents set ingest\.train\.format: text", files={"src/a.py": "a", "src/x.csv": "a,b\n1,2\n"}, changes=train("src", files="*")),
    Case("csv that is none in a folder", 1, r"no valid csv.*as text documents set ingest\.train\.format: text", files={"src/a.py": "a", "src/x.csv": 'text\n"1\n'}, changes=train("src", files="*")),
    Case("parquet that is none in a folder", 1, r"is no Parquet file.*as text documents set ingest\.train\.format: text", files={"src/a.py": "a", "src/x.parquet": "x"}, changes=train("src", files="*")),
    Case("one cut gzip among documents", 0, r"1 refused", rows=2, files={"src/a.py": "a", "src/b.py": "b", "src/c.gz": b"\x1f\x8b\x08\0\0", }, changes={**train("src", files="*"), "ingest.max_rejects": 0.5}),
    Case("one gzip cut in its text among documents", 1, r"1 of 2 rows refused.*c\.txt\.gz:1: no text: .*truncated or damaged", files={"src/a.py": "a", "src/c.txt.gz": gzip.compress(b"some text" * 9)[:-12]}, changes=train("src", files="*")),
    Case("one damaged bzip2 among documents", 1, r"1 of 2 rows refused.*c\.bz2:1: no text: .*truncated or damaged", files={"src/a.py": "a", "src/c.bz2": bz2.compress(b"some text")[:10] + b"x" * 40}, changes=train("src", files="*")),
    Case("one document in half of utf-16", 1, r"1 of 2 rows refused.*c\.py:1: no utf-16 text.*set the right ingest\.encoding", files={"src/a.py": "a", "src/c.py": b"\xff\xfea"}, changes=train("src", files="*")),
    Case("a cut file of many documents", 1, r"truncated or damaged", files={"src/a.txt": "a\n\nb", "src/c.txt.gz": gzip.compress(b"some\n\ntext" * 9)[:-12]}, changes={**train("src", files="*"), "ingest.max_rejects": 0.9, "ingest.separator": ""}),
    Case("a separator for jsonl", 1, r"ingest\.train\.separator: .*train\.jsonl is read as jsonl", files={"train.jsonl": '{"text": "a"}\n'}, changes=train("train.jsonl", separator="")),
    Case("a range of bytes of jsonl", 1, r"ingest\.train\.byte_range: .*train\.jsonl is read as jsonl", files={"train.jsonl": '{"text": "a"}\n'}, changes=train("train.jsonl", byte_range=[0, 4])),
    Case("a delimiter for text", 1, r"ingest\.train\.delimiter: .*train\.txt is read as text", files={"train.txt": "a"}, changes=train("train.txt", delimiter=";")),
    Case("one document and carved splits", 1, r"the split train is empty; give more documents|the split \w+ is empty; give ingest\.\w+, more documents", files={"train.txt": "x"}, changes={"ingest.validation": None, "ingest.test": None}),
    Case("one document that falls into a carved split", 1, r"the split train is empty; give more documents", files={"train.txt": "x"}, changes={"ingest.validation": None, "ingest.test": None, "ingest.splits": {"validation": 0.001, "test": 0.998}}),
    Case("one file is a document", 0, rows=1, files={"train.txt": "Once.\n\nUpon.\n"}),
    Case("documents between lines", 0, rows=2, files={"train.txt": "Once.\n\nUpon.\n"}, changes={"ingest.separator": ""}),
    Case("documents between lines of Windows", 0, rows=2, files={"train.txt": "Once.\r\n\r\nUpon.\r\n"}, changes={"ingest.separator": ""}),
    Case("a separator that is ###", 0, rows=2, files={"train.txt": "Once.\n###\nUpon.\n"}, changes={"ingest.separator": "###"}),
    Case("a separator that a shell gives bare", 2, r"--set=ingest\.separator: '###' is null in YAML", flags=("--set=ingest.separator=###",)),
    Case("a separator that a shell gives quoted", 0, rows=2, files={"train.txt": "Once.\n###\nUpon.\n"}, flags=("--set=ingest.separator='###'",)),
    Case("only empty documents", 1, r"documents are empty|empty", files={"train.txt": " \n"}),
    Case("a binary file", 1, r"binary", files={"train.txt": b"\x7fELF\0\0\0\0"}),
    Case("a folder of code", 0, rows=2, files={"src/a.py": "a = 1\n", "src/b/c.py": "c = 1\n", "src/d.md": "x"}, changes=train("src", files="**/*.py")),
    Case("a folder of jsonl shards", 0, rows=4, files={"src/a.jsonl": '{"text": "a"}\n{"text": "b"}\n', "src/b.jsonl": '{"text": "c"}\n{"text": "d"}\n'}, changes=train("src", files="*.jsonl")),
    Case("patterns that match nothing", 1, r"no file matches \*\.rs", files={"src/a.py": "a"}, changes=train("src", files="*.rs")),
    Case("patterns for a file", 1, r"is no folder", files={"train.txt": "a"}, changes=train("train.txt", files="*.py")),
    Case("a range of bytes", 0, rows=1, files={"train.txt": "Once upon a time"}, changes=train("train.txt", byte_range=[0, 4])),
    Case("a range of bytes upside down", 2, r"byte_range must be \[BEGIN, END\]", changes=train("train.txt", byte_range=[4, 4])),
    Case("a separator of two lines", 2, r"ingest\.separator: 'a\\nb': must be one line", changes={"ingest.separator": "a\nb"}),
    Case("a separator that YAML would shorten", 2, r"--set=ingest\.separator: YAML reads '--- x' as 'x'; quote the text", flags=("--set=ingest.separator=--- x",)),
    Case("a range of bytes of a csv", 2, r"ingest\.train: byte_range belongs to text, and format is csv", changes=train("train.csv", format="csv", byte_range=[0, 5])),
    Case("labels for a language model", 2, r"ingest\.label: is a key of task text_classification", changes={"ingest.label": "label"}),
    Case("a pair for a language model", 2, r"ingest\.text_b: is a key of task text_classification", changes={"ingest.text_b": "b"}),
    Case("masks for a causal model", 2, r"train\.mask_ratio: is a key of task masked_lm", changes={"train.mask_ratio": 0.2}),
]  # fmt: skip


def talk(*turns: tuple[str, Any], key: str = "messages") -> str:
    return json.dumps({key: [{"role": role, "content": content} for role, content in turns]}) + "\n"


def talks(line: str, good: int = 3) -> dict[str, str | bytes]:
    """Good conversations, then this line."""
    first = "".join(talk(("user", f"Question {number}"), ("assistant", "Yes.")) for number in range(good))
    return {"train.jsonl": first + line}


CONVERSATIONS = [
    Case("conversations", 0, rows=4, files=talks(talk(("system", "Be kind."), ("user", "a"), ("assistant", "b")))),
    Case("a tool and a developer", 0, rows=4, files=talks(talk(("developer", "x"), ("user", "a"), ("tool", "1"), ("assistant", "b")))),
    Case("content in parts", 0, rows=4, files=talks(talk(("user", [{"type": "text", "text": "a"}]), ("assistant", "b")))),
    Case("a picture in the content", 0, r"1 refused", rows=3, files=talks(talk(("user", [{"type": "image_url", "image_url": "x"}]), ("assistant", "b")))),
    Case("an unknown role", 0, r"1 refused", rows=3, files=talks(talk(("robot", "a"), ("assistant", "b")))),
    Case("no answer", 0, r"1 refused", rows=3, files=talks(talk(("user", "a")))),
    Case("an answer of blanks", 0, r"1 refused", rows=3, files=talks(talk(("user", "a"), ("assistant", " ")))),
    Case("no list", 0, r"1 refused", rows=3, files=talks('{"messages": "hello"}\n')),
    Case("an empty list", 0, r"1 refused", rows=3, files=talks('{"messages": []}\n')),
    Case("a mark of the template in a content", 0, r"1 refused", rows=3, files=talks(talk(("user", "a<|im_end|>b"), ("assistant", "b")))),
    Case("a bad conversation that is too much", 1, r"train\.jsonl:4", files=talks(talk(("user", "a"))), changes={"ingest.max_rejects": 0.01}),
    Case("sharegpt", 0, rows=2, files={"train.jsonl": 2 * (json.dumps({"conversations": [{"from": "human", "value": "a"}, {"from": "gpt", "value": "b"}]}) + "\n"), "other.jsonl": json.dumps({"conversations": [{"from": "human", "value": "c"}, {"from": "gpt", "value": "d"}]}) + "\n"}, changes={"ingest.text": "conversations"}),
    Case("a question as the id", 2, r"ingest\.id: 'instruction' is a column that conversations are read from", files={"train.jsonl": ""}, changes={"ingest.id": "instruction"}),
    Case("alpaca", 0, rows=1, files={"train.jsonl": json.dumps({"instruction": "Add.", "input": "1 2", "output": "3"}) + "\n", "other.jsonl": json.dumps({"instruction": "Add.", "input": "", "output": "0"}) + "\n"}, changes={"ingest": {"train": "train.jsonl", "validation": "other.jsonl", "test": "other.jsonl", "conversation": "alpaca"}}),
]  # fmt: skip

CONFIGS = [
    Case("an unknown key", 2, r"trian: unknown key; did you mean train\?", changes={"trian": {}}),
    Case("a key of another section", 2, r"train\.sequence_length: .*preprocess\.sequence_length", changes={"train.sequence_length": 9}),
    Case("all errors at once", 2, r"3 errors", changes={"trian": {}, "train.seed": -1, "model.layers": 0}),
    Case("infinity", 2, r"train\.learning_rate: inf: must be a finite number", changes={"train.learning_rate": float("inf")}),
    Case("not a number", 2, r"train\.weight_decay: nan: must be a finite number", changes={"train.weight_decay": float("nan")}),
    Case("truth values as labels", 2, r"ingest\.labels\.0: True: .*quote it", changes={"ingest.labels": [True, False]}),
    Case("numbers as labels", 2, r"ingest\.labels\.0: 1: .*quote it", changes={"ingest.labels": [1, 2]}),
    Case("splits that leave nothing", 2, r"ingest\.splits: validation and test together", changes={"ingest.splits": {"validation": 0.5, "test": 0.5}}),
    Case("a share above one", 2, r"ingest\.max_rejects: 2", changes={"ingest.max_rejects": 2}),
    Case("a bad name", 2, r"name: 'a b'", changes={"name": "a b"}),
    Case("a preset and an architecture", 2, r"model: preset and architecture are both given; leave one out; to start from the preset: --set='model=\{preset: nowhere\}'", changes={"model.architecture": "bert"}),
    Case("heads that do not divide", 2, r"hidden_dim 256 is not divisible by heads 3", changes={"model": {"architecture": "bert", "heads": 3}}),
    Case("a task that is not there", 2, r"task: 'translation'", changes={"task": "translation"}),
    Case("a threshold without a bound", 2, r"needs min or max", changes={"evaluate.thresholds": {"accuracy": {}}}),
    Case("a threshold of an unknown metric", 2, r"acuracy", changes={"evaluate.thresholds": {"acuracy": {"min": 0.5}}}),
    Case("half a package", 2, r"package and sha256 go together", changes={"ingest.train": {"package": "a==1"}}),
    Case("a package without a version", 2, r"NAME==VERSION", changes={"ingest.train": {"package": "a", "sha256": "0" * 64}}),
    Case("a callback that is no name", 2, r"MODULE:NAME", changes={"train.callbacks": ["watch"]}),
    Case("a preset that is not there", 2, r"model\.preset: \./nowhere: is no folder", changes={"model.preset": "./nowhere"}, flags=("--until=preprocess",)),
    Case("a preset that is a file", 2, r"model\.preset: \./train\.csv: is no folder", changes={"model.preset": "./train.csv"}, flags=("--until=preprocess",)),
    Case("a preset of KerasHub's, misspelt", 2, r"KerasHub knows no such preset; did you mean bert_tiny_en_uncased\?", changes={"model.preset": "bert_tiny_en_uncasd"}, flags=("--until=preprocess",)),
    Case("a preset of KerasHub's of another kind", 2, r"gpt2_base_en: is of the family gpt2; text_classification takes Bert", changes={"model.preset": "gpt2_base_en"}, flags=("--until=preprocess",)),
    Case("longer sequences than a preset of KerasHub's has", 2, r"preprocess\.sequence_length: 1000 is above the model's 512 positions", changes={"model.preset": "bert_tiny_en_uncased", "preprocess.sequence_length": 1000}, flags=("--until=preprocess",)),
    Case("a callback that is not there", 2, r"train\.callbacks: watching:Watch: cannot be imported: there is no module 'watching'", changes={"train.callbacks": ["watching:Watch"], "model.preset": "bert_tiny_en_uncased"}, flags=("--until=train",)),
    Case("Hugging Face's format of a model that is not written in it", 2, r"export\.formats: huggingface is written for Bert in this version, and this is a distil_bert", changes={"model.preset": "distil_bert_base_en", "export.formats": ["saved_model", "huggingface"]}, flags=("--until=export",)),
    Case("a strategy of the other backend", 2, r"train: strategy: mirrored is of train\.backend=tensorflow; jax has single", changes={"train": {"strategy": "mirrored", "backend": "jax"}}),
    Case("a slice by a column that is not there", 1, r"evaluate\.slices: lable: the examples have no such column \(id, text, label\); did you mean label\?", rows=4, changes={"evaluate.slices": ["lable"]}),
    Case("a threshold of a class that is not there", 1, r"evaluate\.thresholds\.f1/poss: text_classification has no such metric; did you mean f1/pos\?", rows=4, changes={"evaluate.thresholds": {"f1/poss": {"min": 0.5}}}),
    Case("conflicts that are no choice", 2, r"preprocess\.conflicts", changes={"preprocess.conflicts": "ask"}),
    Case("a million layers", 2, r"model\.layers: 1000000.*1000", changes={"model": {"architecture": "bert", "layers": 10**6}}),
    Case("a billion tokens", 2, r"vocabulary_size: 1000000000.*1048576", changes={"preprocess.tokenizer": {"train": {"kind": "wordpiece", "vocabulary_size": 10**9}}}),
    Case("a value for a key of a list of values", 2, r"train\.precision: 'bf16': .*; did you mean bfloat16\?", changes={"train.precision": "bf16"}),
    Case("a path of nothing", 2, r"ingest\.train\.0: '': is empty; is a variable not set\?", changes=train("")),
    Case("a preset of nothing", 2, r"model\.preset: '': is empty", changes={"model.preset": ""}),
    Case("a repository of nothing, which would not be pushed to", 2, r"export\.push_to: ' ': is empty", changes={"export.push_to": " "}),
    Case("a path with a zero byte", 2, r"ingest\.train: a\\x00b: no path holds such a character", changes=train("a\0b")),
    Case("longer sequences than a classifier from scratch has", 2, r"seen before the first stage\n  preprocess\.sequence_length: 513 is above the model's 512 positions", changes=SCRATCH | {"preprocess.sequence_length": 513}, flags=("--until=train",)),
    Case("a preset for a recipe from scratch", 2, r"leave one out; to start from the preset: --set='model=\{preset: runs/x, dropout: 0\.2\}' --set=preprocess\.tokenizer\.train=null", changes=SCRATCH | {"model.dropout": 0.2}, flags=("--set=model.preset=runs/x",)),
    Case("the preset for a recipe from scratch, as that says", 2, r"model\.preset: runs/y: is no folder", changes=SCRATCH, flags=("--set=model={preset: runs/y}", "--set=preprocess.tokenizer.train=null", "--until=preprocess")),
    Case("sizes beside a preset", 2, r"model: layers go with architecture; a preset has its own; to start from the preset: --set='model=\{preset: nowhere\}'", changes={"model.layers": 2}),
    Case("a number as a threshold", 2, r"evaluate\.thresholds\.accuracy: 0\.9: should be a mapping such as \{min: 0\.9\}", changes={"evaluate.thresholds": {"accuracy": 0.9}}),
    Case("a number as all thresholds", 2, r"evaluate\.thresholds: 0\.9: should be a mapping such as \{NAME: \{min: 0\.9\}\}", changes={"evaluate.thresholds": 0.9}),
    Case("a column as slices", 2, r"evaluate\.slices: 'place': should be a list: \[place\]", flags=("--set=evaluate.slices=place",)),
    Case("an entry as callbacks", 2, r"train\.callbacks: 'a:b': should be a list: \[a:b\]", flags=("--set=train.callbacks=a:b",)),
    Case("a number as a section", 2, r"train: 5: should be a mapping such as \{epochs: 5\}", changes={"train": 5}),
    Case("two unknown metrics", 2, r"2 errors in the config\n  evaluate\.thresholds\.f1: text_classification has no such metric; did you mean f1_macro\?\n  evaluate\.thresholds\.recall: ", changes={"evaluate.thresholds": {"f1": {"min": 0.9}, "recall": {"min": 0.9}}}),
    Case("a message of the whole config", 2, r"1 error in the config\n  ingest\.label: 'text' is the column", changes={"ingest.label": "text"}),
    Case("a vocabulary that cannot hold the bytes", 2, r"100 cannot hold end-of-text and the 256 bytes", recipe=WRITE, changes={"preprocess.tokenizer.train.vocabulary_size": 100}),
    Case("a standard module's function as callback", 2, r"train\.callbacks: os:abort: is of Python's standard library", changes=SCRATCH | {"train.callbacks": ["os:abort"]}, flags=("--until=train",)),
    Case("a file of the working folder that is not there", 1, r"ingest\.train: gone\.csv: no such file in /", changes=train("gone.csv")),
    Case("unquoted numbers as classes", 2, r"quote it as you wrote it: \['…', …\], in a shell --set=\"ingest\.labels=\['…', …\]\"", changes={"ingest.labels": [1, 2]}),
    Case("a repository in no bucket", 2, r"export\.push_to: 's3://': names nothing in the store", changes={"export.push_to": "s3://"}),
]  # fmt: skip

REQUESTS: list[tuple[str, list[str], int, str]] = [
    ("no command", [], 2, ""),
    ("an unknown command", ["rum"], 2, r"unknown command 'rum'; did you mean run\?"),
    ("help", ["run", "--help"], 0, ""),
    ("an unknown flag", ["run", "--confg=x"], 2, r"Unknown command line flag 'confg'"),
    ("an argument too many", ["run", "recipe.yaml"], 2, r"unexpected argument 'recipe\.yaml'"),
    ("a recipe without its flag", ["run", "recipe.yaml"], 2, r"did you mean --config=recipe\.yaml\?"),
    ("a key without its flag", ["run", "train.epochs=1"], 2, r"did you mean --set=train\.epochs=1\?"),
    ("a text without its flag", ["predict", "a b"], 2, r"did you mean --text='a b'\?"),
    ("a run as a flag", ["runs", "--run=x"], 2, r"lmworks runs x"),
    ("help of a command", ["help", "run"], 0, ""),
    ("a root that cannot be made", ["run", "--config=c.yaml", "--root=/proc/xx", "--until=ingest"], 1, r"--root=/proc/xx: /proc/xx: No such file"),
    ("a missing file, and the log", ["run", "--config=c.yaml", "--until=ingest", "--in_process", "--verbosity=1"], 1, r"train\.csv: no such file"),
    ("an empty config", ["run", "--config=empty.yaml"], 2, r"empty\.yaml: is empty"),
    ("no config", ["run"], 2, r"--config=FILE\.yaml is missing"),
    ("a config that is not there", ["run", "--config=nothing.yaml"], 2, r"No such file"),
    ("a folder as config", ["run", "--config=."], 2, r"Is a directory"),
    ("a stage that is not there", ["run", "--config=c.yaml", "--until=deploy"], 2, r"until"),
    ("a set without a value", ["run", "--config=c.yaml", "--set=train.epochs"], 2, r"must be KEY=VALUE"),
    ("a set of nothing", ["run", "--config=c.yaml", "--set=train.epochs="], 2, r"is null in YAML"),
    ("a set that loses its end", ["run", "--config=c.yaml", "--set=ingest.text=a #b"], 2, r"is a comment in YAML"),
    ("a set below a value", ["run", "--config=c.yaml", "--set=name.x=1"], 2, r"which has no keys"),
    ("a run with a bad name", ["run", "--config=c.yaml", "--run=a/b"], 2, r"--run=a/b: must be letters"),
    ("a schedule on this machine", ["run", "--config=c.yaml", "--cron=0 3 * * *"], 2, r"--cron is for clusters"),
    ("a compilation without a target", ["compile", "--config=c.yaml", "--output=a.yaml"], 2, r"--target is missing"),
    ("a compilation to no file", ["compile", "--config=c.yaml", "--target=vertex"], 2, r"--output="),
    ("runs of an empty root", ["runs", "--root=nothing"], 0, r"no runs yet"),
    ("a run that is not there", ["runs", "y"], 2, r"has no run 'y'"),
    ("following nothing", ["runs", "--follow"], 2, r"--follow needs a run's name"),
    ("a prediction of nothing", ["predict"], 2, r"--servable=DIR is missing"),
    ("a prediction of a folder without a model", ["predict", "--servable=.", "--text=a"], 2, r"\."),
    ("a root in a home that is not there", ["runs", "--root=~nobody_of_this_name/runs"], 2, r"no such home"),
    ("a root of a store that is not there", ["runs", "--root=nowhere://a/b"], 2, r"nowhere"),
    ("a root of a variable that is not set", ["run", "--config=c.yaml", "--root="], 2, r"--root= is empty; is a variable not set\?"),
    ("a root of blanks", ["gc", "--root= "], 2, r"is empty"),
    ("a root in no bucket", ["runs", "--root=s3://"], 2, r"--root: names nothing in the store.*s3://BUCKET/FOLDER"),
    ("a root that ends with the process", ["run", "--config=c.yaml", "--root=memory://x"], 2, r"--root: memory:// is of no store"),
    ("a root with one slash", ["board", "--root=s3:/b/c"], 2, r"--root: a URL is s3://…, with two slashes"),
    ("a root that is a file", ["gc", "--root=c.yaml", "--yes"], 2, r"--root: c\.yaml: is no folder"),
    ("a config of nothing", ["run", "--config="], 2, r"--config= is empty"),
    ("a run of nothing", ["run", "--config=c.yaml", "--run="], 2, r"--run= is empty"),
    ("a set of no key", ["run", "--config=c.yaml", "--set="], 2, r"--set=: must be KEY=VALUE"),
    ("an output of nothing", ["compile", "--config=c.yaml", "--target=vertex", "--output="], 2, r"--output= is empty"),
    ("a servable of nothing", ["predict", "--servable="], 2, r"--servable= is empty"),
    ("a schedule of nothing", ["run", "--config=c.yaml", "--runner=kubeflow", "--cron="], 2, r"--cron= is empty"),
    ("a host of nothing, which would be all", ["board", "--host="], 2, r"--host= is empty"),
    ("a run that is the root", ["run", "--config=c.yaml", "--run=."], 2, r"--run=\.: must be letters"),
    ("a run that looks like a flag", ["run", "--config=c.yaml", "--run=-x"], 2, r"--run=-x: must be letters"),
    ("a run with a blank behind", ["run", "--config=c.yaml", "--run=x "], 2, r"--run=x : must be letters"),
    ("a run that is the store on a Mac", ["run", "--config=c.yaml", "--run=Store"], 2, r"not be 'store' or 'state'"),
    ("a run that is the index", ["run", "--config=c.yaml", "--run=metadata.sqlite"], 2, r"is the name of a file that every root has"),
    ("a run with a very long name", ["run", "--config=c.yaml", f"--run={'x' * 300}"], 2, r"--run=x{1,40}….{1,60}: must be at most 128 characters, and this has 300"),
    ("a run outside the root", ["runs", "../../etc"], 2, r"has no run '\.\./\.\./etc'"),
    ("another library's key", ["run", "--config=c.yaml", "--set=train.lr=1"], 2, r"train\.lr: unknown key; did you mean train\.learning_rate\?"),
    ("a key as a flag", ["run", "--config=c.yaml", "--epochs=1"], 2, r"--epochs is no flag; did you mean --set=train\.epochs=…\?"),
    ("another program's command", ["train", "--config=c.yaml"], 2, r"unknown command 'train'; did you mean run\?"),
    ("a stage that is nearly right", ["run", "--config=c.yaml", "--until=trian"], 2, r"value should be one of .*; did you mean train\?"),
    ("a command that comes later", ["--config=c.yaml", "run"], 2, r"the command comes first"),
    ("a set of very deep brackets", ["run", "--config=c.yaml", f"--set=ingest.labels={'[' * 9999}"], 2, r"nested more than 32 levels"),
    ("a set of a date that is none", ["run", "--config=c.yaml", "--set=ingest.labels=[!!timestamp 2024-99-99]"], 2, r"!!timestamp is a tag"),
    ("a set of a list as a key", ["run", "--config=c.yaml", "--set=train={[1]: 2}"], 2, r"a key must be text, and this is a list"),
    ("a set of a number without an end", ["run", "--config=c.yaml", f"--set=train.seed={'1' * 5000}"], 2, r"is no number that can be read"),
]  # fmt: skip


@pytest.mark.parametrize("case", FILES, ids=lambda case: case.name)
def test_files(case, place, capsys):
    check(case, capsys)


@pytest.mark.parametrize("case", DOCUMENTS, ids=lambda case: case.name)
def test_documents(case, place, capsys):
    check(case._replace(recipe=WRITE), capsys)


@pytest.mark.parametrize("case", CONVERSATIONS, ids=lambda case: case.name)
def test_conversations(case, place, capsys):
    check(case._replace(recipe=CHAT), capsys)


@pytest.mark.parametrize("case", CONFIGS, ids=lambda case: case.name)
def test_configs(case, place, capsys):
    check(case._replace(files={"train.csv": CSV}), capsys)


@pytest.mark.parametrize(
    ("arguments", "code", "message"), [row[1:] for row in REQUESTS], ids=[row[0] for row in REQUESTS]
)
def test_requests(arguments, code, message, place, capsys):
    Path("c.yaml").write_text(yaml.safe_dump(CLASSIFY))
    Path("empty.yaml").touch()
    assert main(arguments) == code
    stderr = capsys.readouterr().err
    assert re.search(message, stderr), stderr
    assert "Traceback" not in stderr


@pytest.mark.parametrize("kind", ["pipe", "socket", "link to a pipe", "pipe in a folder", "terminal"])
def test_what_is_no_regular_file_is_refused_and_never_waited_for(kind, place, capsys):
    Path("data").mkdir()
    os.mkfifo("data/pipe.csv")
    Path("link.csv").symlink_to("data/pipe.csv")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind("socket.csv")
        sources: dict[str, Any] = {
            "pipe": "data/pipe.csv", "socket": "socket.csv", "link to a pipe": "l*.csv", "terminal": "/dev/tty",
            "pipe in a folder": {"path": "data", "files": "*.csv"},
        }  # fmt: skip
        case = Case(kind, 1, changes={"ingest.train": sources[kind], "ingest.format": "csv"})
        check(
            case._replace(message=r"ingest\.train: .*: is a (pipe|socket|device), and a source must be a regular file"),
            capsys,
        )


def test_the_table_is_long_enough():
    assert len(FILES) + len(DOCUMENTS) + len(CONVERSATIONS) + len(CONFIGS) + len(REQUESTS) >= 120
