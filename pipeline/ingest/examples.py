"""Rows to examples: ids, labels, splits, and the record of every refused row."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from lmworks.configs.errors import UserError
from lmworks.configs.schema import Ingest, IngestStage, Source
from lmworks.configs.shown import shown
from lmworks.pipeline.ingest.carving import move_rows
from lmworks.pipeline.ingest.classes import MANY_CLASSES, class_notices, number_of, with_nearest
from lmworks.pipeline.ingest.column_types import ColumnTypes
from lmworks.pipeline.ingest.conflict_texts import worst_conflicts
from lmworks.pipeline.ingest.conversations import check, map_contents, with_conversation
from lmworks.pipeline.ingest.left_out import EMPTY_DOCUMENT, NO_CLASS, LeftOut
from lmworks.pipeline.ingest.readers import read_rows
from lmworks.pipeline.ingest.rows import Row
from lmworks.pipeline.ingest.split_table import BATCH, SplitTable, settle
from lmworks.pipeline.ingest.splits import SPLITS, example_id, split_of
from lmworks.pipeline.ingest.statistics import Tally, write_statistics
from lmworks.tfx.artifacts import Examples, Statistics
from lmworks.tfx.progress import doing, report

_REJECTS = pa.schema({"file": pa.string(), "row": pa.int64(), "reason": pa.string()})
_REPAIRS = pa.schema(
    {"id": pa.string(), "file": pa.string(), "row": pa.int64(), "column": pa.string(), "before": pa.string()}
)
_LISTED = 5


class _Left(Exception):
    """A row that is left out, with the reason."""


def write_examples(config: IngestStage, examples: Examples, statistics: Statistics) -> None:
    """Reads every source and writes all splits, rejects and statistics.

    Raises:
        UserError: too many refused rows, an empty split, one class only, an unknown label.
    """
    given = {name: source for name in SPLITS if (source := getattr(config, name)) is not None}
    carved = {name: getattr(config.splits, name) for name in ("validation", "test") if name not in given}
    label = config.label_column
    tally = Tally()
    left_out = LeftOut()
    remarks: dict[str, str] = {}
    types = ColumnTypes()
    tables = {name: SplitTable(examples.path, name, types) for name in SPLITS}
    # A test file that is not there must not cost the reading of all of train.
    for name, source in list(given.items())[1:]:
        next(read_rows(config, source, f"ingest.{name}", {}), None)
    with ExitStack() as stack:
        rejects = stack.enter_context(_Record(examples.path / "rejects.parquet", _REJECTS))
        repairs = stack.enter_context(_Record(examples.path / "repairs.parquet", _REPAIRS)) if config.repair else None
        for name, source in given.items():
            for row in read_rows(config, source, f"ingest.{name}", remarks):
                try:
                    values, changed = _example(config, source, row)
                except _Left as left:
                    left_out.add(name, row, str(left))
                    rejects.add({"file": row.file, "row": row.number, "reason": str(left)})
                    continue
                left_out.keep(name)
                for change in changed:
                    assert repairs is not None
                    repairs.add(change)
                split = split_of(values["id"], carved) if name == "train" else name
                tables[split].add(values, row)
                texts = [values[column] for column in _texts(config)]
                tally.add(split, values["id"], values[label] if label else None, texts)
                report(tally.total, None, "rows")
    settle(list(tables.values()), types)
    warnings = [*remarks.values()]
    _say(warnings)  # they may explain why rows are refused
    left_out.judge(config)
    if label and (moves := tally.carve([name for name, share in carved.items() if share])):
        move_rows(examples.path, moves)
    labels = _labels(config, tally, left_out) if label else []
    rows = {name: tally.rows(name) for name in SPLITS}
    for name, count in rows.items():
        if not count:
            more = "more rows" if label else "more documents (ingest.separator cuts a text file into several)"
            fix = f"check ingest.{name}"
            if name in carved:
                fix = f"give ingest.{name}, {more}, or a larger ingest.splits.{name}"
            elif name == "train" and carved:
                fix = f"give {more}, or smaller ingest.splits"
            if label and len(labels) == tally.total > MANY_CLASSES:
                fix = f"each row has a class of its own in column {label!r}: is it an id? set ingest.label"
            source = name if name in given else "train"
            raise UserError(f"ingest: the split {name} is empty; {fix}{_with_reasons(left_out, source)}")
    of_classes = class_notices({name: tally.labels(name) for name in SPLITS}, labels, config.label) if label else []
    conflicts = {name: tally.conflicts(name) for name in SPLITS} if label else {}
    of_classes += [of.notice(name) for name, of in conflicts.items() if of.texts]
    _say(of_classes)
    warnings += of_classes
    reasons = left_out.reasons()
    examples.properties |= {
        "text": config.text,
        "text_b": config.text_b,
        "label": label,
        "labels": labels,
        "splits": rows,
        "conflicts": {name: of._asdict() for name, of in conflicts.items()},
        "summary": ", ".join(f"{count:,} {name}" for name, count in rows.items())
        + (f" rows, {len(labels)} classes" if label else f" documents, {tally.characters():,} characters")
        + f", {left_out.refused():,} refused"
        + (f", {reasons[NO_CLASS]:,} without a class" if reasons[NO_CLASS] else "")
        + (f", {reasons[EMPTY_DOCUMENT]:,} empty" if reasons[EMPTY_DOCUMENT] else "")
        + "".join(f"; {warning}" for warning in warnings),
    }
    doing("writing statistics")
    worst = worst_conflicts(examples.path, tally, _texts(config)) if label else []
    write_statistics(statistics.path, tally, labels, dict(reasons), warnings, conflicts, worst)


def _say(warnings: list[str]) -> None:
    for warning in warnings:
        print(f"ingest: {shown(warning)}", file=sys.stderr, flush=True)


class _Record:
    """A table beside the splits, such as that of the refused rows.

    Args:
        path: of the Parquet file.
        schema: of its rows.
    """

    def __init__(self, path: Path, schema: pa.Schema) -> None:
        self._schema, self._writer = schema, pq.ParquetWriter(path, schema)
        self._rows: list[dict[str, Any]] = []

    def add(self, values: dict[str, Any]) -> None:
        """Appends a row."""
        self._rows.append(values)
        if len(self._rows) >= BATCH:
            self._flush()

    def _flush(self) -> None:
        if self._rows:
            self._writer.write_batch(pa.RecordBatch.from_pylist(self._rows, self._schema))
            self._rows = []

    def __enter__(self) -> _Record:
        return self

    def __exit__(self, *_: object) -> None:
        self._flush()
        self._writer.close()


def _texts(config: Ingest) -> list[str]:
    return [name for name in (config.text, config.text_b) if name]


def _example(config: IngestStage, source: Source, row: Row) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """The example of a row and what ftfy changed in it; raises `_Left` for a row that is left out."""
    if row.values is None:
        raise _Left(row.reason)
    values = {**row.values}
    if config.chat:
        with _refusing("no conversation"):
            values = with_conversation(config, values)
    for name in config.named_columns(config.task).values():
        values[name] = _text_cell(config, name, values.get(name))
    changed = []
    for name in _texts(config):
        before = values[name] or ""
        if config.repair:
            import ftfy

            values[name] = map_contents(before, ftfy.fix_text) if config.chat else ftfy.fix_text(before)
            if values[name] != before:
                changed.append({"file": row.file, "row": row.number, "column": name, "before": before})
        if not (values[name] or "").strip():
            raise _Left(f"empty text: column {name}" if config.label_column else EMPTY_DOCUMENT)
    if config.chat:
        with _refusing("no conversation"):
            check(values[config.text] or "")
    if label := config.label_column:
        values[label] = _label(config, source, values.get(label))
    identity = example_id(*(str(values[name]) for name in _texts(config)))
    return {"id": identity, **values}, [{"id": identity, **one} for one in changed]


@contextmanager
def _refusing(what: str) -> Iterator[None]:
    """Leaves the row out for an error in it."""
    try:
        yield
    except ValueError as error:
        raise _Left(f"{what}: {error}") from None


def _text_cell(config: IngestStage, name: str, value: Any) -> str | None:
    """A text or label as a string; raises `_Left` for a list or object."""
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, bool):
        return json.dumps(value)
    if isinstance(value, float):
        if math.isnan(value):  # how pandas writes a missing value
            return None
        return str(int(value)) if value.is_integer() else str(value)
    if isinstance(value, dict | list):
        fix = "; conversations need preprocess.chat" if config.task == "causal_lm" else ""
        kind = "a list" if isinstance(value, list) else "an object"
        raise _Left(f"{kind} where text is expected: column {name}{fix}")
    return str(value)


def _label(config: IngestStage, source: Source, value: str | None) -> str:
    if value is None or not value.strip():
        raise _Left(f"missing label: column {config.label}")
    label = value.strip()
    if source.label_rule:
        number = number_of(label)
        if number is None:
            raise _Left(f"label is no number: {label!r}, and label_rule needs one")
        for name, interval in source.label_rule.items():
            above = interval.above is None or number > interval.above
            if above and (interval.below is None or number < interval.below):
                return name
        raise _Left(NO_CLASS)
    if config.labels and label not in config.labels:
        raise _Left(f"unknown label: {with_nearest(label, config.labels, 'ingest.labels has')}")
    return label


def _with_reasons(left_out: LeftOut, source: str) -> str:
    reasons = left_out.listing(source)
    return f"; left out: {reasons}" if reasons else ""


def _labels(config: IngestStage, tally: Tally, left_out: LeftOut) -> list[str]:
    seen = set(tally.labels("train"))
    if len(seen) < 2:
        only = f"only the class {next(iter(seen))!r}" if seen else "no class"
        reasons = _with_reasons(left_out, "train")
        raise UserError(
            f"ingest: train holds {only} in column {config.label!r}; a classifier needs two or more{reasons}"
        )
    for name in ("validation", "test"):
        strange = sorted(set(tally.labels(name)) - seen)
        if strange and not config.labels:
            listed = [with_nearest(label, sorted(seen), "train has") for label in strange[:_LISTED]]
            more = f" and {len(strange) - _LISTED:,} more" if len(strange) > _LISTED else ""
            fix = "write them alike, add rows to train, or set ingest.labels"
            if config.train.label_rule and not (getattr(config, name) or config.train).label_rule:
                fix = f"ingest.train has a label_rule, and ingest.{name} has none"
            raise UserError(f"ingest: {name} holds labels that train does not: {', '.join(listed)}{more}; {fix}")
    return list(config.labels) or sorted(seen)
