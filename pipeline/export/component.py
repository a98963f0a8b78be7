"""The door of export."""

from __future__ import annotations

from lmworks.configs.schema import ExportStage
from lmworks.tfx.artifacts import Evaluation, Examples, Model, Sequences, Servable
from lmworks.tfx.component import Input, Output, component


def warm_up() -> None:
    """The slow imports; the local runner has them done while the stage before still works."""
    from lmworks.models.backend import use_backend

    use_backend("tensorflow")
    import lmworks.pipeline.export.classification  # noqa: F401


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
    warm_up()
    from lmworks.pipeline.export.classification import write_servable

    write_servable(config, examples, sequences, model, evaluation, servable)
