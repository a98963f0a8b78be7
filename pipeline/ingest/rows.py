"""Rows as readers yield them, and what the columns of a file must be called."""

from __future__ import annotations

import difflib
import itertools
import json
from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from lmworks.configs.errors import UserError
from lmworks.configs.schema import IngestStage, Source
from lmworks.pipeline.ingest.conversations import columns_with_turns, lacking
from lmworks.pipeline.ingest.files import File
from lmworks.pipeline.tables import SOURCE_ID

if TYPE_CHECKING:
    import pyarrow as pa

_OWN_ID = "id"
_MOST_KEYS = 4096
"""Sets of JSON keys whose names are remembered."""
_LISTED = 30
"""Columns that an error lists."""
_HALF = "a lone surrogate, which is half of a character"
_DELIMITERS = ("\t", ";", "|", ",")


class Row(NamedTuple):
    """One row of a file."""

    file: str
    number: int
    """1-based: the line where the row ends (text formats), or the row (parquet)."""
    values: dict[str, Any] | None
    """Python values by column; None for a row that cannot be read."""
    reason: str = ""
    """Why it cannot be read."""
    block: pa.RecordBatch | None = None
    """parquet: the columns that no stage reads as text, of this row and its neighbours, with their types."""
    place: int = 0
    """Of the row in its block."""


class Columns(Protocol):
    """What readers of text formats ask of a file's columns; `FileColumns` says what each answer is."""

    quotes_fix: str

    def of_file(self, names: Sequence[str]) -> list[str]:
        """Names under which a table's columns are kept."""

    def of_object(self, names: tuple[str, ...], number: int) -> tuple[list[str], str]:
        """Names under which the values of one JSON object are kept, and why it cannot be a row."""

    def row(self, number: int, names: Sequence[str], values: Sequence[Any], encoding: str) -> Row:
        """The row, or its refusal."""

    def refused(self, number: int, reason: str, values: dict[str, Any] | None = None) -> Row:
        """A row that cannot be read.

        Args:
            number: of its line.
            reason: why.
            values: what could be read of it, by column.
        """

    def delimiter_hint(self, names: Sequence[str]) -> str:
        """Proposes another delimiter."""

    def notice(self, message: str) -> None:
        """Points out what is no error."""


