"""The door of evaluate."""

from __future__ import annotations

from collections.abc import Callable

from lmworks.configs.schema import EvaluateStage
from lmworks.models.backend import use_backend
from lmworks.tfx.artifacts import Evaluation, Examples, Model, Sequences
from lmworks.tfx.component import Input, Output, component


def load(config: EvaluateStage) -> Callable[..., bool]:
    """Imports the work, which is slow: the local runner has it done while the stage before still works."""
    use_backend("tensorflow")
    if config.task == "text_classification":
        from lmworks.pipeline.evaluate.evaluation import measure_model
    else:
        from lmworks.pipeline.evaluate.language import measure_language_model as measure_model
    return measure_model


@component
def evaluate(
    config: EvaluateStage,
    examples: Input[Examples],
    sequences: Input[Sequences],
    model: Input[Model],
    evaluation: Output[Evaluation],
) -> bool:
    """Measures a model on a split it was not trained on, and says whether it is blessed."""
    return load(config)(config, examples, sequences, model, evaluation)
