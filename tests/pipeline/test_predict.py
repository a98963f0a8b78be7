"""The command `predict`: texts, lines and files, whatever stands in them."""

import csv
import io
import json
import shutil
import sys

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from lmworks.configs.errors import ConfigError
from lmworks.pipeline.export.answers import LONGEST, Refusal, answer_all, answering
from lmworks.pipeline.export.continuation import Wish
from lmworks.pipeline.export.servable_folder import find_servable, open_servable
from lmworks.pipeline.export.text_lines import answer_lines, rows_of_lines
from lmworks.pipeline.main import main
from tests.pipeline.loaded import load_once

KINDS = ("classifier", "masked", "causal")
LINES = st.one_of(st.binary(max_size=40), st.text(max_size=20).map(str.encode), st.just(b"the [MASK] of \xff"),
                  st.just("the [MASK] of ü\t".encode()))  # fmt: skip
ENDS = st.sampled_from([b"\n", b"\r\n"])


@pytest.fixture(scope="module")
def servables(tiny, language_runs):
    """Folder of a servable by its kind."""
    return {
        "classifier": tiny.folder / "export/servable",
        "masked": language_runs / "gaps/export/servable",
        "causal": language_runs / "stories/export/servable",
    }


@pytest.fixture(autouse=True)
def _load_once(monkeypatch):
    monkeypatch.setattr("lmworks.pipeline.export.predict.load_servable", load_once)


@pytest.fixture(scope="module")
def signatures(servables):
    return {kind: load_once(find_servable(str(folder)).path).signatures for kind, folder in servables.items()}


@pytest.fixture(scope="module")
def models(signatures):
    return {kind: answering(found, (), Wish(tokens=2)) for kind, found in signatures.items()}


def lines_of(model, content, is_pair=False):
    return list(answer_lines(model, rows_of_lines(io.BytesIO(content), is_pair), at_once=False))


def predict(capsys, *arguments):
    """Runs the command in this process: its exit code, what it prints, and what it says on stderr."""
    capsys.readouterr()
    code = main(["predict", *map(str, arguments)])
    said = capsys.readouterr()
    return code, said.out, said.err


@pytest.mark.parametrize("kind", KINDS)
def test_any_bytes_give_an_answer_or_an_error_a_line(models, kind):
    @settings(max_examples=60 if kind != "causal" else 15, deadline=None)
    @given(st.lists(st.tuples(LINES, ENDS), max_size=12), LINES)
    def check(lines, last):
        content = b"".join(map(b"".join, lines)) + last
        expected = content.removeprefix(b"\xef\xbb\xbf").split(b"\n")
        expected = expected if expected[-1] or (len(expected) == 1 and content) else expected[:-1]
        answers = lines_of(models[kind], content)
        assert len(answers) == len(expected)
        for number, (line, answer) in enumerate(zip(expected, answers, strict=True), 1):
            assert "\n" not in json.dumps(answer, ensure_ascii=False, allow_nan=False)
            if "error" in answer:
                assert answer.keys() == {"line", "error"}
                assert answer["line"] == number
            else:
                assert answer["text"].encode() == line.removesuffix(b"\r")
        if kind == "classifier":
            assert ["error" in answer for answer in answers] == [not is_text(line) for line in expected]

    check()


def is_text(line):
    try:
        line.decode()
    except UnicodeDecodeError:
        return False
    return True


def test_ends_of_lines_marks_zeros_and_what_is_too_long(models):
    long = b"x" * (LONGEST + 100_000)
    content = (
        b"\xef\xbb\xbfThe film was great.\r\n\n" + long + b"\nThe plot\0 was\rdull.\n" + long[:LONGEST] + b"\nlast"
    )
    answers = lines_of(models["classifier"], content)
    assert [answer.get("text", answer.get("line")) for answer in answers] == [
        "The film was great.", "", 3, "The plot\0 was\rdull.", "x" * LONGEST, "last",
    ]  # fmt: skip
    assert "longer than" in answers[2]["error"]
    assert answers[0]["label"] == "positive"
    alone = lines_of(models["classifier"], b"The film was great.")[0]
    assert alone["probabilities"] == pytest.approx(answers[0]["probabilities"], abs=1e-5)
    assert lines_of(models["classifier"], b"") == []


