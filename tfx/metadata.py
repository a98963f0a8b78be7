"""The index of what was executed and who read and wrote what: SQLite, rebuilt from the store when it is lost."""

from __future__ import annotations

import fcntl
import json
import shutil
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from lmworks.tfx.artifacts import file_sha256, manifest_of

_TABLES = """
CREATE TABLE IF NOT EXISTS executions (id TEXT PRIMARY KEY, component TEXT, key TEXT, finished REAL, record TEXT);
CREATE INDEX IF NOT EXISTS by_key ON executions (component, key);
CREATE TABLE IF NOT EXISTS artifacts (id TEXT PRIMARY KEY, execution TEXT, output TEXT, type TEXT, digest TEXT);
CREATE TABLE IF NOT EXISTS inputs (execution TEXT, name TEXT, artifact TEXT, PRIMARY KEY (execution, name));
CREATE INDEX IF NOT EXISTS by_artifact ON inputs (artifact);
CREATE TABLE IF NOT EXISTS digests (path TEXT PRIMARY KEY, size INTEGER, mtime_ns INTEGER, sha256 TEXT);
"""


class Metadata:
    """Executions and artifacts under one root; an artifact's id is its path in the store, `<stage>/<execution>/<output>`."""

    def __init__(self, root: Path) -> None:
        self.store = root / "store"
        path = root / "metadata.sqlite"
        root.mkdir(parents=True, exist_ok=True)
        # One at a time: two that make a fresh database at once would find it locked.
        with (root / "metadata.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            fresh = not path.exists()
            try:
                self._open(path)
            except sqlite3.OperationalError:  # a full disk, say: no reason to throw the index away
                raise
            except sqlite3.DatabaseError:
                # An index that cannot be read is made anew from the store, which is the truth.
                for damaged in root.glob("metadata.sqlite*"):
                    damaged.unlink()
                fresh = True
                self._open(path)
            if fresh:
                self.rebuild()

    def _open(self, path: Path) -> None:
        self._database = sqlite3.connect(path, timeout=60, isolation_level=None)
        self._database.execute("PRAGMA journal_mode=WAL")
        self._database.executescript(_TABLES)

    def close(self) -> None:
        """Closes the database."""
        self._database.close()

    def rebuild(self) -> None:
        """Reads the whole store into the index."""
        if self.store.is_dir():
            for stage in self.store.iterdir():
                for execution in stage.iterdir() if stage.is_dir() else ():
                    if not execution.name.startswith("."):
                        self.record(execution)

    def record(self, folder: Path) -> bool:
        """Indexes a published execution, `<store>/<stage>/<execution>`; False where it is not whole."""
        manifests = {path.name: manifest_of(path) for path in sorted(folder.iterdir()) if path.is_dir()}
        record = next((manifest["execution"] for manifest in manifests.values() if manifest), None)
        if record is None or set(record["outputs"]) != set(manifests) or not all(manifests.values()):
            return False
        name = f"{folder.parent.name}/{folder.name}"
        row = (name, record["component"], record["key"], record["finished"], json.dumps(record))
        self._database.execute("BEGIN IMMEDIATE")
        self._database.execute("INSERT OR REPLACE INTO executions VALUES (?, ?, ?, ?, ?)", row)
        for output, manifest in manifests.items():
            assert manifest is not None
            artifact = (f"{name}/{output}", name, output, manifest["type"], manifest["digest"])
            self._database.execute("INSERT OR REPLACE INTO artifacts VALUES (?, ?, ?, ?, ?)", artifact)
        for argument, source in record["inputs"].items():
            self._database.execute(
                "INSERT OR REPLACE INTO inputs VALUES (?, ?, ?)", (name, argument, source["artifact"])
            )
        self._database.execute("COMMIT")
        return True

    def executions(self, component: str, key: str | None = None) -> Iterator[tuple[Path, dict[str, Any]]]:
        """Executions of a component, newest first, with this key where it is given: folder and record."""
        query = (
            "SELECT id, record FROM executions WHERE component = ? AND (? IS NULL OR key = ?) ORDER BY finished DESC"
        )
        for name, record in self._database.execute(query, (component, key, key)).fetchall():
            yield self.store / name, json.loads(record)

    def forget(self, folder: Path) -> None:
        """Takes an execution out of the index, and what is left of it out of the store."""
        name = f"{folder.parent.name}/{folder.name}"
        for table, column in (("inputs", "execution"), ("artifacts", "execution"), ("executions", "id")):
            self._database.execute(f"DELETE FROM {table} WHERE {column} = ?", (name,))
        shutil.rmtree(folder, ignore_errors=True)

    def upstream(self, artifact: str) -> list[str]:
        """All artifacts that an artifact was made from, nearest first."""
        return self._walk(
            artifact,
            "SELECT inputs.artifact FROM artifacts JOIN inputs USING (execution) WHERE artifacts.id = ? ORDER BY 1",
        )

    def downstream(self, artifact: str) -> list[str]:
        """All artifacts that were made from an artifact, nearest first."""
        return self._walk(
            artifact,
            "SELECT artifacts.id FROM inputs JOIN artifacts USING (execution) WHERE inputs.artifact = ? ORDER BY 1",
        )

    def _walk(self, start: str, query: str) -> list[str]:
        found: dict[str, None] = {}
        waiting = [start]
        while waiting:
            for (name,) in self._database.execute(query, (waiting.pop(0),)):
                if name not in found:
                    found[name] = None
                    waiting.append(name)
        return list(found)

    def file_digest(self, path: Path) -> str:
        """SHA-256 of a file, remembered by path, size and time of change."""
        name, status = str(path.resolve()), path.stat()
        known = self._database.execute(
            "SELECT sha256 FROM digests WHERE path = ? AND size = ? AND mtime_ns = ?",
            (name, status.st_size, status.st_mtime_ns),
        ).fetchone()
        if known:
            return str(known[0])
        digest = file_sha256(path)
        row = (name, status.st_size, status.st_mtime_ns, digest)
        self._database.execute("INSERT OR REPLACE INTO digests VALUES (?, ?, ?, ?)", row)
        return digest
