"""The door of train."""

from __future__ import annotations

from collections.abc import Callable

from lmworks.configs.schema import TrainStage
from lmworks.models.backend import use_backend
from lmworks.tfx.artifacts import Logs, Model, Sequences
from lmworks.tfx.component import Input, Output, component


def load(config: TrainStage) -> Callable[..., None]:
    """Imports the work, which is slow: the local runner has it done while the stage before still works."""
    use_backend(config.backend)
    from lmworks.pipeline.train.hosts import join

    join(config.backend)
    if config.callbacks:  # before any work: importing them may fail, and nothing has been computed yet
        from lmworks.pipeline.train.callbacks import makers_of

        makers_of(config.callbacks)
    if config.task == "text_classification":
        from lmworks.pipeline.train.classification import fit
    else:
        from lmworks.pipeline.train.language import fit
    return fit


@component
def train(config: TrainStage, sequences: Input[Sequences], model: Output[Model], logs: Output[Logs]) -> None:
    """Trains a model and keeps the best checkpoint by a validation metric."""
    load(config)(config, sequences, model, logs)