def test_the_rest_of_stdin_is_answered_and_the_exit_code_says_it(servables, monkeypatch, capsys):
    monkeypatch.setattr(
        sys, "stdin", io.TextIOWrapper(io.BytesIO(b"The film was great.\n\xff\xfe\nThe plot was dull.\n"))
    )
    code, out, _ = predict(capsys, f"--servable={servables['classifier']}")
    lines = [json.loads(line) for line in out.splitlines()]
    assert code == 1
    assert [line.get("label") for line in lines] == ["positive", None, "negative"]
    assert lines[1] == {"line": 2, "error": "is no UTF-8 text: byte 0xff at place 1"}
    code, out, _ = predict(capsys, f"--servable={servables['masked']}", "--text=no mask", "--text=the [MASK] of [MASK]")
    assert code == 1
    assert json.loads(out.splitlines()[0]) == {
        "line": 1,
        "error": "a masked language model fills [MASK], and this text has none",
    }
    assert [len(mask) for mask in json.loads(out.splitlines()[1])["masks"]] == [5, 5]
    behind = "a " * 40 + "[MASK]"
    code, out, _ = predict(capsys, f"--servable={servables['masked']}", f"--text={behind}")
    assert "behind the tokens that the model sees" in json.loads(out)["error"]


class Fussy(tf.Module):
    """A classifier of pairs whose graph fails at a text with an x."""

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, "text"), tf.TensorSpec([None], tf.string, "text_b")])
    def answer(self, text, text_b):
        lengths = tf.strings.length(text) + tf.strings.length(text_b)
        with tf.control_dependencies(
            [tf.debugging.Assert(tf.reduce_all(~tf.strings.regex_full_match(text, ".*x.*")), ["an \x1b[31mx"])]
        ):
            share = tf.cast(tf.identity(lengths), tf.float32) / 100
        share = tf.where(tf.strings.regex_full_match(text, "nan"), float("nan"), share)
        rows = tf.shape(text)[0]
        return {
            "probabilities": tf.stack([share, 1 - share], axis=1),
            "classes": tf.tile([["short", "long"]], [rows, 1]),
            "label": tf.fill([rows], "short"),
        }


def test_a_row_at_which_the_graph_fails_costs_that_row(tmp_path, capsys):
    module = Fussy()
    tf.saved_model.save(module, str(tmp_path), signatures={"serving_default": module.answer})
    model = answering(open_servable(tmp_path).signatures, (), Wish())
    answers = lines_of(model, b"a\tbcd\nno tab\nx\tb\nnan\tb\na\tb\tc\nab\tb\n", is_pair=True)
    assert [answer.get("probabilities", {}).get("short") for answer in answers] == [0.04, None, None, None, None, 0.03]
    assert [answer.get("line") for answer in answers] == [None, 2, 3, 4, 5, None]
    assert answers[2]["error"].startswith("the graph fails: ")
    assert "\x1b" not in answers[2]["error"]
    assert "one tab between" in answers[1]["error"]
    assert "no number" in answers[3]["error"]
    (tmp_path / "in.csv").write_text("id,first,second\n1,a,bcd\n2,x,b\n3,ab,\n")
    columns = ["--text_column=first", "--text_b_column=second"]
    files = [f"--input={tmp_path}/in.csv", f"--output={tmp_path}/out.csv"]
    code, _, err = predict(capsys, f"--servable={tmp_path}", *files, *columns)
    assert (code, "1 of 3 rows have no answer (column error); the first: row 2: the graph fails" in err) == (1, True)
    with (tmp_path / "out.csv").open(newline="") as file:
        assert [row["probability/short"] for row in csv.DictReader(file)] == ["0.04", "", "0.02"]


