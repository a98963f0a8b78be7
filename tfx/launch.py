"""The one way a component is executed: locally as a subprocess, and in a container on a cluster, by the same command.

    python -m lmworks.tfx.launch --component=MODULE:FUNCTION --executor_input='{…}' [--state=DIR] [--log_dir=DIR]

`--executor_input` is the JSON that Kubeflow Pipelines writes in place of `{{$}}`: the config is the parameter `config`, a JSON
string, and every other parameter is a key of it with its value as YAML, as in `lmworks run --set=KEY=VALUE`; artifacts are
URIs. Exit code 0 when the component returned (also for an unblessed model), 1 when it failed.
"""

from __future__ import annotations

import argparse
import contextlib
import errno
import importlib
import json
import math
import os
import re
import shutil
import sys
import tempfile
import time
import traceback
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from lmworks.configs.errors import UserError
from lmworks.configs.load import override, validate
from lmworks.configs.shown import shown
from lmworks.configs.url_secrets import masked
from lmworks.tfx import (
    containment,
    fingerprint,
    last_words,
    locks,
    outside,
    process,
    progress,
    surroundings,
    vertex_tensorboard,
)
from lmworks.tfx.artifacts import (
    HTML,
    SETTLED,
    Artifact,
    Logs,
    clear,
    is_settled,
    manifest_of,
    publish,
    read,
    settle,
    write_json,
)
from lmworks.tfx.buckets import local_path
from lmworks.tfx.component import VALUE, Component
from lmworks.tfx.file_digests import FileDigests
from lmworks.tfx.hosts import this_host
from lmworks.tfx.url_digests import is_unknown

_BEGAN = time.time()
"""A source file changed after this need not be the code that ran, however long the process then waited for its work."""

CONFIG = "config"
"""The parameter with a stage's config."""
STATE_ENVIRONMENT, LOG_DIR_ENVIRONMENT = "LMWORKS_STATE", "LMWORKS_LOG_DIR"
"""Variables in place of `--state` and `--log_dir`, which do not count as a change of the command."""
_FULL = ("No space left on device", "os error 28", "Disk quota exceeded", "database or disk is full")
"""What libraries say of a full disk."""
SECRETS_ENVIRONMENT = "LMWORKS_SECRETS"
"""Variable with the names of those whose values are secrets of the cluster, JSON: `{"HF_TOKEN": "hub/token"}`."""


def load_component(entry: str) -> Component:
    """Imports `module:function`.

    Raises:
        UserError: it is no component.
    """
    module, _, function = entry.partition(":")
    surroundings.working_directory_last()
    found = getattr(importlib.import_module(module), function, None)
    if not isinstance(found, Component):
        raise UserError(f"{entry}: is no component; it needs @component and the form MODULE:FUNCTION")
    return found


