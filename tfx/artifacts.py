"""Typed artifacts, and what makes a folder one: `artifact.json`, written last.

A folder without `artifact.json` is not an artifact, whatever else it holds. A reader takes the files that it lists, never a glob.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, TypeVar

from lmworks.configs.errors import UserError
from lmworks.configs.shown import shown
from lmworks.tfx import containment, names

MANIFEST = "artifact.json"
MANIFEST_VERSION = 1
HTML = "system.HTML"
"""What Kubeflow and Vertex AI call a page."""
SETTLED = "settled"
"""Name of a file in a state folder, which holds the id of the published execution that used it last."""
_DEEPEST = 100
"""Levels of JSON; the manifests and records that we write have a tenth of them."""
_LONGEST_BITS = 1000
"""Of an integer in JSON; a longer one has no floating-point number."""

T = TypeVar("T", bound="Artifact")


class Artifact:
    """A folder of files with properties.

    Attributes:
        path: the folder. For an output it exists and is empty when the component starts.
        properties: JSON values that travel with the artifact; a component fills those of its outputs.
        files: of an input: the files that the manifest lists, relative to `path`.
        state: of an output: a folder for resumable work, which outlives the process. It need not exist yet.
        settled: of an output: whether `state` was left by an execution that was published.
        digest: of an input: its content's.
        shown: of an output: what the pages of a cluster show, as metadata by the name of a view.
    """

    schema_title: ClassVar[str] = "system.Artifact"
    """What Kubeflow and Vertex AI call this type."""
    views: ClassVar[Mapping[str, str]] = {}
    """What their pages show of it, a type by name. `system.HTML` is the file `<name>.html`, all others are in `shown`."""

    def __init__(
        self,
        path: Path,
        properties: Mapping[str, Any] | None = None,
        files: list[str] | None = None,
        state: Path | None = None,
        settled: bool = False,
        digest: str = "",
    ) -> None:
        self.path = path
        self.properties: dict[str, Any] = dict(properties or {})
        self.files = files or []
        self.state = state or path.with_name(f"{path.name}.state")
        self.settled = settled
        self.digest = digest
        self.shown: dict[str, dict[str, Any]] = {}

    def reopen(self) -> None:
        """Of an output: from now on what is in `state` belongs to this execution, which is not published yet."""
        self.settled = False
        _discard(self.state.parent / SETTLED)

    def other_states(self) -> list[Path]:
        """Of an output: lists the states of the same output under other keys, to be looked at and left as they are."""
        return sorted(path for path in self.state.parent.parent.glob(f"*/{self.state.name}") if path != self.state)


class Examples(Artifact):
    """Rows as Parquet, split, each with an `id`."""

    schema_title = "system.Dataset"


class Statistics(Artifact):
    """`statistics.json` and `report.html` of examples."""

    views: ClassVar[Mapping[str, str]] = {"report": HTML}


class Sequences(Artifact):
    """Token ids as Arrow IPC, split, beside the tokenizer's assets."""

    schema_title = "system.Dataset"


class Model(Artifact):
    """A KerasHub preset folder with the exact tokenizer."""

    schema_title = "system.Model"


class Logs(Artifact):
    """TensorBoard event files."""


class Evaluation(Artifact):
    """`metrics.json`, `predictions.parquet`, `report.html`, `blessing.json`."""

    views: ClassVar[Mapping[str, str]] = {
        "metrics": "system.Metrics",
        "classes": "system.ClassificationMetrics",
        "report": HTML,
    }


class Servable(Artifact):
    """A SavedModel that takes raw strings, and what other formats were asked."""

    schema_title = "system.Model"


class Registration(Artifact):
    """`<version>/`, a SavedModel as TensorFlow Serving reads it, and `registration.json`, where it is registered."""


class Pushed(Artifact):
    """`pushed.json`: where a servable stands in a model repository, and as which version."""


