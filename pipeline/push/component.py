"""The door of push: a servable becomes a version in a model repository of TensorFlow Serving."""

from __future__ import annotations

from collections.abc import Callable

from lmworks.configs.schema import PushStage
from lmworks.tfx.artifacts import Pushed, Servable
from lmworks.tfx.component import Input, Output, component


def load(config: PushStage) -> Callable[..., None]:
    """Imports the work: the local runner has it done while the stage before still works."""
    from lmworks.pipeline.push.publication import push_servable

    return push_servable


def holds(config: PushStage, pushed: Pushed) -> str:
    """Why what was pushed has to be pushed again: it is not whole, or not the newest version; empty where it is both."""
    from lmworks.pipeline.push.publication import why_not_there

    return why_not_there(config, pushed)


@component
def push(config: PushStage, servable: Input[Servable], pushed: Output[Pushed]) -> None:
    """Pushes a servable as the next version, unless the newest version has the same content."""
    load(config)(config, servable, pushed)
