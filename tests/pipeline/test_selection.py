"""Which training rows are dropped, and that nothing is learnt from them, the vocabulary included."""

import html
import json

import numpy as np
import pyarrow.parquet as pq
import pytest

from lmworks.configs.errors import UserError
from lmworks.configs.schema import PreprocessStage
from lmworks.pipeline.label_conflicts import LabelCounts, conflicts_of
from lmworks.pipeline.preprocess.component import preprocess
from lmworks.pipeline.tables import read_table
from lmworks.tfx.artifacts import Sequences, publish, read
from tests.pipeline.corpora import artifact, corpus
from tests.pipeline.test_ingest import run


def test_losing_rows():
    ids = np.array([7, 7, 7, 5, 5, 9, 7, 4], np.uint64)
    labels = np.array([1, 0, 0, 2, 1, 0, 0, 3])
    counts = LabelCounts(ids, labels)
    assert counts.losers("keep_first").tolist() == [False, True, True, False, True, False, True, False]
    assert counts.losers("majority").tolist() == [True, False, False, True, True, False, False, False]
    assert counts.losers("drop").tolist() == [True, True, True, True, True, False, True, False]
    assert conflicts_of(ids, labels) == (2, 6, 6 / 8)
    assert conflicts_of(ids[:0], labels[:0]).texts == 0


CLEAN = [(f"clean text {n}", "ab"[n % 2]) for n in range(40)]
TORN = [("torn one", "a"), ("torn one", "b"), ("torn one", "b"), ("a tie", "b"), ("a tie", "a")]
HELD = [(f"held text {n}", "ab"[n % 2]) for n in range(8)]
WATCHED = [(f"watched text {n}", "ab"[n % 2]) for n in range(4)]


def write(path, rows):
    path.write_text("".join(json.dumps({"text": text, "label": label}) + "\n" for text, label in rows))
    return str(path)


def prepared(tmp_path, train, test=HELD, validation=WATCHED, ingest=None, **settings):
    """Examples, statistics and sequences of classified rows."""
    sources = {
        name: write(tmp_path / f"{name}.jsonl", rows)
        for name, rows in (("train", train), ("test", test), ("validation", validation))
    }
    examples, statistics = run(tmp_path, **sources, **(ingest or {}))
    sequences = artifact(Sequences, tmp_path / "sequences")
    vocabulary = {"kind": "wordpiece", "vocabulary_size": 50}
    config = {"task": "text_classification", "sequence_length": 32, "tokenizer": {"train": vocabulary}, **settings}
    preprocess(config=PreprocessStage.model_validate(config), examples=examples, sequences=sequences)
    publish(sequences, "sequences", {})
    return examples, statistics, read(Sequences, sequences.path)


@pytest.mark.parametrize(
    ("settings", "kept", "reasons"),
    [
        ({}, ["torn one a", "a tie b"], {"conflict": 3}),
        ({"conflicts": "majority"}, ["torn one b"], {"conflict": 3, "duplicate": 1}),
        ({"conflicts": "drop"}, [], {"conflict": 5}),
        ({"conflicts": "majority", "deduplicate": False}, ["torn one b", "torn one b"], {"conflict": 3}),
        ({"deduplicate": False}, ["torn one a", "a tie b"], {"conflict": 3}),
    ],
)
def test_conflicts_are_resolved_and_counted_apart(tmp_path, settings, kept, reasons):
    examples, _, sequences = prepared(tmp_path, [*CLEAN[:20], *TORN, *CLEAN[20:]], **settings)
    excluded = pq.read_table(sequences.path / "excluded.parquet").to_pylist()
    found: dict[str, int] = {}
    for row in excluded:
        if row["split"] == "train":
            name = row["reason"].partition(":")[0]
            found[name] = found.get(name, 0) + 1
    assert found == reasons
    labels, texts = examples.properties["labels"], read_table(sequences, "train")
    rows = [*CLEAN[:20], *TORN, *CLEAN[20:]]
    trained = [
        f"{rows[row][0]} {labels[label]}"
        for row, label in zip(texts["row"].to_pylist(), texts["label"].to_pylist(), strict=True)
    ]
    assert [one for one in trained if not one.startswith("clean")] == kept
    assert f"{reasons['conflict']} of them for conflicting labels" in sequences.properties["summary"]