def publish(artifact: Artifact, output: str, execution: Mapping[str, Any]) -> dict[str, Any]:
    """Makes a folder an artifact: digests its files, writes `artifact.json` last, durably.

    Args:
        artifact: the output of a component that has returned.
        output: its name in the component's signature.
        execution: what made it: id, component, config, inputs, code, versions.

    Returns:
        The manifest.

    Raises:
        UserError: a file has a name that no reader would take.
    """
    files = []
    for path in sorted(path for path in artifact.path.rglob("*") if path.is_file()):
        entry: dict[str, Any] = {"path": path.relative_to(artifact.path).as_posix()}
        if not _is_listable(entry["path"]):
            raise UserError(f"{output}: a file of an artifact cannot be called '{shown(entry['path'])}'")
        entry |= {"size": path.stat().st_size, "sha256": file_sha256(path)}
        if (rows := _rows(path)) is not None:
            entry["rows"] = rows
        files.append(entry)
        sync(path)
    manifest: dict[str, Any] = {
        "type": type(artifact).__name__,
        "output": output,
        "version": MANIFEST_VERSION,
        "digest": _digest(files, artifact.properties),
        "files": files,
        "properties": artifact.properties,
        "execution": dict(execution),
    }
    write_json(artifact.path / MANIFEST, manifest)
    return manifest


def read(kind: type[T], path: Path) -> T:
    """Opens a published artifact.

    Raises:
        UserError: no manifest, another type, or a listed file that is missing or has another size.
    """
    manifest = manifest_of(path)
    if manifest is None:
        raise UserError(
            f"{path}: is no complete {kind.__name__}: {MANIFEST} is missing or a file it lists is not whole"
        )
    if manifest["type"] != kind.__name__:
        raise UserError(f"{path}: holds {manifest['type']}, and {kind.__name__} is needed")
    files = [entry["path"] for entry in manifest["files"]]
    return kind(path, manifest["properties"], files, digest=manifest["digest"])


def manifest_of(path: Path) -> dict[str, Any] | None:
    """The manifest of a whole artifact, or None where there is none."""
    try:
        manifest = parse_manifest(containment.read_file(path / MANIFEST))
        whole = manifest and all((path / entry["path"]).stat().st_size == entry["size"] for entry in manifest["files"])
    except (OSError, ValueError):
        return None
    return manifest if whole else None


def parse_manifest(content: bytes) -> dict[str, Any] | None:
    """A manifest as it is written into `artifact.json`; None where that is damaged, of another version or no manifest.

    All its names and paths can be used below the artifact's folder, and no two of its files are in each other's way.
    """
    manifest = parse_json(content)
    fields = {"type": str, "output": str, "digest": str, "files": list, "properties": dict, "execution": dict}
    if not has_fields(manifest, fields) or manifest.get("version") != MANIFEST_VERSION:
        return None
    if not names.is_stage(manifest["output"]) or not all(map(_is_entry, manifest["files"])):
        return None
    paths = [file["path"] for file in manifest["files"]]
    return None if len({*paths}) < len(paths) or names.files_in_the_way(paths) else manifest


def _is_entry(file: Any) -> bool:
    """Whether it can stand in a manifest's list of files."""
    if not has_fields(file, {"path": str, "size": int, "sha256": str}):
        return False
    digest = re.fullmatch("[0-9a-f]{64}", file["sha256"], re.ASCII)
    return _is_listable(file["path"]) and 0 <= file["size"] < 1 << 63 and digest is not None


def _is_listable(path: str) -> bool:
    """Whether a file can have a path below its artifact; the manifest itself is none of its files."""
    return names.is_file(path) and path.lower() != MANIFEST


def execution_of(manifest: Mapping[str, Any]) -> dict[str, Any] | None:
    """The record of the execution that made an artifact; None where it lacks what an execution is found again by.

    Its id, its key and its outputs' names can be used in paths.
    """
    record = manifest["execution"]
    fields: dict[str, Any] = {"id": str, "component": str, "key": str, "finished": float | int, "outputs": list}
    fields |= dict.fromkeys(("config", "inputs", "external", "code", "versions"), dict)
    if not has_fields(record, fields) or "value" not in record:
        return None
    whole = all(has_fields(source, {"artifact": str, "digest": str}) for source in record["inputs"].values())
    named = names.is_execution(record["id"]) and names.is_identifier(record["key"])
    return record if whole and named and all(map(names.is_stage, record["outputs"])) else None


