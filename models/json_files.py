"""JSON objects in the files of a model's or tokenizer's folder."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from lmworks.configs.errors import UserError


def read_object(path: Path, key: str = "") -> dict[str, Any]:
    """Reads a file that holds one JSON object; an empty one where there is no file.

    Args:
        path: The file.
        key: Config key that names the folder, for the message.

    Raises:
        UserError: It is no JSON, or no object.
    """
    if not path.exists():
        return {}
    where = f"{key}: {path}" if key else str(path)
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise UserError(f"{where}: is not JSON in UTF-8: {error}") from error
    if not isinstance(content, dict):
        raise UserError(f"{where}: must be a JSON object, not a {type(content).__name__}")
    return content
