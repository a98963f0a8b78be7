"""Texts from a table's column, and their answers in columns beside all that the table holds."""

from __future__ import annotations

import csv
import json
import math
import os
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, NamedTuple, Protocol

from lmworks.configs.errors import ConfigError, UserError
from lmworks.pipeline.cells import as_text, plain
from lmworks.pipeline.export.answers import Answer, Answering, Refusal, Texts, answer_all, rounded, text_of
from lmworks.pipeline.ingest.files import at_url
from lmworks.pipeline.ingest.json_rows import read_json
from lmworks.pipeline.ingest.parquet_rows import python_cells, rows_at_once, takeable
from lmworks.pipeline.ingest.readers import FORMATS, name_faults
from lmworks.pipeline.ingest.rows import Row
from lmworks.pipeline.ingest.separated import Dialect, read_separated
from lmworks.pipeline.ingest.streams import (
    PARQUET,
    Content,
    ForeignContentError,
    file_name,
    open_content,
    uncompressed_name,
)  # fmt: skip
from lmworks.tfx.artifacts import sync
from lmworks.tfx.progress import report
from lmworks.tfx.url_digests import is_glob

if TYPE_CHECKING:
    import pyarrow as pa

ERROR = "error"
"""The column that says why a row has no answer; null, and in csv empty, where it has one."""
_WINDOW = 2048
_WINDOW_CHARACTERS = 1 << 23
_DELIMITERS = {"csv": ",", "tsv": "\t"}
_KEY = "--input"


class Request(NamedTuple):
    """Which file is answered, into which."""

    input: str
    """Path or URL."""
    output: Path
    columns: Mapping[str, str]
    """Columns that a flag names, by its key: `text` or `text_b`."""
    overwrite: bool = False
    """Whether `output` may be replaced."""


class Count(NamedTuple):
    """What became of the rows."""

    rows: int
    errors: int
    first_error: str


class Window(NamedTuple):
    """Some rows that follow each other."""

    rows: list[Texts | Refusal]
    kept: list[dict[str, Any]] | pa.RecordBatch
    """What the file holds of them."""


def check_request(request: Request) -> None:
    """Refuses files that cannot be read or written, before anything is loaded.

    Raises:
        ConfigError: naming the flag.
        UserError: the URL of the input cannot be reached.
    """
    kind, into = format_of(request.input, _KEY), format_of(str(request.output), "--output")
    if into not in (kind, "jsonl"):
        also = "" if kind in ("json", "jsonl") else f" .{kind} or"
        raise ConfigError(f"--output={request.output}: a file that is read as {kind} becomes{also} .jsonl")
    if uncompressed_name(request.output.name) != request.output.name:
        raise ConfigError(f"--output={request.output}: is written uncompressed; leave the last suffix out")
    if "://" in str(request.output) or not request.output.parent.is_dir():
        raise ConfigError(f"--output={request.output}: there is no folder {request.output.parent}")
    if "://" in request.input:
        _check_url(request.input)
    else:
        if not Path(request.input).is_file():
            raise ConfigError(
                f"{_KEY}={request.input}: {'is no file' if Path(request.input).exists() else 'no such file'}"
            )
        if request.output.exists() and request.output.samefile(request.input):
            raise ConfigError(f"--output={request.output}: is the file of {_KEY}; name another")
    if request.output.is_dir():
        raise ConfigError(f"--output={request.output}: is a folder; name a file")
    if request.output.exists() and not request.overwrite:
        raise ConfigError(f"--output={request.output}: is there already; --overwrite replaces it")


def _check_url(url: str) -> None:
    import fsspec

    try:
        fsspec.core.url_to_fs(url)
    except (ValueError, ImportError) as error:
        raise ConfigError(f"{_KEY}={url}: {error}") from error
    if is_glob(url):
        raise ConfigError(f"{_KEY}={url}: names several files; name one, without *")
    at_url(url, _KEY)