def whole_execution(manifests: Mapping[str, Mapping[str, Any] | None]) -> dict[str, Any] | None:
    """The record of an execution.

    Args:
        manifests: of its outputs, by their names; None for one that is not whole.

    Returns:
        None where an output is missing or not whole, or two of them say different things of what made them.
    """
    records = [execution_of(manifest) if manifest else None for manifest in manifests.values()]
    record = records[0] if records else None
    if record is None or set(record["outputs"]) != set(manifests):
        return None
    return record if all(other == record for other in records) else None


def parse_json(content: bytes | str) -> Any:
    """What JSON says; None where it is none, or what we never write: very deep, or with numbers that are none or endless."""
    try:
        value = json.loads(content)
    except (ValueError, RecursionError):
        return None
    level = [value]
    for _ in range(_DEEPEST):
        if not level:
            return value
        if not all(map(_is_number, (part for part in level if isinstance(part, float | int)))):
            return None
        level = [
            child
            for part in level
            if isinstance(part, dict | list)
            for child in (part.values() if isinstance(part, dict) else part)
        ]
    return None


def _is_number(value: float) -> bool:
    return math.isfinite(value) if isinstance(value, float) else value.bit_length() <= _LONGEST_BITS


def has_fields(value: Any, fields: Mapping[str, Any]) -> bool:
    """Whether a JSON value is an object with these fields, each of its type."""
    return isinstance(value, dict) and all(isinstance(value.get(name), kind) for name, kind in fields.items())


def file_sha256(path: Path) -> str:
    """SHA-256 of a file's content, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_json(path: Path, value: Any, sort_keys: bool = True) -> None:
    """Writes JSON whole or not at all, and durably.

    Args:
        path: The file.
        value: What to write; it holds no NaN.
        sort_keys: Whether equal values are equal files; otherwise keys keep their order.

    Raises:
        OSError: it cannot be written.
        UserError: a folder stands in its place.
    """
    with containment.written(path) as file:
        json.dump(value, file, indent=1, sort_keys=sort_keys, allow_nan=False)
        file.flush()
        os.fsync(file.fileno())


def _digest(files: list[dict[str, Any]], properties: Mapping[str, Any]) -> str:
    content = [[entry["path"], entry["sha256"]] for entry in files]
    return hashlib.sha256(json.dumps([content, properties], sort_keys=True).encode()).hexdigest()


def _rows(path: Path) -> int | None:
    """Rows of a table, read from its footer."""
    if path.suffix == ".parquet":
        import pyarrow.parquet

        return pyarrow.parquet.ParquetFile(path).metadata.num_rows
    if path.suffix == ".arrow":
        import pyarrow as pa

        with pa.memory_map(str(path)) as source:
            reader = pa.ipc.open_file(source)
            return sum(reader.get_batch(index).num_rows for index in range(reader.num_record_batches))
    return None


def settle(state: Path, execution: str) -> None:
    """Ends the use of a state folder by an execution that was published.

    What is left in it was left for a later execution, which is told that this one came to its end.

    Args:
        state: the folder.
        execution: its id.
    """
    if any(path.is_dir() for path in state.iterdir() if path.name != SETTLED):
        _discard(state / SETTLED)  # it may be a folder
        with containment.written(state / SETTLED) as marker:
            marker.write(execution)
    else:
        shutil.rmtree(state, ignore_errors=True)


def clear(state: Path) -> None:
    """Empties a state folder that an execution was published from, which it says until all else is gone."""
    for path in sorted(state.iterdir(), key=lambda path: path.name == SETTLED):
        _discard(path)


def is_settled(state: Path) -> bool:
    """Whether a state folder was left by an execution that was published."""
    marker = state / SETTLED
    return marker.is_file() and not marker.is_symlink()


def _discard(path: Path) -> None:
    """Removes whatever stands at a path, if anything does; of a link only the link."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def sync(path: Path) -> None:
    """Brings a file's content onto the disk."""
    with path.open("rb") as file:
        os.fsync(file.fileno())