def test_rows_are_answered_in_their_order_whatever_their_lengths(models):
    texts = [(f"The film was {'very ' * (number % 7)}{'great' if number % 3 else 'dull'}.",) for number in range(150)]
    texts.insert(70, Refusal("bad"))
    answers = answer_all(models["classifier"], texts)
    assert answers[70] == Refusal("bad")
    for place in (0, 69, 71, 150):
        alone = answer_all(models["classifier"], [texts[place]])[0]
        assert answers[place]["probabilities"] == pytest.approx(alone["probabilities"], abs=1e-5)


def test_a_batch_may_be_empty(signatures):
    none = tf.constant([], tf.string)
    shapes = {}
    for kind, served in signatures.items():
        for name in {"serving_default", "score", "tokenize", "generate"} & served.keys():
            sampling = (
                {"tokens": 3, "temperature": 0.0, "top_k": 0, "top_p": 1.0, "seed": 0} if name == "generate" else {}
            )
            found = served[name](text=none, **{key: tf.constant(value) for key, value in sampling.items()})
            shapes |= {(kind, name, output): value.shape.as_list() for output, value in found.items()}
    assert {shape[0] for shape in shapes.values()} == {0}
    assert shapes["classifier", "serving_default", "probabilities"] == [0, 2]
    assert shapes["classifier", "serving_default", "label"] == [0]
    assert shapes["masked", "serving_default", "probability"] == [0, 0, 5]
    assert shapes["causal", "generate", "text"] == shapes["causal", "serving_default", "text"] == [0]
    assert len(shapes) == 11


def test_the_classes_stand_in_the_saved_model_and_beside_it(signatures, servables):
    found = signatures["classifier"]["serving_default"](text=tf.constant(["The film was great.", ""]))
    assert found["classes"].numpy().tolist() == [[b"negative", b"positive"]] * 2
    assert found["label"].numpy()[0] == found["classes"].numpy()[0][found["probabilities"].numpy()[0].argmax()]
    assert json.loads((servables["classifier"] / "labels.json").read_text()) == ["negative", "positive"]


@pytest.mark.parametrize(
    ("kind", "flags", "words"),
    [
        ("classifier", ["--text=a", "--temperature=0.5"], "--temperature is for causal language models"),
        ("masked", ["--text=[MASK]", "--stop=x"], "is a masked language model; leave it out"),
        ("classifier", ["--text=a", "--text_b=b"], "takes one text; leave it out"),
        ("causal", ["--text=a", "--text_b=b"], "takes one text; leave it out"),
        ("causal", ["--text=a", "--tokens=0"], "--tokens must be at least 1"),
        ("causal", ["--text=a", "--seed=99999999999"], "numbers of 32 bits"),
        ("classifier", ["--text=a", "--text_b=b", "--text_b=c"], "go in pairs"),
        ("classifier", ["--text=a", "--output=x.csv"], "belongs to --input=FILE"),
        ("classifier", ["--input=a.csv"], "--output=FILE is missing"),
        ("classifier", ["--input=a.csv", "--output=b.csv"], "--input=a.csv: no such file"),
        ("classifier", ["--input=README.md", "--output=b.csv"], "its suffix names no format"),
        ("classifier", ["--input=nowhere://a.csv", "--output=b.csv"], "Protocol not known: nowhere"),
        ("classifier", ["--input=a.txt", "--output=b.csv"], "is read from stdin"),
        ("classifier", ["--input=a.csv", "--output=b.parquet"], "a file that is read as csv becomes .csv or .jsonl"),
        ("classifier", ["--input=a.csv", "--output=nowhere/b.csv"], "there is no folder nowhere"),
    ],
)  # fmt: skip
def test_flags_that_do_not_fit_are_refused_before_tensorflow_loads(
    servables, kind, flags, words, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "README.md").touch()
    folder = tmp_path / "servable"
    (folder / "saved_model").mkdir(parents=True)
    for name in ("artifact.json", "saved_model/saved_model.pb"):
        (folder / name).write_bytes((servables[kind] / name).read_bytes())
    manifest = json.loads((folder / "artifact.json").read_text())
    manifest["files"] = []  # what lies here cannot be loaded
    (folder / "artifact.json").write_text(json.dumps(manifest))
    code, out, err = predict(capsys, f"--servable={folder}", *flags)
    assert (code, out) == (2, "")
    assert words in err
    assert "README" not in err or "suffix" in err


