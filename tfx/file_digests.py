"""SHA-256 of files, remembered for as long as the file system says that nothing changed."""

from __future__ import annotations

import contextlib
import os
import sqlite3
import time
from pathlib import Path

from lmworks.tfx.artifacts import file_sha256

TABLE = "CREATE TABLE file_digests (path TEXT PRIMARY KEY, status TEXT, sha256 TEXT)"
_GRANULE_NS = 2_000_000_000
"""The coarsest clock of a file system that is in use (FAT counts two seconds)."""


class FileDigests:
    """Digests of files, kept in a database.

    A digest is known by the file's path, size, inode, and times of the last change of its content (mtime) and of its status
    (ctime), in nanoseconds. A program can set mtime (`touch -d`, `rsync -t`, layers of images) but not ctime. A file that
    changed so shortly before it was read that a later change could carry the same times is not remembered, as Git does it
    (https://git-scm.com/docs/racy-git). A database that cannot be read or written costs time, not the answer.

    Args:
        database: of SQLite; one of several processes may be open. In memory when not given.
    """

    def __init__(self, database: Path | None = None) -> None:
        self._database = sqlite3.connect(database or ":memory:", timeout=60, isolation_level=None)
        with contextlib.suppress(sqlite3.Error):  # it is there, or no database
            self._database.execute(TABLE)

    def of(self, path: Path) -> str:
        """Digest of a file's content.

        Raises:
            OSError: it cannot be read.
        """
        name, began = str(path.resolve()), time.time_ns()
        status = os.stat(name)
        if known := self._known(name, _key(status)):
            return known
        digest = file_sha256(path)
        settled = max(status.st_mtime_ns, status.st_ctime_ns) < began - _GRANULE_NS
        if settled and _key(os.stat(name)) == _key(status):
            with contextlib.suppress(sqlite3.Error):
                row = (name, _key(status), digest)
                self._database.execute("INSERT OR REPLACE INTO file_digests VALUES (?, ?, ?)", row)
        return digest

    def _known(self, name: str, key: str) -> str:
        query = "SELECT sha256 FROM file_digests WHERE path = ? AND status = ?"
        with contextlib.suppress(sqlite3.Error):
            if row := self._database.execute(query, (name, key)).fetchone():
                return str(row[0])
        return ""

    def close(self) -> None:
        """Closes the database."""
        self._database.close()


def _key(status: os.stat_result) -> str:
    return f"{status.st_ino} {status.st_size} {status.st_mtime_ns} {status.st_ctime_ns}"
