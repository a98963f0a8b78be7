"""What the store behind a URL says of its content, so that a change is noticed without reading it."""

from __future__ import annotations

import hashlib
import json
import uuid
from pathlib import Path
from typing import Any

from lmworks.configs.url_secrets import masked_url, names_object

_UNKNOWN = "unknown"
_CHECKSUMS = (
    "ETag", "etag", "md5Hash", "content_md5", "Content-MD5", "Digest", "generation", "checksum", "sha256", "sha", "hex",
)  # fmt: skip
"""What stores call a property of the content or of its version, in an entry of fsspec; the first that is there counts."""
_TIMES = ("Last-Modified", "LastModified", "last_modified", "updated", "mtime", "modified", "modificationTime")
"""What they call the time of the last change, which counts together with the size."""
_AT_ONCE = 1 << 20
_HUB, _COMMIT = "hf://", "commit "
_CACHES_AND_ARCHIVES = {"simplecache", "filecache", "blockcache", "cached", "zip", "tar", "libarchive"}
"""Protocols of fsspec that, before the `::` of a chained URL, only say how to read what is behind it."""


def url_digest(url: str) -> str:
    """Digest of what is behind a URL; where that cannot be found out, a text that equals no other.

    A repository of Hugging Face's hub is its commit, a model of Kaggle its version. Elsewhere it is the checksum or the
    version of each file that the store tells (an ETag), else its time of change with its size; a file of which a store
    tells neither is read. A query is no part of it, so that two signed URLs of an object are one: where it may say which
    object is meant, the content is read, for a checksum compares only what is behind one address.

    Args:
        url: for fsspec, perhaps with `*`; `hf://…`; `kaggle://…`.
    """
    try:
        if url.startswith(_HUB) and not url.startswith(f"{_HUB}buckets/"):
            return f"{_COMMIT}{_hub_commit(url)}"
        if url.startswith("kaggle://"):
            return f"version {_kaggle_version(url)}"
        return _store_digest(url)
    except Exception as error:  # any store, any error: the stage itself says what is wrong with the URL
        return f"{_UNKNOWN}: {type(error).__name__} {uuid.uuid4().hex}"


def source_of(url: str) -> str:
    """Returns what decides what a chained URL reads: the path or URL behind caches and archives, else the URL itself.

    A cache would say what its copy was, however long ago; and an archive's own digest covers the files in it.
    """
    *before, source = url.split("::")
    return source if {part.partition("://")[0] for part in before} <= _CACHES_AND_ARCHIVES else url


def is_glob(url: str) -> bool:
    """Whether a URL names files by `*`, the one magic that URLs have; a `*` in a query, as signatures hold, is none."""
    return "*" in (url.partition("?")[0] if url.startswith(("http://", "https://")) else url)


def is_unknown(digest: str) -> bool:
    """Whether a digest says only that it could not be found out."""
    return digest.startswith(f"{_UNKNOWN}: ")


def commit_of(digest: str) -> str | None:
    """Returns the commit that the digest of a repository on the hub consists of; None of any other digest."""
    return digest.removeprefix(_COMMIT) if digest.startswith(_COMMIT) else None


def _hub_commit(url: str) -> str:
    """Commit of a repository on Hugging Face's hub, 40 hex digits: that of the URL's revision, else of the main branch.

    Where the hub does not answer, it is the commit that its client's cache holds, which is then what is read.

    Raises:
        OSError: the hub does not answer, or has no such repository, and it is not in the cache.
        ValueError: it is no URL of the hub.
    """
    from huggingface_hub import HfApi, constants, file_download
    from huggingface_hub.utils import parse_hf_uri

    name, _, revision = url.removeprefix(_HUB).partition("@")
    kind = "model"
    if "/" in name:  # else it is a model without a namespace, such as hf://gpt2, which is not parsed
        place = parse_hf_uri(url)
        kind, name, revision = place.type, place.id, place.revision or ""
    revision = revision or constants.DEFAULT_REVISION
    try:
        if constants.is_offline_mode():
            raise OSError("offline")
        return str(HfApi().repo_info(name, repo_type=kind, revision=revision, timeout=30).sha)
    except Exception:  # of its client or of the client's HTTP library
        folder = file_download.repo_folder_name(repo_id=name, repo_type=kind)
        cached = Path(constants.HF_HUB_CACHE, folder)
        if (cached / "snapshots" / revision).is_dir():
            return revision
        return (cached / "refs" / revision).read_text(encoding="utf-8").strip()


def _kaggle_version(url: str) -> int:
    from kagglehub.clients import build_kaggle_client
    from kagglehub.handle import parse_model_handle
    from kagglehub.http_resolver import _get_current_version

    handle = parse_model_handle(url.removeprefix("kaggle://"))
    if handle.is_versioned():
        return int(handle.version)
    with build_kaggle_client() as client:
        return int(_get_current_version(client, handle))


def _store_digest(url: str) -> str:
    import fsspec

    system, path = fsspec.core.url_to_fs(url)
    system.invalidate_cache()
    matches = sorted(system.glob(path)) if is_glob(path) else [path]
    found = []
    for match in matches:
        entry = system.info(match)
        names = sorted(system.find(match)) if entry["type"] == "directory" else [match]
        for name in names:
            told = {} if names_object(url) else entry if name == match else system.info(name)
            found.append([masked_url(name), _file_digest(system, name, told)])
    if not found:
        raise FileNotFoundError(url)
    return hashlib.sha256(json.dumps(found).encode()).hexdigest()


def _file_digest(system: Any, name: str, entry: dict[str, Any]) -> str:
    for fields in (_CHECKSUMS, _TIMES):
        field = next((field for field in fields if entry.get(field)), None)
        if field and (fields is _CHECKSUMS or entry.get("size") is not None):
            return f"{field} {entry[field]} size {entry.get('size')}"
    digest = hashlib.sha256()
    with system.open(name, "rb") as file:
        while piece := file.read(_AT_ONCE):
            digest.update(piece)
    return digest.hexdigest()
