"""Columns keep their types and cells, whatever they hold."""

import csv
import datetime
import decimal
import io
import json
import math

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from lmworks.configs.errors import UserError
from lmworks.pipeline.cells import JSON_TEXT
from lmworks.pipeline.tables import read_batches
from tests.pipeline.ingesting import all_rows, batches_of, ingested, rejects, scratch, split_of, trained_on

FAST = settings(max_examples=40, deadline=None)
TEXT = st.text(st.characters(codec="utf-8"), max_size=12)
NAMES = st.text(st.characters(codec="utf-8"), min_size=1, max_size=6).filter(
    lambda name: name not in ("id", "source_id", "text") and not name.startswith("\ufeff")
)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.integers(2**52, 2**65) | st.floats(allow_nan=False) | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=6,
)


def cells_of(table, name):
    """The cells of a column, those of JSON text decoded."""
    if name not in table.column_names:
        return [None] * len(table)
    cells = table.column(name).to_pylist()
    if table.schema.field(name).metadata == JSON_TEXT:
        return [None if cell is None else json.loads(cell) for cell in cells]
    return cells


def same(left, right):
    """Equality in which true is not 1, and 1 may be 1.0."""
    if isinstance(left, dict) and isinstance(right, dict):
        return left.keys() == right.keys() and all(same(left[key], right[key]) for key in left)
    if isinstance(left, list) and isinstance(right, list):
        return len(left) == len(right) and all(map(same, left, right))
    return left == right and isinstance(left, bool) == isinstance(right, bool)


@st.composite
def json_tables(draw):
    """Rows of JSON objects: each column of one kind, or of any."""
    kinds = [
        st.booleans(),
        st.integers(-(2**40), 2**40),
        st.floats(allow_nan=False),
        TEXT,
        st.lists(st.integers(0, 9)),
        JSON,
    ]
    columns = draw(st.dictionaries(NAMES, st.sampled_from(kinds), max_size=4))
    rows = []
    for number in range(draw(st.integers(1, 9))):
        row = {name: draw(st.none() | kind) for name, kind in columns.items() if draw(st.booleans())}
        rows.append({"text": f"text {number}", **row})
    return rows


@FAST
@given(json_tables(), st.integers(1, 5), st.sampled_from(["lines", "array", "pretty"]))
def test_json_gives_the_same_cells(rows, batch, form):
    with scratch() as folder, batches_of(batch):
        content = {
            "lines": "".join(json.dumps(row) + "\n" for row in rows),
            "array": json.dumps(rows),
            "pretty": "\n".join(json.dumps(row, indent=2, ensure_ascii=False) for row in rows),
        }[form]
        (folder / "a.jsonl").write_text(content, encoding="utf-8")
        examples = trained_on(folder, folder / "a.jsonl")
        table = split_of(examples, "train")
        assert split_of(examples, "test").schema == table.schema
        for name in dict.fromkeys(name for row in rows for name in row):
            expected = [row.get(name) for row in rows]
            assert same(cells_of(table, name), expected), (name, table.schema, cells_of(table, name), expected)
            kinds = {type(cell) for cell in expected if cell is not None}
            plain = {str: pa.string(), bool: pa.bool_(), float: pa.float64()}
            if len(kinds) == 1 and kinds <= plain.keys():
                assert table.schema.field(name).type == plain[kinds.pop()]


def ints(low, high):
    return st.none() | st.integers(low, high)


INT64 = ints(-(2**63), 2**63 - 1)
INT32 = ints(-(2**31), 2**31 - 1)


def viewed(storage, kind):
    return lambda cells: pa.array(cells, storage).view(kind)


def made(kind):
    return lambda cells: pa.array(cells, kind)


