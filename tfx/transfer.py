"""Files to and from a store behind a URL: several at once, again where a fault passes, checked when they have arrived."""

from __future__ import annotations

import errno
import functools
import os
import queue
import random
import re
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from lmworks.configs.errors import UserError
from lmworks.configs.load import ConfigError
from lmworks.configs.shown import shown
from lmworks.tfx import containment, names
from lmworks.tfx.artifacts import MANIFEST, file_sha256
from lmworks.tfx.readable import clock
from lmworks.tfx.screen import Screen

T = TypeVar("T")

_AT_ONCE = 8
_TRIES = 5
WAIT_SECONDS = 1.0
"""Before the first retry; each further wait is twice as long, and a random part of it is left out."""
_OBJECT_STORES = {"s3", "s3a", "gs", "gcs", "abfs", "az"}
_FOR_GOOD = (
    "NoCredentialsError",
    "PartialCredentialsError",
    "ParamValidationError",
    "ProfileNotFound",
    "DefaultCredentialsError",
)
"""Names of errors, from libraries that need not be installed, after which trying again changes nothing."""


class Refused(UserError):
    """The store keeps something from these credentials."""


class TooLarge(UserError):
    """A file of the store is larger than a record can be."""


class File(NamedTuple):
    """One file here and there."""

    local: Path
    name: str
    """In the store, below its root."""
    size: int
    """Bytes."""
    sha256: str = ""
    """Of its content; empty where it is not known."""


def is_record(name: str) -> bool:
    """Whether a file says of others that they are whole: `artifact.json`, a checkpoint's record."""
    return name.endswith(".json")


def records_first(names: Iterable[str]) -> list[str]:
    """In the order in which they are removed."""
    return sorted(names, key=lambda name: not is_record(name))


