"""What an evaluation leaves behind: metrics.json, its summary in one line and report.html."""

from __future__ import annotations

import html
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from lmworks.pipeline.evaluate.classification import (
    PER_CLASS,
    Figure,
    Integers,
    Scores,
    calibration,
    check,
    confusion,
)
from lmworks.pipeline.evaluate.collapse import remarks
from lmworks.pipeline.evaluate.figures import READABLE_CLASSES, reliability_svg, shares_of_labels
from lmworks.pipeline.evaluate.gate import Gate
from lmworks.pipeline.evaluate.slices import Slice
from lmworks.pipeline.page import cell, page, table
from lmworks.tfx.readable import metric

SLICE_METRICS = ("accuracy", "f1_macro", "log_loss")
MAX_ROWS = 50
MAX_CHARACTERS = 500


def write_metrics(
    folder: Path, task: str, split: str, examples: int, metrics: Mapping[str, Figure], slices: Sequence[Slice]
) -> None:
    """Writes metrics.json.

    Raises:
        ValueError: a figure is NaN or infinite, which JSON does not have.
    """
    content = {"task": task, "split": split, "examples": examples, "metrics": metrics, "slices": slices}
    text = json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False)
    (folder / "metrics.json").write_text(text + "\n", encoding="utf-8")


NOTHING = "–"
"""Stands where the rows say nothing."""


def shown(figure: Figure | None) -> str:
    """A figure with its interval; a dash for either that there is not."""
    if figure is None:
        return NOTHING
    bounds = figure.get("ci95")
    return f"{metric(figure['value'])} " + (f"[{', '.join(map(metric, bounds))}]" if bounds else f"[{NOTHING}]")


def summary(metrics: Mapping[str, Figure], names: Iterable[str], decision: Gate, remarks: Iterable[str] = ()) -> str:
    """An evaluation in one line: those of these metrics that there are, what is remarkable, and the gate's verdict."""
    shown_metrics = [f"{name} {shown(metrics[name])}" for name in names if name in metrics]
    return ", ".join([*shown_metrics, *remarks, decision.verdict])


def gate_section(decision: Gate) -> str:
    """What the gate decided, and why."""
    reasons = decision.reasons if decision.thresholds or not decision.blessed else []
    items = "".join(f"<li>{html.escape(reason)}</li>" for reason in reasons)
    verdict = "blessed" if decision.blessed and decision.thresholds else "NOT blessed" if reasons else decision.verdict
    kind = "" if decision.blessed else ' class="bad"'
    return f"<p{kind}>{html.escape(verdict)}</p>" + (f"<ul>{items}</ul>" if items else "")


def slice_name(part: Slice) -> str:
    """A slice's column and value."""
    return ", ".join(f"{column} = {json.dumps(value, ensure_ascii=False)}" for column, value in part["slice"].items())


def _confusion_table(matrix: np.ndarray, names: Sequence[str]) -> str:
    """The coloured matrix, or the most frequent confusions where it would be too big to read."""
    if len(names) > READABLE_CLASSES:
        wrong = matrix - np.diag(matrix.diagonal())
        pairs = [divmod(int(cell), len(names)) for cell in np.argsort(-wrong, axis=None, kind="stable")[:MAX_ROWS]]
        rows = ([cell(names[a]), cell(names[b]), cell(wrong[a, b])] for a, b in pairs if wrong[a, b])
        return f'<p class="note">{len(names)} classes: the most frequent confusions.</p>' + table(
            ("label", "prediction", "rows"), rows
        )
    shares = shares_of_labels(matrix)
    rows = (
        [
            f"<th>{html.escape(name)}</th>",
            *(
                # At most 0.6 of the colour, so that the ink stays readable on it in both themes.
                f'<td class="n cell" style="--share:{0.6 * share:.3f}" title="{share:.1%} of the label">{count:,}</td>'
                for count, share in zip(counts, row, strict=True)
            ),
        ]
        for name, counts, row in zip(names, matrix, shares, strict=True)
    )
    return '<p class="note">A row per label, a column per prediction.</p>' + table(("", *names), rows)


