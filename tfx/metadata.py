"""The index of what was executed and who read and wrote what: SQLite, rebuilt from the store when it is lost."""

from __future__ import annotations

import json
import os
import sqlite3
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from lmworks.configs.errors import UserError
from lmworks.configs.shown import shown
from lmworks.tfx import containment, file_digests, locks, names
from lmworks.tfx.artifacts import execution_of, manifest_of, parse_json, whole_execution

INDEX = "metadata.sqlite"
_COMPLETE = 1
"""`user_version` of an index that holds the whole store; of a new one, of an empty file, and of a rebuild that was cut it is 0."""
_DAMAGE = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_ERROR)
"""Codes of a file that is no index of ours; all others are no reason to throw one away: a full disk, a lock, missing rights."""
_CLOSED = (sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_PERM, sqlite3.SQLITE_READONLY)
"""Codes of a file, or what stands in its place, that this user may not use."""
_TABLES = (
    "CREATE TABLE executions (id TEXT PRIMARY KEY, component TEXT, key TEXT, finished REAL, record TEXT)",
    "CREATE INDEX by_key ON executions (component, key)",
    "CREATE TABLE artifacts (id TEXT PRIMARY KEY, execution TEXT, output TEXT, type TEXT, digest TEXT)",
    "CREATE TABLE inputs (execution TEXT, name TEXT, artifact TEXT, PRIMARY KEY (execution, name))",
    "CREATE INDEX by_artifact ON inputs (artifact)",
)
_BESIDE = (
    file_digests.TABLE,
    # Of earlier versions, without inode and ctime.
    "CREATE TABLE digests (path TEXT PRIMARY KEY, size INTEGER, mtime_ns INTEGER, sha256 TEXT)",
)


