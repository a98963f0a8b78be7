"""The evaluation of language models: perplexity, bits per byte, accuracy, their intervals, generations, memorisation."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from lmworks.configs.errors import UserError
from lmworks.configs.schema import EvaluateStage
from lmworks.models import causal_lm, masked_lm
from lmworks.models.generation import Completer, Sampling
from lmworks.models.tokenizer import CausalPieces, open_pieces
from lmworks.models.wordpiece import WordPiece
from lmworks.pipeline.evaluate.classification import Figure
from lmworks.pipeline.evaluate.evaluation import columns_of
from lmworks.pipeline.evaluate.language_report import Generation, write_language_report
from lmworks.pipeline.evaluate.report import blessing, write_metrics
from lmworks.pipeline.evaluate.slices import Slice, groups
from lmworks.pipeline.masking import MaskedRows
from lmworks.pipeline.packing import DocumentTable, Packing
from lmworks.pipeline.tables import read_batches
from lmworks.pipeline.windows import predictions, windows_of
from lmworks.tfx.artifacts import Evaluation, Examples, Model, Sequences, write_json

_SEED = 0
_FEW = 20
"""With fewer documents than this the bootstrap draws windows instead."""
_GENERATIONS = 8
_PROMPT_TOKENS = 16
_NEW_TOKENS = 128
GRAM = 50
"""Tokens of a stretch that counts as memorised (Carlini et al. 2022, arXiv:2202.07646)."""


@dataclass(frozen=True)
class Sums:
    """What was predicted, per unit of the bootstrap; float64 [units] each."""

    nll: np.ndarray
    """Nats."""
    targets: np.ndarray
    hits: np.ndarray
    bytes: np.ndarray
    """Of text that the targets stand for; zeros where that has no meaning."""

    def take(self, units: Any) -> Sums:
        """Some of the units."""
        return Sums(self.nll[units], self.targets[units], self.hits[units], self.bytes[units])


def formulas(nll: Any, targets: Any, hits: Any, size: Any) -> dict[str, Any]:
    """All metrics of one sample's totals, or of arrays of totals.

    Perplexity is exp of the mean over all targets, never a mean of means; bits per byte is the code length of the text,
    end-of-text included, over its bytes in UTF-8, so that models with different tokenizers compare.
    """
    loss = nll / targets
    found = {"loss": loss, "perplexity": np.exp(np.minimum(loss, 700.0)), "accuracy": hits / targets}
    return found | ({"bits_per_byte": nll / math.log(2) / size} if np.all(size > 0) else {})


def figures(sums: Sums, replicates: int, seed: int = _SEED) -> dict[str, Figure]:
    """Metrics, with 95 % percentile bootstrap intervals over units that are drawn with replacement."""
    columns = np.stack([sums.nll, sums.targets, sums.hits, sums.bytes])
    values = formulas(*columns.sum(axis=1))
    units = columns.shape[1]
    if not replicates or units < 2:
        return {name: Figure(value=float(value)) for name, value in values.items()}
    random = np.random.default_rng(seed)
    totals = np.zeros((replicates, 4))
    for replicate in range(replicates):
        # How often each unit is drawn is all that matters.
        counts = np.bincount(random.integers(units, size=units, dtype=np.uint32), minlength=units)
        totals[replicate] = columns @ counts
    samples = formulas(*totals[totals[:, 1] > 0].T)
    bounds = {name: np.percentile(sample, [2.5, 97.5]) for name, sample in samples.items()}
    return {
        name: Figure(value=float(value), ci95=(float(bounds[name][0]), float(bounds[name][1])))
        if name in bounds
        else Figure(value=float(value))
        for name, value in values.items()
    }


def measure_language_model(
    config: EvaluateStage, examples: Examples, sequences: Sequences, model: Model, evaluation: Evaluation
) -> bool:
    """Writes the evaluation and returns whether the model is blessed."""
    columns = columns_of(config, examples)
    table = DocumentTable(sequences, config.split)
    pieces = open_pieces(sequences.path / "tokenizer", sequences.properties["tokenizer"])
    found = pa.Table.from_batches(read_batches(examples, config.split, columns)).take(pa.array(table.rows))
    if isinstance(pieces, WordPiece):
        sums, documents, extra = _masked(config, model, table, pieces)
    else:
        loaded = causal_lm.load(model.path)
        sums, documents, extra = _causal(config, loaded, sequences, table, pieces)
    metrics = figures(_units(sums, documents, len(table)), config.bootstrap)
    slices = _slices(config, found, sums, documents, len(table))
    generations: list[Generation] = []
    if not isinstance(pieces, WordPiece):
        generations, memorised = _generate(config, sequences, loaded, table, pieces)
        if memorised is not None:
            metrics[f"memorised_{GRAM}grams"] = Figure(value=memorised)
    blessed, reasons = blessing(metrics, config.thresholds)
    folder = evaluation.path
    write_metrics(folder, config.task, config.split, len(table), metrics, slices)
    per_document = _by_document(sums, documents, len(table))
    texts = found.column(examples.properties["text"])
    write_language_report(folder, config, metrics, slices, per_document.nll, per_document.targets, texts, generations)
    write_json(folder / "blessing.json", {"blessed": blessed, "reasons": reasons})
    predicted = {
        "id": pa.array(table.ids.to_pylist(), pa.string()),
        "tokens": pa.array(table.lengths, pa.int32()),
        "targets": pa.array(per_document.targets.astype(np.int64)),
        "log_probability": pa.array(-per_document.nll),
        **extra,
    }
    pq.write_table(pa.table(predicted), folder / "predictions.parquet")
    evaluation.properties |= {"split": config.split, "blessed": blessed, "summary": _summary(metrics, blessed, reasons)}
    return blessed


def _causal(
    config: EvaluateStage, model: keras.Model, sequences: Sequences, table: DocumentTable, pieces: CausalPieces
) -> tuple[Sums, np.ndarray, dict[str, pa.Array]]:
    """Sums per window, the windows' documents, and the first window's log-probabilities of each document."""
    length = int(sequences.properties["sequence_length"])
    stride = config.stride or max(1, length // 2)
    if stride > length:
        raise UserError(
            f"evaluate.stride: {stride} is above preprocess.sequence_length {length}: tokens would be skipped"
        )
    windows = [
        window
        for document, tokens in enumerate(table.lengths)
        for window in windows_of(int(tokens), length, stride, document)
    ]
    compute = causal_lm.log_probabilities(model)
    first: list[np.ndarray] = [np.zeros(0, np.float32)] * len(table)
    rows = np.zeros((len(windows), 4))
    documents = np.zeros(len(windows), np.int64)
    for place, one in enumerate(predictions(compute, table, windows, pieces)):
        document, fresh = one.window.document, one.window.end - one.window.fresh
        documents[place] = document
        # A document's bytes are shared out by targets: over whole documents the sum is exact.
        size = table.bytes[document] * fresh / (table.lengths[document] + 1) if table.all_targets else 0.0
        nll = -one.log_probabilities[one.targets].sum(dtype=np.float64)
        rows[place] = nll, one.targets.sum(), one.hits[one.targets].sum(), size
        if one.window.begin == 0:
            first[document] = one.log_probabilities
    column = pa.array(first, pa.list_(pa.float32()))
    return Sums(*rows.T), documents, {"first_window": column}


def _masked(
    config: EvaluateStage, model: Model, table: DocumentTable, pieces: WordPiece
) -> tuple[Sums, np.ndarray, dict[str, pa.Array]]:
    """Sums per target and the targets' documents."""
    loaded = masked_lm.load(model.path)
    length = int(model.properties["sequence_length"])
    masking = MaskedRows(pieces, length, 0.15, False)
    rows = 32
    batches = masking.whole_split(table, None, rows)
    packing = Packing(table.lengths, length - 2, 0, None, (pieces.sep_id,))
    nll, hits, documents = [], [], []
    for number, (inputs, found, correct) in enumerate(masking.predictions(masking.compiled(loaded, rows), batches)):
        real = inputs["weights"] > 0
        nll.append(-found[real])
        hits.append(correct[real])
        # Where each target stands in the stream says whose it is.
        stream = (number * rows + np.arange(rows))[:, None] * (length - 2) + inputs["positions"] - 1
        documents.append(np.searchsorted(packing.starts, stream[real], side="right") - 1)
    values = np.concatenate(nll).astype(np.float64)
    ones = np.ones(len(values))
    return Sums(values, ones, np.concatenate(hits).astype(np.float64), 0 * ones), np.concatenate(documents), {}


