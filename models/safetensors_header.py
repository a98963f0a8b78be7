"""The header of a safetensors file: which tensors it holds and where, read and checked without reading a tensor.

The format is that of https://github.com/huggingface/safetensors: 8 bytes with the length of the header (little endian), the header
(a JSON object: each tensor's dtype, shape and bytes), then the tensors one behind the other.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any, NamedTuple

from lmworks.configs.errors import UserError

_LENGTH_BYTES = 8
_LONGEST_HEADER = 100_000_000
"""Bytes; the library's own limit."""
_BYTES = {
    "BOOL": 1, "U8": 1, "I8": 1, "F8_E5M2": 1, "F8_E4M3": 1, "F8_E8M0": 1, "U16": 2, "I16": 2, "F16": 2, "BF16": 2,
    "U32": 4, "I32": 4, "F32": 4, "U64": 8, "I64": 8, "F64": 8,
}  # fmt: skip


class Tensor(NamedTuple):
    """Where a tensor stands in its file."""

    dtype: str
    """As safetensors calls it."""
    shape: tuple[int, ...]
    begin: int
    """Its first byte, from the beginning of the file."""
    end: int
    """The byte after its last one."""


def read_header(path: Path) -> dict[str, Tensor]:
    """Reads the header of a safetensors file.

    Args:
        path: The file.

    Returns:
        The tensors by their names.

    Raises:
        UserError: It is no such file, or damaged: the tensors do not fill it, each in its own place.
    """
    try:
        tensors, size = _read(path)
        _check_places(tensors, size)
    except OSError as error:
        raise UserError(f"model.preset: {path}: cannot be read: {error.strerror or error}") from None
    except _Damage as error:
        raise UserError(f"model.preset: {path}: is no whole safetensors file: {error}") from None
    return tensors


class _Damage(Exception):
    """What is wrong with the file."""


def _read(path: Path) -> tuple[dict[str, Tensor], int]:
    """Returns the tensors and the size of the file in bytes."""
    if not path.is_file():  # a pipe would be waited for
        raise _Damage("there is no such file")
    size = path.stat().st_size
    with path.open("rb") as file:
        length = int.from_bytes(file.read(_LENGTH_BYTES), "little")
        if size < _LENGTH_BYTES or not 0 < length <= min(size - _LENGTH_BYTES, _LONGEST_HEADER):
            raise _Damage(f"its header should have {length:,} bytes, and the file has {size:,}")
        text = file.read(length)
    try:
        header = json.loads(text)
    except (ValueError, RecursionError):
        raise _Damage("its header is no JSON") from None
    if not isinstance(header, dict):
        raise _Damage("its header is no JSON object")
    header.pop("__metadata__", None)
    return {name: _tensor(name, entry, _LENGTH_BYTES + length) for name, entry in header.items()}, size


def _tensor(name: str, entry: Any, base: int) -> Tensor:
    entry = entry if isinstance(entry, dict) else {}
    dtype, shape, offsets = entry.get("dtype"), entry.get("shape"), entry.get("data_offsets")
    if dtype not in _BYTES:
        raise _Damage(f"tensor {name!r} has the dtype {dtype!r}")
    if not _are_counts(shape) or not _are_counts(offsets) or len(offsets) != 2:
        raise _Damage(f"tensor {name!r} has the shape {shape!r} at {offsets!r}")
    begin, end = offsets
    if end - begin != math.prod(shape) * _BYTES[dtype]:
        raise _Damage(f"tensor {name!r} has {end - begin:,} bytes, which are not {dtype} of the shape {shape}")
    return Tensor(dtype, tuple(shape), base + begin, base + end)


def _are_counts(value: Any) -> bool:
    return isinstance(value, list) and all(type(one) is int and one >= 0 for one in value)


def _check_places(tensors: dict[str, Tensor], size: int) -> None:
    """Checks that no tensor reaches into another one or beyond the file."""
    before = 0
    for name, tensor in sorted(tensors.items(), key=lambda item: (item[1].begin, item[1].end)):
        if tensor.begin < before:
            raise _Damage(f"tensor {name!r} begins within another one")
        if tensor.end > size:
            raise _Damage(f"tensor {name!r} ends at byte {tensor.end:,}, and the file has {size:,}: it is cut off")
        before = tensor.end