class Metadata:
    """Executions and artifacts under one root; an artifact's id is its path in the store, `<stage>/<execution>/<output>`.

    Raises:
        UserError: the index cannot be opened.
    """

    def __init__(self, root: Path) -> None:
        self.store = root / "store"
        path = root / INDEX
        root.mkdir(parents=True, exist_ok=True)
        # One at a time: two that make a fresh database at once would find it locked.
        lock = locks.acquire(root / "metadata.lock")
        assert lock is not None
        try:
            _refuse_links(path)
            try:
                self._open(path)
            except sqlite3.DatabaseError as error:
                code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_CORRUPT) & 0xFF
                if code in _CLOSED:
                    raise UserError(
                        f"{path}: cannot be opened ({error}); make it a file of yours, or remove it: it is made anew from the "
                        "store"
                    ) from None
                if code not in _DAMAGE:
                    raise
                self._database.close()
                _set_aside(path, str(error))
                self._open(path)
        finally:
            os.close(lock)
        self.file_digests = file_digests.FileDigests(path)

    def _open(self, path: Path) -> None:
        """Opens the index, which is made of what the store holds, the truth, where it is not complete.

        Raises:
            sqlite3.DatabaseError: it is damaged, or cannot be used now.
        """
        self._database = sqlite3.connect(path, timeout=60, isolation_level=None)
        self._database.execute("PRAGMA trusted_schema=OFF")
        self._database.execute("PRAGMA journal_mode=WAL")
        schema = self._schema()
        # A trigger, a view or a constraint of somebody else's acts at each of our writes.
        if foreign := [name for name, sql in schema.items() if sql not in (*_TABLES, *_BESIDE)]:
            raise sqlite3.DatabaseError(f"it holds {foreign[0]}, which is none of its tables")
        (found,) = self._database.execute("PRAGMA quick_check(1)").fetchone()
        if found != "ok":
            raise sqlite3.DatabaseError(found)
        for table in _TABLES:
            if table not in schema.values():
                self._database.execute(table)
        if self._database.execute("PRAGMA user_version").fetchone()[0] != _COMPLETE:
            self._database.execute("DROP TABLE IF EXISTS digests")
            self.rebuild()
            self._database.execute(f"PRAGMA user_version = {_COMPLETE}")

    def _schema(self) -> dict[str, str]:
        """What the database says of its tables, indexes, triggers and views: SQL by name."""
        return dict(self._database.execute("SELECT name, sql FROM sqlite_master WHERE sql IS NOT NULL"))

    def close(self) -> None:
        """Closes the database."""
        self.file_digests.close()
        self._database.close()

    def rebuild(self) -> None:
        """Reads the whole store into the index."""
        if self.store.is_dir():
            for stage in self.store.iterdir():
                try:
                    executions = list(stage.iterdir()) if stage.is_dir() else []
                except OSError as error:
                    print(f"{shown(stage)}: cannot be read ({error.strerror}); it is left out", file=sys.stderr)
                    continue
                for execution in executions:
                    if not execution.name.startswith(".") and not (self._may_use(execution) and self.record(execution)):
                        print(f"{shown(execution)}: is no whole execution and is left out", file=sys.stderr)

    def _may_use(self, folder: Path) -> bool:
        """Whether a folder in the store has an execution's name, and lies there and not behind a link."""
        name = folder.relative_to(self.store).as_posix()
        return names.is_execution(name) and folder.is_dir() and not containment.leads_out(self.store.parent, folder)

    def record(self, folder: Path) -> dict[str, Any] | None:
        """Indexes a published execution, `<store>/<stage>/<execution>`, and returns its record; None where it is not whole."""
        try:
            manifests = {path.name: manifest_of(path) for path in sorted(folder.iterdir()) if path.is_dir()}
        except OSError:  # no folder, gone meanwhile, or not ours to read
            return None
        record = whole_execution(manifests)
        if record is None:
            return None
        name = f"{folder.parent.name}/{folder.name}"
        row = (name, record["component"], record["key"], float(record["finished"]), json.dumps(record))
        self._database.execute("BEGIN IMMEDIATE")
        try:
            self._database.execute("INSERT OR REPLACE INTO executions VALUES (?, ?, ?, ?, ?)", row)
            for output, manifest in manifests.items():
                assert manifest is not None
                artifact = (f"{name}/{output}", name, output, manifest["type"], manifest["digest"])
                self._database.execute("INSERT OR REPLACE INTO artifacts VALUES (?, ?, ?, ?, ?)", artifact)
            for argument, source in record["inputs"].items():
                self._database.execute(
                    "INSERT OR REPLACE INTO inputs VALUES (?, ?, ?)", (name, argument, source["artifact"])
                )
        except UnicodeEncodeError:  # a damaged text, which no index can hold
            self._database.execute("ROLLBACK")
            return None
        self._database.execute("COMMIT")
        return record

    def executions(self, component: str, key: str | None = None) -> Iterator[tuple[Path, dict[str, Any]]]:
        """Executions of a component, newest first, with this key where it is given: folder and record."""
        query = (
            "SELECT id, record FROM executions WHERE component = ? AND (? IS NULL OR key = ?) ORDER BY finished DESC"
        )
        for name, text in self._database.execute(query, (component, key, key)).fetchall():
            # A page of the index may be damaged without a trace in its structure.
            record = execution_of({"execution": parse_json(text)}) if isinstance(text, str | bytes) else None
            if record is None or record["id"] != name:
                print(
                    f"{INDEX}: what it holds of {shown(name)} is damaged; this execution is left out", file=sys.stderr
                )
            elif os.path.lexists(self.store / name) and not self._may_use(self.store / name):
                print(f"{self.store / name}: is behind a link; this execution is left out", file=sys.stderr)
            else:
                yield self.store / name, record

    def forget(self, folder: Path) -> None:
        """Takes an execution out of the index; what is left of it in the store stays until it is cleared by `gc`."""
        name = f"{folder.parent.name}/{folder.name}"
        if not name.isprintable():  # such as one that is no UTF-8, which was never in it and cannot be asked for
            return
        for table, column in (("inputs", "execution"), ("artifacts", "execution"), ("executions", "id")):
            self._database.execute(f"DELETE FROM {table} WHERE {column} = ?", (name,))

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


def _refuse_links(path: Path) -> None:
    """Removes links that stand where the index belongs: SQLite would write into what they point at."""
    for name in (path.name, *(f"{path.name}-{kind}" for kind in ("wal", "shm", "journal"))):
        if path.with_name(name).is_symlink():
            print(
                f"{path.with_name(name)}: is a link, and is replaced by an index made anew from the store",
                file=sys.stderr,
            )
            path.with_name(name).unlink()


def _set_aside(path: Path, why: str) -> None:
    """Moves a damaged index out of the way, in place of one that was moved there before."""
    kept = path.with_name(f"{path.name}.damaged")
    print(f"{path}: is damaged ({shown(why)}); it is kept as {kept.name} and made anew from the store", file=sys.stderr)
    for journal in ("-wal", "-shm"):
        path.with_name(path.name + journal).unlink(missing_ok=True)
    path.replace(kept)