def test_where_a_servable_is_looked_for(tiny, tmp_path):
    expected = (tiny.folder / "export/servable/saved_model").resolve()
    for folder in (tiny.folder, tiny.folder / "export", tiny.folder / "export/servable", expected):
        found = find_servable(str(folder))
        assert found.path.resolve() == expected
        assert (found.task, found.is_pair, found.labels) == ("text_classification", False, ["negative", "positive"])
    for version in ("9", "10"):
        shutil.copytree(expected, tmp_path / "models" / version)
    assert find_servable(str(tmp_path / "models")).path.name == "10"
    with pytest.raises(ConfigError, match=rf"holds no SavedModel; there are {tiny.folder}$"):
        find_servable(str(tiny.root))
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "run.json").touch()
    for path, words in (
        (tmp_path, "holds no SavedModel; a run's servable is at"),
        (tmp_path / "run", "is a run without a servable"),
        (tmp_path / "none", "there is no such folder"),
        ("s3://bucket/run", "is a URL"),
    ):
        with pytest.raises(ConfigError, match=words):
            find_servable(str(path))


def test_a_saved_model_that_is_no_servable(tmp_path, capsys):
    for content in (b"no graph", b""):
        (tmp_path / "saved_model.pb").write_bytes(content)
        code, _, err = predict(capsys, f"--servable={tmp_path}", "--text=a")
        assert (code, err) == (1, f"lmworks predict: {tmp_path}: the SavedModel is damaged; export it again\n")
        load_once.cache_clear()
    module = tf.Module()
    module.double = tf.function(lambda x: {"y": 2 * x}, input_signature=[tf.TensorSpec([], tf.float32, "x")])
    tf.saved_model.save(module, str(tmp_path / "other"), signatures={"serving_default": module.double})
    code, _, err = predict(capsys, f"--servable={tmp_path / 'other'}", "--text=a")
    assert code == 2
    assert "it is no servable of lmworks" in err


ADDED = ["prediction", "probability/negative", "probability/positive", "error"]
ROWS = [("7", "The film was great.", 'a "quoted", cell'), ("07", "The plot was dull.", "ü\nüü"), ("x", "", "a\rb")]


def test_csv_keeps_its_columns(servables, tmp_path, capsys):
    with (tmp_path / "in.csv").open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([("id", "text", "note"), *ROWS])
        file.write("8,too,many,cells\r\n")
    with (tmp_path / "in.csv").open("ab") as file:
        file.write(b"9,The film was great.,caf\xe9\r\n10,caf\xe9,\r\n")
    arguments = [f"--servable={servables['classifier']}", f"--input={tmp_path}/in.csv", f"--output={tmp_path}/out.csv"]
    code, out, err = predict(capsys, *arguments)
    assert (code, out.strip()) == (1, f"{tmp_path}/out.csv")
    assert "2 of 6 rows have no answer (column error); the first: row 4: 4 fields where the header has 3" in err
    with (tmp_path / "out.csv").open(newline="", encoding="utf-8", errors="surrogateescape") as file:
        header, *rows = csv.reader(file)
    assert header == ["id", "text", "note", *ADDED]
    assert [tuple(row[:3]) for row in rows] == [
        *ROWS, ("8", "too", "many"), ("9", "The film was great.", "caf\udce9"), ("10", "caf\udce9", ""),
    ]  # fmt: skip
    assert [row[3] for row in rows] == ["positive", "negative", rows[2][3], "", "positive", ""]
    assert float(rows[0][4]) + float(rows[0][5]) == pytest.approx(1, abs=2e-6)
    assert [bool(row[6]) for row in rows] == [False, False, False, True, False, True]
    code, _, err = predict(capsys, *arguments)
    assert code == 2
    assert "--overwrite replaces it" in err
    before = (tmp_path / "out.csv").read_bytes()
    assert predict(capsys, *arguments, "--overwrite")[0] == 1
    assert (tmp_path / "out.csv").read_bytes() == before
    again = [f"--servable={servables['classifier']}", f"--input={tmp_path}/out.csv", f"--output={tmp_path}/again.csv"]
    code, _, err = predict(capsys, *again)
    assert code == 2
    assert "has a column 'error', a name that predict adds; rename it" in err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in.csv", "out.csv"]
    code, _, err = predict(capsys, *arguments[:2], f"--output={tmp_path}/in.csv", "--overwrite")
    assert code == 2
    assert "is the file of --input" in err


