"""The door of preprocess."""

from __future__ import annotations

from collections.abc import Callable

from lmworks.configs.schema import PreprocessStage
from lmworks.models.backend import use_backend
from lmworks.tfx.artifacts import Examples, Sequences
from lmworks.tfx.component import Input, Output, component


def load(config: PreprocessStage) -> Callable[..., None]:
    """Imports the work, which is slow: the local runner has it done while the stage before still works."""
    use_backend("tensorflow")
    from lmworks.pipeline.preprocess.sequences import encoder_of, write_sequences

    encoder_of(config)
    return write_sequences


@component
def preprocess(config: PreprocessStage, examples: Input[Examples], sequences: Output[Sequences]) -> None:
    """Drops what must not be trained on, and turns texts into token ids with the tokenizer that is served later."""
    load(config)(config, examples, sequences)
