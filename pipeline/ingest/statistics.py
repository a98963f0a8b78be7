"""Statistics of the examples, as JSON and as a page: rows, lengths, label balance, conflicts, duplicates, leakage."""

from __future__ import annotations

import html
from array import array
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from lmworks.pipeline.ingest.carving import moves_of
from lmworks.pipeline.ingest.splits import SPLITS
from lmworks.pipeline.label_conflicts import Conflicts, LabelCounts, conflicts_of
from lmworks.tfx.artifacts import write_json

_STYLE = """
:root{color-scheme:light dark}body{font:15px/1.5 system-ui,sans-serif;max-width:56rem;margin:2rem auto;padding:0 1rem}
table{border-collapse:collapse;margin:.5rem 0}th,td{padding:.25rem .7rem;text-align:left;border-bottom:1px solid #8884}
td.n{text-align:right;font-variant-numeric:tabular-nums}.bar{background:#1f77b4;height:.8rem;display:inline-block}
"""


class Tally:
    """Counts of what was read, 17 bytes a row."""

    def __init__(self) -> None:
        self.total = 0
        self._ids, self._characters, self._splits = array("Q"), array("I"), array("B")
        self._labels = array("i")
        self._label_of: dict[str | None, int] = {}

    def add(self, split: str, identity: str, label: str | None, texts: list[str]) -> None:
        """Counts one example."""
        self._ids.append(int(identity, 16))
        self._characters.append(min(sum(map(len, texts)), 2**32 - 1))
        self._splits.append(SPLITS.index(split))
        self._labels.append(self._label_of.setdefault(label, len(self._label_of)))
        self.total += 1

    def carve(self, carved: Collection[str]) -> dict[int, str]:
        """Moves texts between train and the splits that are carved from it, so that none lacks a class.

        Returns:
            New splits by id; see `carving.moves_of`.
        """
        splits, ids = np.frombuffer(self._splits, np.uint8), np.frombuffer(self._ids, np.uint64)
        rows = np.flatnonzero(np.isin(splits, [SPLITS.index(name) for name in {"train", *carved}]))
        moves = moves_of(ids[rows], np.frombuffer(self._labels, np.int32)[rows], splits[rows], carved)
        if moves:
            moved = np.array(sorted(moves), np.uint64)
            goals = np.array([SPLITS.index(moves[int(identity)]) for identity in moved], np.uint8)
            rows = rows[np.isin(ids[rows], moved)]
            splits[rows] = goals[np.searchsorted(moved, ids[rows])]
        return moves

    def rows(self, split: str) -> int:
        """Examples of a split."""
        return int(np.sum(self._in(split)))

    def characters(self) -> int:
        """Characters of all splits."""
        return int(np.frombuffer(self._characters, np.uint32).sum(dtype=np.int64))

    def labels(self, split: str) -> dict[str, int]:
        """Examples per label of a split, of those that occur in it."""
        counts = np.bincount(np.frombuffer(self._labels, np.int32)[self._in(split)], minlength=len(self._label_of))
        return {label: int(counts[index]) for label, index in self._label_of.items() if label and counts[index]}

    def summary(self, split: str) -> dict[str, Any]:
        """What statistics.json says of a split."""
        lengths = np.frombuffer(self._characters, np.uint32)[self._in(split)]
        ids = self._ids_of(split)
        quantiles = {name: float(np.quantile(lengths, q)) for name, q in (("median", 0.5), ("p95", 0.95))}
        return {
            "rows": len(ids),
            "characters": {
                "min": int(lengths.min()),
                "mean": float(lengths.mean()),
                **quantiles,
                "max": int(lengths.max()),
            },
            "labels": dict(sorted(self.labels(split).items())),
            "exact_duplicates": len(ids) - len(np.unique(ids)),
        }

    def leakage(self, split: str, other: str) -> int:
        """Distinct texts that stand in both splits."""
        return len(np.intersect1d(self._ids_of(split), self._ids_of(other)))

    def conflicts(self, split: str) -> Conflicts:
        """Texts of a split with more than one label."""
        return conflicts_of(self._ids_of(split), np.frombuffer(self._labels, np.int32)[self._in(split)])

    def worst_conflicts(self, most: int) -> dict[int, dict[str, dict[str, int]]]:
        """The texts whose labels conflict in most rows, over all splits.

        Returns:
            Rows by split, by label, by id; the worst text first.
        """
        ids, labels = np.frombuffer(self._ids, np.uint64), np.frombuffer(self._labels, np.int32)
        counts = LabelCounts(ids, labels)
        excess = counts.rows() - counts.agreeing()
        worst = np.argsort(-excess, kind="stable")[:most]
        splits = np.frombuffer(self._splits, np.uint8)
        names = list(self._label_of)
        found: dict[int, dict[str, dict[str, int]]] = {}
        for identity in counts.texts[worst[excess[worst] > 0]]:
            rows = np.flatnonzero(ids == identity)
            found[int(identity)] = {}
            for index in np.unique(labels[rows]):
                per_split = np.bincount(splits[rows[labels[rows] == index]], minlength=len(SPLITS))
                by_split = {split: int(count) for split, count in zip(SPLITS, per_split, strict=True) if count}
                found[int(identity)][str(names[index])] = by_split
        return found

    def _in(self, split: str) -> np.ndarray:
        return np.frombuffer(self._splits, np.uint8) == SPLITS.index(split)

    def _ids_of(self, split: str) -> np.ndarray:
        return np.frombuffer(self._ids, np.uint64)[self._in(split)]


