"""From a YAML recipe and `--set` overrides to a frozen `Config`, or to all of its errors at once."""

from __future__ import annotations

import difflib
import math
import os
import re
import shlex
import stat
import types
import typing
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ValidationError

from lmworks.configs.errors import ConfigError
from lmworks.configs.other_names import ANSWER_OF, KEY_OF, VALUE_OF, snake_case
from lmworks.configs.schema import TWO_ORIGINS, Config
from lmworks.configs.section import OnlyFor
from lmworks.configs.shown import shown
from lmworks.configs.url_secrets import masked_url
from lmworks.configs.yaml_bounds import DEPTH, SIZE
from lmworks.configs.yaml_reader import parse_value, parse_yaml

T = TypeVar("T", bound=BaseModel)

_MOST_LINES = 50
"""Errors that are listed."""


def override(tree: dict[str, Any], assignment: str) -> None:
    """Applies one `KEY=VALUE`, the key dotted, the value YAML, to a config tree in place.

    Raises:
        ConfigError: no `=`, a value that YAML does not read or would lose, or a key below something that is no section.
    """
    key, equals, value = assignment.partition("=")
    parts = key.split(".")
    if not equals or not all(parts) or len(parts) > DEPTH:
        written = shown(assignment, 200)
        raise ConfigError(f"--set={written}: must be KEY=VALUE, for example --set=train.epochs=1")
    *parents, last = parts
    node = tree
    for parent in parents:
        child = node.get(parent)
        if child is None:
            child = node[parent] = {}
        if not isinstance(child, dict):
            raise ConfigError(
                f"--set={shown(assignment, 200)}: {shown(parent, 80)} is {shown(repr(child), 80)}, which has no keys; "
                "set it whole"
            )
        node = child
    node[last] = parse_value(value, f"--set={shown(key, 200)}")


def load(path: str | Path, overrides: Sequence[str] = ()) -> Config:
    """Reads a recipe.

    Args:
        path: the YAML file.
        overrides: `KEY=VALUE` each, applied in order.

    Raises:
        ConfigError: with every error of the config at once, each with its path, value and the nearest known key.
    """
    try:
        with open(path, encoding="utf-8", opener=_without_waiting) as file:
            os.set_blocking(file.fileno(), True)  # a pipe with a writer is waited for, and one without is at its end
            text = file.read(SIZE + 1)  # of a device too, which has no end
            if not text and stat.S_ISFIFO(os.fstat(file.fileno()).st_mode):
                raise ConfigError(f"{path}: is a pipe, and nothing is written into it")
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else "no UTF-8 text"
        raise ConfigError(f"{path}: cannot read the config: {reason}") from None
    tree = parse_yaml(text, str(path))
    if tree is None:
        raise ConfigError(f"{path}: is empty")
    if not isinstance(tree, dict):
        raise ConfigError(f"{path}: a config is a mapping of keys to values")
    for assignment in overrides:
        override(tree, assignment)
    return validate(tree, str(path))


def _without_waiting(path: str, flags: int) -> int:
    """Opens a file; a pipe too that nobody has opened for writing, where `open` would wait."""
    return os.open(path, flags | os.O_NONBLOCK)


def validate(tree: dict[str, Any], origin: str, schema: type[T] = Config) -> T:  # type: ignore[assignment]
    """Validates a tree of keys against a schema; see `load`."""
    lines = [*_not_finite(tree), *_of_another_task(tree, schema)]
    config, errors = None, []
    try:
        config = schema.model_validate(tree)
    except ValidationError as error:
        errors = [
            details
            for details in error.errors(include_url=False)
            # If a value may be text or an object, an object is judged as an object only.
            if not (details["loc"][-1:] == ("str",) and isinstance(details["input"], dict))
            and not _is_not_finite(details["input"])
        ]
    if config is None or lines:
        for details in errors[:_MOST_LINES]:
            lines += _explain(details, tree, schema).split("\n")  # a validator may see several
        lines = list(dict.fromkeys(lines))
        count = len(lines) + len(errors[_MOST_LINES:])
        more = [f"and {count - _MOST_LINES:,} more"] if count > _MOST_LINES else []
        title = f"{origin}: {count:,} error{'' if count == 1 else 's'} in the config"
        raise ConfigError("\n  ".join([title, *lines[:_MOST_LINES], *more]))
    return config


def _is_not_finite(value: Any) -> bool:
    return isinstance(value, float) and not math.isfinite(value)


def _not_finite(tree: Any, path: tuple[str, ...] = ()) -> Iterator[str]:
    """Lists the numbers of a tree that are infinite or not a number: no key has a use for them."""
    if isinstance(tree, dict):
        for key, value in tree.items():
            yield from _not_finite(value, (*path, str(key)))
    elif isinstance(tree, list | tuple):
        for index, value in enumerate(tree):
            yield from _not_finite(value, (*path, str(index)))
    elif _is_not_finite(tree):
        yield f"{'.'.join(path)}: {tree}: must be a finite number; if it is text, quote it"


