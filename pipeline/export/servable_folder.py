"""A servable as it lies in a folder: where its SavedModel is, what its record says before TensorFlow is loaded, and loading it."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any, NamedTuple

from lmworks.configs.errors import ConfigError, UserError
from lmworks.configs.shown import shown
from lmworks.tfx.artifacts import manifest_of

SAVED_MODEL = "saved_model"
_WITHIN = (".", SAVED_MODEL, f"servable/{SAVED_MODEL}", f"export/servable/{SAVED_MODEL}")
"""Where the SavedModel lies in itself, in a servable, in the folder of export, and in a run."""
_GRAPH = "saved_model.pb"
_LISTED = 5


class ServableFolder(NamedTuple):
    """A SavedModel, and what is known of it."""

    path: Path
    properties: dict[str, Any]
    """Of the artifact `Servable`; empty where only the SavedModel is there."""

    @property
    def task(self) -> str | None:
        """What it was trained for; None if that is not known."""
        task = self.properties.get("task")
        return task if isinstance(task, str) else None

    @property
    def is_pair(self) -> bool | None:
        """Whether it takes two texts a row; None if that is not known."""
        return None if self.task is None else self.properties.get("text_pair") is True

    @property
    def labels(self) -> list[str]:
        """Classes in the order of the probabilities; empty if they are not known."""
        labels = self.properties.get("labels")
        return labels if isinstance(labels, list) and all(isinstance(label, str) for label in labels) else []

    def column(self, key: str) -> str | None:
        """The column that a text was read from in training; None if that is not known.

        Args:
            key: `text` or `text_b`.
        """
        columns = self.properties.get("columns")
        name = columns.get(key) if isinstance(columns, dict) else None
        return name if isinstance(name, str) else None


def find_servable(path: str) -> ServableFolder:
    """Finds the SavedModel of a run, of its folder `export`, of a servable, or of the newest version in a repository.

    Args:
        path: folder that was named.

    Raises:
        ConfigError: there is none; says where one is.
    """
    if "://" in path:
        raise ConfigError(f"--servable={path}: is a URL; copy the servable to this machine, and name its folder")
    folder = Path(path)
    if not folder.is_dir():
        raise ConfigError(
            f"--servable={path}: {'is no folder' if folder.exists() else 'there is no such folder'}; {_HINT}"
        )
    for inside in _WITHIN:
        if (folder / inside / _GRAPH).is_file():
            return _described(folder / inside)
    versions = [child for child in folder.iterdir() if child.name.isdecimal() and (child / _GRAPH).is_file()]
    if versions:
        return _described(max(versions, key=lambda version: int(version.name)))
    if (folder / "run.json").exists():
        raise ConfigError(
            f"--servable={path}: is a run without a servable; `lmworks runs` says how far it came, and why"
        )
    runs = sorted(str(child.parents[3]) for child in folder.glob(f"*/export/servable/{SAVED_MODEL}/{_GRAPH}"))
    listed = ", ".join(runs[:_LISTED]) + (" …" if len(runs) > _LISTED else "")
    raise ConfigError(f"--servable={path}: holds no SavedModel; {f'there are {listed}' if runs else _HINT}")


_HINT = "a run's servable is at <root>/<run>/export/servable"


def _described(saved_model: Path) -> ServableFolder:
    manifest = manifest_of(saved_model.resolve().parent)
    is_servable = manifest is not None and manifest["type"] == "Servable"
    return ServableFolder(saved_model, manifest["properties"] if manifest and is_servable else {})


def open_saved_model(folder: Path) -> Any:
    """Loads a SavedModel that takes strings."""
    import tensorflow as tf

    importlib.import_module("tensorflow_text")  # registers the graph's ops
    return tf.saved_model.load(str(folder))


def load_servable(saved_model: Path) -> Any:
    """Loads the SavedModel that `find_servable` found.

    Raises:
        UserError: it cannot be loaded.
    """
    import tensorflow as tf

    try:
        return open_saved_model(saved_model)
    except (OSError, ValueError, tf.errors.OpError) as error:
        if _is_damaged(saved_model / _GRAPH):
            raise UserError(f"{saved_model}: the SavedModel is damaged; export it again") from error
        reason = shown(str(error).partition("\n")[0])
        raise UserError(f"{saved_model}: the SavedModel cannot be loaded: {reason}") from error


def _is_damaged(graph: Path) -> bool:
    """Whether a file is no SavedModel, or has no graph in it: TensorFlow says neither in words."""
    from google.protobuf.message import DecodeError
    from tensorflow.core.protobuf.saved_model_pb2 import SavedModel

    try:
        return not SavedModel.FromString(graph.read_bytes()).meta_graphs
    except DecodeError:
        return True


def open_servable(folder: Path) -> Any:
    """Loads the SavedModel of a run, a servable or its own folder.

    Raises:
        UserError: it cannot be loaded; as `ConfigError` where there is none.
    """
    return load_servable(find_servable(str(folder)).path)
