"""Classes with few rows, classes that are written in several ways, columns that hold no classes."""

import json
import random

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from lmworks.configs.errors import UserError
from lmworks.configs.load import ConfigError, validate
from lmworks.pipeline.ingest.carving import moves_of
from lmworks.pipeline.ingest.classes import class_notices, plain_form, twins, with_nearest
from lmworks.pipeline.ingest.splits import SPLITS, example_id, split_of
from tests.pipeline.test_ingest import run, table

SHARES = {"validation": 0.1, "test": 0.1}


def write(path, rows, header="text,label"):
    path.write_text(f"{header}\n" + "".join(f"{text},{label}\n" for text, label in rows))
    return str(path)


def ids_by_class(examples):
    return {
        split: {(row["id"], row["label"]) for row in table(examples, split).to_pylist()}
        for split in SPLITS
        if any(f"Split-{split}/" in name for name in examples.files)
    }


def small(name, count, start=0):
    return [(f"{name} text {index}", name) for index in range(start, start + count)]


BIG = small("big", 200)


@pytest.mark.parametrize(("count", "expected"), [(1, (1, 0, 0)), (2, (1, 0, 1)), (3, (1, 1, 1)), (7, None), (25, None)])
def test_no_class_is_missing_in_a_carved_split(tmp_path, count, expected):
    for number in range(6):
        folder = tmp_path / str(number)
        folder.mkdir()
        rare = f"rare{number}"
        rows = [*BIG, *small(rare, count)]
        random.Random(number).shuffle(rows)
        examples, _ = run(folder, train=write(folder / "a.csv", rows))
        found = ids_by_class(examples)
        rare_rows = tuple(sum(label == rare for _, label in found[split]) for split in SPLITS)
        assert rare_rows == expected if expected else min(rare_rows) >= 1
        assert sum(map(len, found.values())) == 200 + count
        assert sum(examples.properties["splits"].values()) == 200 + count
        # The others stand where their hash puts them.
        assert all(
            split_of(identity, SHARES) == split
            for split in SPLITS
            for identity, label in found[split]
            if label == "big"
        )


def test_only_a_class_that_lacks_rows_moves_and_the_order_says_nothing(tmp_path):
    folders = [tmp_path / name for name in ("a", "b", "c")]
    for folder in folders:
        folder.mkdir()
    rows = [*BIG, *small("few", 5), *small("also few", 4)]
    first, _ = run(folders[0], train=write(folders[0] / "a.csv", rows))
    again, _ = run(folders[1], train=write(folders[1] / "a.csv", rows[::-1]))
    assert ids_by_class(first) == ids_by_class(again)
    more, _ = run(folders[2], train=write(folders[2] / "a.csv", [*rows, *small("few", 3, 5), *small("new", 30)]))
    before, after = ids_by_class(first), ids_by_class(more)
    for label in ("big", "also few"):
        assert all({one for one in before[split] if one[1] == label} == {one for one in after[split] if one[1] == label}
                   for split in SPLITS)  # fmt: skip


def test_rows_with_one_text_stay_together_and_a_text_with_two_labels_stays(tmp_path):
    rows = [*BIG, *[("the same text", "rare")] * 4, ("another", "rare"), ("torn", "big"), ("torn", "rare")]
    examples, _ = run(tmp_path, train=write(tmp_path / "a.csv", rows))
    places = {}
    for split in SPLITS:
        for row in table(examples, split).to_pylist():
            places.setdefault(row["text"], set()).add(split)
    assert all(len(found) == 1 for found in places.values())
    assert places["the same text"] | places["another"] == {"train", "test"}
    assert places["torn"] == {split_of(example_id("torn"), SHARES)}


@pytest.mark.parametrize("split", SPLITS)
@pytest.mark.parametrize("labels", [("rare", "big"), ("rare", "odd")])
def test_a_class_with_ambiguous_texts_only_is_in_train(tmp_path, split, labels):
    """On the code before, the hash of the text decided whether the run ended with a class that train does not hold."""
    names = [f"torn {number}" for number in range(200)]
    torn = [name for name in names if split_of(example_id(name), SHARES) == split][:3]
    first = min(torn, key=example_id)
    rows = [*BIG, *small("other", 60), *[(name, label) for name in torn for label in labels]]
    examples, _ = run(tmp_path, train=write(tmp_path / "a.csv", rows))
    places = {row["text"]: name for name in SPLITS for row in table(examples, name).to_pylist()}
    assert {name: places[name] for name in torn} == {name: "train" if name == first else split for name in torn}


