"""The door of evaluate."""

from __future__ import annotations

from lmworks.configs.schema import EvaluateStage
from lmworks.tfx.artifacts import Evaluation, Examples, Model, Sequences
from lmworks.tfx.component import Input, Output, component


def warm_up() -> None:
    """The slow imports; the local runner has them done while the stage before still works."""
    from lmworks.models.backend import use_backend

    use_backend("tensorflow")
    import lmworks.pipeline.evaluate.evaluation  # noqa: F401


@component
def evaluate(
    config: EvaluateStage,
    examples: Input[Examples],
    sequences: Input[Sequences],
    model: Input[Model],
    evaluation: Output[Evaluation],
) -> bool:
    """Measures a model on a split it was not trained on, and says whether it is blessed."""
    warm_up()
    from lmworks.pipeline.evaluate.evaluation import measure_model

    return measure_model(config, examples, sequences, model, evaluation)