def format_of(path: str, flag: str) -> str:
    """How a file is read or written, by its suffix.

    Raises:
        ConfigError: it names no format.
    """
    kind = FORMATS.get(uncompressed_name(file_name(path)).lower().rpartition(".")[2], "")
    if kind == "text" and flag == _KEY:
        raise ConfigError(f"{flag}={path}: a text a line is read from stdin: lmworks predict --servable=… < {path}")
    if kind in ("", "text") or (flag != _KEY and kind == "json"):
        raise ConfigError(f"{flag}={path}: its suffix names no format: .csv, .tsv, .jsonl or .parquet")
    return kind


class FileOfTexts:
    """A table whose rows are answered.

    Args:
        request: names the file.
        preferred: for each text, `text` and `text_b`, the columns that it may stand in, the first that is there counts.
    """

    def __init__(self, request: Request, preferred: Mapping[str, Sequence[str]]) -> None:
        self.path, self._preferred = request.input, preferred
        self.kind = format_of(request.input, _KEY)
        self.names: list[str] = []
        """Columns in their order, of csv and tsv, once a window was read."""
        self.schema: pa.Schema | None = None
        """Of Parquet, once a window was read."""
        self.total: int | None = None
        """Rows of Parquet, once a window was read."""
        self.delimiter = _DELIMITERS.get(self.kind, "")

    def windows(self) -> Iterator[Window]:
        """All rows in their order; at least one window, which may be empty.

        Raises:
            UserError: the file cannot be read, or lacks a column.
        """
        with name_faults(_KEY, self.path, "is no UTF-8 text; save it as such"), open_content(self.path) as content:
            if (self.kind == "parquet") != content.head.startswith(PARQUET):
                raise ForeignContentError(
                    "no Parquet file; rename it" if self.kind == "parquet" else "a Parquet file; rename it"
                )
            yield from self._batches(content.stream) if self.kind == "parquet" else self._gathered(self._rows(content))

    def _rows(self, content: Content) -> Iterator[Row]:
        columns = _KeptColumns(self.path, self.check_columns)
        encoding = content.encoding("utf-8")
        if self.kind in ("json", "jsonl"):
            yield from read_json(self.path, content.text(encoding, "\n"), encoding, columns)
            return
        self.delimiter = self._delimiter(content.head.decode(encoding, "replace"))
        is_quoted = self.kind == "csv"
        dialect = Dialect(self.delimiter, is_quoted, header=True, columns=())
        self.names = columns.names
        yield from read_separated(
            self.path, content.text(encoding, "" if is_quoted else "\n"), encoding, dialect, columns
        )

    def _delimiter(self, head: str) -> str:
        """The usual delimiter, or another one that cuts the header into the columns that are needed."""
        header = head.partition("\n")[0]
        names = (
            (mark, [name.strip('"\r ') for name in header.split(mark)]) for mark in (self.delimiter, ";", "\t", "|")
        )
        return next((mark for mark, parts in names if not isinstance(self.choose(parts), str)), self.delimiter)

    def choose(self, names: Collection[str]) -> list[str] | str:
        """The columns of the texts, or the key, `text` or `text_b`, of one that is missing.

        Args:
            names: columns that there are.
        """
        chosen = []
        for key, preferred in self._preferred.items():
            name = next((name for name in preferred if name in names), None)
            if name is None:
                return key
            chosen.append(name)
        return chosen

    def check_columns(self, names: Sequence[str]) -> None:
        """Refuses a table without the columns of the texts.

        Args:
            names: its columns.

        Raises:
            UserError: one of them is missing, or a name stands twice.
        """
        if not names:
            raise ConfigError(f"{_KEY}: {self.path}: is empty")
        _check_distinct(names, self.path)
        if isinstance(key := self.choose(names), str):
            lacking = " or ".join(map(repr, self._preferred[key]))
            raise ConfigError(
                f"{_KEY}: {self.path}: has no column {lacking}; it has: {', '.join(names)}; name it by --{key}_column"
            )

    def _texts(self, row: Mapping[str, Any]) -> Texts | Refusal:
        chosen = self.choose(row)
        if isinstance(chosen, str):
            return Refusal(f"column {' or '.join(self._preferred[chosen])} is missing")
        return _texts([row[name] for name in chosen], chosen)

    def _gathered(self, rows: Iterator[Row]) -> Iterator[Window]:
        """Rows of text formats, some at once."""
        texts: list[Texts | Refusal] = []
        kept: list[dict[str, Any]] = []
        characters = 0
        for row in rows:
            values = row.values or {}
            texts.append(Refusal(row.reason) if row.reason else self._texts(values))
            characters += sum(map(len, texts[-1])) if isinstance(texts[-1], tuple) else 0
            kept.append(values)
            if len(texts) == _WINDOW or characters > _WINDOW_CHARACTERS:
                yield Window(texts, kept)
                texts, kept, characters = [], [], 0
        yield Window(texts, kept)

    def _batches(self, stream: IO[bytes]) -> Iterator[Window]:
        import pyarrow as pa
        import pyarrow.parquet as pq

        try:
            table = pq.ParquetFile(stream)
            self.total = table.metadata.num_rows
            names = table.schema_arrow.names
            self.check_columns(names)
            chosen = self.choose(names)
            arrays = [takeable(pa.nulls(0, field.type)) for field in table.schema_arrow]
            fields = [field.with_type(array.type) for field, array in zip(table.schema_arrow, arrays, strict=True)]
            self.schema = pa.schema(fields, table.schema_arrow.metadata)
            yield Window([], pa.RecordBatch.from_arrays(arrays, schema=self.schema))
            for batch in table.iter_batches(min(_WINDOW, rows_at_once(table))):
                cells = zip(*(python_cells(batch.column(names.index(name))) for name in chosen), strict=True)
                kept = pa.RecordBatch.from_arrays([takeable(column) for column in batch.columns], schema=self.schema)
                yield Window([_texts(values, chosen) for values in cells], kept)
        except pa.ArrowException as error:
            raise UserError(f"{_KEY}: {self.path}: is no Parquet file that can be read ({error})") from error


