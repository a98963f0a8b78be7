"""What no run links goes; what a run or a living process holds stays, whatever happens in between."""

import os
import shutil

import pytest

from lmworks.tfx import gc, locks, runs
from lmworks.tfx.artifacts import manifest_of
from lmworks.tfx.local import StageError
from lmworks.tfx.metadata import Metadata
from tests.conftest import lmworks
from tests.tfx import stages


def executions(root):
    return {path.name for path in (root / "store").glob("*/*")}


def kinds(items):
    return sorted((item.kind, item.stage) for item in items)


def key_of(root, name="one", stage="learn"):
    return (root / name / stage / "live").readlink().name


@pytest.fixture
def two(tmp_path):
    """A run that was run again with another word: what the first word made is linked by none."""
    stages.run(tmp_path, "one", "first")
    old = executions(tmp_path)
    stages.run(tmp_path, "one", "second")
    return tmp_path, old


def test_what_no_run_links_leaves_store_and_index(two):
    root, old = two
    new = executions(root) - old
    (root / "state" / "learn" / "0123.lock").touch()
    done = lmworks("gc", f"--root={root}", "--yes")
    assert done.returncode == 0, done.stderr
    assert "learn       executions that no run links: 1, " in done.stdout
    assert "removed 3, " in done.stdout
    assert executions(root) == new
    assert not list(root.glob("state/*/*"))
    metadata = Metadata(root)
    known = [folder.name for node in stages.nodes("") for folder, _ in metadata.executions(node.component.entry)]
    metadata.close()
    assert set(known) == new
    assert lmworks("gc", f"--root={root}").stdout == f"{root}: nothing to remove\n"
    # What was removed is made again, what stayed is a hit.
    stages.run(root, "one", "second")
    assert {told["status"] for told in runs.read_record(root / "one")["stages"].values()} == {"cached"}
    stages.run(root, "one", "first")
    assert {told["status"] for told in runs.read_record(root / "one")["stages"].values()} == {"made"}


def test_without_a_terminal_and_yes_nothing_goes(two):
    root, _ = two
    before = executions(root)
    done = lmworks("gc", f"--root={root}")
    assert done.returncode == 2
    assert "give --yes" in done.stderr
    assert "3 in all" in done.stdout
    assert executions(root) == before


def test_asks_and_takes_no_for_an_answer(two, monkeypatch, capsys):
    root, _ = two
    before = executions(root)
    monkeypatch.setattr("sys.stdin.isatty", lambda: True)
    for answer in ("", "n", "no"):
        monkeypatch.setattr("builtins.input", lambda prompt, answer=answer: answer)
        gc.run(root, state=False, yes=False)
    assert executions(root) == before
    monkeypatch.setattr("builtins.input", lambda prompt: "y")
    gc.run(root, state=False, yes=False)
    assert len(executions(root)) == len(before) - 3
    assert "removed 3, " in capsys.readouterr().out


def test_a_link_of_the_users_own_keeps_an_execution(two):
    root, old = two
    kept = next(path for path in (root / "store" / "learn").iterdir() if path.name in old)
    (root / "best").symlink_to(kept / "logs")
    assert kinds(gc.find(root)) == [("execution", "tell"), ("execution", "write")]


def test_links_are_not_followed_out_of_the_root(two, tmp_path_factory):
    root, _ = two
    outside = tmp_path_factory.mktemp("outside")
    (outside / "precious").mkdir()
    (outside / "precious" / "file").write_text("1")
    (root / "store" / "elsewhere").symlink_to(outside)
    (root / "store" / "learn" / "linked").symlink_to(outside / "precious")
    (root / "state" / "elsewhere").symlink_to(outside)
    (root / "one" / "learn" / "mine").symlink_to(outside / "gone")
    assert lmworks("gc", f"--root={root}", "--yes", "--state").returncode == 0
    assert (outside / "precious" / "file").exists()
    assert (root / "one" / "learn" / "mine").is_symlink()  # points at nothing, but nothing of ours
    shutil.move(root / "store", outside / "store")
    (root / "store").symlink_to(outside / "store")
    assert "gc follows none" in lmworks("gc", f"--root={root}", "--yes").stderr


def test_what_a_finished_execution_left_stays_as_long_as_a_run_links_it(tmp_path):
    stages.run(tmp_path, "one", "lasting")
    assert list(tmp_path.glob("state/learn/*/logs"))
    assert gc.find(tmp_path) == []
    assert kinds(gc.find(tmp_path, state=True)) == [("state", "learn")]
    stages.run(tmp_path, "one", "second")
    assert ("state", "learn") in kinds(gc.find(tmp_path))
    gc.collect(tmp_path, gc.find(tmp_path))
    assert not list(tmp_path.glob("state/learn/*/logs"))


