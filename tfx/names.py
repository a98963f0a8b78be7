"""Names that become paths: what others wrote into a root, a bucket or an index is checked here before it is used as one.

A name that was chosen here (a function's, a time, a digest) passes by construction. Every other one, from `run.json`,
`artifact.json`, a listing, the index, a state's records or the command line, may lead anywhere.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import PurePosixPath

_LONGEST, _LONGEST_PATH = 200, 1024
"""Bytes. File systems take 255 for a name, and locks and drafts add to it; S3 takes 1,024 for a path."""
_IDENTIFIER = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*", re.ASCII)
_OF_THE_ROOT = r"store|state|metadata\.lock|metadata\.sqlite.*"
"""What every root has in its top folder."""


def is_component(name: object) -> bool:
    """Whether a name is one component of a path that stays in its folder and can be printed."""
    return (
        isinstance(name, str)
        and name not in ("", ".", "..")
        and name.isprintable()  # no control characters, and no surrogates, which are no UTF-8
        and not {"/", "\\"} & {*name}
        and len(name.encode()) <= _LONGEST
    )


def is_identifier(name: object) -> bool:
    """Whether a name can be that of an execution, a key or a state: letters, digits, `.`, `_` and `-`, and not hidden."""
    return isinstance(name, str) and is_component(name) and _IDENTIFIER.fullmatch(name) is not None


def is_stage(name: object) -> bool:
    """Whether a name can be that of a stage or of an output, which are names in Python."""
    return isinstance(name, str) and is_component(name) and name.isidentifier()


def is_run(name: object) -> bool:
    """Whether a name can be that of a run, beside what every root has in its top folder."""
    # Compared as by a file system that does not know upper case from lower.
    return is_identifier(name) and not re.fullmatch(_OF_THE_ROOT, str(name).lower())


def is_execution(name: object, stage: str = "") -> bool:
    """Whether a text is `<stage>/<execution>`.

    Args:
        name: the text.
        stage: the stage that it must be of, where it is known.
    """
    parts = name.split("/") if isinstance(name, str) else []
    return len(parts) == 2 and is_stage(parts[0]) and is_identifier(parts[1]) and stage in ("", parts[0])


def is_file(name: object) -> bool:
    """Whether a text is the relative path of a file below a folder."""
    return (
        isinstance(name, str)
        and all(map(is_component, name.split("/")))  # an empty one stands where it begins or ends with `/`
        and len(name.encode()) <= _LONGEST_PATH
    )


def files_in_the_way(names: Iterable[str]) -> set[str]:
    """Returns the paths that cannot be files beside the others, as another one is a folder on their way."""
    every = set(names)
    return {name for name in every if any(str(above) in every for above in PurePosixPath(name).parents)}


def points_outside(name: str) -> bool:
    """Whether the name of an archive's member, which may be written as `./a/`, would leave the folder that it is put into."""
    path = PurePosixPath(name)
    return path.is_absolute() or ".." in path.parts
