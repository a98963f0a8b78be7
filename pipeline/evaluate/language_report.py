"""The page of a language model's evaluation: figures, slices, documents it finds hard, generations."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa

from lmworks.configs.schema import EvaluateStage
from lmworks.pipeline.evaluate.classification import Figure
from lmworks.pipeline.evaluate.gate import Gate
from lmworks.pipeline.evaluate.intervals import MIN_DOCUMENTS
from lmworks.pipeline.evaluate.report import (
    MAX_CHARACTERS,
    MAX_ROWS,
    NOTHING,
    gate_section,
    shown,
    slice_name,
)
from lmworks.pipeline.evaluate.slices import Slice
from lmworks.pipeline.page import cell, page, table

_ABOUT = {
    "loss": "nats per target",
    "perplexity": "exp of the loss over the whole split",
    "bits_per_byte": "code length of the text over its UTF-8 bytes; compares across tokenizers",
    "accuracy": "targets that are the likeliest token",
    "memorised_50grams": "generated stretches of 50 tokens that stand in the training text",
}


class Generation(NamedTuple):
    """One continuation."""

    sampling: str
    prompt: str
    text: str
    cut: int = 0
    """Tokens of the prompt that were not read: it is too long for the model."""


def write_language_report(
    folder: Path,
    config: EvaluateStage,
    metrics: Mapping[str, Figure],
    slices: Sequence[Slice],
    nll: np.ndarray,
    targets: np.ndarray,
    texts: pa.ChunkedArray,
    ids: Sequence[str],
    generations: Sequence[Generation],
    decision: Gate,
) -> None:
    """Writes report.html: one page that needs no other file and no script.

    Args:
        folder: where to.
        config: of the stage.
        metrics: of the whole split.
        slices: of parts of it.
        nll: float64 [documents], nats.
        targets: float64 [documents].
        texts: the documents.
        ids: [documents], shown beside them.
        generations: shown as they are.
        decision: of the gate.
    """
    sections = {
        "Gate": gate_section(decision),
        "Metrics": table(
            ("metric", "value [95 % interval]", ""),
            (
                [cell(name), cell(shown(figure), "figure"), cell(_ABOUT.get(name, ""), "note")]
                for name, figure in metrics.items()
            ),
        )
        + '<p class="note">Intervals: Student\'s t of the jackknife over documents, of unequal length; '
        f"{NOTHING} where there are fewer than {MIN_DOCUMENTS} documents, or nothing can be said.</p>",
    }
    if slices:
        names = [name for name in ("loss", "perplexity", "bits_per_byte", "accuracy") if name in metrics]
        sections["Slices"] = table(
            ("slice", "documents", *names),
            (
                [
                    cell(slice_name(part)),
                    cell(part["examples"]),
                    *(cell(shown(part["metrics"].get(name)), "figure") for name in names),
                ]
                for part in slices
            ),
        )
    if generations:
        sections["Generations"] = "".join(
            f'<p class="note">{html.escape(one.sampling)}{_cut(one.cut)}</p>'
            f"<pre><b>{html.escape(one.prompt)}</b>{html.escape(one.text)}</pre>"
            for one in generations
        )
    loss = np.divide(nll, targets, out=np.zeros(len(nll)), where=targets > 0)
    hardest = np.argsort(-loss, kind="stable")[:MAX_ROWS].tolist()
    sections["Hardest documents"] = table(
        ("beginning", "loss", "targets", "id"),
        (
            [
                cell(texts[row].as_py()[:MAX_CHARACTERS], "text"),
                cell(float(loss[row])),
                cell(int(targets[row])),
                cell(ids[row], "note"),
            ]
            for row in hardest
        ),
    )
    title = f"Evaluation: {config.task}, {config.split} split, {len(nll):,} documents"
    (folder / "report.html").write_text(page(title, sections), encoding="utf-8")


def _cut(tokens: int) -> str:
    return f"; {tokens:,} tokens of the prompt's beginning were cut, it is too long for the model" if tokens else ""