def _of_another_task(tree: dict[str, Any], schema: type[BaseModel]) -> Iterator[str]:
    """Lists the keys of a config's tree that have no meaning for its task, and would be ignored."""
    task = tree.get("task")

    def walk(branch: Any, annotation: Any, path: tuple[str | int, ...]) -> Iterator[str]:
        if isinstance(branch, list | tuple):
            for index, value in enumerate(branch):
                yield from walk(value, annotation, (*path, index))
        if not isinstance(branch, dict):
            return
        for key, value in branch.items():
            for model in _members(annotation, BaseModel):
                if value is not None and key in model.model_fields:
                    for mark in model.model_fields[key].metadata:
                        if isinstance(mark, OnlyFor) and task not in mark.tasks:
                            place = ".".join(map(str, (*path, key)))
                            yield f"{place}: is a key of task {' and '.join(mark.tasks)}, and this is {task}; leave it out"
            yield from walk(value, _descend(annotation, key), (*path, key))

    if isinstance(task, str) and schema is Config and task in typing.get_args(Config.model_fields["task"].annotation):
        yield from walk(tree, schema, ())


def _explain(details: Any, tree: dict[str, Any], schema: type[BaseModel]) -> str:
    location = _in_tree(details["loc"], tree)
    if details["type"] == "invalid_key":  # no text, which every known key is
        location[-1] = str(details["input"])
    path = shown(".".join(map(str, location)) or "config", 200)
    if details["type"] in ("extra_forbidden", "invalid_key"):
        return f"{path}: unknown key; {_hint(location, schema)}"
    if details["type"] == "missing":
        return f"{path}: is missing"
    value = masked_url(repr(details["input"]))  # before it is cut, for a secret is known by what stands behind it
    value = value if len(value) <= 80 else value[:77] + "..."
    if details["loc"][-1:] == ("[key]",):
        path, value = ".".join(map(str, location[:-2])), f"the key {value}"
    if details["type"] == "string_type" and not isinstance(details["input"], dict | list | tuple | None):
        kind = "a truth value" if isinstance(details["input"], bool) else "a number"
        in_list = isinstance(location[-1], int)
        key, quoted = (path.rpartition(".")[0], "['…', …]") if in_list else (path, "'…'")
        # What was written is not known here: 0x10 is 16, and `on` is true.
        fix = f'quote it as you wrote it: {quoted}, in a shell --set="{key}={quoted}"'
        return f"{path}: {value}: YAML reads it as {kind}, and text is needed: {fix}"
    message = details["msg"].removeprefix("Value error, ").removeprefix("Input should be ")
    if details["type"] == TWO_ORIGINS:
        return f"{path}: {message}{_from_preset(tree)}"
    if details["type"] == "value_error" and isinstance(details["input"], dict | BaseModel):
        return f"{path}: {message}" if location else message  # of the whole config, it names its keys
    if details["type"] == "int_parsing_size":
        message = "is too large"
    elif details["type"] in ("tuple_type", "list_type"):
        message = "should be a list" + ("" if isinstance(details["input"], dict) else f": [{details['input']}]")
    elif details["type"] in ("dict_type", "model_type"):
        message = _mapping_meant(details, location, schema)
    elif details["msg"].startswith("Input should be "):
        meant = _value_meant(details["input"], message) if details["type"] == "literal_error" else ""
        message = f"should be {message}{meant}"
    elif details["type"] != "value_error":  # "String should match pattern '…'"
        message = message[:1].lower() + message[1:]
    return f"{path}: {value}: {message}"


def _hint(location: Sequence[str | int], schema: type[BaseModel]) -> str:
    """What to write instead of an unknown key: what it is called here, the nearest key of this section or of all, or any of it."""
    *parents, key = map(str, location)
    if elsewhere := _ending_with(key, schema):
        return f"it is a key of another section: {' or '.join(elsewhere[:3])}"
    if answer := ANSWER_OF.get(snake_case(key)):
        return answer
    known = _known_keys(location[:-1], schema)
    if schema is Config and (path := key_called(key)):
        return f"did you mean {path}?"
    if nearest := difflib.get_close_matches(key, known, n=1, cutoff=0.5):
        return f"did you mean {'.'.join([*parents, nearest[0]])}?"
    names = {path.rpartition(".")[2]: path for path in reversed([*paths_of(schema)])}
    if nearest := difflib.get_close_matches(key, names, n=1, cutoff=0.8):
        return f"did you mean {names[nearest[0]]}?"
    return f"known here: {', '.join(known)}"


