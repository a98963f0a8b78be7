"""Where this person's cache is."""

from __future__ import annotations

import os
from pathlib import Path

from lmworks.configs.errors import UserError


def personal_cache() -> Path:
    """Returns lmworks's folder in the person's cache.

    Raises:
        UserError: There is no home folder, as for a user id that the system does not know.
    """
    cache = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    if cache.startswith("~"):
        raise UserError("there is no home folder for what is fetched; set XDG_CACHE_HOME to a folder for it")
    return Path(cache, "lmworks")
