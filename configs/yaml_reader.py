"""YAML as a config reads it: safe, no key twice, no value that turns into null or into a number without a word.

YAML 1.1, with the scalars of YAML 1.2 where the older rules lose what was written: `1e-4` is a number; `2024-01-31`, `12:30` and
`007` stay text, where 1.1 makes a date, 750 and 7 of them. `yes`, `no`, `on` and `off` stay truth values.
"""

from __future__ import annotations

import json
import re
from typing import Any, TypeGuard

import yaml

from lmworks.configs.errors import ConfigError
from lmworks.configs.shown import shown
from lmworks.configs.yaml_bounds import check_bounds

_NULLS = ("null", "Null", "NULL")
_MERGE = "tag:yaml.org,2002:merge"
_NULL = "tag:yaml.org,2002:null"
_TAGS = ("null", "bool", "int", "float", "str", "seq", "map")
"""Kinds of values that a config has; of YAML's others (dates, sets, bytes) no key has a use."""
_REPEATED = 200
"""Characters of a value of the command line that an error repeats at most."""
_DIGITS = 100
"""Characters of a number at most: Python turns long ones into text and back in quadratic time, or not at all."""
_ENDS = (yaml.StreamEndToken, yaml.BlockEndToken)
"""Tokens that reach over comments."""
_SHELLS = set('$`\\"!')
"""Characters that a shell reads in double quotes."""
_STREAM = (yaml.StreamStartToken, yaml.StreamEndToken)
_OLD_KINDS = ("int", "float", "timestamp", "value")
"""Kinds of YAML 1.1 whose scalars are read otherwise; `value` is a lone `=`, which stays text."""
_INTEGER = re.compile(r"[-+]?(?:0|[1-9][0-9_]*|0x[0-9a-fA-F_]+|0b[01_]+)$")
_FLOAT = re.compile(
    r"[-+]?(?:(?:[0-9][0-9_]*\.?[0-9_]*|\.[0-9]+)[eE][-+]?[0-9]+|[0-9][0-9_]*\.[0-9_]*|\.[0-9]+|\.(?:inf|Inf|INF))$"
    r"|\.(?:nan|NaN|NAN)$"
)


class _Loader(yaml.SafeLoader):
    """A safe loader that refuses a key that stands twice and a value that is empty."""


_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag.rpartition(":")[2] not in _OLD_KINDS]
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


def _number(loader: _Loader, node: yaml.ScalarNode) -> int | float:
    kind = node.tag.rpartition(":")[2]
    if len(node.value) <= _DIGITS:
        try:
            if kind == "int":
                return int(loader.construct_yaml_int(node))
            return float(loader.construct_yaml_float(node))
        except (ValueError, IndexError):
            pass
    value = shown(repr(node.value), 80)
    raise yaml.constructor.ConstructorError(None, None, f"{value} is no number that can be read", node.start_mark)


def _truth(loader: _Loader, node: yaml.ScalarNode) -> bool:
    if node.value.lower() not in loader.bool_values:
        value = shown(repr(node.value), 80)
        raise yaml.constructor.ConstructorError(None, None, f"{value} is no truth value", node.start_mark)
    return loader.bool_values[node.value.lower()]


def _unknown_tag(loader: _Loader, node: yaml.Node) -> None:
    tag = shown(node.tag.replace("tag:yaml.org,2002:", "!!"), 80)
    raise yaml.constructor.ConstructorError(
        None, None, f"{tag} is a tag that no config has: leave it out, or quote it if it is text", node.start_mark
    )


def _unique_mapping(loader: _Loader, node: yaml.MappingNode, deep: bool = True) -> dict[Any, Any]:
    seen: set[Any] = set()
    for key_node, value_node in node.value:
        if key_node.tag == _MERGE:  # `<<: *anchor`, whose keys may be set anew
            continue
        if not isinstance(key_node, yaml.ScalarNode):
            kind = "a list" if isinstance(key_node, yaml.SequenceNode) else "a mapping"
            raise yaml.constructor.ConstructorError(
                None, None, f"a key must be text, and this is {kind}; quote it if it is text", key_node.start_mark
            )
        key = loader.construct_object(key_node, deep=True)
        if key in seen:
            raise yaml.constructor.ConstructorError(
                None, None, f"the key {shown(repr(key), 80)} stands twice", key_node.start_mark
            )
        if problem := _empty(value_node):
            raise yaml.constructor.ConstructorError(
                None, None, f"the key {shown(repr(key), 80)} {problem}", key_node.start_mark
            )
        seen.add(key)
    return yaml.SafeLoader.construct_mapping(loader, node, deep=True)