class Store:
    """A folder behind a URL, by fsspec.

    Args:
        url: `s3://bucket/folder`, for example.
        screen: where progress is told.
        key: flag or key of the config that names the URL, for errors.

    Raises:
        ConfigError: the URL holds a secret, or is of a kind that is not known.
        UserError: its package is not installed.
    """

    def __init__(self, url: str, screen: Screen, key: str = "--root") -> None:
        import fsspec

        if re.search(r"://.*:.*@|\?", url):  # a secret key may hold a `/`, and a signature stands behind `?`
            raise ConfigError(
                f"{key}: the URL must not hold a password, a key or a `?`; credentials come from the environment"
            )
        self.url, self._screen = url.rstrip("/"), screen
        try:
            self.system, self.path = fsspec.core.url_to_fs(self.url)
        except ValueError as error:
            raise ConfigError(f"{key}={url}: {error}") from None
        except ImportError as error:
            extra = {"s3": "s3", "s3a": "s3", "gs": "gcs", "gcs": "gcs"}.get(url.partition("://")[0])
            told = f"pip install 'lmworks[{extra}]'" if extra else str(error)
            raise UserError(f"{key}={url}: needs a package that is not installed: {told}") from None

    def check(self, write: bool = True) -> None:
        """Finds out before any work is done whether files can be read.

        Args:
            write: and written.

        Raises:
            UserError: they cannot, and why.
        """
        try:
            if write:
                self.write(".lmworks", b"a root of runs of lmworks\n")
            self._patiently("", lambda: self.system.ls(self.path, refresh=True))
        except FileNotFoundError as error:
            if write or "bucket" in str(error).replace(self.path, ""):
                raise UserError(f"{self.url}: {_said(error)}") from None

    def write(self, name: str, content: bytes) -> None:
        """Writes a small file whole."""
        self._patiently(name, lambda: self._pipe(name, content))

    def _pipe(self, name: str, content: bytes) -> None:
        self._folder_of(name)
        self.system.pipe_file(f"{self.path}/{name}", content)

    def create(self, name: str, content: bytes) -> bool:
        """Writes a small file that does not exist; False where it does.

        In one step where the store has a call for that; else another writer may come between the look and the writing.

        Raises:
            UserError: the store did not take it.
        """

        def call() -> None:
            self._folder_of(name)
            path = f"{self.path}/{name}"
            try:
                self.system.pipe_file(path, content, mode="create")
            except Exception as error:
                known = isinstance(error, TypeError | NotImplementedError) or "not implemented" in str(error).lower()
                if not known:
                    raise
                if self.system.exists(path):
                    raise FileExistsError(path) from None
                self.system.pipe_file(path, content)

        try:
            self._patiently(name, call)
        except FileExistsError:
            return False
        except FileNotFoundError as error:  # the bucket
            raise UserError(f"{self.url}: {_said(error)}") from None
        return True

    def read(self, name: str) -> bytes | None:
        """The content of a small file; None where there is none.

        Raises:
            TooLarge: it is none of ours.
            UserError: the store does not answer.
        """
        path, most = f"{self.path}/{name}", containment.LARGEST

        def call() -> bytes | None:
            try:
                return bytes(self.system.cat_file(path, start=0, end=most + 1))
            except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
                return None
            except Exception:
                if self.system.size(path) == 0:  # of an empty file S3 sends no range
                    return b""
                raise

        content = self._patiently(name, call)
        if content is not None and len(content) > most:
            raise TooLarge(f"{self.url}/{name}: is larger than {most >> 20} MiB")
        return content

    def listing(self, name: str) -> list[str]:
        """Names of the files and folders in a folder; none where it does not exist."""
        return sorted(entry["name"].rstrip("/").rpartition("/")[2] for entry in self._listed(name, False))

    def sizes(self, name: str) -> dict[str, int]:
        """Bytes of all files below a folder, by their names below it; a file that could not be below a folder here is left out."""
        cut = len(f"{self.path}/{name}/".lstrip("/"))
        found = {entry["name"].lstrip("/")[cut:]: entry["size"] for entry in self._listed(name, True)}
        folders = {path for path in found if path.endswith("/") or not path}  # some clients of S3 keep empty ones
        refused = {path for path in found.keys() - folders if not names.is_file(path)}
        refused |= names.files_in_the_way(found.keys() - folders - refused)
        for path in sorted(refused):
            self._screen.note(f"{self.url}/{name}: {shown(repr(path), 100)} can be no file in it and is left out")
        return {path: size for path, size in found.items() if path not in refused | folders}

    def _listed(self, name: str, deep: bool) -> list[dict[str, Any]]:
        folder = f"{self.path}/{name}".rstrip("/")

        def call() -> list[dict[str, Any]]:
            self.system.invalidate_cache()
            if deep:
                return list(self.system.find(folder, detail=True).values())
            return list(self.system.ls(folder, detail=True))

        try:
            return self._patiently(name, call)
        except FileNotFoundError:
            return []

    def remove_folder(self, name: str) -> None:
        """Removes all below a folder, the records that make it count first."""
        self.remove(f"{name}/{path}" for path in records_first(self.sizes(name)))

    def remove(self, names: Iterable[str]) -> None:
        """Removes files; those that are gone already count as removed."""
        for name in names:
            self._refuse_links(name)
            try:
                self._patiently(name, functools.partial(self.system.rm_file, f"{self.path}/{name}"))
            except FileNotFoundError:
                continue

    def upload(self, files: list[File], about: str) -> None:
        """Sends files.

        Each arrives whole or not at all in an object store (S3's client sends a checksum along); elsewhere its size tells.

        Args:
            files: on this machine.
            about: what they are, for whoever waits.

        Raises:
            FileNotFoundError: one is not there.
            UserError: the store did not take one.
        """

        def send(file: File, count: Callable[[int], None]) -> None:
            self._folder_of(file.name)
            self.system.put_file(str(file.local), f"{self.path}/{file.name}", callback=_counter(count))

        self._all(files, send, about, "upload")

    def download(self, files: list[File], top: Path, about: str) -> None:
        """Fetches files; each stands under its name only when it is whole and, where that is known, has the right SHA-256.

        Args:
            files: whose folders need not exist.
            top: folder that all are below, through no link.
            about: what they are, for whoever waits.

        Raises:
            UserError: one is missing, cannot be had or is not what was uploaded.
        """

        def fetch(file: File, count: Callable[[int], None]) -> None:
            containment.make_folder(top, file.local.parent)
            draft = file.local.with_name(f".{file.local.name}.{os.getpid()}")
            draft.unlink(missing_ok=True)
            try:
                self.system.get_file(f"{self.path}/{file.name}", str(draft), callback=_counter(count))
                if draft.stat().st_size != file.size or (file.sha256 and file_sha256(draft) != file.sha256):
                    raise OSError("its content is not what was uploaded")
                draft.replace(file.local)
            except FileNotFoundError:
                raise UserError(f"{self.url}/{file.name}: is missing, and {MANIFEST} beside it lists it") from None
            finally:
                draft.unlink(missing_ok=True)

        self._all(files, fetch, about, "download")

    def _folder_of(self, name: str) -> None:
        """Makes the folder of a file; in an object store there is nothing to do, and to look costs a request each."""
        if not _OBJECT_STORES & self._kinds():
            self._refuse_links(name)
            self.system.makedirs(f"{self.path}/{name}".rpartition("/")[0], exist_ok=True)

    def _refuse_links(self, name: str) -> None:
        """Checks that a file is in the store, where that is a folder which others may have put links into."""
        if "file" in self._kinds():
            folder = Path(self.path, name).parent
            if containment.leads_out(Path(self.path), folder):
                raise UserError(
                    f"{folder}: is behind a link, and nothing is changed through one; put the folder itself there"
                )

    def _kinds(self) -> set[str]:
        kinds = self.system.protocol
        return {*([kinds] if isinstance(kinds, str) else kinds)}

    def _all(
        self, files: list[File], move: Callable[[File, Callable[[int], None]], None], about: str, direction: str
    ) -> None:
        """Moves files, several at once, until one fails for good.

        In threads that nobody waits for when this process is interrupted: a large file may take long.
        """
        told = _Told(self._screen, about, direction, sum(file.size for file in files))
        waiting = deque(files)
        ended: queue.SimpleQueue[BaseException | None] = queue.SimpleQueue()

        def work() -> None:
            try:
                while waiting:
                    file = waiting.popleft()
                    counts = _Counts(told)

                    def call(file: File = file, counts: _Counts = counts) -> None:
                        counts.again()
                        move(file, counts.add)

                    self._patiently(file.name, call)
                    ended.put(None)
            except IndexError:  # another took the last one
                return
            except BaseException as error:
                ended.put(error)

        for _ in range(min(_AT_ONCE, len(files))):
            threading.Thread(target=work, name=direction, daemon=True).start()
        try:
            for _ in files:
                if error := ended.get():
                    raise error
        finally:
            waiting.clear()
            self._screen.end_beside()

    def _patiently(self, name: str, call: Callable[[], T]) -> T:
        where = f"{self.url}/{name}".rstrip("/")
        pause = WAIT_SECONDS
        for left in range(_TRIES - 1, -1, -1):
            try:
                return call()
            except (FileNotFoundError, FileExistsError, UserError):
                raise
            except Exception as error:  # of any store: what does not pass is told, everything else may
                if getattr(error, "errno", None) == errno.ENOSPC:
                    raise
                lasting = (
                    isinstance(error, PermissionError | ImportError | NotImplementedError)
                    or type(error).__name__ in _FOR_GOOD
                    or getattr(error, "code", None) in (401, 403)  # gcsfs
                    or str(error).startswith("Forbidden")
                )
                if lasting or not left:
                    kind = Refused if isinstance(error, PermissionError) else UserError
                    raise kind(f"{where}: {_said(error)}{_fix(error)}") from None
                seconds = pause * random.uniform(0.5, 1.0)
                self._screen.note(f"{shown(where)}: {shown(_said(error))}; once more in {seconds:.0f} s")
            time.sleep(seconds)
            pause *= 2
        raise AssertionError