def test_other_delimiters_and_columns(servables, tmp_path, capsys):
    (tmp_path / "in.csv").write_text("id;review\n1;The film was great, really.\n")
    (tmp_path / "in.tsv").write_text('id\treview\n1\tThe "plot" was dull.\n')
    for name in ("in.csv", "in.tsv"):
        arguments = [
            f"--servable={servables['classifier']}",
            f"--input={tmp_path / name}",
            f"--output={tmp_path}/out-{name}",
        ]
        code, _, err = predict(capsys, *arguments)
        assert code == 2
        assert "name it by --text_column" in err
        assert predict(capsys, *arguments, "--text_column=review")[0] == 0
    assert (tmp_path / "out-in.csv").read_text().startswith("id;review;prediction;probability/negative")
    assert (tmp_path / "out-in.tsv").read_text().splitlines()[1].startswith('1\tThe "plot" was dull.\tnegative\t')


def test_jsonl_keeps_keys_and_types(servables, tmp_path, capsys):
    rows = [
        {"id": 7, "text": "The film was great.", "more": {"a": [1, None, 2.5]}},
        {"text": "The plot was dull.", "other": "\ud800", "id": None},
        {"id": 9, "text": None},
        {"id": 10, "text": ["a"]},
        {"id": 11},
        {"id": 12, "text": 5},
    ]
    content = "".join(json.dumps(row) + "\n" for row in rows) + "{broken\n"
    (tmp_path / "in.jsonl").write_text(content)
    arguments = [
        f"--servable={servables['classifier']}",
        f"--input={tmp_path}/in.jsonl",
        f"--output={tmp_path}/out.jsonl",
    ]
    code, _, err = predict(capsys, *arguments)
    assert code == 1
    assert "4 of 7 rows" in err
    found = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text(encoding="utf-8").splitlines()]
    assert [list(row)[-4:] for row in found] == [ADDED] * 7
    kept = [{name: value for name, value in row.items() if name not in ADDED} for row in found]
    assert kept == [*rows, {}]
    assert [row["prediction"] for row in found] == [
        "positive",
        "negative",
        None,
        None,
        None,
        found[5]["prediction"],
        None,
    ]
    assert [row["error"] is None for row in found] == [True, True, False, False, False, True, False]
    assert "a list where text is expected" in found[3]["error"]
    assert found[4]["error"] == "column text is missing"
    assert found[6]["error"].startswith("no JSON")