def test_moves_keep_every_column_and_shard(tmp_path):
    rows = [{"text": f"text {n}", "label": "ab"[n % 2], "more": f"{n}"} for n in range(300)]
    rows += [{"text": f"rare {n}", "label": "rare", "more": f"rare {n}"} for n in range(3)]
    path = tmp_path / "a.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    examples, statistics = run(tmp_path, train=str(path))
    found = [row for split in SPLITS for row in table(examples, split).to_pylist()]
    assert sorted((row["text"], row["label"], row["more"]) for row in found) == sorted(
        (row["text"], row["label"], row["more"]) for row in rows
    )
    for split in SPLITS:
        names = sorted(name for name in examples.files if f"Split-{split}/" in name)
        assert names == [f"Split-{split}/data-{index:05d}-of-{len(names):05d}.parquet" for index in range(len(names))]
        values = json.loads((statistics / "statistics.json").read_text())["splits"][split]
        assert values["rows"] == examples.properties["splits"][split] == table(examples, split).num_rows
        assert values["labels"]["rare"] == 1


def test_a_given_split_gets_no_rows(tmp_path):
    test = write(tmp_path / "t.csv", [("test text", "big"), ("other text", "rare")])
    examples, _ = run(tmp_path, train=write(tmp_path / "a.csv", [*BIG, *small("rare", 3)]), test=test)
    found = ids_by_class(examples)
    assert len(found["test"]) == 2
    assert sum(label == "rare" for _, label in found["validation"]) == 1


def test_the_lowest_ids_move(tmp_path):
    ids = np.array([50, 30, 40, 90, 10], np.uint64) << np.uint64(57)
    ids[4] = 10 << 57
    classes, train = np.zeros(5, int), np.zeros(5, int)
    assert moves_of(ids, classes, train, ["validation", "test"]) == {10 << 57: "test", 30 << 57: "validation"}
    assert moves_of(ids[:2], classes[:2], np.array([2, 2]), ["validation", "test"]) == {30 << 57: "train"}
    assert moves_of(ids[:1], classes[:1], np.array([1]), ["validation", "test"]) == {50 << 57: "train"}
    assert moves_of(ids, classes, np.array([0, 1, 2, 0, 0]), ["validation", "test"]) == {}


def test_moves_fill_every_split_that_they_can_and_no_more():
    random = np.random.default_rng(0)
    for _ in range(300):
        texts = random.integers(2**64, size=random.integers(1, 30), dtype=np.uint64)
        rows = random.integers(len(texts), size=60)
        hashed = random.choice(3, len(texts), p=[0.8, 0.1, 0.1])
        ids, classes, splits = texts[rows], (rows + (rows == 0) * random.integers(2, size=60)) % 4, hashed[rows]
        moves = moves_of(ids, classes, splits, ["test", "validation"])
        order = random.permutation(60)
        assert moves_of(ids[order], classes[order], splits[order], ["validation", "test"]) == moves
        after = np.array(
            [SPLITS.index(moves[int(one)]) if int(one) in moves else at for one, at in zip(ids, splits, strict=True)]
        )
        shared = {one for one in ids if len({*classes[ids == one]}) > 1}
        without_own = {label: min(ids[classes == label]) for label in {*classes} if {*ids[classes == label]} <= shared}
        assert {int(one): "train" for one in without_own.values() if one in moves} == {
            int(one): moves[int(one)] for one in shared if int(one) in moves
        }
        for label in {*classes}:
            assert 0 in after[classes == label]
            own = (classes == label) & ~np.isin(ids, np.array([*shared], np.uint64))
            assert {*after[own]} == {0: set(), 1: {0}, 2: {0, 2}}.get(len({*ids[own]}), {0, 1, 2})
            if {*splits[own]} == {0, 1, 2}:
                assert np.array_equal(after[own], splits[own])


def test_rules_of_train_alone_are_named(tmp_path):
    train = write(tmp_path / "a.csv", [(f"text {n}", n % 3 - 1) for n in range(90)])
    test = write(tmp_path / "t.csv", [("x", 0.7), ("y", -0.7)])
    rule = {"bad": {"below": -0.5}, "good": {"above": 0.5}}
    with pytest.raises(UserError, match=r"'-0.7', '0.7'; ingest.train has a label_rule, and ingest.test has none"):
        run(tmp_path, train={"path": train, "label_rule": rule}, test=test)


def test_few_rows_are_named(tmp_path):
    examples, statistics = run(tmp_path, train=write(tmp_path / "a.csv", [*BIG, *small("rare", 2)]))
    assert "class 'rare' has only 1 train row, 0 validation rows, 1 test row" in examples.properties["summary"]
    told = json.loads((statistics / "statistics.json").read_text())["notices"]
    assert any("class 'rare' has only" in notice for notice in told)
    assert "class &#x27;rare&#x27; has only 1 train row" in (statistics / "report.html").read_text()