PARQUET = [
    *[(INT64, viewed(pa.int64(), pa.timestamp(unit, zone))) for unit in ("ms", "us", "ns") for zone in (None, "Asia/Tokyo")],
    (ints(-(2**50), 2**50), viewed(pa.int64(), pa.timestamp("s"))),
    (INT64, viewed(pa.int64(), pa.duration("ns"))),
    (INT32, viewed(pa.int32(), pa.date32())),
    (ints(0, 86_399_999), viewed(pa.int32(), pa.time32("ms"))),
    (ints(0, 86_399_999_999_999), viewed(pa.int64(), pa.time64("ns"))),
    (INT64, made(pa.int64())),
    (ints(0, 2**64 - 1), made(pa.uint64())),
    (ints(-128, 127), made(pa.int8())),
    (st.none() | st.booleans(), made(pa.bool_())),
    (st.none() | st.floats(allow_nan=False), made(pa.float64())),
    (st.none() | st.floats(allow_nan=False, width=32), made(pa.float32())),
    (st.none() | st.floats(allow_nan=False, width=16), made(pa.float16())),
    (st.none() | st.decimals(allow_nan=False, allow_infinity=False, places=3, min_value=-10**9, max_value=10**9),
     made(pa.decimal128(20, 3))),
    (st.none() | st.binary(max_size=5), made(pa.binary())),
    (st.none() | st.binary(max_size=5), made(pa.large_binary())),
    (st.none() | st.binary(min_size=3, max_size=3), made(pa.binary(3))),
    (st.none() | TEXT, made(pa.string())),
    (st.none() | TEXT, made(pa.large_string())),
    (st.none() | TEXT, lambda cells: pa.array(cells, pa.string()).dictionary_encode()),
    (st.none(), made(pa.null())),
    (st.none() | st.lists(INT64, max_size=3), made(pa.list_(pa.int64()))),
    (st.none() | st.lists(st.none() | TEXT, max_size=3), made(pa.large_list(pa.string()))),
    (st.none() | st.lists(ints(0, 9), min_size=2, max_size=2), made(pa.list_(pa.int8(), 2))),
    (st.none() | st.lists(st.tuples(TEXT, INT64), max_size=3), made(pa.map_(pa.string(), pa.int64()))),
    (st.none() | st.fixed_dictionaries({"a": INT64, "b": st.none() | st.fixed_dictionaries({"c": st.none() | TEXT})}),
     made(pa.struct({"a": pa.int64(), "b": pa.struct({"c": pa.string()})}))),
    (st.none() | st.lists(st.none() | st.fixed_dictionaries({"a": INT32}), max_size=2),
     made(pa.list_(pa.struct({"a": pa.int32()})))),
    (st.none() | st.binary(min_size=16, max_size=16), made(pa.uuid())),
]  # fmt: skip


@st.composite
def parquet_tables(draw):
    rows = draw(st.integers(1, 9))
    columns = draw(st.dictionaries(NAMES, st.sampled_from(PARQUET), min_size=1, max_size=5))
    arrays = {
        name: make(draw(st.lists(cells, min_size=rows, max_size=rows))) for name, (cells, make) in columns.items()
    }
    return pa.table({"text": [f"text {row}" for row in range(rows)], **arrays})


@FAST
@given(parquet_tables(), st.integers(1, 5), st.integers(1, 5))
def test_parquet_gives_the_same_cells_and_types(written, batch, group):
    with scratch() as folder, batches_of(batch):
        pq.write_table(written, folder / "a.parquet", row_group_size=group)
        expected = pq.read_table(folder / "a.parquet")  # seconds become milliseconds, for one
        examples = trained_on(folder, folder / "a.parquet")
        table = split_of(examples, "train")
        assert split_of(examples, "validation").schema == table.schema
        assert table.select(expected.column_names).cast(expected.schema).equals(expected)
        assert table.select(expected.column_names).schema.types == expected.schema.types


@st.composite
def text_tables(draw, cells):
    names = ["text", *draw(st.lists(NAMES.filter(lambda name: not set(name) & set("\t\r\n")), unique=True, max_size=3))]
    rows = draw(st.lists(st.lists(cells, min_size=len(names), max_size=len(names)), min_size=1, max_size=6))
    assume(all(row[0].strip() and row != names for row in rows))
    return names, rows


@FAST
@given(text_tables(TEXT), st.sampled_from([",", ";", "\t", "|"]), st.sampled_from(["\r\n", "\n"]), st.booleans())
def test_csv_gives_the_same_cells(table, delimiter, line_end, quote_all):
    names, rows = table
    with scratch() as folder:
        content = io.StringIO(newline="")
        # Python's writer leaves a carriage return unquoted before a line feed, where it is a line end.
        ambiguous = line_end == "\n" and any("\r" in cell for row in rows for cell in row)
        quoting = csv.QUOTE_ALL if quote_all or ambiguous else csv.QUOTE_MINIMAL
        csv.writer(content, delimiter=delimiter, lineterminator=line_end, quoting=quoting).writerows([names, *rows])
        (folder / "a.csv").write_bytes(content.getvalue().encode())
        found = split_of(trained_on(folder, folder / "a.csv", delimiter=delimiter), "train")
        assert [list(row.values()) for row in found.select(names).to_pylist()] == rows
        assert set(found.select(names).schema.types) == {pa.string()}


