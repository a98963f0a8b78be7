"""From nodes to KFP's pipeline spec (IR YAML): what Kubeflow and Vertex AI have in common.

A stage is a container component that runs `lmworks.tfx.launch`; its inputs and outputs are those of the component's signature.
Its config is one JSON string, for KFP turns the whole numbers of a structure into floats. The keys that people change per run
are not in it: each is a parameter of the pipeline, `<stage>_<key>`, whose text launch reads as `lmworks run --set` does.
"""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import BaseModel

from lmworks.configs.errors import UserError
from lmworks.configs.load import ConfigError
from lmworks.configs.platform import Platform, Resources
from lmworks.configs.schema import PER_RUN
from lmworks.configs.url_secrets import REVEAL
from lmworks.tfx.artifacts import Artifact
from lmworks.tfx.cluster import lower_case
from lmworks.tfx.component import VALUE, Component, Node, Ref, check
from lmworks.tfx.launch import CONFIG, LOG_DIR_ENVIRONMENT, STATE_ENVIRONMENT

_COMMAND = ("python", "-P", "-m", "lmworks.tfx.launch")


class Target(NamedTuple):
    """What one kind of cluster knows of resources."""

    name: str
    extra: str
    """What of our optional dependencies it needs."""
    problems: Callable[[Resources], Iterator[tuple[str, str]]]
    """What of a stage's resources the cluster does not have: key, and what is wrong with it."""
    configure: Callable[[Any, Resources], None] | None = None
    """Gives a KFP task what only this kind of cluster has."""
    environment: Callable[[Platform, str, Component], dict[str, str]] | None = None
    """Variables that only this kind of cluster needs, by the config's name and the component."""


def write(nodes: Sequence[Node], name: str, platform: Platform, target: Target, output: Path) -> None:
    """Compiles a pipeline.

    Args:
        nodes: the pipeline.
        name: of the run; what the cluster does not allow in names becomes `-`.
        platform: image and resources.
        target: the kind of cluster.
        output: the YAML file.

    Raises:
        ConfigError: the cluster does not have what `platform` asks, all of it at once.
        UserError: kfp is not installed.
    """
    check(list(nodes))
    resources = {node.name: getattr(platform, node.name, Resources()) for node in nodes}
    lines = [
        f"platform.{stage}.{key}: {problem}"
        for stage, asked in resources.items()
        for key, problem in target.problems(asked)
    ]
    if lines:
        raise ConfigError("\n  ".join([f"{len(lines)} of platform's keys do not go with {target.name}", *lines]))
    try:
        from kfp import compiler
    except ImportError:
        raise UserError(
            f"{target.name} needs kfp, which is not installed: pip install 'lmworks[{target.extra}]'"
        ) from None
    builder = _Builder(nodes, name, platform, resources, target)
    compiler.Compiler().compile(builder.pipeline(), str(output))


def parameters(config: BaseModel) -> dict[str, str]:
    """The keys that people change per run, with their values as JSON, which is YAML too; a source without its defaults."""
    keys = [key for key, info in type(config).model_fields.items() if PER_RUN in info.metadata]
    whole = config.model_dump(mode="json", include=set(keys), context=REVEAL)
    short = config.model_dump(mode="json", include=set(keys), exclude_defaults=True, context=REVEAL)
    return {key: json.dumps(short.get(key, whole[key]), ensure_ascii=False) for key in keys}


class _Gate(NamedTuple):
    """What is done only if a stage says yes."""

    component: Any
    """KFP's."""
    keys: list[str]
    """Parameters of the pipeline that it is given."""
    refs: dict[str, Ref]
    """Outputs of stages that it is given, by its argument."""


