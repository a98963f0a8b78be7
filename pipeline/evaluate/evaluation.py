"""The evaluation of a text classifier: from a model to figures, predictions and the blessing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pyarrow as pa
import pyarrow.parquet as pq

from lmworks.configs.schema import EvaluateStage
from lmworks.models import text_classification
from lmworks.pipeline.cells import plain
from lmworks.pipeline.evaluate.classification import confusion, figures
from lmworks.pipeline.evaluate.collapse import remarks
from lmworks.pipeline.evaluate.gate import check_names, gate
from lmworks.pipeline.evaluate.report import summary, write_metrics, write_report
from lmworks.pipeline.evaluate.slice_columns import check_slices
from lmworks.pipeline.evaluate.slices import cells_of, measure_slices
from lmworks.pipeline.evaluate.views import class_view, metric_view
from lmworks.pipeline.predict import predict
from lmworks.pipeline.sequences import SequenceTable
from lmworks.pipeline.tables import SOURCE_ID, files_of, read_batches
from lmworks.tfx.artifacts import Evaluation, Examples, Model, Sequences
from lmworks.tfx.progress import doing


def measure_model(
    config: EvaluateStage, examples: Examples, sequences: Sequences, model: Model, evaluation: Evaluation
) -> bool:
    """Writes the evaluation and returns whether the model is blessed."""
    columns = columns_of(config, examples)
    doing("loading the model")
    classifier, names = text_classification.load(model.path)
    check_names(config.thresholds, names)
    table = SequenceTable(sequences, config.split)
    scores = predict(text_classification.probabilities(classifier), table)
    doing("intervals")
    metrics = figures(table.labels, scores, names)
    found = pa.Table.from_batches(read_batches(examples, config.split, columns)).take(pa.array(table.rows))
    slices = measure_slices({name: cells_of(found, name) for name in config.slices}, table.labels, scores, names)
    decision = gate(metrics, config.thresholds, config.split, names)
    text, text_b = examples.properties["text"], examples.properties["text_b"]
    texts = found.column(text).to_pylist()
    if text_b:
        texts = [f"{first} ‖ {second}" for first, second in zip(texts, found.column(text_b).to_pylist(), strict=True)]
    ids = table.ids.to_pylist()
    folder = evaluation.path
    write_metrics(folder, config.task, config.split, len(table), metrics, slices)
    source_ids = source_ids_of(found)
    shown_ids = names_of_rows(source_ids, ids)
    write_report(
        folder, config.task, config.split, metrics, slices, table.labels, scores, names, texts, shown_ids, decision
    )
    decision.write(folder)
    predictions = {
        "id": pa.array(ids, pa.string()),
        **source_ids,
        "label": pa.array([names[index] for index in table.labels], pa.string()),
        "prediction": pa.array([names[index] for index in scores.argmax(1)], pa.string()),
        "scores": pa.array(list(scores), pa.list_(pa.float32())),
    }
    pq.write_table(pa.table(predictions), folder / "predictions.parquet")
    remarkable = remarks(confusion(table.labels, scores.argmax(1), len(names)), names)
    line = summary(metrics, ("accuracy", "f1_macro", "log_loss"), decision, remarkable)
    values = metric_view(metrics)
    evaluation.shown = {"metrics": values, "classes": class_view(table.labels, scores, names)}
    evaluation.properties |= {"split": config.split, "summary": line, "metrics": values, **decision.properties()}
    return decision.blessed


def columns_of(config: EvaluateStage, examples: Examples) -> list[str]:
    """Columns that are read: texts for the report, the user's ids, and those of the slices."""
    names = pq.read_schema(files_of(examples, config.split)[0]).names
    check_slices(config.slices, names)
    own = SOURCE_ID if SOURCE_ID in names else None
    columns = [examples.properties["text"], examples.properties["text_b"], own, *config.slices]
    return list(dict.fromkeys(name for name in columns if name))


def source_ids_of(rows: pa.Table) -> dict[str, pa.ChunkedArray]:
    """The column of the user's own ids, by its name; empty if the examples have none."""
    return {SOURCE_ID: rows.column(SOURCE_ID)} if SOURCE_ID in rows.column_names else {}


def names_of_rows(source_ids: Mapping[str, pa.ChunkedArray], ids: Sequence[str]) -> list[str]:
    """What a report calls rows: the user's own ids where there are some, else those of the examples."""
    own = [cell for column in source_ids.values() for chunk in column.chunks for cell in plain(chunk)]
    return [name if cell is None else str(cell) for name, cell in zip(ids, own or [None] * len(ids), strict=True)]
