"""Servables of every task: saved, proved in a fresh process, described."""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable
from pathlib import Path

from lmworks.configs.errors import UserError
from lmworks.configs.schema import ExportStage
from lmworks.models import huggingface
from lmworks.pipeline.export.card import Described, model_card
from lmworks.pipeline.export.saved_model_fingerprint import derive_uuid
from lmworks.pipeline.export.servable_folder import SAVED_MODEL
from lmworks.tfx import process
from lmworks.tfx.artifacts import Evaluation, Examples, Model, Sequences, Servable
from lmworks.tfx.progress import descriptors, doing
from lmworks.tfx.readable import counted


def write_servable(
    config: ExportStage,
    examples: Examples,
    sequences: Sequences,
    model: Model,
    evaluation: Evaluation,
    servable: Servable,
) -> None:
    """Exports, proves, and writes the model card, and of a classifier `labels.json`: its classes in their order."""
    folder = servable.path / SAVED_MODEL
    doing("writing the SavedModel")
    described = saver_of(config)(examples, sequences, model, folder)
    derive_uuid(folder)
    if "huggingface" in config.formats:
        target = servable.path / "huggingface"
        doing("writing Hugging Face's format")
        huggingface.write(described.model, described.pieces, described.length, target, described.labels)
    doing("proof: loading the SavedModel in a fresh process")
    proof = prove(config.task, folder, examples, sequences, evaluation)
    card = model_card(config, described, model, evaluation, proof)
    (servable.path / "README.md").write_text(card, encoding="utf-8")
    if described.labels:
        (servable.path / "labels.json").write_text(json.dumps(described.labels, ensure_ascii=False), encoding="utf-8")
    servable.properties |= {
        **described.properties,
        "columns": {key: name for key in ("text", "text_b") if (name := examples.properties[key])},
        "task": config.task,
        "rows_proved": proof["rows"],
        "largest_difference": proof["largest_difference"],
        "summary": f"SavedModel gives the evaluated predictions on {counted(int(proof['rows']), 'row')} "
        f"(largest difference {proof['largest_difference']:.1e})",
    }


def saver_of(config: ExportStage) -> Callable[..., Described]:
    """What writes the task's SavedModel; importing it is slow."""
    if config.task == "text_classification":
        from lmworks.pipeline.export.classification import save
    elif config.task == "causal_lm":
        from lmworks.pipeline.export.causal_lm import save
    else:
        from lmworks.pipeline.export.masked_lm import save
    return save


def prove(
    task: str, folder: Path, examples: Examples, sequences: Sequences, evaluation: Evaluation
) -> dict[str, float]:
    """Compares the SavedModel with the evaluated predictions in a fresh process.

    Returns:
        `rows` compared and the `largest_difference` of a probability.

    Raises:
        UserError: rows whose probabilities differ, by id.
    """
    split = evaluation.properties["split"]
    folders = (folder, examples.path, sequences.path, evaluation.path)
    command = process.python("lmworks.pipeline.export.proof", task, split, *map(str, folders))
    answer = folder.with_name(f".proof-{uuid.uuid4().hex[:6]}.json")
    child = process.start([*command, str(answer)], descriptors())
    try:
        if child.wait():
            raise UserError("export: the SavedModel could not be loaded and called in a fresh process; see the log")
        found = json.loads(answer.read_text(encoding="utf-8"))
    finally:
        answer.unlink(missing_ok=True)
    if found["different"]:
        shown = ", ".join(f"{one['id']} (by {one['difference']:.1e})" for one in found["different"][:5])
        raise UserError(
            f"export: refused: the SavedModel differs from the evaluated predictions on {found['count']:,} of "
            f"{found['rows']:,} rows of {split}: {shown}"
        )
    return found
