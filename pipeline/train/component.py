"""The door of train."""

from __future__ import annotations

from collections.abc import Callable

from lmworks.configs.schema import TrainStage
from lmworks.models.backend import use_backend
from lmworks.tfx.artifacts import Logs, Model, Sequences
from lmworks.tfx.component import Input, Output, component


def load() -> None:
    """Imports what is slow: the local runner has it done while the stage before still works."""
    use_backend("tensorflow")
    import keras_hub  # noqa: F401


def _fit(task: str) -> Callable[..., None]:
    if task == "text_classification":
        from lmworks.pipeline.train.classification import fit
    else:
        from lmworks.pipeline.train.language import fit
    return fit


@component
def train(config: TrainStage, sequences: Input[Sequences], model: Output[Model], logs: Output[Logs]) -> None:
    """Trains a model and keeps the best checkpoint by a validation metric."""
    load()
    _fit(config.task)(config, sequences, model, logs)