def _said(error: BaseException) -> str:
    return " ".join(str(error).split())[:300] or type(error).__name__


def _fix(error: Exception) -> str:
    if type(error).__name__ in ("NoCredentialsError", "PartialCredentialsError"):
        return "; set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or aws configure"
    return "; may these credentials read and write there?" if isinstance(error, PermissionError) else ""


_SHOWN_SECONDS = 0.2
"""Between two looks at a transfer: it is counted in small pieces, by several threads."""


class _Told:
    """How far a transfer is, told now and then."""

    def __init__(self, screen: Screen, about: str, direction: str, total: int) -> None:
        self._screen, self._about, self._direction, self._total = screen, about, direction, total
        self._done, self._began, self._lock = 0, time.monotonic(), threading.Lock()
        self._shown = 0.0

    def add(self, size: int) -> None:
        with self._lock:
            self._done += size
            now = time.monotonic()
            if now - self._shown < _SHOWN_SECONDS and self._done != self._total:
                return
            self._shown = now
            rate = self._done / max(now - self._began, 1e-3)
            share = f"{self._done / 1e6:,.0f}/{self._total / 1e6:,.0f} MB"
            left = f"{clock((self._total - self._done) / rate)} left" if 0 < self._done < self._total else ""
            parts = [f"{self._direction} {share}", left, f"{rate / 1e6:,.0f} MB/s"]
            self._screen.say_beside(self._about, "  ".join(filter(None, parts)))


class _Counts:
    """What of one file has moved; a new try begins from nothing."""

    def __init__(self, told: _Told) -> None:
        self._told, self._moved = told, 0

    def add(self, size: int) -> None:
        self._moved += size
        self._told.add(size)

    def again(self) -> None:
        self._told.add(-self._moved)
        self._moved = 0


def _counter(count: Callable[[int], None]) -> Any:
    """A callback of fsspec that only counts bytes."""
    import fsspec.callbacks

    class Counter(fsspec.callbacks.Callback):
        last = 0

        def relative_update(self, inc: int = 1) -> None:
            count(inc)

        def absolute_update(self, value: int) -> None:  # of gcsfs
            count(value - self.last)
            self.last = value

    return Counter()