def _ending_with(key: str, schema: type[BaseModel]) -> list[str]:
    return [path for path in paths_of(schema) if path.rpartition(".")[2] == key]


def key_called(name: str) -> str | None:
    """Returns the path of the key that other libraries, or a flag, call so; none where there is none.

    Args:
        name: a last part of a key, or a name elsewhere, in any way of writing.
    """
    name = snake_case(name)
    return KEY_OF.get(name) or next(iter(_ending_with(name, Config)), None)


def _value_meant(value: Any, expected: str) -> str:
    """A question for a value that is none of a list, where one of them is near.

    Args:
        value: as it stands in the config.
        expected: the list, each in single quotes.
    """
    allowed = re.findall(r"'([^']*)'", expected)
    name = snake_case(str(value)) if isinstance(value, str | int) else ""
    meant = [VALUE_OF[name]] if VALUE_OF.get(name) in allowed else difflib.get_close_matches(name, allowed, n=1)
    return f"; did you mean {meant[0]}?" if meant else ""


def _from_preset(tree: dict[str, Any]) -> str:
    """How a recipe of a model from scratch is started from the preset that it names."""
    model, preprocess = tree["model"], tree.get("preprocess")
    kept = {key: model[key] for key in ("preset", "dropout") if model.get(key) is not None}
    flow = yaml.safe_dump(kept, default_flow_style=True, sort_keys=False, width=math.inf, allow_unicode=True).strip()
    flags = [f"--set={shlex.quote(f'model={flow}')}"]
    tokenizer = preprocess.get("tokenizer") if isinstance(preprocess, dict) else None
    if isinstance(tokenizer, dict) and tokenizer.get("train") is not None:
        flags.append("--set=preprocess.tokenizer.train=null")
    return f"; to start from the preset: {' '.join(flags)}"


def _mapping_meant(details: Any, location: Sequence[str | int], schema: type[BaseModel]) -> str:
    """What should stand instead of a value that is no mapping, with keys of the schema."""
    annotation: Any = schema
    for part in location:
        annotation = _descend(annotation, part)
    if annotation is None:
        return "should be a mapping"
    value = "…" if isinstance(details["input"], list | tuple | None) else str(details["input"])
    return f"should be a mapping such as {_example(annotation, value)}"


def _example(annotation: Any, value: str) -> str:
    """A mapping of a type, in YAML."""
    for model in _members(annotation, BaseModel):
        name, field = next(iter(model.model_fields.items()))
        return f"{{{name}: {_example(field.annotation, value)}}}"
    for mapping in _members(annotation, dict):
        return f"{{NAME: {_example(typing.get_args(mapping)[-1], value)}}}"
    return value


def paths_of(schema: type[BaseModel], parents: tuple[str, ...] = ()) -> Iterator[str]:
    """Lists the paths of a schema's keys, sections first come first."""
    for name, field in schema.model_fields.items():
        yield ".".join((*parents, name))
        for section in _members(field.annotation, BaseModel):
            yield from paths_of(section, (*parents, name))


def _in_tree(location: Iterable[str | int], tree: Any) -> list[str | int]:
    """Drops what pydantic adds to a location: names of union members that are no keys of the config."""
    result: list[str | int] = []
    parts = list(location)
    for index, part in enumerate(parts):
        last = index == len(parts) - 1
        child = _child(tree, part)
        if child is not None or last:
            if last and child is None and part in ("str", "Package", "Source"):
                continue
            result.append(part)
            tree = child
    return result


def _child(tree: Any, part: str | int) -> Any:
    if isinstance(tree, dict):
        return tree.get(part)
    if isinstance(tree, list | tuple) and isinstance(part, int) and part < len(tree):
        return tree[part]
    return None


def _known_keys(location: Sequence[str | int], schema: type[BaseModel]) -> list[str]:
    """Keys that the section at `location` knows."""
    annotation: Any = schema
    for part in location:
        annotation = _descend(annotation, part)
    return sorted({name for model in _members(annotation, BaseModel) for name in model.model_fields})


def _descend(annotation: Any, part: str | int) -> Any:
    """Type of what stands at the key `part` of a value of this type."""
    models = _members(annotation, BaseModel)
    for model in models:
        if part in model.model_fields:
            return model.model_fields[str(part)].annotation
    values = [typing.get_args(kind)[-1] for kind in _members(annotation, dict)]
    return values[0] if values else None


def _members(annotation: Any, kind: type) -> list[Any]:
    """Those types of a (nested) union that are of the given kind."""
    origin = typing.get_origin(annotation)
    if isinstance(origin or annotation, type) and issubclass(origin or annotation, kind):
        return [annotation]
    if origin in (typing.Union, types.UnionType):
        return [member for argument in typing.get_args(annotation) for member in _members(argument, kind)]
    return _members(typing.get_args(annotation)[0], kind) if origin is typing.Annotated else []
