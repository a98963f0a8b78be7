"""YAML as a config reads it: safe, no key twice, no value that turns into null or into a number without a word.

YAML 1.1, with the scalars of YAML 1.2 where the older rules lose what was written: `1e-4` is a number; `2024-01-31`, `12:30` and
`007` stay text, where 1.1 makes a date, 750 and 7 of them. `yes`, `no`, `on` and `off` stay truth values.
"""

from __future__ import annotations

import re
from typing import Any

import yaml

from lmworks.configs.errors import ConfigError

_NULLS = ("null", "Null", "NULL")
_MERGE = "tag:yaml.org,2002:merge"
_NULL = "tag:yaml.org,2002:null"
_ENDS = (yaml.StreamEndToken, yaml.BlockEndToken)
"""Tokens that reach over comments."""
_INTEGER = re.compile(r"[-+]?(?:0|[1-9][0-9_]*|0x[0-9a-fA-F_]+|0b[01_]+)$")
_FLOAT = re.compile(
    r"[-+]?(?:(?:[0-9][0-9_]*\.?[0-9_]*|\.[0-9]+)[eE][-+]?[0-9]+|[0-9][0-9_]*\.[0-9_]*|\.[0-9]+|\.(?:inf|Inf|INF))$"
    r"|\.(?:nan|NaN|NAN)$"
)


class _Loader(yaml.SafeLoader):
    """A safe loader that refuses a key that stands twice and a value that is empty."""


_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag.rpartition(":")[2] not in ("int", "float", "timestamp")]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_Loader.add_implicit_resolver("tag:yaml.org,2002:int", _INTEGER, list("-+0123456789"))
_Loader.add_implicit_resolver("tag:yaml.org,2002:float", _FLOAT, list("-+.0123456789"))


def _empty(node: yaml.Node) -> str | None:
    """What is wrong with a value that YAML reads as null although `null` is not what was written."""
    if node.tag != _NULL or node.value in _NULLS:
        return None
    if node.value == "~":
        return "is ~, which YAML reads as null: write null, or quote it: '~'"
    return (
        "has no value, which YAML reads as null (a # begins a comment, and --- a document): write null, quote the text, "
        "or leave the key out"
    )


def _unique_mapping(loader: _Loader, node: yaml.MappingNode, deep: bool = True) -> dict[Any, Any]:
    seen: set[Any] = set()
    for key_node, value_node in node.value:
        if key_node.tag == _MERGE:  # `<<: *anchor`, whose keys may be set anew
            continue
        key = loader.construct_object(key_node, deep=True)
        if key in seen:
            raise yaml.constructor.ConstructorError(None, None, f"the key {key!r} stands twice", key_node.start_mark)
        if problem := _empty(value_node):
            raise yaml.constructor.ConstructorError(None, None, f"the key {key!r} {problem}", key_node.start_mark)
        seen.add(key)
    return yaml.SafeLoader.construct_mapping(loader, node, deep=True)


def _null(loader: _Loader, node: yaml.ScalarNode) -> None:
    if problem := _empty(node):
        raise yaml.constructor.ConstructorError(None, None, f"an entry {problem}", node.start_mark)


_Loader.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, _unique_mapping)
_Loader.add_constructor(_NULL, _null)


def parse_yaml(text: str, origin: str) -> Any:
    """Parses a YAML file.

    Args:
        text: Content of the file.
        origin: Name of the file in an error.

    Raises:
        ConfigError: The text is not YAML, a key stands twice, or a value is empty.
    """
    try:
        return yaml.load(text, _Loader)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f"{origin}:{mark.line + 1}" if mark else origin
        problem = getattr(error, "problem", None) or error
        invalid = "" if isinstance(error, yaml.constructor.ConstructorError) else "no valid YAML: "
        raise ConfigError(f"{where}: {invalid}{problem}") from None


def parse_value(text: str, origin: str) -> Any:
    """Parses one value of the command line, none of whose characters may be lost.

    Args:
        text: The value, YAML.
        origin: Name of the flag in an error.

    Raises:
        ConfigError: The text is not YAML, is null without saying `null`, or holds a comment.
    """
    quoted = f"{origin}=\"'" + text.replace("'", "''") + "'\""
    if _is_null(text) and text.strip() not in _NULLS:
        raise ConfigError(f"{origin}: {text!r} is null in YAML: write null, or quote the text: {quoted}")
    value = parse_yaml(text, origin)
    ends = (token.end_mark.index for token in yaml.scan(text) if not isinstance(token, _ENDS))
    if comment := text[max(ends) :].strip():
        raise ConfigError(
            f"{origin}: {comment!r} is a comment in YAML and would be lost; quote the text: {quoted}, or leave it out"
        )
    return value


def _is_null(text: str) -> bool:
    """Whether a text is one null, written or empty."""
    try:
        node = yaml.compose(text, _Loader)
    except yaml.YAMLError:
        return False  # which parsing reports
    return node is None or node.tag == _NULL