def test_parquet_keeps_types(servables, tmp_path, capsys):
    table = pa.table(
        {
            "when": pa.array([1, None, 3, 4], pa.timestamp("us", "UTC")),
            "review": pa.array(["The film was great.", None, "The plot was dull.", ""]).dictionary_encode(),
            "id": pa.array([7, 8, 9, 10], pa.int16()),
        }
    ).replace_schema_metadata({"mine": "yes"})
    pq.write_table(table, tmp_path / "in.parquet", row_group_size=2)
    arguments = [f"--servable={servables['classifier']}", f"--input={tmp_path}/in.parquet", "--text_column=review"]
    code, _, err = predict(capsys, *arguments, f"--output={tmp_path}/out.parquet")
    assert code == 1
    assert "1 of 4 rows have no answer (column error); the first: row 2: column review: holds no text" in err
    found = pq.read_table(tmp_path / "out.parquet")
    assert found.column_names == ["when", "review", "id", *ADDED]
    assert found.select(["when", "review", "id"]).equals(table)
    assert found.schema.metadata[b"mine"] == b"yes"
    assert found["prediction"].to_pylist()[:3] == ["positive", None, "negative"]
    assert found.schema.field("probability/negative").type == pa.float32()
    assert predict(capsys, *arguments, f"--output={tmp_path}/out.jsonl")[0] == 1
    lines = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert [line["id"] for line in lines] == [7, 8, 9, 10]
    assert lines[0]["probability/negative"] == pytest.approx(found["probability/negative"][0].as_py(), abs=1e-6)


def test_files_of_the_other_tasks(servables, tmp_path, capsys):
    (tmp_path / "in.csv").write_text("id,text\n1,the [MASK] of\n2,none\n")
    code, _, _ = predict(
        capsys, f"--servable={servables['masked']}", f"--input={tmp_path}/in.csv", f"--output={tmp_path}/masks.csv"
    )
    assert code == 1
    with (tmp_path / "masks.csv").open(newline="") as file:
        first, second = csv.DictReader(file)
    assert len(json.loads(first["masks"])[0]) == 5
    assert second["masks"] == ""
    files = [f"--input={tmp_path}/in.csv", f"--output={tmp_path}/texts.jsonl", "--tokens=3"]
    assert predict(capsys, f"--servable={servables['causal']}", *files)[0] == 0
    found = [json.loads(line) for line in (tmp_path / "texts.jsonl").read_text().splitlines()]
    assert [list(row) for row in found] == [["id", "text", "continuation", "error"]] * 2
    alone = json.loads(predict(capsys, f"--servable={servables['causal']}", "--text=none", "--tokens=3")[1])
    assert found[1]["continuation"] == alone["continuation"]


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"id,text\n",
        b'id,text\n1,"never closed\n',
        b"id,text\n" + 2100 * b"1,great\n" + b'2,"never closed\n',  # behind rows that were written
        b"PAR1",
        b"id,id,text\n1,2,3\n",
    ],
    ids=range(6),
)
def test_a_file_that_cannot_be_read_leaves_nothing(servables, content, tmp_path, capsys):
    (tmp_path / "in.csv").write_bytes(content)
    code, _, err = predict(
        capsys, f"--servable={servables['classifier']}", f"--input={tmp_path}/in.csv", f"--output={tmp_path}/out.csv"
    )
    if content == b"id,text\n":
        assert (code, err) == (0, "")
        assert (tmp_path / "out.csv").read_text() == f"id,text,{','.join(ADDED)}\n"
    else:
        assert code in (1, 2)
        assert f"--input: {tmp_path}/in.csv" in err or f"{tmp_path}/in.csv:" in err
        assert content or "is empty" in err
        assert "ingest" not in err
        assert [path.name for path in tmp_path.iterdir()] == ["in.csv"]


@pytest.mark.parametrize("kind", ["classifier", "causal"])
def test_what_a_terminal_gets_commands_nothing(servables, kind, monkeypatch, capsys):
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    flags = ["--tokens=3"] if kind == "causal" else []
    code, out, _ = predict(capsys, f"--servable={servables[kind]}", "--text=fox\x1b[31m\x9b ü", "--text=\udcff", *flags)
    assert code == 1
    assert not {"\x1b", "\x9b"} & set(out)
    assert out.startswith("fox\\x1b[31m\\x9b ü" if kind == "causal" else '{"text": "fox\\u001b[31m\\x9b ü"')
    assert "no UTF-8 text" in out
