"""Paths as a user writes them: `~` and `$VARIABLES` expanded where they are used, relative ones looked up beside the recipe too.

A relative path is of the working directory. Where there is nothing, it is of the recipe's folder; and where it begins with the
names that this folder's path ends with, as `configs/data.csv` in `/a/configs/my.yaml` does, it goes on from them. So a recipe finds
what lies beside it, or below, from wherever the command is run, and nothing else.
"""

from __future__ import annotations

import contextlib
import glob
import os
import re
from collections.abc import Iterator
from pathlib import Path

from lmworks.configs.errors import ConfigError
from lmworks.configs.shown import shown

ENVIRONMENT = "LMWORKS_RECIPE_FOLDER"
"""Variable by which the processes of a run know the recipe's folder; a cluster, which has only the config, has none."""

_VARIABLE = re.compile(r"\$(?:([A-Za-z_][A-Za-z0-9_]*)|\{([A-Za-z_][A-Za-z0-9_]*)\})")


def expand(path: str, key: str) -> str:
    """Expands `~` at the beginning of a path and `$NAME` or `${NAME}` anywhere in it.

    Args:
        path: A path, a glob or a URL; in a URL a variable that is not set stays as it is, for `$` may stand in a query.
        key: The config key or flag that holds the path, for errors.

    Raises:
        ConfigError: The path is empty or can be none, or it names an environment variable that is not set or a home that does
            not exist.
    """
    if not path.strip():
        raise ConfigError(f"{key}: is empty; is a variable not set?")
    if "\0" in path or not _is_unicode(path):
        raise ConfigError(f"{key}: {shown(path, 200)}: no path holds such a character")
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


def _is_unicode(path: str) -> bool:
    """Whether a path is text; bytes that are none are surrogates in Python, which no JSON file and no log can hold."""
    try:
        path.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


@contextlib.contextmanager
def beside(recipe: str | None) -> Iterator[None]:
    """Within it relative paths are looked up beside a recipe too, by this process and those that it starts.

    Args:
        recipe: path of the YAML file; none where a command has no recipe.
    """
    before = os.environ.pop(ENVIRONMENT, None)
    if recipe:
        os.environ[ENVIRONMENT] = os.path.dirname(os.path.abspath(recipe))
    try:
        yield
    finally:
        os.environ.pop(ENVIRONMENT, None)
        if before is not None:
            os.environ[ENVIRONMENT] = before


def _bases(path: str) -> list[str]:
    """Folders that a relative path may be relative to, the working directory, which is empty, first."""
    folder = os.environ.get(ENVIRONMENT)
    if not folder or os.path.isabs(path) or "://" in path:
        return [""]
    parts, names = Path(path).parts, Path(folder).parts
    above = [str(Path(*names[:-count])) for count in range(1, len(parts) + 1) if names[-count:] == parts[:count]]
    return list(dict.fromkeys(["", *(base for base in (folder, *above) if base != os.getcwd())]))


def base_of(path: str) -> str:
    """Returns the folder that a path or glob is relative to: the first in which it matches something, else the working directory.

    Args:
        path: Expanded.

    Returns:
        Empty for the working directory, for an absolute path and for a URL.
    """
    first, *others = _bases(path)
    for base in (first, *others) if others else ():
        if os.path.lexists(os.path.join(base, path)) or glob.glob(path, root_dir=base or None, recursive=True):
            return base
    return first


def find(path: str, key: str) -> str:
    """Expands a path, see `expand`, and looks up where it is.

    Args:
        path: A path, a glob or a URL of something to read.
        key: The config key that holds the path, for errors.

    Raises:
        ConfigError: As `expand`.
    """
    path = expand(path, key)
    base = base_of(path)
    if base and glob.has_magic(path) and not os.path.lexists(os.path.join(base, path)):
        base = glob.escape(base)
    return os.path.join(base, path)


def places(path: str) -> str:
    """Says for an error where a path was looked up, if its words do not say it."""
    if os.path.isabs(path) or "://" in path:
        return ""
    others = _bases(path)[1:]
    return f" in {os.getcwd()}" + (f" and, beside the recipe, in {' and '.join(others)}" if others else "")
