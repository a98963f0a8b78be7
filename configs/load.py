"""From a YAML recipe and `--set` overrides to a frozen `Config`, or to all of its errors at once."""

from __future__ import annotations

import datetime
import difflib
import types
import typing
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ValidationError

from lmworks.configs.errors import UserError
from lmworks.configs.schema import Config

T = TypeVar("T", bound=BaseModel)


class ConfigError(UserError):
    """Bad config or bad usage: exit code 2."""


class _Loader(yaml.SafeLoader):
    """YAML in which a key that stands twice is an error, not a silent overwrite."""


def _unique_mapping(loader: _Loader, node: yaml.MappingNode, deep: bool = True) -> dict[Any, Any]:
    seen: set[Any] = set()
    for key_node, _ in node.value:
        if key_node.tag == "tag:yaml.org,2002:merge":  # `<<: *anchor`, whose keys may be given anew
            continue
        key = loader.construct_object(key_node, deep=True)
        if key in seen:
            raise yaml.constructor.ConstructorError(None, None, f"the key {key!r} stands twice", key_node.start_mark)
        seen.add(key)
    return yaml.SafeLoader.construct_mapping(loader, node, deep=True)


_Loader.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, _unique_mapping)


def parse_yaml(text: str, origin: str) -> Any:
    """Parses YAML safely.

    Args:
        text: the YAML.
        origin: what to call it in an error.

    Raises:
        ConfigError: no YAML, or a key that stands twice.
    """
    try:
        return yaml.load(text, _Loader)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f"{origin}:{mark.line + 1}" if mark else origin
        raise ConfigError(f"{where}: no valid YAML: {getattr(error, 'problem', None) or error}") from None


def override(tree: dict[str, Any], assignment: str) -> None:
    """Applies one `KEY=VALUE`, the key dotted, the value YAML, to a config tree in place.

    Raises:
        ConfigError: no `=`, a value that is no YAML, or a key below something that is no section.
    """
    key, equals, value = assignment.partition("=")
    if not equals or not all(key.split(".")):
        raise ConfigError(f"--set={assignment}: must be KEY=VALUE, for example --set=train.epochs=1")
    *parents, last = key.split(".")
    node = tree
    for parent in parents:
        child = node.get(parent)
        if child is None:
            child = node[parent] = {}
        if not isinstance(child, dict):
            raise ConfigError(f"--set={assignment}: {parent} is {child!r}, which has no keys; set it whole")
        node = child
    node[last] = parse_yaml(value, f"--set={key}")


def load(path: str | Path, overrides: Sequence[str] = ()) -> Config:
    """Reads a recipe.

    Args:
        path: the YAML file.
        overrides: `KEY=VALUE` each, applied in order.

    Raises:
        ConfigError: with every error of the config at once, each with its path, value and the nearest known key.
    """
    try:
        text = Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "no UTF-8 text"
        raise ConfigError(f"{path}: cannot read the config: {reason}") from None
    tree = parse_yaml(text, str(path))
    if not isinstance(tree, dict):
        raise ConfigError(f"{path}: a config is a mapping of keys to values")
    for assignment in overrides:
        override(tree, assignment)
    return validate(tree, str(path))


def validate(tree: dict[str, Any], origin: str, schema: type[T] = Config) -> T:  # type: ignore[assignment]
    """Validates a tree of keys against a schema; see `load`."""
    try:
        return schema.model_validate(tree)
    except ValidationError as error:
        # Where a value may be text or an object, an object is judged as an object only.
        found = [
            one
            for one in error.errors(include_url=False)
            if not (one["loc"][-1:] == ("str",) and isinstance(one["input"], dict))
        ]
        lines = [_explain(details, tree, schema) for details in found]
        count = "1 error" if len(lines) == 1 else f"{len(lines)} errors"
        raise ConfigError("\n  ".join([f"{origin}: {count} in the config", *dict.fromkeys(lines)])) from None


def _explain(details: Any, tree: dict[str, Any], schema: type[BaseModel]) -> str:
    location = _in_tree(details["loc"], tree)
    if location[-1:] == ["[key]"]:  # of a mapping's key, which is the value to judge
        location = location[:-2]
    path = ".".join(map(str, location)) or "config"
    if details["type"] == "extra_forbidden":
        known = _known_keys(location[:-1], schema)
        nearest = difflib.get_close_matches(str(location[-1]), known, n=1, cutoff=0.5)
        hint = ".".join([*map(str, location[:-1]), nearest[0]]) if nearest else ""
        return f"{path}: unknown key" + (f"; did you mean {hint}?" if hint else f"; known here: {', '.join(known)}")
    if details["type"] == "missing":
        return f"{path}: is missing"
    message = details["msg"].removeprefix("Value error, ").removeprefix("Input should be ")
    if details["type"] == "value_error" and isinstance(details["input"], dict | BaseModel):
        return f"{path}: {message}"
    value = repr(details["input"])
    value = value if len(value) <= 80 else value[:77] + "..."
    if details["type"] == "string_type" and (reading := _unquoted(details["input"])):
        return f"{path}: {value}: should be text, and {reading}: quote it"
    verb = message if details["type"] == "value_error" else f"should be {message}"
    return f"{path}: {value}: {verb}"


def _unquoted(value: Any) -> str:
    """How YAML 1.1 came to a value that is no text, where quotes would have kept it."""
    if isinstance(value, bool):
        return "YAML reads yes, no, on, off, true and false without quotes as a boolean"
    if value is None:
        return "YAML reads ~, null and nothing as no value"
    if isinstance(value, int | float):
        return "YAML reads it without quotes as a number"
    return "YAML reads it without quotes as a date" if isinstance(value, datetime.date) else ""


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
