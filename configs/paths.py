"""Paths as a user writes them: `~` and `$VARIABLES` expanded where they are used, so that each machine has its own."""

from __future__ import annotations

import os
import re

from lmworks.configs.errors import ConfigError

_VARIABLE = re.compile(r"\$(?:([A-Za-z_][A-Za-z0-9_]*)|\{([A-Za-z_][A-Za-z0-9_]*)\})")


def expand(path: str, key: str) -> str:
    """Expands `~` at the beginning of a path and `$NAME` or `${NAME}` anywhere in it.

    Args:
        path: A path, a glob or a URL; in a URL a variable that is not set stays as it is, for `$` may stand in a query.
        key: The config key or flag that holds the path, for errors.

    Raises:
        ConfigError: The path names an environment variable that is not set, or a home that does not exist.
    """
    names = [first or second for first, second in _VARIABLE.findall(path)]
    missing = [name for name in names if name not in os.environ]
    if missing and "://" not in path and not os.path.lexists(path):
        raise ConfigError(f"{key}: {path}: the environment variable {missing[0]} is not set")
    if not missing:
        path = _VARIABLE.sub(lambda match: os.environ[match[1] or match[2]], path)
    if path.startswith("~") and not os.path.lexists(path):
        expanded = os.path.expanduser(path)
        if expanded == path:
            raise ConfigError(f"{key}: {path}: there is no such home folder")
        return expanded
    return path
