"""The door of preprocess."""

from __future__ import annotations

from lmworks.configs.schema import PreprocessStage
from lmworks.tfx.artifacts import Examples, Sequences
from lmworks.tfx.component import Input, Output, component


def warm_up() -> None:
    """The slow imports; the local runner has them done while the stage before still works."""
    from lmworks.models.backend import use_backend

    use_backend("tensorflow")
    import lmworks.pipeline.preprocess.classification  # noqa: F401


@component
def preprocess(config: PreprocessStage, examples: Input[Examples], sequences: Output[Sequences]) -> None:
    """Drops what must not be trained on, and turns texts into token ids with the tokenizer that is served later."""
    warm_up()
    from lmworks.pipeline.preprocess.classification import write_sequences

    write_sequences(config, examples, sequences)
