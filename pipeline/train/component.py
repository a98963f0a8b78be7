"""The door of train."""

from __future__ import annotations

from lmworks.configs.schema import TrainStage
from lmworks.tfx.artifacts import Logs, Model, Sequences
from lmworks.tfx.component import Input, Output, component


def warm_up() -> None:
    """The slow imports; the local runner has them done while the stage before still works."""
    from lmworks.models.backend import use_backend

    use_backend("tensorflow")
    import lmworks.pipeline.train.classification  # noqa: F401


@component
def train(config: TrainStage, sequences: Input[Sequences], model: Output[Model], logs: Output[Logs]) -> None:
    """Trains a model and keeps the best checkpoint by a validation metric."""
    warm_up()
    from lmworks.pipeline.train.classification import fit

    fit(config, sequences, model, logs)