class _Builder:
    """Makes KFP's objects from ours; the names in them are those of the signatures."""

    def __init__(
        self, nodes: Sequence[Node], name: str, platform: Platform, resources: dict[str, Resources], target: Target
    ) -> None:
        self._nodes, self._name, self._platform = nodes, name, platform
        self._resources, self._target = resources, target

    def pipeline(self) -> Any:
        """The whole pipeline, a KFP component."""
        from kfp import dsl

        about = {}
        defaults = {}
        for node in self._nodes:
            for key, value in parameters(node.config).items():
                defaults[f"{node.name}_{key}"] = value
                about[f"{node.name}_{key}"] = type(node.config).model_fields[key].description or ""

        gates = [self._gate(when) for when in dict.fromkeys(node.when for node in self._nodes) if when is not None]

        def body(given: dict[str, Any]) -> None:
            tasks: dict[str, Any] = {}
            for node in self._nodes:
                if node.when is None:
                    artifacts = {name: _output(node.name, ref, tasks) for name, ref in node.inputs.items()}
                    tasks[node.name] = self._task(node, given, artifacts)
            for gate in gates:
                artifacts = {name: _output(gate.component.name, ref, tasks) for name, ref in gate.refs.items()}
                gate.component(**{key: given[key] for key in gate.keys}, **artifacts)

        function = _function(self._name, dict.fromkeys(defaults, str), defaults, body, _described(self._name, about))
        return dsl.pipeline(name=lower_case(self._name)[:128])(function)

    def _gate(self, when: str) -> _Gate:
        """The nodes that wait for a yes: a pipeline of their own, for KFP's local engine sees conditions on inputs only."""
        from kfp import dsl

        nodes = [node for node in self._nodes if node.when == when]
        inside = {node.name for node in nodes}
        refs: dict[str, Ref] = {VALUE: Ref(when, VALUE)}
        annotations: dict[str, Any] = {VALUE: bool}
        for node in nodes:
            for name, ref in node.inputs.items():
                if ref.node not in inside:
                    refs[f"{ref.node}_{ref.output}"] = ref
                    annotations[f"{ref.node}_{ref.output}"] = dsl.Input[_kfp_type(node.component.inputs[name])]
        keys = [f"{node.name}_{key}" for node in nodes for key in parameters(node.config)]

        def body(values: dict[str, Any]) -> None:
            made: dict[str, Any] = {}
            with dsl.If(values[VALUE] == True, name=f"{when}-said-yes"):  # noqa: E712  (KFP overloads it)
                for node in nodes:
                    artifacts = {
                        name: _output(node.name, ref, made)
                        if ref.node in inside
                        else values[f"{ref.node}_{ref.output}"]
                        for name, ref in node.inputs.items()
                    }
                    made[node.name] = self._task(node, values, artifacts)

        annotations |= dict.fromkeys(keys, str)
        function = _function(f"gate_{when}", annotations, {}, body, f"What is done only if {when} says yes.")
        return _Gate(dsl.pipeline(name=f"gate-{when}")(function), keys, refs)

    def _task(self, node: Node, given: dict[str, Any], artifacts: dict[str, Any]) -> Any:
        keys = parameters(node.config)
        config = node.config.model_dump_json(exclude=set(keys), context=REVEAL)
        set_now = {key: given[f"{node.name}_{key}"] for key in keys}
        task = _container(node.component, list(keys), self._platform.image)(**{CONFIG: config}, **set_now, **artifacts)
        asked = self._resources[node.name]
        # A stage without inputs reads what is named at submission, if not already in the config; and the cluster does not
        # look at what stands outside.
        reads_elsewhere = not node.inputs or bool(getattr(node.config, "external", tuple)())
        depends = reads_elsewhere or node.component.holds is not None
        task.set_caching_options(not depends if asked.cache is None else asked.cache)
        if asked.cpu:
            task.set_cpu_limit(asked.cpu)
        if asked.memory:
            task.set_memory_limit(asked.memory)
        if asked.gpu:
            task.set_accelerator_type(asked.gpu.type).set_accelerator_limit(asked.gpu.count)
        if asked.retries:
            waits = (asked.retries.wait_seconds, asked.retries.longest_wait_seconds)
            task.set_retry(asked.retries.count, f"{waits[0]}s", asked.retries.factor, f"{waits[1]}s")
        own = {STATE_ENVIRONMENT: asked.state, LOG_DIR_ENVIRONMENT: asked.log_dir}
        if self._target.environment:
            own |= self._target.environment(self._platform, self._name, node.component)
        for name, value in {**asked.environment, **own}.items():
            if value is not None:
                task.set_env_variable(name, value)
        if self._target.configure:
            self._target.configure(task, asked)
        return task


