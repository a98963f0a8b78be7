"""The pipeline: five components, two more that publish a servable, and the wires between them."""

from __future__ import annotations

import functools
from typing import Any

from lmworks.configs.schema import (
    Config,
    EvaluateStage,
    ExportStage,
    IngestStage,
    PreprocessStage,
    PushStage,
    RegisterStage,
    Section,
    TrainStage,
)
from lmworks.pipeline.evaluate.component import evaluate
from lmworks.pipeline.export.component import export
from lmworks.pipeline.ingest.component import ingest
from lmworks.pipeline.preflight import check_examples
from lmworks.pipeline.preprocess.component import preprocess
from lmworks.pipeline.push.component import push
from lmworks.pipeline.register.component import register
from lmworks.pipeline.train.component import train
from lmworks.tfx.component import Node


def graph(config: Config, until: str | None = None, on_vertex: bool = False, run: str = "") -> list[Node]:
    """Wires the components; each is given its own section and beside it only the keys that it needs.

    Args:
        config: of the run.
        until: the last stage; all when not given.
        on_vertex: with what only Vertex AI has, a registry of models.
        run: name of the run, under which its servable is published; the config's when not given.
    """
    published = run or config.name
    task = config.task
    examples = Node(
        ingest,
        IngestStage(**_keys(config.ingest), task=task, chat=config.preprocess.chat),
        check=functools.partial(check_examples, config),
    )
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
        ExportStage(formats=config.export.formats, task=task, name=config.name),
        {**data, "model": trained["model"], "evaluation": evaluated["evaluation"]},
        when=evaluated.name,
    )
    nodes = [examples, sequences, trained, evaluated, exported]
    if config.export.push_to:
        pushed = PushStage(push_to=config.export.push_to, name=published)
        nodes.append(Node(push, pushed, {"servable": exported["servable"]}, when=evaluated.name))
    place = config.platform.vertex
    if on_vertex and place.register_model:
        settings = RegisterStage(
            **_keys(place.register_model),
            name=published,
            project=place.project,
            region=place.region,
            encryption_key=place.encryption_key,
        )
        nodes.append(Node(register, settings, {"servable": exported["servable"]}, when=evaluated.name))
    return nodes[: 1 + [node.name for node in nodes].index(until)] if until else nodes


def _keys(section: Section) -> dict[str, Any]:
    return {name: getattr(section, name) for name in type(section).model_fields}
