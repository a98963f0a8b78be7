"""Rows that are left out: counts by source and reason, and the sources with too many of them."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping

from lmworks.configs.errors import UserError
from lmworks.configs.schema import IngestStage
from lmworks.pipeline.ingest.documents import document_hint
from lmworks.pipeline.ingest.rows import Row
from lmworks.tfx.readable import counted

NO_CLASS = "label_rule: no class takes this value"
EMPTY_DOCUMENT = "the document is empty"
_NO_FAULT = (NO_CLASS, EMPTY_DOCUMENT)
"""Reasons that are no fault of a row: recorded, but no rejects."""
_WRONG_ENCODING = re.compile(r"no \S+ text")
_NO_TABLE = ("missing column", "no JSON", "no JSON object")


class LeftOut:
    """Counts the rows of each source that are kept, and those that are left out, with the first row of each reason."""

    def __init__(self) -> None:
        self._kept: Counter[str] = Counter()
        self._reasons: dict[str, Counter[str]] = {}
        self._first: dict[tuple[str, str], str] = {}

    def keep(self, source: str) -> None:
        """Counts a row that becomes an example.

        Args:
            source: its key in `ingest`.
        """
        self._kept[source] += 1

    def add(self, source: str, row: Row, reason: str) -> None:
        """Counts a row that is left out.

        Args:
            source: its key in `ingest`.
            row: the row.
            reason: a kind of reason, with a colon and particulars or without.
        """
        kind = reason if reason in _NO_FAULT else reason.partition(":")[0]
        self._reasons.setdefault(source, Counter())[kind] += 1
        self._first.setdefault((source, kind), f"{row.file}:{row.number}: {reason}")

    def reasons(self) -> Counter[str]:
        """Counts the rows of all sources by reason."""
        return sum(self._reasons.values(), Counter())

    def refused(self) -> int:
        """Counts the rows of all sources that are rejects."""
        return _faults(self.reasons()).total()

    def listing(self, source: str) -> str:
        """Lists the reasons of a source, the most frequent first, each with its first row; empty if no row is left out."""
        return self._listed(source, self._reasons.get(source, {}))

    def judge(self, config: IngestStage) -> None:
        """Checks each source: it has rows, and no more rejects than the config allows.

        Args:
            config: of the stage.

        Raises:
            UserError: some have not; a line for each.
        """
        errors = [error for name in config.sources() if (error := self._error(name, config))]
        if errors:
            raise UserError("\n".join(errors))

    def _error(self, name: str, config: IngestStage) -> str:
        source, reasons = config.sources()[name], self._reasons.get(name, Counter())
        faults = _faults(reasons)
        refused, read = faults.total(), self._kept[name] + faults.total()
        if not read and not reasons:
            return f"ingest.{name}: no rows in {', '.join(source.path) or source.package}"
        if not read and not reasons[NO_CLASS]:
            return f"ingest.{name}: no text: all {reasons[EMPTY_DOCUMENT]:,} documents are empty"
        if refused <= config.max_rejects * read:
            return ""
        fixes = []
        if any(map(_WRONG_ENCODING.fullmatch, faults)):
            fixes.append("set the right ingest.encoding (latin-1, cp1252, utf-16 …)")
        if source.files and faults["no text"]:
            fixes.append(f"leave files that are no text out by a !PATTERN in ingest.{name}.files")
        if any(faults[reason] for reason in _NO_TABLE) and (hint := document_hint(config, source, f"ingest.{name}")):
            fixes.append(hint)
        return (
            f"ingest.{name}: {refused:,} of {counted(read, 'row')} refused, more than ingest.max_rejects {config.max_rejects:g}: "
            f"{self._listed(name, faults)}; {'; '.join(fixes) or 'mend them or raise ingest.max_rejects'}"
        )

    def _listed(self, source: str, reasons: Mapping[str, int]) -> str:
        ranked = sorted(reasons.items(), key=lambda item: -item[1])
        return "; ".join(f"{count:,} × {self._first[source, reason]}" for reason, count in ranked)


def _faults(reasons: Counter[str]) -> Counter[str]:
    return Counter({reason: count for reason, count in reasons.items() if reason not in _NO_FAULT})
