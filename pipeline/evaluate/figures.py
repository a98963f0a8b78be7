"""Drawings: the confusion matrix for TensorBoard, the reliability diagram for the report."""

from __future__ import annotations

import io
from collections.abc import Sequence

import numpy as np

from lmworks.pipeline.evaluate.classification import Calibration, Integers

# Above this many classes numbers in the cells, or a cell per pair at all, can no longer be read.
READABLE_CLASSES = 30
READABLE_CHARACTERS = 24


def confusion_png(matrix: Integers, names: Sequence[str]) -> bytes:
    """A confusion matrix as a PNG image, coloured by share of the label's rows.

    Args:
        matrix: int [classes, classes], a row per label, a column per prediction.
        names: the classes in label order.
    """
    # Figure with its own canvas, not pyplot: no global state, so it may be called from a training callback's thread.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    shares = shares_of_labels(matrix)
    side = min(3.0 + 0.5 * len(names), 16.0)
    figure = Figure(figsize=(side + 1, side), layout="constrained")
    axes = figure.add_subplot(xlabel="prediction", ylabel="label")
    image = axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    figure.colorbar(image, ax=axes, label="share of the label's rows")
    if len(names) <= READABLE_CLASSES:
        ticks = [name if len(name) <= READABLE_CHARACTERS else name[: READABLE_CHARACTERS - 1] + "…" for name in names]
        # A class may be called "$x$": it is not mathematics.
        axes.set_xticks(range(len(ticks)), ticks, rotation=45, ha="right", parse_math=False)
        axes.set_yticks(range(len(ticks)), ticks, parse_math=False)
        for (row, column), count in np.ndenumerate(matrix):
            color = "white" if shares[row, column] > 0.5 else "black"
            axes.text(column, row, f"{count:,}", ha="center", va="center", color=color)
    buffer = io.BytesIO()
    FigureCanvasAgg(figure).print_png(buffer)
    return buffer.getvalue()


def shares_of_labels(matrix: Integers) -> np.ndarray:
    """Each row of a confusion matrix by its sum: float64 [classes, classes], zeros for a label without rows."""
    return matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1)


def reliability_svg(bins: Calibration) -> str:
    """A reliability diagram: accuracy per bin of confidence, the diagonal is perfect; colours are the page's."""
    size, margin = 260, 40
    count = len(bins["examples"])
    width = size / count

    def point(x: float, y: float) -> tuple[float, float]:
        return margin + size * x, margin / 2 + size * (1 - y)

    parts = []
    for index in np.flatnonzero(bins["examples"]):
        accuracy, confidence = bins["accuracy"][index], bins["confidence"][index]
        left, top = point(index / count, accuracy)
        title = f"{bins['examples'][index]:,} rows: confidence {confidence:.3f}, accuracy {accuracy:.3f}"
        parts.append(
            f'<rect class="bar" x="{left + 1:.1f}" y="{top:.1f}" width="{width - 2:.1f}" '
            f'height="{size * accuracy:.1f}">'
            f"<title>{title}</title></rect>"
        )
        x, y = point(confidence, accuracy)
        parts.append(f'<circle class="dot" cx="{x:.1f}" cy="{y:.1f}" r="3"><title>{title}</title></circle>')
    (x0, y0), (x1, y1) = point(0, 0), point(1, 1)
    parts.append(f'<path class="diagonal" d="M{x0} {y0}L{x1} {y1}"/><path class="axis" d="M{x0} {y1}V{y0}H{x1}"/>')
    for tick in (0.0, 0.5, 1.0):
        (x, _), (_, y) = point(tick, 0), point(0, tick)
        parts.append(f'<text x="{x}" y="{y0 + 15}" text-anchor="middle">{tick}</text>')
        parts.append(f'<text x="{x0 - 6}" y="{y + 4}" text-anchor="end">{tick}</text>')
    parts.append(f'<text x="{margin + size / 2}" y="{y0 + 32}" text-anchor="middle">confidence</text>')
    middle = margin / 2 + size / 2
    parts.append(f'<text transform="translate(10 {middle}) rotate(-90)" text-anchor="middle">accuracy</text>')
    box = f"0 0 {size + margin + 20} {size + margin + 20}"
    return f'<svg viewBox="{box}" width="340" role="img" aria-label="Reliability diagram">{"".join(parts)}</svg>'