def _wrong_table(labels: Integers, scores: Scores, names: Sequence[str], texts: Any, ids: Any) -> str:
    predictions, confidence = scores.argmax(axis=1), scores.max(axis=1)
    wrong = np.flatnonzero(predictions != labels)
    order = wrong[np.argsort(-confidence[wrong], kind="stable")][:MAX_ROWS]
    rows = []
    for row in order.tolist():
        text = str(texts[row])
        text = text if len(text) <= MAX_CHARACTERS else text[:MAX_CHARACTERS] + " …"
        answer = [cell(names[labels[row]]), cell(names[predictions[row]]), cell(float(confidence[row]))]
        rows.append([cell(text, "text"), *answer, cell(str(ids[row]), "note")])
    if not rows:
        return f'<p class="note">None of {len(labels):,} rows is wrong.</p>'
    note = f'<p class="note">{len(wrong):,} of {len(labels):,} rows are wrong; shown are {len(rows)}.</p>'
    return note + table(("text", "label", "prediction", "probability", "id"), rows)


def write_report(
    folder: Path,
    task: str,
    split: str,
    metrics: Mapping[str, Figure],
    slices: Sequence[Slice],
    labels: Integers,
    scores: Scores,
    names: Sequence[str],
    texts: Sequence[str],
    ids: Sequence[str],
    decision: Gate,
) -> None:
    """Writes report.html: one page that needs no other file and no script.

    Args:
        folder: where to.
        task: name of the task.
        split: name of the split.
        metrics: of the whole split; those per class are `precision/<name>`, `recall/<name>`, `f1/<name>`, and missing for a
            class without labelled rows.
        slices: of `measure_slices`.
        labels: int [n], in `range(classes)`.
        scores: float32 [n, classes], probabilities.
        names: the classes in label order.
        texts: [n], shown for wrong rows.
        ids: [n], of the examples.
        decision: of the gate.
    """
    check(labels, scores, names)
    matrix = confusion(labels, scores.argmax(axis=1), len(names))
    of_classes = {f"{kind}/{name}" for kind in PER_CLASS for name in names}
    reliability = calibration(labels, scores)
    remarkable = "".join(f"<p><b>{html.escape(remark)}</b></p>" for remark in remarks(matrix, names))
    sections = {
        "Gate": gate_section(decision),
        "Metrics": remarkable
        + table(
            ("metric", "value [95 % interval]"),
            ([cell(name), cell(shown(figure), "figure")] for name, figure in metrics.items() if name not in of_classes),
        )
        + f'<p class="note">{NOTHING}: the rows say too little.</p>',
        "Confusion matrix": _confusion_table(matrix, names),
        "Classes": table(
            ("class", "rows", "predicted", *PER_CLASS),
            (
                [cell(name), cell(rows), cell(predicted)]
                + [cell(shown(metrics.get(f"{kind}/{name}")), "figure") for kind in PER_CLASS]
                for name, rows, predicted in zip(names, matrix.sum(axis=1), matrix.sum(axis=0), strict=True)
            ),
        ),
        "Slices": table(
            ("slice", "rows", *SLICE_METRICS),
            (
                [cell(slice_name(part)), cell(part["examples"])]
                + [cell(shown(part["metrics"].get(name)), "figure") for name in SLICE_METRICS]
                for part in slices
            ),
        )
        + '<p class="note">f1_macro counts a class that the slice lacks as 0, as in the whole split.</p>'
        if slices
        else '<p class="note">None; evaluate.slices names the columns.</p>',
        "Calibration": f"<p>Expected calibration error {reliability['error']:.4f} "
        f'<span class="note">(0 is perfect)</span></p>{reliability_svg(reliability)}',
        "Most confidently wrong": _wrong_table(labels, scores, names, texts, ids),
    }
    title = f"Evaluation: {task}, {split} split, {len(labels):,} examples"
    (folder / "report.html").write_text(page(title, sections), encoding="utf-8")