def write_statistics(
    folder: Path,
    tally: Tally,
    labels: list[str],
    refused: dict[str, int],
    notices: list[str],
    conflicts: Mapping[str, Conflicts],
    conflicting: list[dict[str, Any]],
) -> None:
    """Writes statistics.json and report.html.

    Args:
        folder: of the artifact.
        tally: of all examples.
        labels: the classes; none for a language model.
        refused: rows left out, by reason.
        notices: sentences about what looks wrong.
        conflicts: of each split; none for a language model.
        conflicting: the worst texts with more than one label: `text`, `text_b` of a pair, and `labels`, rows by split by label.
    """
    splits = {name: tally.summary(name) for name in SPLITS}
    for name, of_split in conflicts.items():
        splits[name]["conflicts"] = of_split._asdict()
    pairs = [("train", "validation"), ("train", "test"), ("validation", "test")]
    leakage = {f"{one} and {other}": tally.leakage(one, other) for one, other in pairs}
    content = {"splits": splits, "leakage": leakage, "refused": refused, "notices": notices}
    write_json(folder / "statistics.json", content | ({"worst_conflicts": conflicting} if labels else {}))
    page = _page(splits, labels, leakage, refused, notices, conflicting)
    (folder / "report.html").write_text(page, encoding="utf-8")


def _page(
    splits: dict[str, Any],
    labels: list[str],
    leakage: dict[str, int],
    refused: dict[str, int],
    notices: list[str],
    conflicting: list[dict[str, Any]],
) -> str:
    rows = []
    for name, one in splits.items():
        lengths = (f"{one['characters'][key]:,.0f}" for key in ("min", "median", "mean", "p95", "max"))
        rows.append([name, f"{one['rows']:,}", *lengths, f"{one['exact_duplicates']:,}"])
    balance = []
    for label in labels:
        shares = {name: one["labels"].get(label, 0) / one["rows"] for name, one in splits.items()}
        balance.append([label, *(f"{share:.1%}" for share in shares.values()), ("bar", shares["train"])])
    parts = [
        "<h1>Examples</h1>",
        *([f"<ul>{''.join(f'<li>{html.escape(notice)}</li>' for notice in notices)}</ul>"] if notices else []),
        _table(["split", "rows", "shortest", "median", "mean", "95 %", "longest", "exact duplicates"], rows),
        "<p>Lengths in characters.</p>",
        *(["<h2>Label balance</h2>", _table(["label", *splits, "train"], balance)] if labels else []),
        *(_conflict_tables(splits, conflicting) if labels else []),
        "<h2>Texts that stand in two splits</h2>",
        _table(["splits", "texts"], [[name, f"{count:,}"] for name, count in leakage.items()]),
        "<h2>Rows left out</h2>",
        _table(["reason", "rows"], [[name, f"{count:,}"] for name, count in refused.items()] or [["none", "0"]]),
    ]
    return f"<!doctype html><meta charset=utf-8><title>Examples</title><style>{_STYLE}</style>{''.join(parts)}"


def _conflict_tables(splits: dict[str, Any], conflicting: list[dict[str, Any]]) -> list[str]:
    counts = [
        [name, f"{of['texts']:,}", f"{of['rows']:,}", f"{of['best_accuracy']:.4f}"]
        for name, of in ((name, values["conflicts"]) for name, values in splits.items())
    ]
    worst = [
        [
            " | ".join(text for text in (one["text"], one.get("text_b")) if text),
            "; ".join(
                f"{label}: {', '.join(f'{rows:,} {split}' for split, rows in by.items())}"
                for label, by in one["labels"].items()
            ),
        ]
        for one in conflicting
    ]
    return [
        "<h2>The same text with different labels</h2>",
        _table(["split", "texts", "their rows", "best possible accuracy"], counts),
        "<p>No classifier that sees the text alone can be right about all rows of such a text. preprocess.conflicts says which "
        "of them are trained on.</p>",
        *([_table(["worst texts, over all splits", "labels"], worst)] if worst else []),
    ]


def _table(header: list[str], rows: list[list[Any]]) -> str:
    head = "".join(f"<th>{html.escape(name)}</th>" for name in header)
    body = "".join(f"<tr>{''.join(map(_cell, enumerate(row)))}</tr>" for row in rows)
    return f"<table><tr>{head}</tr>{body}</table>"


def _cell(numbered: tuple[int, Any]) -> str:
    index, value = numbered
    if isinstance(value, tuple):
        return f'<td><span class=bar style="width:{12 * value[1]:.2f}rem"></span></td>'
    return f"<td{' class=n' if index else ''}>{html.escape(str(value))}</td>"
