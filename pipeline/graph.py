"""The pipeline: five components and the wires between them."""

from __future__ import annotations

from typing import Any

from lmworks.configs.schema import (
    Config,
    EvaluateStage,
    ExportStage,
    IngestStage,
    PreprocessStage,
    RegisterStage,
    Section,
    TrainStage,
)
from lmworks.pipeline.evaluate.component import evaluate
from lmworks.pipeline.export.component import export
from lmworks.pipeline.ingest.component import ingest
from lmworks.pipeline.preprocess.component import preprocess
from lmworks.pipeline.register.component import register
from lmworks.pipeline.train.component import train
from lmworks.tfx.component import Node


def graph(config: Config, until: str | None = None, on_vertex: bool = False) -> list[Node]:
    """Wires the components; each is given its own section and beside it only the keys that it needs.

    Args:
        config: of the run.
        until: the last stage; all when not given.
        on_vertex: with what only Vertex AI has, a registry of models.
    """
    task = config.task
    examples = Node(ingest, IngestStage(**_keys(config.ingest), task=task, chat=config.preprocess.chat))
    sequences = Node(
        preprocess,
        PreprocessStage(**_keys(config.preprocess), task=task, preset=config.model.preset),
        {"examples": examples["examples"]},
    )
    data = {"examples": examples["examples"], "sequences": sequences["sequences"]}
    trained = Node(
        train, TrainStage(**_keys(config.train), task=task, model=config.model), {"sequences": sequences["sequences"]}
    )
    evaluated = Node(evaluate, EvaluateStage(**_keys(config.evaluate), task=task), {**data, "model": trained["model"]})
    exported = Node(
        export,
        ExportStage(**_keys(config.export), task=task, name=config.name),
        {**data, "model": trained["model"], "evaluation": evaluated["evaluation"]},
        when=evaluated.name,
    )
    nodes = [examples, sequences, trained, evaluated, exported]
    place = config.platform.vertex
    if on_vertex and place.register_model:
        settings = RegisterStage(
            **_keys(place.register_model),
            name=config.name,
            project=place.project,
            region=place.region,
            encryption_key=place.encryption_key,
        )
        nodes.append(Node(register, settings, {"servable": exported["servable"]}, when=evaluated.name))
    return nodes[: 1 + [node.name for node in nodes].index(until)] if until else nodes


def _keys(section: Section) -> dict[str, Any]:
    return {name: getattr(section, name) for name in type(section).model_fields}
