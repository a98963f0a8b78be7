"""Buckets as containers see them: folders, where Kubeflow and Vertex AI mount them."""

from __future__ import annotations

from pathlib import Path

_MOUNTS = {"gs://": "/gcs/", "s3://": "/s3/", "minio://": "/minio/"}


def local_path(uri: str) -> Path:
    """The local path of an artifact's URI."""
    for scheme, mount in _MOUNTS.items():
        if uri.startswith(scheme):
            return Path(mount + uri.removeprefix(scheme))
    return Path(uri.removeprefix("file://"))


def uri_of(path: Path) -> str:
    """The URI of a local path, which others can open; the path where it is in no mounted bucket."""
    for scheme, mount in _MOUNTS.items():
        if path.is_relative_to(mount):
            return scheme + path.relative_to(mount).as_posix()
    return str(path)
