"""A folder in KerasHub's format, looked at before a model of its sizes is built: what it is, its sizes, and its HDF5 files.

Keras itself refuses Lambda layers, classes of other packages, and HDF5 files that lead to other ones, when it loads them; what it
does not do is to compare the sizes in `config.json` with the weights before it builds a model of these sizes.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lmworks.configs.errors import UserError
from lmworks.models.json_files import read_object

if TYPE_CHECKING:
    import h5py

_SHARDS = "model.weights.json"
_WEIGHTS, _HEAD = "model.weights.h5", "task.weights.h5"
_COUNTS = (
    "vocabulary_size", "num_layers", "num_heads", "num_attention_heads", "num_query_heads", "num_key_value_heads", "hidden_dim",
    "intermediate_dim", "head_dim", "max_sequence_length", "max_position_embeddings", "num_segments",
)  # fmt: skip
_NOT_IN_WEIGHTS = ("max_sequence_length", "max_position_embeddings")
"""Counts that need not be a size of a tensor: rotary embeddings have none."""
_BOMB_FACTOR, _BOMB_FLOOR = 1000, 1 << 26
"""A dataset of more bytes than the floor, and so many times those in the file, is no model's weight, but fills the memory."""


def read_keras_hub_config(folder: Path) -> dict[str, Any] | None:
    """Reads what a folder's `config.json` says of its backbone, `class_name` and `config`; none for any other format.

    Args:
        folder: A preset.

    Raises:
        UserError: The file is damaged, or also of Hugging Face's format, so that two readers would see two models.
    """
    path = folder / "config.json"
    described = read_object(path, "model.preset")
    if "registered_name" not in described:
        return None
    if "model_type" in described:
        raise UserError(f"model.preset: {path}: has both registered_name (KerasHub) and model_type (Hugging Face)")
    if not isinstance(described.get("class_name"), str) or not isinstance(described.get("config"), dict):
        raise UserError(f"model.preset: {path}: has no class_name and config of a KerasHub backbone")
    if described["registered_name"] != f"keras_hub>{described['class_name']}":
        raise UserError(f"model.preset: {path}: registered_name is not that of KerasHub's {described['class_name']}")
    return described


def check_keras_hub_folder(folder: Path, described: dict[str, Any]) -> None:
    """Refuses a folder whose sizes are not those of its weights, or whose weights are damaged or lead to other files.

    Args:
        folder: The preset.
        described: Of `read_keras_hub_config`.

    Raises:
        UserError: Naming the file.
    """
    path, settings = folder / "config.json", described["config"]
    for name in _COUNTS:
        value = settings.get(name)
        if value is not None and (type(value) is not int or value <= 0):
            raise UserError(f"model.preset: {path}: {name} must be an integer above 0, not {str(value)[:60]}")
    layers, largest, positions = _sizes_of_weights(folder)
    for name in _COUNTS:
        value = settings.get(name)
        limit = layers if name == "num_layers" else largest
        if value is not None and name not in _NOT_IN_WEIGHTS and value > limit:
            raise UserError(f"model.preset: {path}: {name} {value:,} is more than the weights beside it have")
    length = settings.get("max_sequence_length")
    if positions is not None and length is not None and length != positions:
        raise UserError(
            f"model.preset: {path}: max_sequence_length {length:,}, and the weights beside it have {positions:,} positions"
        )


def _sizes_of_weights(folder: Path) -> tuple[int, int, int | None]:
    """Counts the layers, and finds the largest side of a tensor and the number of learned positions."""
    layers: set[str] = set()
    largest, positions = 0, None
    for path in hdf5_files(folder):
        for name, dataset in datasets_of(path):
            parts = name.split("/")
            if parts[0] == "layers" and len(parts) > 1:
                layers.add(parts[1])
            largest = max([largest, *dataset.shape])
            if "position_embedding" in name and len(dataset.shape) == 2:
                positions = dataset.shape[0]
    return len(layers), largest, positions


def hdf5_files(folder: Path) -> list[Path]:
    """Lists the files of the weights, those of a task's head last; none where the folder has none.

    Raises:
        UserError: The index of several files is damaged or names a file outside the folder.
    """
    path, head = folder / _SHARDS, [folder / _HEAD] if (folder / _HEAD).exists() else []
    if (folder / _WEIGHTS).exists() or not path.exists():
        return [folder / _WEIGHTS, *head] if (folder / _WEIGHTS).exists() else head
    by_variable = read_object(path, "model.preset").get("weight_map")
    values = by_variable.values() if isinstance(by_variable, dict) else [None]
    names = {name for value in values for name in (value if isinstance(value, list) else [value])}
    for name in names:
        if not isinstance(name, str) or Path(name).name != name or not (folder / name).is_file():
            raise UserError(
                f"model.preset: {path}: weight_map names {str(name)[:60]!r}, which is no file in this folder"
            )
    return [*(folder / name for name in sorted(map(str, names))), *head]


def datasets_of(path: Path) -> Iterator[tuple[str, h5py.Dataset]]:
    """Yields the datasets of an HDF5 file by their names.

    Raises:
        UserError: The file is damaged, has data in other files, or a dataset that would fill the memory.
    """
    import h5py

    seen: set[int] = set()

    def walk(group: h5py.Group, parents: tuple[str, ...]) -> Iterator[tuple[str, h5py.Dataset]]:
        for key in group:
            link, name = group.get(key, getlink=True), "/".join((*parents, key))
            if not isinstance(link, h5py.HardLink):
                raise UserError(f"model.preset: {path}: {name} is a link to another place, which is not followed")
            node = group[key]
            place = h5py.h5o.get_info(node.id).addr
            if place in seen:  # a group may be within itself
                raise UserError(f"model.preset: {path}: {name} stands in the file under another name too")
            seen.add(place)
            if isinstance(node, h5py.Group):
                yield from walk(node, (*parents, key))
            elif isinstance(node, h5py.Dataset):
                if node.external or node.is_virtual:
                    raise UserError(f"model.preset: {path}: {name} has its numbers in another file")
                if node.nbytes > max(_BOMB_FLOOR, _BOMB_FACTOR * node.id.get_storage_size()):
                    raise UserError(f"model.preset: {path}: {name} says it has {node.nbytes:,} bytes, and has not")
                yield name, node

    if not path.is_file():
        raise UserError(f"model.preset: {path}: is no file")
    try:
        with h5py.File(path, "r") as file:
            yield from walk(file, ())
    except (OSError, RuntimeError, ValueError, KeyError) as error:
        raise UserError(f"model.preset: {path}: is no whole HDF5 file: {' '.join(str(error).split())[:200]}") from None