def _container(component: Component, keys: Sequence[str], image: str) -> Any:
    """A KFP container component."""
    from kfp import dsl

    annotations: dict[str, Any] = {CONFIG: str, **dict.fromkeys(keys, str)}
    artifacts: dict[str, Any] = {name: dsl.Input[_kfp_type(kind)] for name, kind in component.inputs.items()}
    artifacts |= {name: dsl.Output[_kfp_type(kind)] for name, kind in component.outputs.items()}
    artifacts |= {name: dsl.Output[_kfp_class(view.schema_title)] for name, view in component.views.items()}
    if component.value is not None:
        artifacts[VALUE] = dsl.OutputPath(component.value)
    if both := annotations.keys() & artifacts.keys():
        raise TypeError(f"component {component.name}: {', '.join(both)} is an artifact and a key that is set per run")
    arguments = [f"--component={component.entry}", "--executor_input", "{{$}}"]

    def body(_: dict[str, Any]) -> Any:
        return dsl.ContainerSpec(image=image, command=list(_COMMAND), args=arguments)

    missing = dict.fromkeys(component.optional)
    about = component.function.__doc__ or component.name
    return dsl.container_component(_function(component.name, annotations | artifacts, missing, body, about))


def _function(
    name: str, annotations: dict[str, Any], defaults: dict[str, Any], body: Callable[[dict[str, Any]], Any], about: str
) -> Callable[..., Any]:
    """A function with a signature that is known only now, as KFP's decorators read it.

    Args:
        name: of the function.
        annotations: of the arguments.
        defaults: of some arguments.
        body: is called with the arguments by name.
        about: its docstring.
    """
    kind = inspect.Parameter.POSITIONAL_OR_KEYWORD
    arguments = [
        inspect.Parameter(
            argument, kind, annotation=annotation, default=defaults.get(argument, inspect.Parameter.empty)
        )
        for argument, annotation in sorted(annotations.items(), key=lambda item: item[0] in defaults)
    ]

    def function(*given: Any) -> Any:
        return body(dict(zip((argument.name for argument in arguments), given, strict=True)))

    function.__name__, function.__doc__ = name, about
    function.__signature__ = inspect.Signature(arguments)  # type: ignore[attr-defined]
    return function


def _described(name: str, about: dict[str, str]) -> str:
    lines = [f"    {argument}: {' '.join(text.split())}" for argument, text in about.items()]
    return "\n".join([f"lmworks: {name}.", "", "Args:", *lines])


def _output(reader: str, ref: Ref, tasks: dict[str, Any]) -> Any:
    if ref.node not in tasks:
        raise TypeError(f"{reader}: needs {ref.output} of {ref.node}, which is not made where its own gate says no")
    return tasks[ref.node].outputs[ref.output]


def _kfp_type(kind: type[Artifact]) -> Any:
    return _kfp_class(kind.schema_title)


def _kfp_class(schema_title: str) -> Any:
    """KFP's class of that type."""
    from kfp import dsl

    known = {
        one.schema_title: one
        for one in (dsl.Artifact, dsl.Dataset, dsl.Model, dsl.Metrics, dsl.ClassificationMetrics, dsl.HTML)
    }
    if schema_title not in known:
        raise TypeError(f"KFP has no artifact {schema_title}; it has {', '.join(known)}")
    return known[schema_title]
