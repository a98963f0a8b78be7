"""What of a servable is pushed, and the record of it."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from lmworks.configs.errors import UserError
from lmworks.configs.schema import PushStage
from lmworks.pipeline.push.repository import RECORD, Content, Repository, repository_of
from lmworks.tfx.artifacts import Pushed, Servable, file_sha256, has_fields, parse_json, write_json

_SAVED_MODEL = "saved_model"
_EXTRA = "assets.extra"
"""Folder of a SavedModel for what TensorFlow does not read."""


def push_servable(config: PushStage, servable: Servable, pushed: Pushed) -> None:
    """Pushes a servable's SavedModel with its labels and model card.

    Args:
        config: the stage's.
        servable: what is pushed.
        pushed: `pushed.json`: `target` (folder or URL of the version), `version`, and `digest` of its files.

    Raises:
        UserError: it has no SavedModel, or the repository did not take it.
    """
    content, digest = _content(servable)
    repository = repository_of(config.push_to, config.name)
    newest = _newest(repository)
    there = newest is not None and newest[1] == digest
    version = newest[0] if newest and there else repository.add(content)
    target = f"{repository.place}/{version}"
    write_json(pushed.path / "pushed.json", {"target": target, "version": version, "digest": digest})
    summary = f"{target}{' is the same already' if there else ''}"
    pushed.properties |= {"target": target, "version": version, "digest": digest, "summary": summary}


def why_not_there(config: PushStage, pushed: Pushed) -> str:
    """Why a push has to be repeated; empty where its version is whole and the newest."""
    newest = _newest(repository_of(config.push_to, config.name))
    version, digest, target = (pushed.properties.get(name) for name in ("version", "digest", "target"))
    if newest == (version, digest):
        return ""
    if newest is None:
        return f"{target} is not there, or not whole"
    return f"{target} is not the newest version; that is {newest[0]}"


def _content(servable: Servable) -> tuple[Content, str]:
    """The files of a version by their paths in it, and the digest of them all."""
    folder = servable.path / _SAVED_MODEL
    if not folder.is_dir():
        raise UserError(f"{servable.path}: has no {_SAVED_MODEL}; export.formats must name it to push a model")
    content: Content = {path.relative_to(folder).as_posix(): path for path in folder.rglob("*") if path.is_file()}
    if (card := servable.path / "README.md").exists():
        content[f"{_EXTRA}/README.md"] = card
    if labels := servable.properties.get("labels"):
        content[f"{_EXTRA}/labels.json"] = json.dumps(labels, ensure_ascii=False).encode()
    files = {name: [_size(source), _sha256(source)] for name, source in sorted(content.items())}
    digest = hashlib.sha256(json.dumps(files).encode()).hexdigest()
    record = {
        "digest": digest,
        "servable": servable.digest,
        "files": {name: size for name, (size, _) in files.items()},
        "sha256": {name: sha256 for name, (_, sha256) in files.items()},
    }
    content[RECORD] = json.dumps(record, indent=1).encode()
    return content, digest


def _newest(repository: Repository) -> tuple[int, str] | None:
    """Number and digest of the newest version; None where there is none, or it is not whole or not ours.

    Whole is a version whose files have the recorded sizes and, on this machine, the recorded content; a store's are not read back.
    """
    version = max(repository.versions(), default=None)
    if version is None:
        return None
    record = parse_json(repository.read(f"{version}/{RECORD}") or b"")
    if not has_fields(record, {"digest": str, "files": dict}):
        return None
    sizes = repository.sizes(version)
    whole = all(sizes.get(name) == size for name, size in record["files"].items())
    digests = record.get("sha256", {})  # versions that were pushed by an older lmworks have none
    whole = whole and all(repository.sha256(f"{version}/{name}") in (None, sha256) for name, sha256 in digests.items())
    return (version, record["digest"]) if whole else None


def _size(source: Path | bytes) -> int:
    return len(source) if isinstance(source, bytes) else source.stat().st_size


def _sha256(source: Path | bytes) -> str:
    return hashlib.sha256(source).hexdigest() if isinstance(source, bytes) else file_sha256(source)