def _by_document(sums: Sums, documents: np.ndarray, count: int) -> Sums:
    add = (np.bincount(documents, one, count) for one in (sums.nll, sums.targets, sums.hits, sums.bytes))
    return Sums(*add)


def _units(sums: Sums, documents: np.ndarray, count: int) -> Sums:
    """Documents, whose tokens are not independent; or their windows where there are too few."""
    if count < _FEW:
        return sums
    whole = _by_document(sums, documents, count)
    return whole.take(whole.targets > 0)


def _slices(config: EvaluateStage, found: pa.Table, sums: Sums, documents: np.ndarray, count: int) -> list[Slice]:
    result = []
    for column in config.slices:
        for value, rows in groups(found.column(column).to_pylist()):
            inside = np.isin(documents, rows)
            if sums.targets[inside].sum() > 0:
                part = _units(sums.take(inside), documents[inside], count)
                result.append(Slice(slice={column: value}, examples=len(rows), metrics=figures(part, config.bootstrap)))
    return result


def _generate(
    config: EvaluateStage, sequences: Sequences, model: keras.Model, table: DocumentTable, pieces: CausalPieces
) -> tuple[list[Generation], float | None]:
    """A few continuations, and the share of their 50-token stretches that stand in the training text."""
    length = int(sequences.properties["sequence_length"])
    tokens = min(_NEW_TOKENS, length // 2)
    beginnings = [pieces.decode(table.tokens(document, 0, _PROMPT_TOKENS)) for document in range(len(table))]
    prompts = list(config.prompts) or list(dict.fromkeys(beginnings))[:_GENERATIONS]
    told = []
    grams: list[np.ndarray] = []
    for name, sampling in (("greedy", Sampling()), ("temperature 0.8, top-p 0.95", Sampling(0.8, 0, 0.95, _SEED))):
        completer = Completer(model, pieces, length, tokens, sampling)
        for prompt, new in zip(prompts, completer.token_ids(prompts), strict=True):
            told.append(Generation(name, prompt, pieces.continuation(new)))
            grams.append(new)
    long_enough = tokens >= GRAM
    return told, memorised_share(grams, DocumentTable(sequences, "train")) if long_enough else None


def memorised_share(generated: Sequence[np.ndarray], training: DocumentTable, gram: int = GRAM) -> float:
    """Share of all stretches of `gram` generated tokens that stand, token for token, in a training document.

    Args:
        generated: int32 [tokens] each.
        training: the documents.
        gram: tokens of a stretch.

    Returns:
        0 where nothing that long was generated.
    """
    wanted: dict[bytes, int] = {}
    for tokens in generated:
        for begin in range(len(tokens) - gram + 1):
            stretch = tokens[begin : begin + gram].astype(np.int32).tobytes()
            wanted[stretch] = wanted.get(stretch, 0) + 1
    if not wanted:
        return 0.0
    # A rolling hash finds candidates; bytes decide.
    hashes = np.unique([_rolling(np.frombuffer(stretch, np.int32), gram)[0] for stretch in wanted])
    seen: set[bytes] = set()
    for document in range(len(training)):
        tokens = training.tokens(document)
        if len(tokens) < gram:
            continue
        for begin in np.flatnonzero(np.isin(_rolling(tokens, gram), hashes)).tolist():
            stretch = tokens[begin : begin + gram].astype(np.int32).tobytes()
            if stretch in wanted:
                seen.add(stretch)
    return sum(wanted[stretch] for stretch in seen) / sum(wanted.values())


def _rolling(tokens: np.ndarray, gram: int) -> np.ndarray:
    """A hash of every stretch: uint64 [tokens - gram + 1], by doubling, in a few passes (Rabin and Karp's, modulo 2^64)."""
    value, width = tokens.astype(np.uint64) + np.uint64(1), 1
    result, done = None, 0
    power = np.array([0x9E3779B97F4A7C15], np.uint64)  # an array, because NumPy warns where a scalar wraps
    while width <= gram:
        if gram & width:
            count = len(tokens) - gram + 1
            part = value[done : done + count]
            result = part if result is None else result * power + part
            done += width
        value = value[:-width] * power + value[width:] if len(value) > width else value[:0]
        power = power * power
        width *= 2
    assert result is not None
    return result


def _summary(metrics: Mapping[str, Figure], blessed: bool, reasons: Iterable[str]) -> str:
    told = []
    for name in ("perplexity", "bits_per_byte", "accuracy"):
        if name in metrics:
            interval = metrics[name].get("ci95")
            told.append(
                f"{name} {metrics[name]['value']:.4g}"
                + (f" [{interval[0]:.4g}, {interval[1]:.4g}]" if interval else "")
            )
    return ", ".join([*told, "blessed" if blessed else f"not blessed: {'; '.join(reasons)}"])