def _texts(values: Sequence[Any], columns: Sequence[str]) -> Texts | Refusal:
    texts = []
    for value, column in zip(values, columns, strict=True):
        if isinstance(value, dict | list):
            return Refusal(
                f"column {column}: {'a list' if isinstance(value, list) else 'an object'} where text is expected"
            )
        cell = (
            None if isinstance(value, float) and math.isnan(value) else as_text(value)
        )  # how pandas writes a missing one
        text = Refusal("holds no text") if cell is None else text_of(cell)
        if isinstance(text, Refusal):
            return Refusal(f"column {column}: {text.reason}")
        texts.append(text)
    return tuple(texts)


def _check_distinct(names: Sequence[str], path: str) -> None:
    if twice := [name for name, count in Counter(names).items() if count > 1]:
        raise UserError(f"{_KEY}: {path}: has more than one column {', '.join(map(repr, twice))}; rename all but one")


class _KeptColumns:
    """Columns of text formats, all kept under their own names.

    Args:
        path: of the file.
        check: refuses a table by the names of its columns.
    """

    quotes_fix = "check its quotes"

    def __init__(self, path: str, check: Callable[[Sequence[str]], None]) -> None:
        self._path, self._check = path, check
        self.names: list[str] = []

    def of_file(self, names: Sequence[str]) -> list[str]:
        """The names as they are."""
        self._check(names)
        self.names += names
        return self.names

    def of_object(self, names: tuple[str, ...], number: int) -> tuple[list[str], str]:
        """The names as they are; a column that is missing costs no other one."""
        return list(names), ""

    def row(self, number: int, names: Sequence[str], values: Sequence[Any], encoding: str) -> Row:
        """The row; bytes that are no text are looked for only in its texts."""
        return Row(self._path, number, dict(zip(names, values, strict=True)))

    def refused(self, number: int, reason: str, values: dict[str, Any] | None = None) -> Row:
        """A row that has no answer, with what could be read of it."""
        return Row(self._path, number, values, reason)

    def delimiter_hint(self, names: Sequence[str]) -> str:
        """Nothing: the delimiter was chosen by the header."""
        return ""

    def notice(self, message: str) -> None:
        """Says nothing: what ingest points out is said in training."""


