"""Which URLs name a place that keeps files: a root of runs, or a repository of models."""

from __future__ import annotations

import os
import re

from lmworks.configs.errors import ConfigError
from lmworks.configs.shown import shown

_STORES = (
    "s3", "s3a", "gs", "gcs", "az", "abfs", "oss", "oci", "tos", "hdfs", "webhdfs", "sftp", "ssh", "smb", "webdav", "file",
)  # fmt: skip
"""Of fsspec's protocols those that keep files for others, whole and under their names. `hf` makes a commit of each file, `memory`
ends with the process, and most others only read."""
_HOSTLESS = ("hdfs", "file")
"""Schemes whose URLs may name no host: HDFS then takes that of its configuration."""


def check_place(place: str) -> None:
    """Refuses a URL that names no store, or nothing in it, and a path that is meant as a URL.

    Args:
        place: a path or a URL, expanded.

    Raises:
        ValueError: with no part of a URL but its scheme, for it may hold a secret.
    """
    scheme, is_url, name = place.partition("://")
    if not is_url:
        slip = re.match(r"([a-z][a-z0-9]+):", place)
        if slip and slip[1] in _STORES and not os.path.lexists(place):
            raise ValueError(
                f"a URL is {slip[1]}://…, with two slashes; a folder of that name is ./{shown(place, 200)}"
            )
        return
    if scheme not in _STORES:
        raise ValueError(
            f"{shown(scheme, 80)}:// is of no store that files can be written to and served from; {', '.join(_STORES)} are"
        )
    if scheme == "file" and not name.startswith("/"):
        raise ValueError("file:// goes with an absolute path: file:///FOLDER")
    if not name.strip("/") or (name.startswith("/") and scheme not in _HOSTLESS):
        form = f"{scheme}:///FOLDER" if scheme in _HOSTLESS else f"{scheme}://BUCKET/FOLDER"
        raise ValueError(f"names nothing in the store; is a variable not set? must be {form}")


def check_root(root: str) -> None:
    """Refuses a root of runs that is no folder and no URL of one.

    Args:
        root: as `--root` names it, expanded.

    Raises:
        ConfigError: it is none.
    """
    try:
        check_place(root)
        if os.path.lexists(root) and not os.path.isdir(root):
            raise ValueError(f"{shown(root, 200)}: is no folder")
    except ValueError as error:
        raise ConfigError(f"--root: {error}") from None
