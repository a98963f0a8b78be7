"""Statistics of the examples, as JSON and as a page: rows, lengths, label balance, exact duplicates, leakage."""

from __future__ import annotations

import html
from array import array
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np

from lmworks.tfx.artifacts import write_json

_STYLE = """
:root{color-scheme:light dark}body{font:15px/1.5 system-ui,sans-serif;max-width:56rem;margin:2rem auto;padding:0 1rem}
table{border-collapse:collapse;margin:.5rem 0}th,td{padding:.25rem .7rem;text-align:left;border-bottom:1px solid #8884}
td.n{text-align:right;font-variant-numeric:tabular-nums}.bar{background:#1f77b4;height:.8rem;display:inline-block}
"""


class Tally:
    """Counts of what was read, 12 bytes a row."""

    def __init__(self) -> None:
        self.total = 0
        self._ids: dict[str, array[int]] = {}
        self._characters: dict[str, array[int]] = {}
        self._labels: dict[str, Counter[str]] = {}

    def add(self, split: str, identity: str, label: str | None, texts: list[str]) -> None:
        """Counts one example."""
        if split not in self._ids:
            self._ids[split], self._characters[split], self._labels[split] = array("Q"), array("I"), Counter()
        self._ids[split].append(int(identity, 16))
        self._characters[split].append(min(sum(map(len, texts)), 2**32 - 1))
        if label is not None:
            self._labels[split][label] += 1
        self.total += 1

    def rows(self, split: str) -> int:
        """Examples of a split."""
        return len(self._ids.get(split, ()))

    def characters(self) -> int:
        """Characters of all splits."""
        return sum(sum(lengths) for lengths in self._characters.values())

    def labels(self, split: str) -> dict[str, int]:
        """Examples per label of a split."""
        return dict(self._labels.get(split, {}))

    def summary(self, split: str) -> dict[str, Any]:
        """What statistics.json says of a split."""
        lengths = np.frombuffer(self._characters[split], np.uint32)
        ids = np.frombuffer(self._ids[split], np.uint64)
        quantiles = {name: float(np.quantile(lengths, q)) for name, q in (("median", 0.5), ("p95", 0.95))}
        return {
            "rows": len(ids),
            "characters": {
                "min": int(lengths.min()),
                "mean": float(lengths.mean()),
                **quantiles,
                "max": int(lengths.max()),
            },
            "labels": dict(sorted(self._labels[split].items())),
            "exact_duplicates": len(ids) - len(np.unique(ids)),
        }

    def leakage(self, split: str, other: str) -> int:
        """Distinct texts that stand in both splits."""
        return len(
            np.intersect1d(np.frombuffer(self._ids[split], np.uint64), np.frombuffer(self._ids[other], np.uint64))
        )


def write_statistics(folder: Path, tally: Tally, labels: list[str], refused: dict[str, int]) -> None:
    """Writes statistics.json and report.html."""
    splits = {name: tally.summary(name) for name in ("train", "validation", "test")}
    pairs = [("train", "validation"), ("train", "test"), ("validation", "test")]
    leakage = {f"{one} and {other}": tally.leakage(one, other) for one, other in pairs}
    write_json(folder / "statistics.json", {"splits": splits, "leakage": leakage, "refused": refused})
    (folder / "report.html").write_text(_page(splits, labels, leakage, refused), encoding="utf-8")


def _page(splits: dict[str, Any], labels: list[str], leakage: dict[str, int], refused: dict[str, int]) -> str:
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
        _table(["split", "rows", "shortest", "median", "mean", "95 %", "longest", "exact duplicates"], rows),
        "<p>Lengths in characters.</p>",
        *(["<h2>Label balance</h2>", _table(["label", *splits, "train"], balance)] if labels else []),
        "<h2>Texts that stand in two splits</h2>",
        _table(["splits", "texts"], [[name, f"{count:,}"] for name, count in leakage.items()]),
        "<h2>Rows left out</h2>",
        _table(["reason", "rows"], [[name, f"{count:,}"] for name, count in refused.items()] or [["none", "0"]]),
    ]
    return f"<!doctype html><meta charset=utf-8><title>Examples</title><style>{_STYLE}</style>{''.join(parts)}"


def _table(header: list[str], rows: list[list[Any]]) -> str:
    head = "".join(f"<th>{html.escape(name)}</th>" for name in header)
    body = "".join(f"<tr>{''.join(map(_cell, enumerate(row)))}</tr>" for row in rows)
    return f"<table><tr>{head}</tr>{body}</table>"


def _cell(numbered: tuple[int, Any]) -> str:
    index, value = numbered
    if isinstance(value, tuple):
        return f'<td><span class=bar style="width:{12 * value[1]:.2f}rem"></span></td>'
    return f"<td{' class=n' if index else ''}>{html.escape(str(value))}</td>"