def execute(
    component: Component,
    executor_input: dict[str, Any],
    context: dict[str, Any] | None = None,
    state_root: str = "",
    log_dir: str = "",
) -> Any:
    """Runs a component and publishes its outputs.

    Args:
        component: what to run.
        executor_input: KFP's description of inputs and outputs.
        context: what the local runner knows already: `execution` (id), `external` (digests), `memo` (database of file digests),
            `state` (folder).
        state_root: where no runner keeps one: root of the stages' states, `<stage>/<key>`, from which a retry goes on. Without
            it unfinished work is lost with the process.
        log_dir: where the live events of a `Logs` go, in place of its state.

    Returns:
        The component's value.
    """
    context = context or {}
    given, asked = executor_input.get("inputs", {}), executor_input.get("outputs", {})
    config = stage_config(component, given["parameterValues"])
    memo = FileDigests(Path(context["memo"]) if context.get("memo") else None)
    external = context.get("external")
    if external is None:
        external = fingerprint.external(config, memo.of)

    def look_again() -> None:
        if changed := fingerprint.changed_outside(external, fingerprint.external(config, memo.of)):
            raise UserError(
                f"{', '.join(changed)} changed while it was read; nothing was published; run the same command again when "
                "nobody writes to it"
            )

    arguments: dict[str, Any] = {"config": config} | dict.fromkeys(component.optional)
    inputs: dict[str, dict[str, str]] = {}
    for name, entry in given.get("artifacts", {}).items():
        if entry.get("artifacts"):
            path = local_path(entry["artifacts"][0]["uri"])
            arguments[name] = read(component.inputs[name], path)
            manifest = manifest_of(path)
            assert manifest is not None
            artifact = f"{manifest['execution']['id']}/{manifest['output']}"
            inputs[name] = {"artifact": artifact, "digest": manifest["digest"]}
    settings = config.model_dump(mode="json")
    digests = {name: source["digest"] for name, source in inputs.items()}
    key = fingerprint.key(component.entry, settings, digests, external)
    unfinished = fingerprint.resume_key(component.entry, config, digests, external)
    # Hosts that run a component together compute alike, and only the first one writes.
    elsewhere = tempfile.TemporaryDirectory() if this_host().index > 0 else None
    with contextlib.ExitStack() as stack:
        if context.get("state"):
            state = Path(context["state"])
        else:
            state = _own_state("" if elsewhere else state_root, component, unfinished, stack)
        containment.refuse_links(state, apart=state / SETTLED)
        settled = is_settled(state)
        if settled and (unknown := [name for name, digest in external.items() if is_unknown(digest)]):
            print(
                f"{component.name}: starts anew: whether {', '.join(unknown)} changed since the finished run cannot be found out",
                file=sys.stderr, flush=True,
            )  # fmt: skip
            clear(state)
            settled = False
        outputs: dict[str, Artifact] = {}
        for name, kind in component.outputs.items():
            path = local_path(asked["artifacts"][name]["artifacts"][0]["uri"])
            if elsewhere:
                path = Path(elsewhere.name) / name
            shutil.rmtree(path, ignore_errors=True)  # a retried container finds what its predecessor left
            path.mkdir(parents=True)
            live = state / name
            if kind is Logs and not elsewhere:
                curves = f"{component.name}-{unfinished[:8]}"
                live = local_path(log_dir) / curves if log_dir else live
                stack.enter_context(vertex_tensorboard.sending(live, curves))
            arguments[name] = outputs[name] = kind(path, state=live, settled=settled)
        started = time.time()
        with outside.watching(look_again, external):
            value = component(**arguments)
        progress.doing("recording the outputs")
        memo.close()
        if elsewhere:
            return value
        if component.value is not None and type(value) is not component.value:
            raise TypeError(f"{component.name} returned {value!r}, and its signature says {component.value.__name__}")
        execution = {
            "id": context.get("execution") or f"{component.name}/{uuid.uuid4().hex[:12]}",
            "component": component.entry,
            "key": key,
            "config": settings,
            "inputs": inputs,
            "external": external,
            "outputs": list(component.outputs),
            "value": value,
            "code": fingerprint.code(component.function.__module__, "lmworks.tfx.launch", started=_BEGAN),
            "versions": fingerprint.versions(),
            "started": started,
            "finished": time.time(),
        }
        for name, output in outputs.items():
            publish(output, name, execution)
        _answer(component, outputs, value, asked)
        if not context.get("state"):
            settle(state, execution["id"])
            told = next(
                (output.properties["summary"] for output in outputs.values() if "summary" in output.properties), ""
            )
            print(f"{component.name} made {told}".rstrip(), flush=True)  # the last line of a container's log
    return value


def stage_config(component: Component, parameters: dict[str, Any]) -> BaseModel:
    """The stage's config, with the keys that were set for this run.

    Raises:
        ConfigError: with every error of the config.
    """
    tree = json.loads(parameters[CONFIG])
    for name, value in parameters.items():
        if name != CONFIG:
            override(tree, f"{name}={value}")
    return validate(tree, component.name, component.config)


