"""Changes below a folder that follow no symbolic link out of it.

A root may be somebody else's: copied, unpacked, shared. Every step of the way down from its top folder is opened by itself
and never through a link (`openat` with `O_NOFOLLOW`), and what is changed is named relative to the descriptor of its parent. So a
folder that is swapped for a link at the last moment leads nowhere. The top folder itself may be a link: `runs -> /big/disk/runs`.
"""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO

from lmworks.configs.errors import UserError

LARGEST = 1 << 26
"""Bytes of a record; a manifest of a hundred thousand files takes a third of it."""


class RefusedError(UserError):
    """A change would be made through a link, or outside the folder that it belongs into."""


@contextlib.contextmanager
def opened(top: Path, folder: Path, create: bool = False) -> Iterator[int]:
    """Opens a folder and yields its descriptor.

    Args:
        top: of what may be changed; it may be a link.
        folder: below it, or it.
        create: make the folders that are missing.

    Raises:
        FileNotFoundError: it does not exist.
        RefusedError: a step of the way is a link or no folder, or leads up.
    """
    parts = folder.relative_to(top).parts
    if ".." in parts:
        raise RefusedError(f"{folder}: refused: leads out of {top}")
    if create:
        top.mkdir(parents=True, exist_ok=True)
    handle, way = os.open(top, os.O_RDONLY | os.O_DIRECTORY), top
    try:
        for part in parts:
            way /= part
            if create:
                with contextlib.suppress(FileExistsError):
                    os.mkdir(part, dir_fd=handle)
            try:
                below = os.open(part, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=handle)
            except OSError as error:
                if error.errno not in (errno.ELOOP, errno.ENOTDIR):
                    raise
                raise RefusedError(
                    f"{way}: is a link or no folder, and nothing is changed through one; put the folder itself there"
                ) from None
            os.close(handle)
            handle = below
        yield handle
    finally:
        os.close(handle)


def make_folder(top: Path, folder: Path) -> None:
    """Makes a folder and those above it; see `opened`."""
    with opened(top, folder, create=True):
        return


def remove(top: Path, path: Path) -> None:
    """Removes a file, a link itself, or a folder with all in it; see `opened`. What is gone already counts as removed."""
    with contextlib.suppress(FileNotFoundError), opened(top, path.parent) as parent:
        if stat.S_ISDIR(os.stat(path.name, dir_fd=parent, follow_symlinks=False).st_mode):
            shutil.rmtree(path.name, dir_fd=parent)  # which follows no link either
        else:
            os.unlink(path.name, dir_fd=parent)


def rename(top: Path, source: Path, target: Path) -> None:
    """Renames what is below a folder; see `opened`."""
    with opened(top, source.parent) as before, opened(top, target.parent) as after:
        os.rename(source.name, target.name, src_dir_fd=before, dst_dir_fd=after)


def leads_out(top: Path, path: Path) -> bool:
    """Whether a link is on the way from a top folder down to a path, or is the path itself."""
    return Path(os.path.realpath(path)) != Path(os.path.realpath(top), path.relative_to(top))


def refuse_links(folder: Path, apart: Path) -> None:
    """Checks that a program which works in a folder writes into that folder only.

    Args:
        folder: where it works.
        apart: a file in it that is never written through, and may be anything.

    Raises:
        RefusedError: there is a link, a pipe or a device in it.
    """
    for where, folders, names in os.walk(folder):
        for path in (Path(where, name) for name in (*folders, *names)):
            with contextlib.suppress(FileNotFoundError):
                mode = path.lstat().st_mode
                if path != apart and not (stat.S_ISDIR(mode) or stat.S_ISREG(mode)):
                    raise RefusedError(f"{path}: is a link or a device, which no stage left there; remove it")


@contextlib.contextmanager
def written(path: Path) -> Iterator[TextIO]:
    """Writes a text file whole or not at all. What stands under its name, or its draft's, is replaced and never written through.

    Raises:
        OSError: it cannot be written.
        UserError: a folder stands in its place.
    """
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    draft.unlink(missing_ok=True)
    try:
        with draft.open("x", encoding="utf-8") as file:  # which follows no link
            yield file
        draft.replace(path)
    except IsADirectoryError:
        draft.unlink(missing_ok=True)
        raise UserError(f"{path}: is a folder, and a file has to stand there; remove it") from None
    except BaseException:
        draft.unlink(missing_ok=True)
        raise


def read_file(path: Path) -> bytes:
    """Reads a record: a file of at most `LARGEST` bytes.

    Raises:
        OSError: it cannot be read, is larger, or is no file: a pipe would be waited for without end.
    """
    handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    try:
        status = os.fstat(handle)
        if not stat.S_ISREG(status.st_mode):
            raise OSError(errno.EINVAL, "is no file", str(path))
        if status.st_size > LARGEST:
            raise OSError(errno.EFBIG, f"is larger than {LARGEST >> 20} MiB", str(path))
        with os.fdopen(handle, "rb", closefd=False) as file:
            return file.read(LARGEST)
    finally:
        os.close(handle)