@FAST
@given(text_tables(st.text(st.characters(codec="utf-8", exclude_characters="\t\n\r"), max_size=9)),
       st.sampled_from(["\r\n", "\n"]))  # fmt: skip
def test_tsv_gives_the_same_cells_with_their_quotes(table, line_end):
    names, rows = table
    with scratch() as folder:
        lines = ["\t".join(row) for row in [names, *rows]]
        (folder / "a.tsv").write_bytes("".join(line + line_end for line in lines).encode())
        found = split_of(trained_on(folder, folder / "a.tsv"), "train")
        assert [list(row.values()) for row in found.select(names).to_pylist()] == rows


def jsonl(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_columns_that_come_late_are_kept_in_every_split(tmp_path):
    """On the code before, columns of train were those of its first 8,192 rows."""
    rows = [{"text": f"text {number}", **({"late": number} if number > 9000 else {})} for number in range(9100)]
    examples = ingested(tmp_path, train=str(jsonl(tmp_path / "a.jsonl", rows)))
    table = all_rows(examples)
    assert table.schema.field("late").type == pa.int64()
    assert sorted(cell for cell in table["late"].to_pylist() if cell is not None) == list(range(9001, 9100))


def test_a_column_whose_kind_changes_late_becomes_json_text_from_the_beginning(tmp_path):
    rows = [{"text": f"text {number}", "n": number if number < 30 else "many"} for number in range(40)]
    with batches_of(8):
        table = split_of(trained_on(tmp_path, jsonl(tmp_path / "a.jsonl", rows)), "train")
    assert table["n"].to_pylist() == [json.dumps(row["n"]) for row in rows]
    assert table.schema.field("n").metadata == JSON_TEXT


@pytest.mark.parametrize(("whole", "kind"), [(2**53, pa.float64()), (2**53 + 1, pa.string())])
def test_integers_beside_floats_are_floats_where_all_are_exact(tmp_path, whole, kind):
    rows = [{"text": "a", "n": whole}] * 5 + [{"text": "b", "n": 0.5}]
    with batches_of(2):
        table = split_of(trained_on(tmp_path, jsonl(tmp_path / "a.jsonl", rows)), "train")
    assert table.schema.field("n").type == kind
    assert cells_of(table, "n") == [row["n"] for row in rows]


def test_files_of_other_types_share_their_columns(tmp_path):
    pq.write_table(
        pa.table({"text": ["a"], "n": pa.array([1], pa.int8()), "day": [datetime.date(2020, 1, 1)]}),
        tmp_path / "a.parquet",
    )
    pq.write_table(
        pa.table({"text": ["b"], "n": pa.array([2**40]), "when": pa.array([5], pa.timestamp("ns"))}),
        tmp_path / "b.parquet",
    )
    jsonl(tmp_path / "c.jsonl", [{"text": "c", "n": 0.5, "day": "today"}])
    table = split_of(
        trained_on(tmp_path, [str(tmp_path / name) for name in ("a.parquet", "b.parquet", "c.jsonl")]), "train"
    )
    assert table["n"].to_pylist() == [1.0, 2.0**40, 0.5]
    assert cells_of(table, "day") == ["2020-01-01", None, "today"]
    assert table["when"].cast(pa.int64()).to_pylist() == [None, 5, None]


def test_objects_share_a_struct_only_if_their_keys_are_the_same(tmp_path):
    rows = [
        {"text": "a", "same": {"x": 1, "y": None}, "other": {"x": 1}},
        {"text": "b", "same": {"y": "z", "x": 2}, "other": {"y": 1}},
    ]
    table = split_of(trained_on(tmp_path, jsonl(tmp_path / "a.jsonl", rows)), "train")
    assert table["same"].to_pylist() == [row["same"] for row in rows]
    assert table["other"].to_pylist() == ['{"x": 1}', '{"y": 1}']


def test_an_unused_column_never_ends_a_run(tmp_path):
    """Each of these ended the run, or lost its cells, on the code before."""
    bad = pa.array([b"caf\xe9"], pa.binary())
    columns = {
        "far": pa.array([10**17], pa.timestamp("us")),
        "fine": pa.array([1], pa.timestamp("ns")),
        "day": pa.array([2_932_897], pa.int32()).view(pa.date32()),
        "nothing": pa.nulls(1),
        "nested": pa.ListArray.from_arrays(
            [0, 1], pa.Array.from_buffers(pa.string(), 1, pa.array([b"text"]).buffers())
        ),
        "price": pa.array([decimal.Decimal("1.50")]),
        "nan": pa.array([math.nan]),
        "bytes": bad,
        "view": pa.array(["seen"], pa.string_view()),
    }
    pq.write_table(pa.table({"text": ["a"], **columns}), tmp_path / "a.parquet")
    table = split_of(trained_on(tmp_path, tmp_path / "a.parquet"), "train")
    assert table["far"].cast(pa.int64()).to_pylist() == [10**17]
    assert table["bytes"].to_pylist() == [b"caf\xe9"]
    assert math.isnan(table["nan"][0].as_py())
    assert table["view"].to_pylist() == ["seen"]


def test_many_parquet_rows_keep_to_their_own_cells(tmp_path):
    """Rows that are carved into splits and refused in between still meet their own columns again."""
    texts = [f"text {row}" if row % 7 else " " for row in range(3000)]
    pq.write_table(pa.table({"text": texts, "n": range(3000)}), tmp_path / "a.parquet", row_group_size=500)
    table = all_rows(ingested(tmp_path, train=str(tmp_path / "a.parquet")))
    assert len(table) == sum(text != " " for text in texts)
    assert all(row["text"] == f"text {row['n']}" for row in table.to_pylist())


def test_the_users_id_is_kept_with_its_type(tmp_path):
    rows = [{"text": f"text {number}", "id": number} for number in range(5)]
    table = split_of(trained_on(tmp_path, jsonl(tmp_path / "a.jsonl", rows)), "train")
    assert table["source_id"].to_pylist() == list(range(5))
    assert table.schema.field("source_id").type == pa.int64()
    pq.write_table(pa.table({"uuid": ["x", "y"], "text": ["a", "b"]}), tmp_path / "b.parquet")
    examples = ingested(tmp_path, train=str(tmp_path / "b.parquet"), id="uuid", validation=str(tmp_path / "b.parquet"),
                        test=str(tmp_path / "b.parquet"))  # fmt: skip
    assert split_of(examples, "train")["source_id"].to_pylist() == ["x", "y"]


@pytest.mark.parametrize(
    ("row", "settings", "words"),
    [
        ({"text": "a", "id": 1, "source_id": 2}, {}, "a column 'source_id' beside 'id'"),
        ({"text": "a", "id": 1, "uuid": 2}, {"id": "uuid"}, "a column 'id' beside 'uuid'"),
        ({"text": "a", "id": 1}, {"id": "uid"}, r"no column 'uid' \(ingest.id\); it has: text, id; did you mean id\?"),
        ({"id": "a"}, {"text": "id"}, "a column 'id' .ingest.text., a name that examples need"),
    ],
)
def test_a_clash_of_names_is_refused(tmp_path, row, settings, words):
    jsonl(tmp_path / "a.jsonl", [row])
    pq.write_table(pa.Table.from_pylist([row]), tmp_path / "a.parquet")
    for name in ("a.jsonl", "a.parquet"):
        with pytest.raises(UserError, match=words):
            trained_on(tmp_path, tmp_path / name, **settings)


def test_files_do_not_hide_a_column_of_the_same_name(tmp_path):
    (tmp_path / "tree").mkdir()
    jsonl(tmp_path / "tree" / "a.jsonl", [{"text": "a", "folder": "mine"}])
    with pytest.raises(UserError, match=r"a.jsonl:1: has a column 'folder', a name that ingest.train.files adds"):
        trained_on(tmp_path, {"path": str(tmp_path / "tree"), "files": "*.jsonl"})


@pytest.mark.parametrize(("cell", "reason"), [([1], "a list where text is expected: column label"),
                                              ({"a": 1}, "an object where text is expected: column label")])  # fmt: skip
def test_lists_and_objects_are_no_labels(tmp_path, cell, reason):
    rows = [{"text": f"text {number}", "label": number % 2} for number in range(60)] + [{"text": "last", "label": cell}]
    examples = ingested(tmp_path, "text_classification", train=str(jsonl(tmp_path / "a.jsonl", rows)), max_rejects=0.1)
    assert rejects(examples) == [(61, reason)]
    assert examples.properties["labels"] == ["0", "1"]


@pytest.mark.parametrize("column", ["text", "messages"])
@pytest.mark.parametrize("kind", ["jsonl", "parquet"])
def test_a_conversation_is_kept_as_json_beside_the_other_columns(tmp_path, kind, column):
    messages = [{"role": "user", "content": "é"}, {"role": "assistant", "content": "b"}]
    path = tmp_path / f"a.{kind}"
    if kind == "jsonl":
        jsonl(path, [{column: messages, "turns": 2}])
    else:
        pq.write_table(pa.table({column: [messages], "turns": [2]}), path)
    examples = ingested(tmp_path, chat="chatml", **dict.fromkeys(("train", "validation", "test"), str(path)))
    rows = split_of(examples, "train").drop(["id"]).to_pylist()
    assert rows == [{"turns": 2, "text": json.dumps(messages, ensure_ascii=False)}]


def test_a_list_or_an_object_is_no_text(tmp_path):
    rows = [{"text": "a"}, {"text": ["a", "b"]}, {"text": {"a": 1}}, {"text": [{"role": "user", "content": "a"}]}]
    examples = trained_on(tmp_path, jsonl(tmp_path / "a.jsonl", rows), max_rejects=1)
    assert [row for row, _ in rejects(examples)] == [2, 3, 4]
    assert all("conversations need preprocess.chat" in reason for _, reason in rejects(examples))


@pytest.mark.parametrize(
    ("labels", "expected"),
    [
        (pa.array([0, 1] * 40, pa.int64()), ["0", "1"]),
        (pa.array([0.0, 1.0] * 40), ["0", "1"]),
        (pa.array([0.5, 0.1] * 40, pa.float32()), ["0.1", "0.5"]),
        (pa.array([True, False] * 40), ["false", "true"]),
        (pa.array(["a", "b"] * 40).dictionary_encode(), ["a", "b"]),
        (pa.array([decimal.Decimal("1.50"), decimal.Decimal("2")] * 40), ["1.50", "2.00"]),
        (pa.array([b"a", b"b"] * 40), ["a", "b"]),
        (pa.array([0, 253402300800], pa.int64()).view(pa.timestamp("s")).take([0, 1] * 40), ["10000-01-01 00:00:00.000", "1970-01-01 00:00:00.000"]),
    ],
)  # fmt: skip
def test_labels_of_any_type_become_text(tmp_path, labels, expected):
    pq.write_table(pa.table({"text": [f"text {row}" for row in range(80)], "label": labels}), tmp_path / "a.parquet")
    examples = ingested(tmp_path, "text_classification", train=str(tmp_path / "a.parquet"))
    assert examples.properties["labels"] == expected


@pytest.mark.parametrize("batch", [8192, 100])
def test_keys_that_are_data_are_refused(tmp_path, batch):
    rows = [{"text": "a", f"key {number}": 1} for number in range(1200)]
    with batches_of(batch), pytest.raises(UserError, match=r"more than 1,000 different columns, such as key \d+, key"):
        trained_on(tmp_path, jsonl(tmp_path / "a.jsonl", rows))


def test_a_wide_table_is_no_fault(tmp_path):
    names = [f"n{number}" for number in range(1500)]
    jsonl(tmp_path / "a.jsonl", [{"text": "a", **dict.fromkeys(names, 1)}])
    pq.write_table(
        pa.table({"text": ["a"], **{name: pa.nulls(1, pa.int8()) for name in names}}), tmp_path / "a.parquet"
    )
    assert split_of(trained_on(tmp_path, tmp_path / "a.parquet"), "train").num_columns == 1502
    assert split_of(trained_on(tmp_path, tmp_path / "a.jsonl"), "train").num_columns == 1502


def test_columns_without_a_name_or_with_points_in_it(tmp_path):
    rows = [{"text.raw": 7, "text": "a", "": 1, "a.b": [2], "a": "c"}]
    examples = trained_on(tmp_path, jsonl(tmp_path / "a.jsonl", rows))
    assert split_of(examples, "train").drop_columns("id").to_pylist() == rows
    for columns in (["text"], ["a", "text"], ["a.b"], [""]):  # Parquet reads `text.raw` as well where `text` is named
        (batch,) = read_batches(examples, "train", columns)
        assert batch.to_pylist() == [{name: rows[0][name] for name in columns}]
        assert batch.schema.names == columns
