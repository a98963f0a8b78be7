"""Damaged indexes and foreign manifests: each costs what it stands for, and no more. Files: `test_damage_table.py`."""

import json
import shutil
import sqlite3

import pytest

from lmworks.tfx import runs
from lmworks.tfx.metadata import INDEX, Metadata
from tests.conftest import lmworks
from tests.tfx import stages


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    root = tmp_path_factory.mktemp("damage")
    stages.run(root, "good", "yes")
    return root


@pytest.fixture
def root(finished, tmp_path):
    """A root with the finished run `good`."""
    return shutil.copytree(finished, tmp_path / "runs", symlinks=True)


def again(root) -> list[str]:
    """Statuses of `learn`, `tell` and `write`."""
    stages.run(root, "good", "yes")
    return [stage["status"] for stage in runs.read_record(root / "good")["stages"].values()]


def garble(path, begin, length=4096):
    content = bytearray(path.read_bytes())
    content[begin : begin + length] = bytes((7 * index + 3) % 251 for index in range(length))
    path.write_bytes(content)


def foreign(path):
    path.unlink()
    with sqlite3.connect(path) as database:
        database.execute("CREATE TABLE executions (name TEXT)")


def schema(path) -> set[tuple[str, str]]:
    with sqlite3.connect(path) as database:
        rows = database.execute("SELECT type, name FROM sqlite_master").fetchall()
    database.close()
    return {*rows}


def extended(*statements):
    def extend(path):
        with sqlite3.connect(path) as database:
            for statement in statements:
                database.execute(statement)
        database.close()

    return extend


INDEXES = {
    "first_page": lambda path: garble(path, 0),
    "second_page": lambda path: garble(path, 4096),
    "page_of_records": lambda path: garble(path, path.stat().st_size - 8192),
    "all_pages": lambda path: path.write_bytes(b"\x81garbage" * 4096),
    "cut": lambda path: path.write_bytes(path.read_bytes()[:5000]),
    "empty": lambda path: path.write_bytes(b""),
    "foreign": foreign,
    "trigger": extended(
        "CREATE TRIGGER again BEFORE DELETE ON executions BEGIN INSERT INTO executions (id) VALUES (old.id); END"
    ),
    "view": extended("DROP TABLE inputs", "CREATE VIEW inputs AS SELECT id AS execution, id AS name FROM executions"),
    "constraint": extended("CREATE UNIQUE INDEX single ON executions (component)"),
}


@pytest.mark.parametrize("damage", INDEXES.values(), ids=INDEXES)
def test_a_damaged_index_is_made_anew(root, damage, capsys):
    from lmworks.pipeline.main import main

    path = root / INDEX
    with sqlite3.connect(path) as database:
        database.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    database.close()
    assert not (root / f"{INDEX}-wal").exists()
    before = schema(path)
    damage(path)
    assert again(root) == ["cached"] * 3
    assert schema(path) == before
    if path.with_name(f"{INDEX}.damaged").exists():
        assert f"{INDEX}: is damaged (" in capsys.readouterr().err
    assert main(["runs", f"--root={root}"]) == main(["gc", f"--root={root}", "--yes"]) == 0
    assert again(root) == ["cached"] * 3


def test_a_rebuild_that_was_cut_is_done_again(root):
    for path in root.glob(f"{INDEX}*"):
        path.unlink()
    index = Metadata(root)
    index._database.execute("DELETE FROM executions")
    index._database.execute("PRAGMA user_version = 0")
    index.close()
    assert again(root) == ["cached"] * 3


def test_an_index_that_is_only_busy_or_locked_away_is_kept(root, monkeypatch):
    def refuse(*arguments, **options):
        error = sqlite3.OperationalError("database or disk is full")
        error.sqlite_errorcode = sqlite3.SQLITE_FULL
        raise error

    monkeypatch.setattr(Metadata, "_open", refuse)
    before = (root / INDEX).read_bytes()
    with pytest.raises(sqlite3.OperationalError):
        Metadata(root)
    assert (root / INDEX).read_bytes() == before


@pytest.mark.parametrize("field", ["execution", "files", "properties", "digest"])
def test_a_foreign_manifest_costs_its_execution_only(root, field):
    (manifest,) = (root / "store" / "write").glob("*/examples/artifact.json")
    manifest.write_text(json.dumps(json.loads(manifest.read_text()) | {field: ["of another program"]}))
    (root / INDEX).unlink()
    assert again(root) == ["made", "cached", "cached"]


def test_the_command_shows_no_traceback(root):
    (root / "damaged").mkdir()
    (root / "damaged" / "run.json").write_bytes(b"")
    done = lmworks("runs", f"--root={root}")
    assert done.returncode == 0
    assert "Traceback" not in done.stderr