def _own_state(root: str, component: Component, key: str, stack: contextlib.ExitStack) -> Path:
    """The state's folder under a root, for this process alone; without a root one that is gone when the stack is left."""
    if not root:
        return Path(stack.enter_context(tempfile.TemporaryDirectory()))
    state = local_path(root) / component.name / key
    state.mkdir(parents=True, exist_ok=True)
    _hold(state.with_name(f"{key}.lock"), stack)
    return state


def _hold(lock: Path, stack: contextlib.ExitStack) -> None:
    """Waits until no other process works on the same state, and keeps others away until the stack is left."""
    try:
        handle = locks.acquire(lock, wait=False)
        if handle is None:
            print(f"another process works on {lock.with_suffix('')}; waiting for it", file=sys.stderr, flush=True)
            handle = locks.acquire(lock)
    except OSError as error:  # a network file system without locks
        print(f"{lock} cannot be locked ({error.strerror}); let no two runs share this state", file=sys.stderr)
        return
    assert handle is not None
    stack.callback(os.close, handle)


def _answer(component: Component, outputs: dict[str, Artifact], value: Any, asked: dict[str, Any]) -> None:
    """Writes what KFP reads back: pages, `executor_output.json` with what is shown, and the value into a file of its own."""
    asked_of = {name: entry["artifacts"][0] for name, entry in asked.get("artifacts", {}).items()}
    properties = {name: output.properties for name, output in outputs.items()}
    for name, view in component.views.items():
        if name in asked_of:  # the local runner asks for none
            properties[name] = outputs[view.output].shown.get(view.name, {})
            if view.schema_title == HTML:
                target = local_path(asked_of[name]["uri"])
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(outputs[view.output].path / f"{view.name}.html", target)
    if value is not None and (parameter := asked.get("parameters", {}).get(VALUE)):
        path = local_path(parameter["outputFile"])
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(value) if isinstance(value, bool) else str(value), encoding="utf-8")
    if asked.get("outputFile"):
        described = {
            # The name is the cluster's own, on Vertex AI a resource of its metadata store.
            name: {
                "artifacts": [
                    {key: asked_of[name].get(key, "") for key in ("name", "uri")} | {"metadata": _metadata(told)}
                ]
            }
            for name, told in properties.items()
        }
        path = local_path(asked["outputFile"])
        path.parent.mkdir(parents=True, exist_ok=True)
        write_json(path, {"artifacts": described} | ({"parameterValues": {VALUE: value}} if value is not None else {}))


def _metadata(told: dict[str, Any]) -> dict[str, Any]:
    """What KFP can hold of it: no null and no number that is not finite, which break its file."""
    return {name: value for name, value in told.items() if _holds(value)}


def _holds(value: Any) -> bool:
    if isinstance(value, dict | list | tuple):
        return all(map(_holds, value.values() if isinstance(value, dict) else value))
    return value is not None and not (isinstance(value, float) and not math.isfinite(value))


def _check_secrets() -> None:
    """A missing secret, which the cluster lets pass so that it is told here, in one line and at once.

    Raises:
        UserError: naming all of them.
    """
    wanted = json.loads(os.environ.get(SECRETS_ENVIRONMENT, "{}"))
    if missing := {name: secret for name, secret in wanted.items() if not os.environ.get(name)}:
        told = ", ".join(
            f"{name} (key {secret.partition('/')[2]} of {secret.partition('/')[0]})" for name, secret in missing.items()
        )
        first, _, key = next(iter(missing.values())).partition("/")
        raise UserError(
            f"secret not set: {told}; kubectl create secret generic {first} --from-literal={key}=… in the run's namespace"
        )


