"""The door of export."""

from __future__ import annotations

from collections.abc import Callable

from lmworks.configs.schema import ExportStage
from lmworks.models.backend import use_backend
from lmworks.tfx.artifacts import Evaluation, Examples, Model, Sequences, Servable
from lmworks.tfx.component import Input, Output, component


def load(config: ExportStage) -> Callable[..., None]:
    """Imports the work, which is slow: the local runner has it done while the stage before still works."""
    use_backend("tensorflow")
    from lmworks.pipeline.export.servable import saver_of, write_servable

    saver_of(config)
    return write_servable


@component
def export(
    config: ExportStage,
    examples: Input[Examples],
    sequences: Input[Sequences],
    model: Input[Model],
    evaluation: Input[Evaluation],
    servable: Output[Servable],
) -> None:
    """Writes a servable of a blessed model, and proves in a fresh process that it gives the evaluated predictions."""
    load(config)(config, examples, sequences, model, evaluation, servable)
