"""`@component`: a function whose signature is the whole declaration of a pipeline stage."""

from __future__ import annotations

import inspect
import sys
import typing
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple, TypeVar

from pydantic import BaseModel

from lmworks.tfx.artifacts import Artifact
from lmworks.tfx.runs import LIVE

_INPUT, _OUTPUT = "lmworks input", "lmworks output"
VALUE = "value"
"""What a cluster calls a component's returned value."""
VALUE_TYPES = (bool, int, float, str)

T = TypeVar("T", bound=Artifact)
if TYPE_CHECKING:
    Input = Annotated[T, _INPUT]
    Output = Annotated[T, _OUTPUT]
else:

    class Input:
        """`Input[Kind]`: the component reads a published artifact."""

        def __class_getitem__(cls, kind):
            return Annotated[kind, _INPUT]

    class Output:
        """`Output[Kind]`: the component fills a new artifact."""

        def __class_getitem__(cls, kind):
            return Annotated[kind, _OUTPUT]


class View(NamedTuple):
    """One of an artifact's views; see `Artifact.views`."""

    output: str
    name: str
    schema_title: str


@dataclass(frozen=True)
class Component:
    """What a decorated function's signature says."""

    name: str
    entry: str
    """`module:function`, what a process is told to execute."""
    function: Callable[..., Any]
    config: type[BaseModel]
    inputs: dict[str, type[Artifact]]
    optional: frozenset[str]
    """Inputs that may be missing: the argument is then None."""
    outputs: dict[str, type[Artifact]]
    value: type | None
    """Type of the returned value, if any."""

    @property
    def views(self) -> dict[str, View]:
        """What a cluster's pages show, each as an output of its own beside the artifacts."""
        return {
            f"{output}_{name}": View(output, name, title)
            for output, kind in self.outputs.items()
            for name, title in kind.views.items()
        }

    @property
    def holds(self) -> Callable[..., str] | None:
        """The function `holds` beside the component, of one whose work stands outside the store.

        It takes the config and the published outputs, and says why the work has to be done again: empty where it still
        stands. Without it an execution is as good as its artifacts.
        """
        return getattr(sys.modules[self.function.__module__], "holds", None)

    def __call__(self, **arguments: Any) -> Any:
        """Calls the function: in a test, or by launch."""
        return self.function(**arguments)


def component(function: Callable[..., Any]) -> Component:
    """Declares a pipeline component from its signature.

    The first argument is `config`, a pydantic model; the others are `Input[Kind]`, `Input[Kind] | None` or `Output[Kind]`.

    Raises:
        TypeError: the signature is none of these, naming the argument and the fix.
    """
    where = f"component {function.__qualname__}"
    hints = typing.get_type_hints(function, include_extras=True)
    parameters = inspect.signature(function).parameters
    if next(iter(parameters), None) != "config" or not _is_model(hints.get("config")):
        raise TypeError(f"{where}: the first argument must be `config`, annotated with a pydantic model")
    inputs: dict[str, type[Artifact]] = {}
    outputs: dict[str, type[Artifact]] = {}
    optional = set()
    for name, parameter in list(parameters.items())[1:]:
        if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
            raise TypeError(f"{where}: {name}: * and ** arguments cannot be declared; name each artifact")
        if name in ("Output", VALUE):
            raise TypeError(f"{where}: {name} is a reserved name on Kubeflow; rename the argument")
        kind, role, may_miss = _role(hints.get(name))
        if kind is None:
            raise TypeError(f"{where}: {name}: annotate it with Input[Kind], Input[Kind] | None or Output[Kind]")
        if role == _OUTPUT:
            if may_miss:
                raise TypeError(f"{where}: {name}: an output cannot be optional")
            if name == LIVE:
                raise TypeError(f"{where}: {name} is the link to a stage's unfinished work; rename the output")
            outputs[name] = kind
        else:
            inputs[name] = kind
            optional |= {name} if may_miss else set()
    value = hints.get("return", type(None))
    if value is not type(None) and value not in VALUE_TYPES:
        raise TypeError(f"{where}: returns {value}; it may return None, bool, int, float or str")
    return Component(
        name=function.__name__,
        entry=f"{function.__module__}:{function.__name__}",
        function=function,
        config=hints["config"],
        inputs=inputs,
        optional=frozenset(optional),
        outputs=outputs,
        value=None if value is type(None) else value,
    )


def _is_model(annotation: Any) -> bool:
    return isinstance(annotation, type) and issubclass(annotation, BaseModel)


def _role(annotation: Any) -> tuple[type[Artifact] | None, str, bool]:
    """Artifact class, role, and whether it may be missing."""
    members = [annotation]
    if typing.get_origin(annotation) is not Annotated:
        members = list(typing.get_args(annotation))
    may_miss = type(None) in members
    roles = [member for member in members if typing.get_origin(member) is Annotated]
    if len(roles) == 1 and len(members) == 1 + may_miss:
        kind, role = typing.get_args(roles[0])[:2]
        if role in (_INPUT, _OUTPUT) and isinstance(kind, type) and issubclass(kind, Artifact):
            return kind, role, may_miss
    return None, "", False


@dataclass(frozen=True)
class Ref:
    """The output of another node."""

    node: str
    output: str


@dataclass(frozen=True)
class Node:
    """One component in a pipeline, with its config and where its inputs come from."""

    component: Component
    config: BaseModel
    inputs: dict[str, Ref] = field(default_factory=dict)
    when: str | None = None
    """Name of a node whose value must be true, else this one is not run."""
    check: Callable[[dict[str, Path]], None] | None = None
    """Looks at the folders of the published outputs, by name, before the next stage begins on this machine; raises UserError."""

    @property
    def name(self) -> str:
        """Name of the stage."""
        return self.component.name

    def __getitem__(self, output: str) -> Ref:
        """Refers to an output of this node."""
        if output not in self.component.outputs:
            raise KeyError(f"{self.name} has no output {output}; it has {', '.join(self.component.outputs)}")
        return Ref(self.name, output)


def check(nodes: list[Node]) -> None:
    """Checks that a pipeline is wired: order, names and types.

    Raises:
        TypeError: naming the node, the argument and the fix.
    """
    seen: dict[str, Node] = {}
    for node in nodes:
        for name, kind in node.component.inputs.items():
            ref = node.inputs.get(name)
            if ref is None:
                if name not in node.component.optional:
                    raise TypeError(f"{node.name}: input {name} is not wired")
                continue
            if ref.node not in seen:
                raise TypeError(f"{node.name}: input {name} comes from {ref.node}, which does not stand before it")
            made = seen[ref.node].component.outputs[ref.output]
            if made is not kind:
                raise TypeError(
                    f"{node.name}: input {name} needs {kind.__name__}, and {ref.node} makes {made.__name__}"
                )
        if unknown := set(node.inputs) - set(node.component.inputs):
            raise TypeError(f"{node.name}: has no input {', '.join(sorted(unknown))}")
        if node.when is not None and (node.when not in seen or seen[node.when].component.value is not bool):
            raise TypeError(f"{node.name}: when={node.when} names no earlier node that returns bool")
        seen[node.name] = node
