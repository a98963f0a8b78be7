"""JSON objects in the files of a model's or tokenizer's folder."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from lmworks.configs.errors import UserError

_LARGEST = 1 << 28
"""Bytes; the largest tokenizers take a tenth of it."""
_LONGEST_REASON = 200


def read_object(path: Path, key: str = "") -> dict[str, Any]:
    """Reads a file that holds one JSON object; an empty one where there is no file.

    Args:
        path: The file.
        key: Config key that names the folder, for the message.

    Raises:
        UserError: It is no JSON, no object, or no file that can be read.
    """
    if not path.exists():
        return {}
    where = f"{key}: {path}" if key else str(path)
    check_size(path, where)
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"{where}: cannot be read: {error.strerror or error}") from error
    except RecursionError:
        raise UserError(f"{where}: is nested too deeply") from None
    except ValueError as error:
        raise UserError(f"{where}: is not JSON in UTF-8: {error}") from error
    if not isinstance(content, dict):
        raise UserError(f"{where}: must be a JSON object, not a {type(content).__name__}")
    return content


def check_size(path: Path, where: str = "") -> None:
    """Checks that a file can be read whole.

    Args:
        path: The file.
        where: What to call it, its path if empty.

    Raises:
        UserError: It is too large, or no file.
    """
    if not path.is_file() or path.stat().st_size > _LARGEST:
        raise UserError(f"{where or path}: must be a file of less than {_LARGEST >> 20} MiB")


@contextlib.contextmanager
def understanding(path: Path) -> Iterator[None]:
    """Names the file in every error of what is done within with its content.

    Args:
        path: File or folder that is understood there.

    Raises:
        UserError: Something in it is not as its format has it.
    """
    try:
        yield
    except UserError as error:
        if str(path) in str(error):
            raise
        raise UserError(f"{path}: {error}") from error
    except MemoryError:
        raise
    except Exception as error:  # libraries raise all kinds on damaged content, `tokenizers` plain `Exception`
        lacks = isinstance(error, LookupError)
        reason = " ".join(str(error).split())[:_LONGEST_REASON] or type(error).__name__
        told = f"lacks {reason}" if lacks else reason
        raise UserError(f"{path}: is damaged, or of a format that is not known here: {told}") from error