class FileColumns:
    """The columns of one file: those that the config names are there, and none clashes with a name of the examples' own.

    Args:
        config: of the stage.
        source: of the file.
        key: of the config that names the source, for errors.
        file: the file.
        notices: what readers point out, by key; of a source, the first.
    """

    quotes_fix = "check its quotes, or set ingest.quoting: none or ingest.format"
    """What to do about a quote that is never closed."""

    def __init__(self, config: IngestStage, source: Source, key: str, file: File, notices: dict[str, str]) -> None:
        self._config, self._key, self._path, self._notices = config, key, file.path, notices
        self._named = config.named_columns(config.task)
        self.python = {*self._named.values()}
        """Columns whose cells are Python values in every row, because they become text; others may stay Arrow's."""
        if config.chat:
            self.python |= columns_with_turns(config)
            del self._named["text"]  # a conversation may stand in other columns
        self._extra = {"file": file.name, "folder": file.name.rpartition("/")[0].partition("/")[0]} if file.name else {}
        self._names: dict[tuple[str, ...], tuple[list[str], str]] = {}

    def of_file(self, names: Sequence[str]) -> list[str]:
        """Names under which a table's columns are kept.

        Args:
            names: as they stand in the file; empty ones are called by their place.

        Raises:
            UserError: they are no text, ambiguous, clash, or one is missing.
        """
        path = self._path
        if _is_torn(names):
            raise UserError(
                f"{path}: its column names are no {self._config.encoding} text; set the right ingest.encoding"
            )
        names = [name or f"column {place}" for place, name in enumerate(names, 1)]
        if twice := [name for name, count in Counter(names).items() if count > 1]:
            raise UserError(f"{path}: has more than one column {_listed(map(repr, twice))}; rename all but one")
        if lack := self._lack(names):
            if any("\0" in name for name in names):
                raise UserError(
                    f"{path}: its column names hold zero bytes; set the right ingest.encoding (utf-16-le …)"
                )
            raise UserError(f"{path}: has {lack}{self.delimiter_hint(names)}")
        return self._kept(names, path)

    def of_object(self, names: tuple[str, ...], number: int) -> tuple[list[str], str]:
        """Names under which the values of one JSON object are kept, and why it cannot be a row: no text if it can.

        Args:
            names: keys of the object.
            number: of the row.

        Raises:
            UserError: a name clashes.
        """
        if names not in self._names:
            if len(self._names) >= _MOST_KEYS:
                self._names.clear()
            lack = self._lack(names)
            reason = "no utf-8 text" if _is_torn(names) else f"missing column: {lack}" if lack else ""
            kept = [] if reason else self._kept(names, f"{self._path}:{number}")
            self._names[names] = kept, reason
        return self._names[names]

    def _lack(self, names: Collection[str]) -> str | None:
        """The first missing column that the config names, those that there are, and the nearest."""
        if self._config.chat and (lack := lacking(self._config, names)):
            return lack
        wanted = {**self._named, **({"id": self._config.id} if self._config.id else {})}
        for key, name in wanted.items():
            if name not in names and name not in self._extra:
                near = difflib.get_close_matches(name, names, n=1)
                hint = f"; did you mean {near[0]}?" if near else ""
                return f"no column {name!r} (ingest.{key}); it has: {_listed(names) or 'none'}{hint}"
            if name == _OWN_ID and key != "id":
                return f"a column 'id' (ingest.{key}), a name that examples need for their own; rename it"
        return None

    def delimiter_hint(self, names: Sequence[str]) -> str:
        """Proposes the character that cuts a header of one field into the columns that are missing.

        Args:
            names: of the columns as they were read.
        """
        if names and names[0].startswith("sep="):
            return "; the first line is Excel's: remove it, and set ingest.delimiter to what it names"
        for delimiter in _DELIMITERS:
            if len(names) == 1 and not self._lack([name.strip('" ') for name in names[0].split(delimiter)]):
                shown = json.dumps(delimiter)
                return f"; the delimiter seems to be {shown}: set ingest.delimiter: {shown}"
        return ""

    def _kept(self, names: Sequence[str], where: str) -> list[str]:
        own = self._config.id or _OWN_ID
        if clash := [name for name in names if name in self._extra]:
            raise UserError(
                f"{where}: has a column {clash[0]!r}, a name that {self._key}.files adds; rename it, or name the files by "
                f"{self._key}.path"
            )
        if own != SOURCE_ID and SOURCE_ID in names and own in (*names, *self._extra):
            raise UserError(
                f"{where}: has a column {SOURCE_ID!r} beside {own!r}, which is kept under that name (ingest.id); rename it"
            )
        if own != _OWN_ID and _OWN_ID in names:
            raise UserError(
                f"{where}: has a column 'id' beside {own!r} (ingest.id), and examples need that name for their own; rename it"
            )
        return [SOURCE_ID if name == own else name for name in names]

    def row(self, number: int, names: Sequence[str], values: Sequence[Any], encoding: str) -> Row:
        """The row, or its refusal if one of its strings is no text.

        Args:
            number: of the row.
            names: of `of_file` or `of_object`.
            values: one a name.
            encoding: in which the file was decoded.
        """
        try:
            try:
                text = "".join(values)
            except TypeError:  # not only strings
                text = "".join(
                    value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
                    for value in values
                    if isinstance(value, str | dict | list)
                )
            text.encode()
        except UnicodeEncodeError as error:
            undecoded = (
                "\udc80" <= error.object[error.start] <= "\udcff"
            )  # of surrogateescape; others were escapes of JSON
            return self.refused(number, f"no {encoding.removesuffix('-sig')} text" if undecoded else _HALF)
        return self.extended(Row(self._path, number, dict(zip(names, values, strict=True))))

    def extended(self, row: Row) -> Row:
        """The row with the columns that `files` adds."""
        if not self._extra or row.values is None:
            return row
        own = self._config.id
        extra = {(SOURCE_ID if name == own else name): value for name, value in self._extra.items()}
        return row._replace(values={**row.values, **extra})

    def notice(self, message: str) -> None:
        """Points out what is no error."""
        self._notices.setdefault(self._key, message)

    def refused(self, number: int, reason: str, values: dict[str, Any] | None = None) -> Row:
        """A row that cannot be read, which is left out whole."""
        return Row(self._path, number, None, reason)

    def check_documents(self) -> None:
        """Refuses text documents, whose columns are the text and those of `files`, where one is missing that is named."""
        names = [self._config.text]
        if lack := self._lack(names):
            fix = f"; files of a folder, named by {self._key}.files, have their folder as a label: ingest.label: folder"
            raise UserError(f"{self._path}: has {lack}{fix if self._config.label_column else ''}")
        self._kept(names, self._path)


def _listed(names: Iterable[str]) -> str:
    first = [*itertools.islice(iterator := iter(names), _LISTED)]
    more = sum(1 for _ in iterator)
    return ", ".join(first) + (f" and {more:,} more" if more else "")


def _is_torn(names: Sequence[str]) -> bool:
    """Whether a byte of the names was no text."""
    return any("\ud800" <= character <= "\udfff" for name in names for character in name)
