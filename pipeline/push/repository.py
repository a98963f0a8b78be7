"""A model's folder in a repository that TensorFlow Serving watches: `<folder>/<version>/saved_model.pb …`, versions counting up.

In a folder of this machine a version is renamed into place, whole. An object store has no rename: the number is claimed
first (`<folder>/.claims/<version>`, which TensorFlow Serving does not look at), and `saved_model.pb`, without which nothing
is loaded, comes last.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

from lmworks.configs.errors import UserError
from lmworks.configs.paths import expand
from lmworks.tfx import containment
from lmworks.tfx.artifacts import file_sha256
from lmworks.tfx.screen import StageScreen
from lmworks.tfx.transfer import File, Store

Content = dict[str, Path | bytes]
"""Files of a version: where each is, or what is in it, by its path in the version."""
RECORD = "assets.extra/servable.json"
"""Says of a version which files it has."""
_GRAPH = "saved_model.pb"


class Repository(Protocol):
    """Versions of one model."""

    place: str
    """Their folder or URL."""

    def versions(self) -> list[int]:
        """Numbers of the versions that are there, whole or not."""

    def read(self, name: str) -> bytes | None:
        """The content of a small file below the folder; None where there is none."""

    def sizes(self, version: int) -> dict[str, int]:
        """Bytes of the files of a version, by their paths in it."""

    def sha256(self, name: str) -> str | None:
        """The digest of a file below the folder, empty where it cannot be read; None where to read it is to download it."""

    def add(self, content: Content) -> int:
        """Makes the next version; its number."""


def repository_of(push_to: str, name: str) -> Repository:
    """The repository of a model, which need not exist.

    Args:
        push_to: folder or URL.
        name: of the model.

    Raises:
        UserError: a package for this kind of store is missing.
    """
    place = f"{expand(push_to, 'export.push_to').removeprefix('file://').rstrip('/')}/{name}"
    return _Bucket(place) if "://" in place else _Folder(place)


class _Folder:
    """On this machine."""

    def __init__(self, place: str) -> None:
        self._folder = Path(place).absolute()
        self.place = str(self._folder)

    def versions(self) -> list[int]:
        names = [path.name for path in self._folder.iterdir()] if self._folder.is_dir() else []
        return [int(name) for name in names if name.isdecimal()]

    def read(self, name: str) -> bytes | None:
        try:
            return containment.read_file(self._folder / name)
        except OSError:
            return None

    def sizes(self, version: int) -> dict[str, int]:
        folder = self._folder / str(version)
        return {
            path.relative_to(folder).as_posix(): path.stat().st_size for path in folder.rglob("*") if path.is_file()
        }

    def sha256(self, name: str) -> str:
        try:
            return file_sha256(self._folder / name)
        except OSError:
            return ""

    def add(self, content: Content) -> int:
        self._folder.mkdir(parents=True, exist_ok=True)
        draft = self._folder / f".draft-{uuid.uuid4().hex[:8]}"
        try:
            _write(content, draft)
            while True:
                version = 1 + max(self.versions(), default=0)
                try:
                    # A rename onto a folder that is not empty fails: two pushes at once get two versions.
                    os.rename(draft, self._folder / str(version))
                    return version
                except OSError:
                    if not (self._folder / str(version)).exists():
                        raise
        finally:
            shutil.rmtree(draft, ignore_errors=True)


class _Bucket:
    """Behind a URL."""

    def __init__(self, place: str) -> None:
        self._store = Store(place, StageScreen(), "export.push_to")
        self.place = self._store.url

    def versions(self) -> list[int]:
        return [int(name) for name in self._store.listing("") if name.isdecimal()]

    def read(self, name: str) -> bytes | None:
        return self._store.read(name)

    def sizes(self, version: int) -> dict[str, int]:
        return self._store.sizes(str(version))

    def sha256(self, name: str) -> None:
        return None

    def add(self, content: Content) -> int:
        version = self._claimed()
        try:
            with tempfile.TemporaryDirectory() as scratch:
                made = {name: source for name, source in content.items() if isinstance(source, bytes)}
                _write(made, Path(scratch))
                paths = {
                    name: source if isinstance(source, Path) else Path(scratch, name)
                    for name, source in content.items()
                }
                self._upload(version, {name: path for name, path in paths.items() if name != _GRAPH})
                self._upload(version, {_GRAPH: paths[_GRAPH]})
            there = self.sizes(version)
            if torn := [name for name, path in content.items() if name not in there]:
                raise UserError(f"{self.place}/{version}/{torn[0]}: did not arrive; run the same command again")
        except BaseException:
            with contextlib.suppress(UserError):  # why it failed is what is told
                self._store.remove_folder(str(version))
            raise
        finally:
            with contextlib.suppress(UserError):
                self._store.remove([_claim(version)])
        return version

    def _claimed(self) -> int:
        """The next number, which no other push takes from now on."""
        tried = 0
        while True:
            tried = 1 + max([tried, *self.versions()])
            if not self._store.create(_claim(tried), b""):
                continue
            if tried not in self.versions():
                return tried
            self._store.remove([_claim(tried)])  # another push claimed it, ended, and gave the claim back in between

    def _upload(self, version: int, paths: Mapping[str, Path]) -> None:
        files = [File(path, f"{version}/{name}", path.stat().st_size) for name, path in paths.items()]
        self._store.upload(files, "push")


def _claim(version: int) -> str:
    return f".claims/{version}"


def _write(content: Mapping[str, Path | bytes], folder: Path) -> None:
    for name, source in content.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(source, bytes):
            path.write_bytes(source)
        else:
            shutil.copyfile(source, path)
