"""Statistics of the examples, as JSON and as a page: rows, lengths, label balance, conflicts, duplicates, leakage."""

from __future__ import annotations

import html
from array import array
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from lmworks.pipeline.ingest.carving import moves_of
from lmworks.pipeline.ingest.splits import SPLITS
from lmworks.pipeline.label_conflicts import Conflicts, LabelCounts, conflicts_of
from lmworks.pipeline.page import cell, page, table
from lmworks.tfx.artifacts import write_json


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
    report = _page(splits, labels, leakage, refused, notices, conflicting)
    (folder / "report.html").write_text(report, encoding="utf-8")


def _page(
    splits: dict[str, Any],
    labels: list[str],
    leakage: dict[str, int],
    refused: dict[str, int],
    notices: list[str],
    conflicting: list[dict[str, Any]],
) -> str:
    lengths = ("min", "median", "mean", "p95", "max")
    rows = [
        [name, of["rows"], *(round(of["characters"][key]) for key in lengths), of["exact_duplicates"]]
        for name, of in splits.items()
    ]
    notes = "".join(f"<li>{html.escape(notice)}</li>" for notice in notices)
    sections = {
        "Splits": (f"<ul>{notes}</ul>" if notes else "")
        + _table(["split", "rows", "shortest", "median", "mean", "95 %", "longest", "exact duplicates"], rows)
        + '<p class="note">Lengths in characters; 95 % of the texts are at most as long as that column says.</p>'
    }
    if labels:
        sections |= {"Label balance": _balance(splits, labels), **_conflict_tables(splits, conflicting)}
    sections |= {
        "Texts that stand in two splits": _table(["splits", "texts"], leakage.items()),
        "Rows left out": _table(["reason", "rows"], refused.items()) if refused else '<p class="note">None.</p>',
    }
    return page("Examples", sections)


def _balance(splits: dict[str, Any], labels: list[str]) -> str:
    rows = []
    for label in labels:
        shares = {name: of["labels"].get(label, 0) / of["rows"] for name, of in splits.items()}
        bar = f'<td><span class="share" style="width:{12 * shares["train"]:.2f}rem"></span></td>'
        rows.append([cell(label), *(cell(f"{share:.1%}", "n") for share in shares.values()), bar])
    return table(["label", *splits, "share of train"], rows)


def _conflict_tables(splits: dict[str, Any], conflicting: list[dict[str, Any]]) -> dict[str, str]:
    counts = [
        [name, of["texts"], of["rows"], of["best_accuracy"]]
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
    content = _table(["split", "texts", "their rows", "best possible accuracy"], counts)
    content += (
        '<p class="note">No classifier that sees the text alone can be right about all rows of such a text. '
        "preprocess.conflicts says which of them are trained on.</p>"
    )
    if worst:
        content += table(
            ["worst texts, over all splits", "labels"], ([cell(text, "text"), cell(by)] for text, by in worst)
        )
    return {"The same text with different labels": content}


def _table(header: list[str], rows: Iterable[Iterable[Any]]) -> str:
    return table(header, (list(map(cell, row)) for row in rows))
