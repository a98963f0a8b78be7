"""The door of evaluate."""

from __future__ import annotations

from collections.abc import Callable

from lmworks.configs.schema import EvaluateStage
from lmworks.models.backend import use_backend
from lmworks.tfx.artifacts import Evaluation, Examples, Model, Sequences
from lmworks.tfx.component import Input, Output, component


def load() -> None:
    """Imports what is slow: the local runner has it done while the stage before still works."""
    use_backend("tensorflow")
    import keras_hub  # noqa: F401


def _measure(task: str) -> Callable[..., bool]:
    if task == "text_classification":
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
    load()
    return _measure(config.task)(config, examples, sequences, model, evaluation)