class _Sink(Protocol):
    """A file that is written."""

    def write(self, window: Window, answers: Sequence[Answer | Refusal]) -> None:
        """Appends rows with their answers."""

    def close(self) -> None:
        """Ends the file."""


def _flat(model: Answering, answer: Answer | Refusal) -> list[Any]:
    """Cells of the added columns, the error last."""
    if isinstance(answer, Refusal):
        return [*([None] * len(model.columns())), answer.reason]
    return [*model.cells(answer), None]


class _Separated:
    """csv, and tsv without quotes."""

    def __init__(self, path: Path, source: FileOfTexts, model: Answering) -> None:
        self._names, self._model, self._is_quoted = source.names, model, source.kind == "csv"
        # Bytes that are no text, in columns that are only kept, are written as they were read.
        self._file = path.open("w", encoding="utf-8", errors="surrogateescape", newline="")
        self._delimiter = source.delimiter
        self._csv, self._csv_in_quotes = (
            csv.writer(self._file, delimiter=source.delimiter, lineterminator="\n", quoting=quoting)
            for quoting in (csv.QUOTE_MINIMAL, csv.QUOTE_ALL)
        )
        self._line([*source.names, *model.columns(), ERROR])

    def write(self, window: Window, answers: Sequence[Answer | Refusal]) -> None:
        """Appends rows."""
        assert isinstance(window.kept, list)
        for row, answer in zip(window.kept, answers, strict=True):
            kept = [row.get(name, "") for name in self._names]
            self._line([*kept, *map(_separated_cell, _flat(self._model, answer))])

    def _line(self, cells: Sequence[str]) -> None:
        if self._is_quoted:
            # Python quotes a lone carriage return, which ends a line for readers, only from 3.13 on.
            has_return = any("\r" in cell for cell in cells)
            (self._csv_in_quotes if has_return else self._csv).writerow(cells)
            return
        for cell in cells:
            if "\t" in cell or "\n" in cell or "\r" in cell:
                raise UserError("--output: tsv has no quotes, and an answer holds a tab or a line end; write .jsonl")
        self._file.write("\t".join(cells) + "\n")

    def close(self) -> None:
        """Ends the file."""
        self._file.close()


def _separated_cell(cell: Any) -> str:
    if cell is None or isinstance(cell, str):
        return cell or ""
    return json.dumps(rounded(cell), ensure_ascii=False)


class _Lines:
    """JSON Lines."""

    def __init__(self, path: Path, source: FileOfTexts, model: Answering) -> None:
        self._model, self._names = model, [*model.columns(), ERROR]
        self._file = path.open("w", encoding="utf-8", newline="\n")

    def write(self, window: Window, answers: Sequence[Answer | Refusal]) -> None:
        """Appends rows."""
        rows = window.kept if isinstance(window.kept, list) else _python_rows(window.kept)
        for row, answer in zip(rows, answers, strict=True):
            flat = dict(zip(self._names, map(rounded, _flat(self._model, answer)), strict=True))
            self._file.write(_json_line({**row, **flat}))

    def close(self) -> None:
        """Ends the file."""
        self._file.close()


def _json_line(row: dict[str, Any]) -> str:
    line = json.dumps(row, ensure_ascii=False)
    try:
        line.encode()
    except UnicodeEncodeError:  # half a character, which only an escape can say
        line = json.dumps(row)
    return line + "\n"


