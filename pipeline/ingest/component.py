"""The door of ingest."""

from __future__ import annotations

from lmworks.configs.schema import IngestStage
from lmworks.tfx.artifacts import Examples, Statistics
from lmworks.tfx.component import Output, component


@component
def ingest(config: IngestStage, examples: Output[Examples], statistics: Output[Statistics]) -> None:
    """Reads raw files into split, counted, typed examples; refused rows are recorded with the reason."""
    from lmworks.pipeline.ingest.examples import write_examples

    write_examples(config, examples, statistics)
