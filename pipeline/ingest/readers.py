"""Rows out of the files of a source, whatever their format; local or at any fsspec URL; compressed or not."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from lmworks.configs.errors import UserError
from lmworks.configs.schema import READ_BY, Format, IngestStage, Source
from lmworks.pipeline.ingest.documents import document_hint, read_documents
from lmworks.pipeline.ingest.files import File, files_of
from lmworks.pipeline.ingest.json_rows import read_json
from lmworks.pipeline.ingest.parquet_rows import read_parquet
from lmworks.pipeline.ingest.rows import FileColumns, Row
from lmworks.pipeline.ingest.separated import Dialect, read_separated
from lmworks.pipeline.ingest.streams import DAMAGED, PARQUET, ForeignContentError, open_content, uncompressed_name

FORMATS: dict[str, Format] = {
    "csv": "csv", "tsv": "tsv", "tab": "tsv", "jsonl": "jsonl", "ndjson": "jsonl", "json": "json", "parquet": "parquet",
    "txt": "text",
}  # fmt: skip

_DAMAGE = "the compressed file is truncated or damaged ({})"


def read_rows(config: IngestStage, source: Source, key: str, notices: dict[str, str]) -> Iterator[Row]:
    """All rows of a source, in order.

    Args:
        config: of the stage.
        source: which rows.
        key: of the config that names the source, for errors.
        notices: gets what is no error and should be known, by key.

    Raises:
        UserError: a file cannot be read, or lacks a column; names file, key and fix.
    """
    for file in files_of(source, key, notices):
        encoding = config.option(source, "encoding")
        with name_faults(key, file.path, f"is no {encoding} text; set the right ingest.encoding"):
            try:
                yield from _rows_of(file, config, source, key, notices)
            except UserError as error:
                if hint := document_hint(config, source, key):
                    raise UserError(f"{error}; {hint}") from error
                raise


@contextmanager
def name_faults(key: str, path: str, no_text: str) -> Iterator[None]:
    """Names the file that cannot be read.

    Args:
        key: of the config, or flag, that names it.
        path: path or URL.
        no_text: what is wrong if its bytes are no text of the encoding, and the fix.

    Raises:
        UserError: reading within it failed for a reason of the file's.
    """
    try:
        yield
    except ForeignContentError as error:
        raise UserError(f"{key}: {path}: is {error}") from error
    except DAMAGED as error:
        raise UserError(f"{key}: {path}: {_DAMAGE.format(error or type(error).__name__)}") from error
    except UnicodeError as error:  # of encodings that cannot go on after a wrong byte, such as utf-16
        raise UserError(f"{key}: {path}: {no_text} ({error})") from error
    except LookupError as error:
        raise UserError(f"{key}: {path}: {error}") from error
    except FileNotFoundError as error:
        raise UserError(f"{key}: {path}: no such file") from error
    except OSError as error:
        raise UserError(f"{key}: {path}: cannot be read: {error.strerror or error}") from error
    except Exception as error:
        if "://" not in path:
            raise
        # Stores have errors of their own, such as aiohttp's for a connection that ends too early.
        raise UserError(f"{key}: {path}: cannot be read: {type(error).__name__}: {error}") from error


def _rows_of(file: File, config: IngestStage, source: Source, key: str, notices: dict[str, str]) -> Iterator[Row]:
    columns = FileColumns(config, source, key, file, notices)
    encoding, separator = config.option(source, "encoding"), config.option(source, "separator")
    with ExitStack() as stack:
        try:
            content = stack.enter_context(open_content(file.location, "" if source.package else source.member))
        except (ForeignContentError, *DAMAGED, OSError) as error:
            is_document = file.name and _format(file, file.name, config, source, key) == "text"
            if is_document and (reason := _fault_of_document(error, separator, encoding)):
                yield columns.refused(1, reason)
                return
            raise
        kind = _format(file, content.name, config, source, key)
        _check_options(source, kind, key, file)
        if kind == "parquet":
            yield from read_parquet(file.path, content.stream, columns)
            return
        encoding = content.encoding(encoding)
        if kind == "text":
            columns.check_documents()
            if content.head.startswith(PARQUET):
                yield columns.refused(1, "no text: a Parquet file")
                return
            try:
                yield from read_documents(content, encoding, config.text, separator, source.byte_range, columns)
            except (UnicodeError, *DAMAGED, OSError) as error:
                if not (file.name and (reason := _fault_of_document(error, separator, encoding))):
                    raise
                yield columns.refused(1, reason)
            return
        if content.head.startswith(PARQUET):
            raise ForeignContentError(f"a Parquet file, and is read as {kind}; set {key}.format: parquet")
        if kind in ("json", "jsonl"):
            yield from read_json(file.path, content.text(encoding, "\n"), encoding, columns)
            return
        quoting = config.option(source, "quoting")
        quoted = kind == "csv" if quoting is None else quoting == "standard"
        delimiter = config.option(source, "delimiter") or {"csv": ",", "tsv": "\t"}[kind]
        dialect = Dialect(delimiter, quoted, source.header, source.columns)
        text = content.text(encoding, "" if quoted else "\n")
        yield from read_separated(file.path, text, encoding, dialect, columns)


def _fault_of_document(error: Exception, separator: str | None, encoding: str) -> str:
    """Says why one of many documents cannot be read; empty for an error that is not of its content.

    A file that holds many documents is not refused as a whole: it would be missing without notice.

    Args:
        error: of reading the file.
        separator: the line between two documents; None, and the file is one document.
        encoding: in which it is decoded.
    """
    if isinstance(error, ForeignContentError):
        return f"no text: {error}"
    if separator is not None:
        return ""
    if isinstance(error, UnicodeError):
        return f"no {encoding.removesuffix('-sig')} text"
    if isinstance(error, DAMAGED) or (isinstance(error, OSError) and error.errno is None):  # of gzip, bzip2, Zstandard
        return f"no text: {_DAMAGE.format(error or type(error).__name__)}"
    return ""


def _check_options(source: Source, kind: Format, key: str, file: File) -> None:
    """Refuses keys of the source that have no effect on a file.

    Args:
        source: that names the file.
        kind: format as which the file is read.
        key: of the config that names the source.
        file: the file.

    Raises:
        UserError: the source sets such a key.
    """
    for option in source.unread(kind):
        section = f", or set ingest.{option}, which other files ignore" if option in IngestStage.model_fields else ""
        raise UserError(
            f"{key}.{option}: belongs to {', '.join(READ_BY[option])}, and {file.path} is read as {kind}; remove it{section}"
        )


def _format(file: File, name: str, config: IngestStage, source: Source, key: str) -> Format:
    """The format that is configured, else that of the file's extension."""
    configured: Format | None = config.option(source, "format")
    if configured:
        return configured
    extension = uncompressed_name(name).lower().rpartition(".")[2]
    if extension in FORMATS:
        return FORMATS[extension]
    if source.files:
        return "text"
    raise UserError(
        f"{key}: {file.path}: its extension names no format; set ingest.format: csv|tsv|jsonl|json|parquet|text"
    )