def _null(loader: _Loader, node: yaml.ScalarNode) -> None:
    if problem := _empty(node):
        raise yaml.constructor.ConstructorError(None, None, f"an entry {problem}", node.start_mark)


def _text(loader: _Loader, node: yaml.ScalarNode) -> Any:
    """What `<<` is if it is no key."""
    return loader.construct_scalar(node)


_Loader.yaml_constructors = {
    tag: construct
    for tag, construct in yaml.SafeLoader.yaml_constructors.items()
    if str(tag).rpartition(":")[2] in _TAGS
}
_Loader.add_constructor(None, _unknown_tag)
_Loader.add_constructor("tag:yaml.org,2002:int", _number)
_Loader.add_constructor("tag:yaml.org,2002:float", _number)
_Loader.add_constructor("tag:yaml.org,2002:bool", _truth)
_Loader.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, _unique_mapping)
_Loader.add_constructor(_NULL, _null)
_Loader.add_constructor(_MERGE, _text)


def parse_yaml(text: str, origin: str) -> Any:
    """Parses a YAML file.

    Args:
        text: Content of the file.
        origin: Name of the file in an error.

    Raises:
        ConfigError: The text is not YAML, is too large or too deep, a key stands twice, or a value is empty.
    """
    try:
        check_bounds(text, _Loader)
        return yaml.load(text, _Loader)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = mark.line if mark else text.count("\n", 0, error.position) if _is_of_characters(error) else None
        place = origin if line is None else f"{origin}:{line + 1}"
        raise ConfigError(f"{place}: {_problem(error)}") from None


def _is_of_characters(error: yaml.YAMLError) -> TypeGuard[yaml.reader.ReaderError]:
    return isinstance(error, yaml.reader.ReaderError)


def _problem(error: yaml.YAMLError) -> str:
    if _is_of_characters(error):
        return f"no valid YAML: it has no character U+{error.character:04X}; is it a text file?"
    problem = getattr(error, "problem", None) or error
    return str(problem) if isinstance(error, yaml.constructor.ConstructorError) else f"no valid YAML: {problem}"


def parse_value(text: str, origin: str) -> Any:
    """Parses one value of the command line, none of whose characters may be lost.

    Args:
        text: The value, YAML.
        origin: Name of the flag in an error.

    Raises:
        ConfigError: The text is not YAML, is null without saying `null`, holds a comment, or is text of which YAML would take
            a part for itself, such as a tag or the mark of a block.
    """
    quoted = f"quote the text: {origin}={_in_quotes(text)}" if len(text) <= _REPEATED else "quote the text"
    value = shown(repr(text), _REPEATED)
    try:
        check_bounds(text, _Loader)
        node = yaml.compose(text, _Loader)
        tokens = list(yaml.scan(text))
    except yaml.YAMLError as error:
        raise ConfigError(f"{origin}: {_problem(error)}; if {value} is text, {quoted}") from None
    if (node is None or node.tag == _NULL) and text.strip() not in _NULLS:
        raise ConfigError(f"{origin}: {value} is null in YAML: write null, or {quoted}")
    if comment := text[max(token.end_mark.index for token in tokens if not isinstance(token, _ENDS)) :].strip():
        raise ConfigError(
            f"{origin}: {shown(repr(comment), _REPEATED)} is a comment in YAML and would be lost; {quoted}, or leave it out"
        )
    if isinstance(node, yaml.ScalarNode) and not _is_whole(text, node, tokens):
        raise ConfigError(f"{origin}: YAML reads {value} as {shown(repr(node.value), _REPEATED)}; {quoted}")
    return parse_yaml(text, origin)


def _in_quotes(text: str) -> str:
    """The text in the quotes of YAML, and around them those of a shell."""
    if text.isprintable() and not set(text) & _SHELLS:
        return "\"'" + text.replace("'", "''") + "'\""
    return "'" + json.dumps(text, ensure_ascii=False).replace("'", "\\u0027") + "'"


def _is_whole(text: str, node: yaml.ScalarNode, tokens: list[yaml.Token]) -> bool:
    """Whether a scalar holds all characters of its text: no mark of a document or block, no tag or anchor, no folded line."""
    if [type(token) for token in tokens if not isinstance(token, _STREAM)] != [yaml.ScalarToken]:
        return False
    if node.style in ("'", '"'):
        return "\n" not in text
    return node.style is None and node.value == text.strip(" \t\r\n")
