"""The door of train."""

from __future__ import annotations

from lmworks.configs.schema import TrainStage
from lmworks.tfx.artifacts import Logs, Model, Sequences
from lmworks.tfx.component import Input, Output, component


@component
def train(config: TrainStage, sequences: Input[Sequences], model: Output[Model], logs: Output[Logs]) -> None:
    """Trains a model and keeps the best checkpoint by a validation metric."""
    from lmworks.models.backend import use_backend

    use_backend("tensorflow")
    from lmworks.pipeline.train.classification import fit

    fit(config, sequences, model, logs)
