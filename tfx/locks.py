"""Lock files by `flock`: the kernel lets go when the last process that has the file open ends, however it ends."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path


def acquire(path: Path, shared: bool = False, wait: bool = True) -> int | None:
    """Locks a file, which is made where there is none.

    Args:
        path: the lock file; its folder exists.
        shared: with others that share it.
        wait: for whoever holds it.

    Returns:
        A descriptor that holds the lock until it is closed, here and in every process that inherited it; None where
        another holds it and there is no waiting.
    """
    mode = (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | (0 if wait else fcntl.LOCK_NB)
    while True:
        handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
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
        handle = os.open(path, os.O_RDONLY)
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


def _is(path: Path, handle: int) -> bool:
    try:
        return os.path.samestat(path.stat(), os.fstat(handle))
    except FileNotFoundError:
        return False
