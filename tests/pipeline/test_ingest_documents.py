import gzip
import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from lmworks.configs.errors import UserError
from lmworks.configs.schema import IngestStage
from lmworks.pipeline.ingest.component import ingest
from lmworks.tfx.artifacts import Examples, Statistics, publish, read


def run(tmp_path, **settings):
    config = IngestStage.model_validate({"task": "causal_lm", **settings})
    folders = [tmp_path / "out" / name for name in ("examples", "statistics")]
    for folder in folders:
        folder.mkdir(parents=True)
    examples, statistics = Examples(folders[0]), Statistics(folders[1])
    ingest(config=config, examples=examples, statistics=statistics)
    publish(examples, "examples", {})
    return read(Examples, folders[0])


def rows(examples, *splits):
    names = [name for name in examples.files if name.startswith(tuple(f"Split-{split}/" for split in splits))]
    return pa.concat_tables([pq.read_table(examples.path / name) for name in names]).to_pylist()


def rejects(examples):
    return pq.read_table(examples.path / "rejects.parquet").to_pylist()


SPLITS = ("train", "validation", "test")


def test_a_text_file_is_one_document_and_a_separator_line_cuts_it(tmp_path):
    stories = [f"Story {index}.\n\nThe end of {index}.\n" for index in range(40)]
    (tmp_path / "all.txt").write_text("<|end|>\n".join(stories))
    (tmp_path / "one.txt").write_text(stories[0] * 2)
    found = run(
        tmp_path,
        train={"path": str(tmp_path / "all.txt"), "separator": "<|end|>"},
        validation=str(tmp_path / "one.txt"),
        test=str(tmp_path / "one.txt"),
    )
    assert sorted(row["text"] for row in rows(found, "train")) == sorted(stories)
    assert [row["text"] for row in rows(found, "validation")] == [stories[0] * 2]
    assert found.properties["labels"] == []
    assert found.properties["label"] is None


def test_an_empty_separator_is_an_empty_line(tmp_path):
    path = tmp_path / "poems.txt.gz"
    path.write_bytes(gzip.compress("\n\n".join(f"line {n}\nsecond" for n in range(60)).encode()))
    found = run(tmp_path, train=str(path), separator="")
    assert {row["text"].strip() for row in rows(found, *SPLITS)} == {f"line {n}\nsecond" for n in range(60)}


def test_jsonl_documents_carry_their_columns(tmp_path):
    path = tmp_path / "d.jsonl"
    path.write_text("".join(json.dumps({"text": f"text {n}", "source": "web"}) + "\n" for n in range(60)))
    found = run(tmp_path, train=str(path))
    assert {row["source"] for row in rows(found, *SPLITS)} == {"web"}


def test_a_tree_is_one_document_per_file(tmp_path):
    tree = tmp_path / "tree"
    for folder in ("a", "b", "tests"):
        (tree / folder).mkdir(parents=True)
        for n in range(15):
            (tree / folder / f"f{n}.py").write_text(f"# {folder} {n}\n")
    (tree / "a" / "empty.py").write_text("")
    (tree / "a" / "readme.md").write_text("no code")
    (tree / "b" / "binary.py").write_bytes(b"\x7fELF\0\0\0")
    (tree / "b" / "latin.py").write_bytes("é".encode("latin-1"))
    found = run(tmp_path, train={"path": str(tree), "files": ["**/*.py", "!tests/**"]}, max_rejects=0.1)
    documents = rows(found, *SPLITS)
    assert {row["file"] for row in documents} == {f"{x}/f{n}.py" for x in "ab" for n in range(15)}
    assert {row["folder"] for row in documents} == {"a", "b"}
    told = {row["file"].rpartition("/")[2]: row["reason"] for row in rejects(found)}
    assert told == {
        "empty.py": "the document is empty",
        "binary.py": "no text: a binary file (it holds zero bytes)",
        "latin.py": "no utf-8 text",
    }


def test_a_range_of_bytes_keeps_whole_characters(tmp_path):
    text = "aé€😀" * 50
    (tmp_path / "t.txt").write_text(text)
    size = len(text.encode())
    for cut in range(1, 12):
        parts = []
        for begin, end in ((0, cut), (cut, size)):
            folder = tmp_path / f"{cut}-{begin}"
            path = str(tmp_path / "t.txt")
            source = {"path": path, "byte_range": [begin, end]}
            found = run(folder, train=source, validation=path, test=path)
            parts.append(rows(found, "train")[0]["text"])
        assert len("".join(parts)) in (len(text), len(text) - 1)
        assert text.startswith(parts[0])
        assert text.endswith(parts[1])


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"train": "{}/tree"}, "is a directory; name a file, a glob .* or the wanted files by ingest.train.files"),
        ({"train": {"path": "{}/tree", "files": "*.rs"}}, r"tree: no file matches \*.rs"),
        ({"train": {"path": "{}/one.txt", "files": "*.py"}}, "one.txt: is no folder"),
        ({"train": "{}/empty.txt"}, "all 1 documents are empty"),
        ({"train": "{}/one.txt"}, r"split (validation|test) is empty; give ingest.* more documents \(ingest.separator"),
        ({"train": "{}/latin.txt"}, "no utf-8 text; set the right ingest.encoding"),
    ],
)
def test_bad_documents(tmp_path, settings, words):
    (tmp_path / "tree").mkdir()
    (tmp_path / "one.txt").write_text("some text")
    (tmp_path / "empty.txt").write_text("  \n")
    (tmp_path / "latin.txt").write_bytes("größer".encode("latin-1"))
    settings = json.loads(json.dumps(settings).replace("{}", str(tmp_path)))
    with pytest.raises(UserError, match=words):
        run(tmp_path, **settings)
