"""The files with weights of a folder in Hugging Face's format, and whether every number in them is one."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

from lmworks.configs.errors import UserError
from lmworks.models.json_files import read_object
from lmworks.models.keras_hub_folder import datasets_of, hdf5_files
from lmworks.models.safetensors_header import Tensor, read_header

if TYPE_CHECKING:
    import numpy as np

WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"
_AT_ONCE = 1 << 22
"""Numbers that are looked at at once."""
_EXPONENTS = {"F16": ("<u2", 0x7C00), "BF16": ("<u2", 0x7F80), "F32": ("<u4", 0x7F800000), "F64": ("<u8", 0x7FF << 52)}
"""How the numbers of a dtype are read, and the bits that are all set in NaN and infinity (IEEE 754)."""


def weight_files(folder: Path) -> list[Path]:
    """Lists the safetensors files that a model is read from; none where the folder has none.

    Names in an index are names in the folder: an index may come from somebody else and must not lead to other files of this
    machine. A file of the folder may be a link, for the cache of Hugging Face's client consists of links.

    Args:
        folder: In Hugging Face's format.

    Raises:
        UserError: The index is damaged, names a file outside the folder, or one that is not there.
    """
    path = folder / INDEX
    if not path.exists():
        return [folder / WEIGHTS] if (folder / WEIGHTS).exists() else []
    by_tensor = read_object(path, "model.preset").get("weight_map")
    if not isinstance(by_tensor, dict) or not by_tensor:
        raise UserError(f"model.preset: {path}: has no weight_map, the file of each tensor")
    names = list(dict.fromkeys(map(_plain_name, by_tensor.values())))
    if None in names:
        wrong = next(name for name in by_tensor.values() if _plain_name(name) is None)
        raise UserError(
            f"model.preset: {path}: weight_map names {json.dumps(wrong)[:100]}; it must be the name of a file in this folder"
        )
    files = [folder / str(name) for name in names]
    if absent := next((file for file in files if not file.is_file()), None):
        raise UserError(f"model.preset: {path}: names {absent.name}, which is not in the folder")
    headers = {file.name: read_header(file) for file in files}
    if lost := next((name for name, file in by_tensor.items() if name not in headers[file]), None):
        raise UserError(f"model.preset: {path}: names tensor {lost[:100]!r} in {by_tensor[lost]}, which has none")
    return files


def _plain_name(value: object) -> str | None:
    """Returns the value if it is the name of a file in a folder."""
    plain = isinstance(value, str) and value not in ("", ".", "..") and not set(value) & {"/", "\\", "\0"}
    return str(value) if plain else None


def headers_of(folder: Path) -> dict[str, Tensor]:
    """Reads the tensors of all weight files by their names; see `weight_files` and `read_header`."""
    return {name: tensor for path in weight_files(folder) for name, tensor in read_header(path).items()}


def check_finite(folder: Path, at_most: int | None = None) -> None:
    """Refuses weights that hold NaN or infinity: with one of them every output is NaN, and no training mends it.

    Args:
        folder: A preset with safetensors files or KerasHub's HDF5 files; anything else is passed over.
        at_most: Numbers of each tensor that are looked at, its first ones; all when not given.

    Raises:
        UserError: Naming the file and the tensor.
    """
    for path in weight_files(folder):
        for name, tensor in read_header(path).items():
            if tensor.dtype in _EXPONENTS and not _is_finite(path, tensor, at_most):
                raise _not_finite(path, name)
    for path in hdf5_files(folder):
        _check_hdf5(path, at_most)


def _not_finite(path: Path, name: str) -> UserError:
    return UserError(
        f"model.preset: {path}: tensor {name} holds NaN or infinity; the model was damaged, or its training diverged"
    )


def _is_finite(path: Path, tensor: Tensor, at_most: int | None) -> bool:
    import numpy as np

    kind, bits = _EXPONENTS[tensor.dtype]
    count = (tensor.end - tensor.begin) // np.dtype(kind).itemsize
    count = count if at_most is None else min(count, at_most)
    with path.open("rb") as file:
        file.seek(tensor.begin)
        while count > 0:
            part: np.ndarray = np.fromfile(file, kind, min(count, _AT_ONCE))
            if not len(part) or np.any(part & np.array(bits, kind) == bits):
                return False
            count -= len(part)
    return True


def _check_hdf5(path: Path, at_most: int | None) -> None:
    import numpy as np

    for name, dataset in datasets_of(path):
        if dataset.dtype.kind != "f" or not dataset.size:
            continue
        rows = dataset.shape[0] if dataset.shape else 1
        step = max(1, (at_most or _AT_ONCE) * rows // dataset.size)
        for begin in range(0, step if at_most else rows, step):
            try:
                part = dataset[begin : begin + step] if dataset.shape else dataset[()]
            except OSError as error:
                raise UserError(f"model.preset: {path}: {name} cannot be read: {error}") from None
            if not np.all(np.isfinite(part)):
                raise _not_finite(path, name)