def test_unfinished_work_that_a_run_links_stays_unless_asked(tmp_path, tmp_path_factory):
    with pytest.raises(StageError):
        stages.run(tmp_path, "one", "bad")
    key = key_of(tmp_path)
    draft = tmp_path / "store" / "learn" / f".{key}.killed"
    draft.mkdir(parents=True)
    assert gc.find(tmp_path) == []
    assert kinds(gc.find(tmp_path, state=True)) == [("draft", "learn"), ("state", "learn")]
    other = shutil.copytree(tmp_path, tmp_path_factory.mktemp("asked") / "runs", symlinks=True)
    assert lmworks("gc", f"--root={other}", "--yes", "--state").returncode == 0
    assert not list(other.glob("st*/learn/*"))
    assert not os.path.lexists(other / "one/learn/live")  # which would point at nothing
    stages.run(tmp_path, "one", "good")  # links other work now, and nobody goes on from the former
    found = gc.find(tmp_path)
    assert kinds(found) == [("draft", "learn"), ("execution", "write"), ("state", "learn")]
    assert gc.collect(tmp_path, found) == (found, [])
    assert not (tmp_path / "state" / "learn" / key).exists()
    assert not draft.exists()


def test_what_a_process_works_on_is_not_touched(tmp_path, start):
    process = start("one")
    key = key_of(tmp_path)
    draft = next((tmp_path / "store" / "learn").glob(f".{key}.*"))
    (tmp_path / "one" / "learn" / "live").unlink()  # even if no link says so
    assert lmworks("gc", f"--root={tmp_path}", "--yes", "--state").returncode == 0
    assert draft.exists()
    assert (tmp_path / "state" / "learn" / key / "logs").exists()
    assert locks.held(tmp_path / "state" / "learn" / f"{key}.lock")
    (tmp_path / "release").touch()
    assert process.wait(120) == 0
    assert runs.read_record(tmp_path / "one")["status"] == "done"


def test_what_a_run_takes_up_after_it_was_listed_stays(two):
    root, old = two
    found = gc.find(root)
    stages.run(root, "two", "first")  # hits
    assert {told["status"] for told in runs.read_record(root / "two")["stages"].values()} == {"cached"}
    assert gc.collect(root, found) == ([], [])
    assert old <= executions(root)


def test_what_another_process_holds_when_it_is_to_go_stays(two):
    root, _ = two
    found = gc.find(root)
    first = next(item for item in found if item.stage == "learn")
    handle = locks.acquire(gc._lock_of(root, first))
    assert first not in gc.find(root)
    assert kinds(gc.collect(root, found)[0]) == [("execution", "tell"), ("execution", "write")]
    assert first.path.exists()
    os.close(handle)
    assert gc.collect(root, gc.find(root)) == ([first], [])


@pytest.mark.parametrize("broken", ["rename", "forget", "remove"])
def test_a_crash_in_the_middle_leaves_nothing_half_visible(two, monkeypatch, broken):
    root, _ = two

    class CrashError(Exception):
        pass

    def crash(_, folder, *arguments):
        if broken == "remove":
            next(folder.glob("*/*.tfevents.*")).unlink()
        raise CrashError

    owner = gc.Metadata if broken == "forget" else gc.containment
    with monkeypatch.context() as patch:
        patch.setattr(owner, broken, crash)
        with pytest.raises(CrashError):
            gc.collect(root, [item for item in gc.find(root) if item.stage == "learn"])
    stages.run(root, "two", "first")
    told = runs.read_record(root / "two")["stages"]["learn"]
    if broken == "rename":
        assert told["status"] == "cached"
    else:  # a whole draft is as good as any, half of one is made anew
        assert (told["why"] == "finished by a run that was killed") == (broken == "forget")
    assert manifest_of((root / "two" / "learn" / "logs").resolve()) is not None
    assert lmworks("gc", f"--root={root}", "--yes").returncode == 0
    assert not list((root / "store").glob("*/.*"))


def test_links_to_nothing_and_damaged_executions_go(two):
    root, _ = two
    folder = (root / "one" / "tell" / "examples").resolve().parent
    shutil.rmtree(folder)
    damaged = root / "store" / "tell" / "damaged"
    (damaged / "examples").mkdir(parents=True)
    found = gc.find(root)
    assert ("link", "tell") in kinds(found)
    assert damaged in [item.path for item in found]
    assert gc.collect(root, found) == (found, [])
    assert not os.path.lexists(root / "one" / "tell" / "examples")
    assert not damaged.exists()


def test_a_root_that_is_none(tmp_path):
    precious = tmp_path / "other" / "store" / "of" / "mine"
    precious.mkdir(parents=True)
    for name in ("none", "other"):
        done = lmworks("gc", f"--root={tmp_path / name}", "--yes")
        assert done.returncode == 2
        assert "nothing was ever run there" in done.stderr
    assert precious.exists()
    assert not (tmp_path / "none").exists()