def _python_rows(batch: pa.RecordBatch) -> list[dict[str, Any]]:
    columns = [plain(column) for column in batch.columns]
    return [dict(zip(batch.schema.names, cells, strict=True)) for cells in zip(*columns, strict=True)]


class _Parquet:
    """Parquet, with the types of all columns."""

    def __init__(self, path: Path, source: FileOfTexts, model: Answering) -> None:
        import pyarrow as pa
        import pyarrow.parquet as pq

        assert source.schema is not None
        self._model = model
        self._added = pa.schema(model.columns() | {ERROR: pa.string()})
        self._schema = pa.schema([*source.schema, *self._added], source.schema.metadata)
        self._writer = pq.ParquetWriter(str(path), self._schema)

    def write(self, window: Window, answers: Sequence[Answer | Refusal]) -> None:
        """Appends rows."""
        import pyarrow as pa

        assert isinstance(window.kept, pa.RecordBatch)
        if not answers:
            return
        cells = zip(*(_flat(self._model, answer) for answer in answers), strict=True)
        added = [pa.array(column, field.type) for column, field in zip(cells, self._added, strict=True)]
        self._writer.write_batch(pa.RecordBatch.from_arrays([*window.kept.columns, *added], schema=self._schema))

    def close(self) -> None:
        """Ends the file."""
        self._writer.close()


_SINKS: dict[str, Callable[[Path, FileOfTexts, Answering], _Sink]] = {
    "csv": _Separated, "tsv": _Separated, "jsonl": _Lines, "parquet": _Parquet,
}  # fmt: skip


def answer_file(request: Request, preferred: Mapping[str, Sequence[str]], load: Callable[[], Answering]) -> Count:
    """Answers every row of a file, and writes them with all that it holds into another, whole or not at all.

    The columns of the answers come last: `Answering.columns`, and `error`. Some thousand rows are in memory at once.

    Args:
        request: names the files.
        preferred: of `FileOfTexts`.
        load: gives what answers; called when the input's columns are known to fit.

    Raises:
        UserError: the file cannot be read, or has a column with the name of one that is added.
    """
    source = FileOfTexts(request, preferred)
    windows = source.windows()
    window: Window | None = next(windows)
    model = load()
    added = {*model.columns(), ERROR}
    rows = errors = 0
    first = ""
    with ExitStack() as stack:
        draft = stack.enter_context(_draft(request))
        sink = _SINKS[format_of(str(request.output), "--output")](draft, source, model)
        stack.callback(sink.close)
        while window is not None:
            _check_names(source, window, added)
            answers = answer_all(model, window.rows)
            sink.write(window, answers)
            refused = [(place, one) for place, one in enumerate(answers, rows + 1) if isinstance(one, Refusal)]
            if refused and not errors:
                first = f"row {refused[0][0]:,}: {refused[0][1].reason}"
            rows, errors = rows + len(answers), errors + len(refused)
            if rows:
                report(rows, source.total, "rows")
            window = next(windows, None)
    return Count(rows, errors, first)


def _check_names(source: FileOfTexts, window: Window, added: set[str]) -> None:
    """Refuses a column with the name of one that is added; of JSON each row has its own."""
    names = source.schema.names if source.schema is not None else source.names
    rows: Sequence[Collection[str]] = [names] if names else [row.keys() for row in window.kept]
    for row in rows:
        if clash := sorted(added.intersection(row)):
            raise ConfigError(f"{_KEY}: {source.path}: has a column {clash[0]!r}, a name that predict adds; rename it")


@contextmanager
def _draft(request: Request) -> Iterator[Path]:
    """A file that becomes the output when all has been written."""
    draft = request.output.with_name(f".{request.output.name}.{os.getpid()}")
    try:
        yield draft
        sync(draft)
        if request.output.exists() and not request.overwrite:
            raise ConfigError(f"--output={request.output}: has been written by another; --overwrite replaces it")
        draft.replace(request.output)
    finally:
        draft.unlink(missing_ok=True)
