"""The door of register: a servable becomes a version of a model in Vertex AI's Model Registry."""

from __future__ import annotations

from collections.abc import Callable

from lmworks.configs.schema import RegisterStage
from lmworks.tfx.artifacts import Registration, Servable
from lmworks.tfx.component import Input, Output, component


def load(config: RegisterStage) -> Callable[..., None]:
    """Imports the work, which is slow: the local runner has it done while the stage before still works."""
    from lmworks.pipeline.register.model_registry import enter

    return enter


def holds(config: RegisterStage, registration: Registration) -> str:
    """Why a servable has to be entered again: its version is gone from the registry; empty where it is there."""
    from lmworks.pipeline.register.model_registry import why_not_there

    return why_not_there(config, registration)


@component
def register(config: RegisterStage, servable: Input[Servable], registration: Output[Registration]) -> None:
    """Enters a servable into the Model Registry, once: what is there already with the same content is left as it is."""
    load(config)(config, servable, registration)