def test_forms_of_a_label():
    for one, other in [
        ("1", "1.0"),
        ("true", "True"),
        ("Positive ", "positive"),
        ("a b", "A  B"),
        ("１", "1"),
        ("-0", "0"),
    ]:
        assert plain_form(one) == plain_form(other)
    assert plain_form("1") != plain_form("-1")
    assert twins(["1", "1.0", "2", "yes", "Yes", "no", "nan", "inf"]) == [["1", "1.0"], ["Yes", "yes"]]
    assert with_nearest("postive", ["negative", "positive"], "train has") == "'postive' (train has 'positive')"
    assert with_nearest("xyz", ["negative", "positive"], "train has") == "'xyz'"


def test_twins_are_listed_in_the_report_and_in_the_errors(tmp_path):
    for name in "abc":
        (tmp_path / name).mkdir()
    texts = [f"text {n}" for n in range(400)]
    labels = ["positive", "Positive", "negative", "0"]
    rows = [(text, labels[n % 4]) for n, text in enumerate(texts)]
    _, statistics = run(tmp_path / "a", train=write(tmp_path / "a/a.csv", rows))
    told = json.loads((statistics / "statistics.json").read_text())["notices"]
    assert told[-1] == "classes that differ only in case, blanks or the form of a number: 'Positive' and 'positive'"
    with pytest.raises(UserError, match=r"unknown label: 'Positive' \(ingest.labels has 'positive'\)"):
        run(tmp_path / "b", train=write(tmp_path / "b/a.csv", rows), labels=["positive", "negative", "0"])
    pq.write_table(pa.table({"text": ["x", "y"], "label": [True, False]}), tmp_path / "c/t.parquet")
    train = write(tmp_path / "c/a.csv", [(text, ("True", "False")[n % 2]) for n, text in enumerate(texts)])
    with pytest.raises(
        UserError, match=r"test holds labels.*'false' \(train has 'False'\), 'true' \(train has 'True'\)"
    ):
        run(tmp_path / "c", train=train, test=str(tmp_path / "c/t.parquet"))


def test_columns_that_hold_no_classes(tmp_path):
    numbers = [str(n / 10) for n in range(100)]
    few = {split: dict.fromkeys(numbers, 5) for split in SPLITS}
    assert "fractional numbers" in class_notices(few, numbers, "y")[0]
    names = [f"u{n}" for n in range(100)]
    assert (
        "100 classes in 300 rows: is 'user' an id"
        in class_notices({s: dict.fromkeys(names, 1) for s in SPLITS}, names, "user")[1]
    )
    missing = class_notices(
        {split: dict.fromkeys(["a", "b", "None", "nan"], 9) for split in SPLITS}, ["a", "b", "None", "nan"], "y"
    )
    assert missing == ["classes that look like missing values: 'None'; 'nan'"]
    stars = [str(n) for n in range(1, 31)]
    assert class_notices({split: dict.fromkeys(stars, 50) for split in SPLITS}, stars, "stars") == []
    with pytest.raises(UserError, match="each row has a class of its own in column 'label': is it an id"):
        run(tmp_path, train=write(tmp_path / "a.csv", [(f"text {n}", f"u{n}") for n in range(60)]))


def config(**ingest):
    return {
        "name": "x",
        "task": "text_classification",
        "model": {"preset": "y"},
        "ingest": {"train": "a.csv", **ingest},
    }


@pytest.mark.parametrize(
    ("ingest", "words"),
    [
        ({"labels": ["a", "b", "a"]}, "ingest.labels: .*'a' stands twice"),
        (
            {"labels": ["positive", "negative"], "train": {"path": "a", "label_rule": {"postive": {"above": 0}}}},
            "ingest: train.label_rule: 'postive' is no class of ingest.labels; did you mean 'positive'?",
        ),
        (
            {"labels": ["x", "y"], "test": {"path": "a", "label_rule": {"good": {"above": 0}}}},
            "test.label_rule: 'good' is no class of ingest.labels; they are x, y",
        ),
        ({"labels": ["a", " b"]}, "ingest.labels: .*' b' is empty or has blanks around it"),
        ({"labels": ["a"]}, "ingest.labels: .* a classifier needs two classes or more"),
        ({"labels": [True, False]}, "ingest.labels.1: False: YAML reads it as a truth value, .* quote it"),
        ({"labels": [1, 2]}, "ingest.labels.0: 1: YAML reads it as a number, .* quote it"),
        (
            {"train": {"path": "a", "label_rule": {True: {"above": 0}}}},
            "ingest.train.label_rule: the key True: YAML reads it as a truth value",
        ),
        (
            {"train": {"path": "a", "label_rule": {"a": {"above": 1, "below": 1}}}},
            "label_rule.a: no number is above 1 and below 1",
        ),
    ],
)
def test_config_errors_at_once(ingest, words):
    with pytest.raises(ConfigError, match=words):
        validate(config(**ingest), "config")
