"""Figures of language models and their 95 % intervals, the same in training's validation and in the evaluation, in pure NumPy."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from lmworks.configs.errors import UserError
from lmworks.pipeline.evaluate.classification import Figure
from lmworks.pipeline.evaluate.intervals import ratio_over_documents, within

if TYPE_CHECKING:
    from lmworks.pipeline.masking import MaskedPrediction
    from lmworks.pipeline.packing import DocumentTable
    from lmworks.pipeline.windows import Prediction

Row = tuple[float, float, float, float, int]
"""One unit: nll, targets, hits, bytes, document."""


@dataclass(frozen=True)
class Sums:
    """What was predicted, per unit: float64 [units] each. A unit is a stretch of one document, or a document."""

    nll: np.ndarray
    """Nats."""
    targets: np.ndarray
    hits: np.ndarray
    """Targets that are the likeliest token."""
    bytes: np.ndarray
    """Of text that the targets stand for; zeros where that has no meaning."""
    documents: np.ndarray
    """int64 [units], the document of each."""

    @classmethod
    def of(cls, rows: Iterable[Row]) -> Sums:
        """From one row per unit."""
        columns = np.fromiter(itertools.chain.from_iterable(rows), np.float64).reshape(-1, 5).T
        nll, targets, hits, size, documents = columns
        return cls(nll, targets, hits, size, documents.astype(np.int64))

    def take(self, units: Any) -> Sums:
        """Some of the units."""
        return Sums(*(one[units] for one in (self.nll, self.targets, self.hits, self.bytes, self.documents)))

    def columns(self) -> np.ndarray:
        """Float64 [4, units]: nll, targets, hits, bytes."""
        return np.stack([self.nll, self.targets, self.hits, self.bytes])

    def by_document(self, count: int) -> Sums:
        """One unit for each of so many documents; zeros for those without targets."""
        nll, targets, hits, size = (np.bincount(self.documents, one, count) for one in self.columns())
        return Sums(nll, targets, hits, size, np.arange(count))

    def metrics(self) -> dict[str, float]:
        """Those of all units together."""
        return {name: float(value) for name, value in _formulas(*self.columns().sum(axis=1)).items()}


def window_row(one: Prediction, table: DocumentTable) -> Row:
    """A causal model's window; its document's bytes are shared out by targets: over whole documents the sum is exact."""
    document, fresh = one.window.document, one.window.end - one.window.fresh
    size = table.bytes[document] * fresh / (table.lengths[document] + 1) if table.all_targets else 0.0
    nll = -one.log_probabilities[one.targets].sum(dtype=np.float64)
    return nll, one.targets.sum(), one.hits[one.targets].sum(), size, document


def masked_rows(one: MaskedPrediction) -> Iterator[Row]:
    """What stands of each document in each of a masked model's sequences."""
    stretches, of_target = np.unique(np.stack([one.sequences, one.documents]), axis=1, return_inverse=True)
    count = stretches.shape[1]
    targets = np.bincount(of_target, minlength=count)
    hits = np.bincount(of_target, one.hits, count)
    nll = np.bincount(of_target, -one.log_probabilities.astype(np.float64), count)
    yield from zip(nll, targets, hits, np.zeros(count), stretches[1], strict=True)


def perplexity(loss: Any) -> Any:
    """Of a loss in nats: exp of it, at most of 700, which float64 still holds."""
    return np.exp(np.minimum(loss, 700.0))


def bits_per_byte(nll: Any, size: Any) -> Any:
    """Code length of a text, from nats, over its bytes in UTF-8, so that models with different tokenizers compare."""
    return nll / math.log(2) / size


def _formulas(nll: Any, targets: Any, hits: Any, size: Any) -> dict[str, Any]:
    """All metrics of one sample's totals, or of arrays of totals.

    Perplexity is exp of the mean over all targets, never a mean of means. The code length counts the end of each text. There
    are no bits per byte where the targets are not the whole text: of a conversation, of which only the answers are predicted,
    and of a masked model on purpose, whose targets are a sample, each predicted from both sides: their probabilities do not
    multiply to that of any text.
    """
    loss = nll / targets
    found = {"loss": loss, "perplexity": perplexity(loss), "accuracy": hits / targets}
    return found | ({"bits_per_byte": bits_per_byte(nll, size)} if np.all(size > 0) else {})


def figures(sums: Sums) -> dict[str, Figure]:
    """Computes the metrics, with 95 % confidence intervals over documents.

    Documents are what can be taken as independent, their tokens are not: all metrics are ratios of totals over documents of
    unequal length (`ratio_over_documents`), and perplexity, which rises with the loss, has its bounds. So an interval says
    how much other documents of the kind would change the figure; of few documents nothing is said.

    Args:
        sums: of stretches of documents, or of whole ones.

    Raises:
        UserError: there are no targets, or the model gives no finite log-probabilities.
    """
    _check(sums)
    values = sums.metrics()
    whole = sums.by_document(int(sums.documents.max()) + 1)
    whole = whole.take(whole.targets > 0)
    bounds = {
        "loss": within(ratio_over_documents(whole.nll, whole.targets), 0.0, math.inf),
        "accuracy": within(ratio_over_documents(whole.hits, whole.targets), 0.0, 1.0),
    }
    if "bits_per_byte" in values:
        bounds["bits_per_byte"] = within(ratio_over_documents(whole.nll / math.log(2), whole.bytes), 0.0, math.inf)
    if loss := bounds["loss"]:
        bounds["perplexity"] = (float(perplexity(loss[0])), float(perplexity(loss[1])))
    result = {}
    for name, value in values.items():
        interval = bounds.get(name)
        result[name] = Figure(value=value, ci95=interval) if interval else Figure(value=value)
    return result


def _check(sums: Sums) -> None:
    """Refuses sums that no figure can be computed from."""
    if not sums.targets.sum():
        raise UserError("the split has no targets: nothing in it is to be predicted")
    broken = np.unique(sums.documents[~np.isfinite(sums.nll)])
    if len(broken):
        raise UserError(
            f"loss: the model gives no finite log-probabilities in {len(broken):,} of "
            f"{len(np.unique(sums.documents)):,} documents, so that loss and perplexity are no numbers; did training diverge?"
        )