def test_a_pair_conflicts_only_as_a_pair(tmp_path):
    rows = [{"text": "same", "text_b": f"other {n}", "label": "ab"[n % 2]} for n in range(30)]
    rows += [{"text": "same", "text_b": "other 0", "label": "b"}]
    for name in ("train", "test", "validation"):
        (tmp_path / f"{name}.jsonl").write_text(
            "".join(json.dumps(row | {"text": f"{name} {row['text']}"}) + "\n" for row in rows)
        )
    sources = {name: f"{tmp_path}/{name}.jsonl" for name in ("train", "test", "validation")}
    _, statistics = run(tmp_path, **sources, text_b="text_b")
    told = json.loads((statistics / "statistics.json").read_text())
    assert told["splits"]["train"]["conflicts"]["texts"] == 1
    worst = {(one["text"], one["text_b"]) for one in told["worst_conflicts"]}
    assert worst == {(f"{name} same", "other 0") for name in sources}


def test_the_statistics_show_the_worst_and_how_far_they_cap_the_accuracy(tmp_path):
    test = [*HELD, *[("bad text", "a")] * 4, *[("bad text", "b")] * 3, ("torn one", "a")]
    examples, statistics, sequences = prepared(tmp_path, [*CLEAN, *TORN], test=test)
    assert "1 text of test with different labels: accuracy at most 0.8125 there" in sequences.properties["summary"]
    told = json.loads((statistics / "statistics.json").read_text())
    assert told["splits"]["test"]["conflicts"] == {"texts": 1, "rows": 7, "best_accuracy": 13 / 16}
    assert told["splits"]["train"]["conflicts"]["texts"] == 2
    assert examples.properties["conflicts"]["test"]["best_accuracy"] == 13 / 16
    assert "1 text of test with different labels: accuracy at most 0.8125 there" in examples.properties["summary"]
    assert [(one["text"], one["labels"]) for one in told["worst_conflicts"][:2]] == [
        ("bad text", {"a": {"test": 4}, "b": {"test": 3}}),
        ("torn one", {"a": {"train": 1, "test": 1}, "b": {"train": 2}}),
    ]
    page = html.unescape((statistics / "report.html").read_text())
    assert 'bad text</td><td class="">a: 4 test; b: 3 test' in page
    assert "0.8125" in page


def test_no_class_is_lost_in_silence(tmp_path):
    rows = [*CLEAN, ("only one", "c"), ("only one", "a")]
    for name in "abc":
        (tmp_path / name).mkdir()
    *_, sequences = prepared(tmp_path / "a", rows, conflicts="drop")
    assert "no training row of 'c'" in sequences.properties["summary"]
    with pytest.raises(UserError, match="no row of 'b' is left in train, and a classifier needs two"):
        prepared(tmp_path / "b", [*CLEAN[::2], ("x", "b"), ("x", "a")], conflicts="drop")
    with pytest.raises(UserError, match="no row of train is left; see deduplicate, conflicts"):
        prepared(tmp_path / "c", TORN, conflicts="drop")


def vocabulary(sequences):
    return (sequences.path / "tokenizer/vocab.txt").read_text().splitlines()


def test_the_vocabulary_knows_kept_rows_only(tmp_path):
    names = {"held": "zzqzz", "torn": "xxqxx", "short": "qwq", "twice": "vqvqv"}
    test = [*HELD, (names["held"], "a")]
    train = [*CLEAN, *[(names["held"], "a")] * 50, (names["torn"], "a"), (names["torn"], "b"), (names["short"], "a")]
    *_, sequences = prepared(tmp_path, train, test=test, conflicts="drop", min_characters=5)
    assert not any("q" in token for token in vocabulary(sequences))
    for name in ("one", "fifty"):
        (tmp_path / name).mkdir()
    once, fifty = ([*CLEAN, *[(names["twice"], "a")] * count] for count in (1, 50))
    *_, single = prepared(tmp_path / "one", once)
    *_, many = prepared(tmp_path / "fifty", fifty)
    assert vocabulary(single) == vocabulary(many)
    assert any("q" in token for token in vocabulary(many))


@pytest.mark.parametrize("task", ["causal_lm", "masked_lm"])
def test_a_duplicate_document_counts_once_in_the_vocabulary(tmp_path, task):
    texts = [f"story {n} of the fox and the river" for n in range(60)]
    made = []
    for name, more in (("one", 1), ("many", 80)):
        _, sequences = corpus(tmp_path / name, task, 16, [*texts, *["zqzq zqzq zqzq"] * more])
        made.append(
            {path.name: path.read_bytes() for path in (sequences.path / "tokenizer").rglob("*") if path.is_file()}
        )
    assert made[0] == made[1]


def test_special_tokens_that_a_text_spells_out_are_said(tmp_path):
    texts = [*(f"story {n} of the fox and the river" for n in range(60)), "one<|endoftext|>two<|endoftext|>three"]
    _, sequences = corpus(tmp_path, "causal_lm", 16, texts)
    assert sequences.properties["spelled_marks"] == {"<|endoftext|>": 1}
    assert "1 document spells out <|endoftext|>, which is plain text there" in sequences.properties["summary"]
