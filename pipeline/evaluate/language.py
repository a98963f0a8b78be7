"""The evaluation of language models: perplexity, bits per byte, accuracy, their intervals, generations, memorisation."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import keras
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from lmworks.configs.schema import EvaluateStage
from lmworks.models import causal_lm, masked_lm
from lmworks.models.chat import END, before_answer, question
from lmworks.models.generation import Completer, Sampling
from lmworks.models.tokenizer import CausalPieces, open_pieces
from lmworks.models.wordpiece import WordPiece
from lmworks.pipeline.evaluate.classification import Figure
from lmworks.pipeline.evaluate.evaluation import columns_of, names_of_rows, source_ids_of
from lmworks.pipeline.evaluate.gate import gate
from lmworks.pipeline.evaluate.language_metrics import Row, Sums, figures, masked_rows, window_row
from lmworks.pipeline.evaluate.language_report import Generation, write_language_report
from lmworks.pipeline.evaluate.report import summary, write_metrics
from lmworks.pipeline.evaluate.slices import Slice, cells_of, groups
from lmworks.pipeline.evaluate.views import metric_view
from lmworks.pipeline.masking import MaskedRows
from lmworks.pipeline.masking import predictions as masked_predictions
from lmworks.pipeline.packing import DocumentTable
from lmworks.pipeline.tables import read_batches
from lmworks.pipeline.windows import predictions, windows_of
from lmworks.tfx.artifacts import Evaluation, Examples, Model, Sequences
from lmworks.tfx.progress import doing, report, within

_SEED = 0
_GENERATIONS = 8
_PROMPT_TOKENS = 16
_NEW_TOKENS = 128
GRAM = 50
"""Tokens of a stretch that counts as memorised (Carlini et al. 2022, arXiv:2202.07646)."""


def measure_language_model(
    config: EvaluateStage, examples: Examples, sequences: Sequences, model: Model, evaluation: Evaluation
) -> bool:
    """Writes the evaluation and returns whether the model is blessed."""
    columns = columns_of(config, examples)
    table = DocumentTable(sequences, config.split)
    pieces = open_pieces(sequences.path / "tokenizer", sequences.properties["tokenizer"])
    found = pa.Table.from_batches(read_batches(examples, config.split, columns)).take(pa.array(table.rows))
    extra: dict[str, pa.Array] = {}
    doing("loading the model")
    if not isinstance(pieces, WordPiece):
        loaded = causal_lm.load(model.path)
        sums, extra = _causal(config, loaded, sequences, table, pieces)
    else:
        sums = _masked(config, model, table, pieces)
        evaluation.properties["mask_ratio"] = config.mask_ratio
    doing("intervals")
    metrics, slices = figures(sums), _slices(config, found, sums)
    texts = found.column(examples.properties["text"])
    generations: list[Generation] = []
    if not isinstance(pieces, WordPiece):
        generations, memorised = _generate(config, sequences, loaded, table, pieces, texts)
        if memorised is not None:
            metrics[f"memorised_{GRAM}grams"] = Figure(value=memorised)
    decision = gate(metrics, config.thresholds, config.split)
    folder = evaluation.path
    write_metrics(folder, config.task, config.split, len(table), metrics, slices)
    per_document = sums.by_document(len(table))
    source_ids = source_ids_of(found)
    shown_ids = names_of_rows(source_ids, table.ids.to_pylist())
    write_language_report(
        folder, config, metrics, slices, per_document.nll, per_document.targets, texts, shown_ids, generations, decision
    )
    decision.write(folder)
    predicted = {
        "id": pa.array(table.ids.to_pylist(), pa.string()),
        **source_ids,
        "tokens": pa.array(table.lengths, pa.int32()),
        "targets": pa.array(per_document.targets.astype(np.int64)),
        "log_probability": pa.array(-per_document.nll),
        **extra,
    }
    pq.write_table(pa.table(predicted), folder / "predictions.parquet")
    line = summary(metrics, ("perplexity", "bits_per_byte", "accuracy"), decision)
    values = metric_view(metrics)
    evaluation.shown = {"metrics": values}
    evaluation.properties |= {"split": config.split, "summary": line, "metrics": values, **decision.properties()}
    return decision.blessed


def _causal(
    config: EvaluateStage, model: keras.Model, sequences: Sequences, table: DocumentTable, pieces: CausalPieces
) -> tuple[Sums, dict[str, pa.Array]]:
    """Sums per window, and the first window's log-probabilities of each document."""
    length = int(sequences.properties["sequence_length"])
    stride = config.stride or max(1, length // 2)
    windows = [
        window
        for document, tokens in enumerate(table.lengths)
        for window in windows_of(int(tokens), length, stride, document, table.all_targets)
    ]
    compute = causal_lm.log_probabilities(model)
    first: list[np.ndarray] = [np.zeros(0, np.float32)] * len(table)

    def rows() -> Iterator[Row]:
        for one in predictions(compute, table, windows, pieces):
            if one.window.begin == 0:
                first[one.window.document] = one.log_probabilities
            yield window_row(one, table)

    sums = Sums.of(rows())
    return sums, {"first_window": pa.array(first, pa.list_(pa.float32()))}


def _masked(config: EvaluateStage, model: Model, table: DocumentTable, pieces: WordPiece) -> Sums:
    """Sums of each sequence's part of each document. Single tokens are hidden, also where training hides whole words."""
    masking = MaskedRows(pieces, int(model.properties["sequence_length"]), config.mask_ratio)
    compute = masking.compiled(masked_lm.load(model.path))
    split = masking.whole_split(table)
    return Sums.of(row for one in masked_predictions(compute, split) for row in masked_rows(one))


def _slices(config: EvaluateStage, found: pa.Table, sums: Sums) -> list[Slice]:
    result = []
    for column in config.slices:
        for value, rows in groups(cells_of(found, column)):
            part = sums.take(np.isin(sums.documents, rows))
            metrics = figures(part) if part.targets.sum() > 0 else {}
            result.append(Slice(slice={column: value}, examples=len(rows), metrics=metrics))
    return result


def _prompts(
    config: EvaluateStage, table: DocumentTable, pieces: CausalPieces, texts: pa.ChunkedArray, chat: bool
) -> list[str]:
    """What the model continues: `evaluate.prompts`, else how documents of the split begin.

    A chat model is given `evaluate.prompts` as a user's questions, and conversations up to where the assistant answers first.
    """
    if config.prompts:
        return [question(prompt) for prompt in config.prompts] if chat else list(config.prompts)
    found: dict[str, None] = {}
    for document in range(len(table)):
        beginning = pieces.decode(table.tokens(document, 0, _PROMPT_TOKENS))
        found[before_answer(texts[document].as_py()) if chat else beginning] = None
        if len(found) == _GENERATIONS:
            break
    return list(found)


def _until_end(tokens: np.ndarray, pieces: CausalPieces) -> np.ndarray:
    """Generated tokens up to the one that completes the mark behind an answer."""
    for count in range(1, len(tokens)):
        if END in pieces.decode(tokens[:count]):
            return tokens[:count]
    return tokens


def _generate(
    config: EvaluateStage,
    sequences: Sequences,
    model: keras.Model,
    table: DocumentTable,
    pieces: CausalPieces,
    texts: pa.ChunkedArray,
) -> tuple[list[Generation], float | None]:
    """A few continuations, and the share of their 50-token stretches that stand in the training text."""
    length, chat = int(sequences.properties["sequence_length"]), bool(sequences.properties["chat"])
    tokens = min(_NEW_TOKENS, length // 2)
    prompts = _prompts(config, table, pieces, texts, chat)
    told = []
    grams: list[np.ndarray] = []
    for name, sampling in (("greedy", Sampling()), ("temperature 0.8, top-p 0.95", Sampling(0.8, 0, 0.95, _SEED))):
        doing(f"generating {len(prompts)} texts, {name}")
        completer = Completer(model, pieces, length, tokens, sampling, chat)
        for prompt, (new, cut) in zip(prompts, completer.complete(prompts), strict=True):
            kept = _until_end(new, pieces) if chat else new
            text = pieces.continuation(kept)
            told.append(Generation(name, prompt, text.partition(END)[0] if chat else text, cut))
            grams.append(kept)
    long_enough = tokens >= GRAM
    if not long_enough:
        return told, None
    with within("looking for memorised text"):
        return told, memorised_share(grams, DocumentTable(sequences, "train"))


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
        report(document + 1, len(training), "documents")
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
