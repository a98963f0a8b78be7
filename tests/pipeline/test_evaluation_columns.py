"""Columns of any type in an evaluation: slices of their values, and the user's own ids."""

import datetime
import json
import random

import pyarrow as pa
import pyarrow.parquet as pq

from lmworks.configs.schema import EvaluateStage, PreprocessStage
from lmworks.pipeline.evaluate.evaluation import names_of_rows, source_ids_of
from lmworks.pipeline.evaluate.slices import cells_of, groups
from lmworks.pipeline.preprocess.component import preprocess
from lmworks.tfx.artifacts import Evaluation, Model, Sequences, publish, read
from tests.pipeline.ingesting import ingested, split_of
from tests.tiny_reviews import rows as reviews


def test_predictions_and_report_carry_the_users_ids_and_slices_typed_values(tiny, tmp_path):
    from lmworks.pipeline.evaluate.evaluation import measure_model

    model = read(Model, (tiny.folder / "train/model").resolve())
    rows = reviews(120)
    random.Random(0).shuffle(rows)
    labels = [row["label"] for row in rows]
    labels[:12] = ["negative" if label == "positive" else "positive" for label in labels[:12]]  # some are wrong
    table = pa.table({
        "text": [row["text"] for row in rows],
        "label": labels,
        "key": [f"row-{number}" for number in range(120)],
        "stars": pa.array([number % 3 for number in range(120)], pa.int8()),
        "new": [number % 2 == 0 for number in range(120)],
        "when": pa.array([10**18 + number % 2 for number in range(120)], pa.timestamp("ns")),
        "tags": [[number % 2] for number in range(120)],
    })  # fmt: skip
    path = str(tmp_path / "a.parquet")
    pq.write_table(table, path)
    examples = ingested(tmp_path, "text_classification", train=path, validation=path, test=path, id="key")
    (tmp_path / "sequences").mkdir()
    sequences = Sequences(tmp_path / "sequences")
    config = {"task": "text_classification", "preset": str(model.path), "deduplicate": False, "decontaminate": False}
    preprocess(config=PreprocessStage.model_validate(config), examples=examples, sequences=sequences)
    publish(sequences, "sequences", {})
    (tmp_path / "evaluation").mkdir()
    evaluation = Evaluation(tmp_path / "evaluation")
    names = ["stars", "new", "when", "tags"]
    stage = EvaluateStage.model_validate({"task": "text_classification", "slices": names})
    measure_model(stage, examples, read(Sequences, sequences.path), model, evaluation)
    predictions = pq.read_table(evaluation.path / "predictions.parquet")
    assert predictions.schema.names[:2] == ["id", "source_id"]
    assert predictions["source_id"].to_pylist() == table["key"].to_pylist()
    assert predictions["id"].to_pylist() == split_of(examples, "test")["id"].to_pylist()
    found = [part["slice"] for part in json.loads((evaluation.path / "metrics.json").read_text())["slices"]]
    assert [value for part in found for value in part.values() if "stars" in part] == [0, 1, 2]
    assert {json.dumps(part) for part in found if "new" in part} == {'{"new": true}', '{"new": false}'}
    assert {part["when"] for part in found if "when" in part} == {
        "2001-09-09 01:46:40.000000000", "2001-09-09 01:46:40.000000001"}  # fmt: skip
    assert {part["tags"] for part in found if "tags" in part} == {"[0]", "[1]"}
    page = (evaluation.path / "report.html").read_text()
    assert any(f">row-{number}<" in page for number in range(12))


def test_slices_name_values_of_any_type():
    columns = {
        "struct": (pa.array([{"a": 1, "b": None}] * 2), '{"a": 1, "b": null}'),
        "map": (pa.array([[("x", 1)]] * 3, pa.map_(pa.string(), pa.int8())).slice(1), '[["x", 1]]'),
        "far": (pa.array([5_000_000], pa.int32()).view(pa.date32()), "15659-07-15"),
        "day": (pa.array([datetime.date(2020, 1, 2)]), "2020-01-02"),
        "bytes": (pa.array([b"text"]), "text"),
        "raw": (pa.array([b"\xff\0"]), "ff00"),
        "half": (pa.array([0.1], pa.float16()), 0.099975586),
        "single": (pa.array([0.1], pa.float32()), 0.1),
        "nan": (pa.array([float("nan")]), "nan"),
        "dictionary": (pa.array(["a"]).dictionary_encode(), "a"),
        "interval": (
            pa.array([(1, 2, 3)], pa.month_day_nano_interval()),
            "MonthDayNano(months=1, days=2, nanoseconds=3)",
        ),
        "sliced": (pa.array([[1], [2, 3], None, []], pa.list_(pa.int8())).slice(1, 1), "[2, 3]"),
        "none": (pa.nulls(2), None),
    }
    for name, (column, value) in columns.items():
        assert groups(column) == [(value, list(range(len(column))))], name
        assert groups(pa.chunked_array([column])) == groups(column)
        json.dumps(groups(column), allow_nan=False)
    mixed = pa.array([[1], None, [], [2, None]], pa.list_(pa.int8()))
    assert [value for value, _ in groups(mixed)] == [None, "[1]", "[2, null]", "[]"]
    nested = pa.array([{"a": [1]}, None, {"a": None}], pa.struct({"a": pa.list_(pa.int8())}))
    assert [value for value, _ in groups(nested)] == [None, '{"a": [1]}', '{"a": null}']


def lines(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def test_ids_and_slices_whose_kinds_differ_between_files_are_plain_text(tmp_path):
    """On the code before, ids had quotes in predictions and reports, and "2020" was another slice than 2020."""
    cells = (
        [(7, 2020), (8, 2021), (9, None)],
        [(2**70, "2020"), (True, 2020.0), (8.0, "2021"), ("r1", "nan"), ({"a": 1}, "2021"), (None, "2021")],
    )
    paths = [
        lines(tmp_path / f"{place}.jsonl", [
            {"text": f"text {place} {number}", "label": "ab"[number % 2], "key": key, "year": year}
            for number, (key, year) in enumerate(rows)
        ])
        for place, rows in enumerate(cells)
    ]  # fmt: skip
    whole = [{"text": f"whole {number}", "label": "ab"[number], "key": number, "year": 2020} for number in range(2)]
    paths.append(str(tmp_path / "whole.parquet"))
    pq.write_table(pa.Table.from_pylist(whole), paths[-1])
    names = {"train": paths[0], "validation": paths[2], "test": [paths[1], paths[2]]}
    examples = ingested(tmp_path, "text_classification", id="key", **names)
    ids = {"train": ["7", "8", "9"], "validation": ["0", "1"]}
    ids["test"] = [str(2**70), "true", "8", "r1", '{"a": 1}', None, "0", "1"]
    for split, expected in ids.items():
        table = split_of(examples, split)
        assert table.schema.field("source_id").equals(pa.field("source_id", pa.string()), check_metadata=True)
        assert table["source_id"].to_pylist() == expected
    assert names_of_rows(source_ids_of(table), list("abcdefgh")) == [name or "f" for name in ids["test"]]
    assert groups(cells_of(table, "year")) == [("2020", [0, 1, 6, 7]), ("2021", [2, 4, 5]), ("nan", [3])]
    assert groups(cells_of(split_of(examples, "train"), "year")) == [("2020", [0]), ("2021", [1]), (None, [2])]
