"""Lock files by `flock`: the kernel lets go when the last process that has the file open ends, however it ends."""

from __future__ import annotations

import errno
import fcntl
import os
import stat
from pathlib import Path

from lmworks.tfx import containment


def acquire(path: Path, shared: bool = False, wait: bool = True, top: Path | None = None) -> int | None:
    """Locks a file, which is made where there is none.

    Args:
        path: the lock file.
        shared: with others that share it.
        wait: for whoever holds it.
        top: folder that it is below, through no link, and in which its own is made; without it the file's own folder exists.

    Returns:
        A descriptor that holds the lock until it is closed, here and in every process that inherited it; None where
        another holds it and there is no waiting.

    Raises:
        RefusedError: it is a link or no file.
    """
    mode = (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | (0 if wait else fcntl.LOCK_NB)
    while True:
        handle = _open(path, top)
        try:
            fcntl.flock(handle, mode)
            if _is(path, handle):
                return handle
        except BlockingIOError:
            os.close(handle)
            return None
        except BaseException:
            os.close(handle)
            raise
        os.close(handle)  # removed between open and flock: nobody else would meet this lock


def held(path: Path) -> bool:
    """Whether a process holds the lock; also where that cannot be found out."""
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except FileNotFoundError:
        return False
    except OSError:
        return True
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:  # held; or a network file system that locks files open for writing only
        return True
    finally:
        os.close(handle)
    return False


def _open(path: Path, top: Path | None) -> int:
    flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK
    with containment.opened(top or path.parent, path.parent, create=top is not None) as folder:
        try:
            handle = os.open(path.name, flags, 0o666, dir_fd=folder)
        except OSError as error:
            if error.errno not in (errno.ELOOP, errno.EISDIR, errno.ENXIO):
                raise
        else:
            if stat.S_ISREG(os.fstat(handle).st_mode):
                return handle
            os.close(handle)
    raise containment.RefusedError(f"{path}: is a link or no file, and no lock; remove it")


def _is(path: Path, handle: int) -> bool:
    try:
        return os.path.samestat(path.lstat(), os.fstat(handle))
    except FileNotFoundError:
        return False