def explain(error: BaseException) -> str:
    """One line for the user."""
    if isinstance(error, UserError):
        return shown(error, lines=True)
    if (full := _full_disk(error)) is not None:
        return full_disk(full)
    place = last_words.place_of_error(error)
    told = f" ({shown(place, 100)})" if place else ""
    if isinstance(error, SystemExit):
        code = error.code if isinstance(error.code, int) else 0 if error.code is None else 1
        return f"ended itself with exit code {code}{told}"
    first = (str(error).strip() or "no message").splitlines()[0]
    return f"{type(error).__name__}: {shown(masked(first), 300)}{told}"


def full_disk(path: str = "") -> str:
    """Says that a disk is full.

    Args:
        path: what had no room, where it is known.
    """
    return f"the disk is full{f' ({path})' if path else ''}; free some space and run the same command again"


def _full_disk(error: BaseException) -> str | None:
    """The file that had no room, empty where it is not known; None where an error has another cause.

    HDF5, TensorFlow, Arrow, safetensors and `shutil.copytree` raise errors of their own, whose text says it.
    """
    text = str(error)
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        named = str(error.filename or "")
    elif any(sign in text for sign in _FULL):
        named = ""
    else:
        return None
    if not named and (
        match := re.search(r"filename = '(/[^']+)'|[Nn]o space left on device: '(/[^']+)'|(/[^\s;:']+); No space", text)
    ):
        named = next(group for group in match.groups() if group)
    return named


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; see the module's docstring."""
    process.die_with_parent()
    parser = argparse.ArgumentParser(prog="python -m lmworks.tfx.launch", description="Runs one component.")
    parser.add_argument("--component", required=True, help="MODULE:FUNCTION")
    parser.add_argument("--executor_input", required=True, help="Kubeflow's JSON ({{$}}), or fd:N where it comes later")
    parser.add_argument("--early_config", default="", help="with fd:N: the config, so that its imports need not wait")
    state, log_dir = os.environ.get(STATE_ENVIRONMENT, ""), os.environ.get(LOG_DIR_ENVIRONMENT, "")
    parser.add_argument("--state", default=state, help=f"root of what a retry goes on from; {STATE_ENVIRONMENT}")
    parser.add_argument("--log_dir", default=log_dir, help=f"for TensorBoard's live events; {LOG_DIR_ENVIRONMENT}")
    flags = parser.parse_args(arguments)
    try:
        _check_secrets()
        component = load_component(flags.component)
        if flags.executor_input.startswith("fd:"):
            if load := getattr(sys.modules[component.function.__module__], "load", None):
                # What fails fails again in the component, when there is somebody to tell.
                with contextlib.suppress(Exception):
                    load(component.config.model_validate_json(flags.early_config))
            work = process.wait_for_work(int(flags.executor_input.removeprefix("fd:")))
            if work is None:  # the runner found that there is none
                return 0
            text, (progress_pipe, *_locks) = work  # they are held by being open until this process ends
            os.environ[progress.ENVIRONMENT] = str(progress_pipe)
            execute(component, *json.loads(text))
        else:
            execute(component, json.loads(flags.executor_input), None, flags.state, flags.log_dir)
    # A callback's `sys.exit` is a failure too, whatever its code: the work is not done.
    except (Exception, SystemExit) as error:  # the last line of a process: said in one line, whole in the log
        progress.send({"error": explain(error)})  # first: where the disk is full, the log takes no more
        with contextlib.suppress(OSError):
            # An error of a library may hold the URL that it read.
            print(masked("".join(traceback.format_exception(error))), file=sys.stderr, end="")
            print(f"{flags.component}: {explain(error)}", file=sys.stderr, flush=True)
        if _full_disk(error) is not None:
            # HDF5 would write the rest of an unfinished file while the interpreter ends, and crash: signal 11.
            os._exit(1)
        return 1
    return 0


if __name__ == "__main__":
    try:
        surroundings.settle("lmworks.tfx.launch", answers=False)
    except UserError as trouble:
        sys.exit(str(trouble))
    # By its own name, under which the code that an execution loaded is recorded.
    from lmworks.tfx.launch import main as launch_main

    sys.exit(launch_main())
