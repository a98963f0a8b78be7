"""Each file of a root, damaged in each way, under each command: it costs what it stands for, is named, and nothing else suffers."""

import contextlib
import json
import os
import re
import shutil
import signal
import stat
import tempfile
from pathlib import Path

import pytest

from lmworks.configs.errors import UserError
from lmworks.pipeline.main import main
from lmworks.tfx import board, runs
from lmworks.tfx.artifacts import SETTLED
from tests.conftest import REPOSITORY
from tests.tfx import stages

WHOLE = {"run": "damaged", "status": "running", "stages": {}}
STAGE = {"status": "made", "why": "", "seconds": 1.0, "summary": "", "execution": None}


def put(content):
    """Writes a content in the file's place."""
    return lambda path: path.write_bytes(content if isinstance(content, bytes) else json.dumps(content).encode())


def folder_in_its_place(path):
    path.unlink()
    (path / "something").mkdir(parents=True)


def link_to(target):
    def link(path):
        path.unlink()
        path.symlink_to(target)

    return link


def pipe(path):
    path.unlink()
    os.mkfifo(path)


def close(path, mode=0):
    """Takes rights away from whoever runs the test."""
    if os.geteuid() == 0:
        pytest.skip("runs as root, who reads everything, from a folder that nobody else may read")
    path.chmod(mode)


ANY = {
    "empty": put(b""),
    "torn": put(b'{"run": "dam'),
    "no_text": put(b"\xff\xfe\x00 \x80"),
    "list": put([]),
    "foreign": put({"name": "of another program", "stages": [], "version": 99}),
    "deep": put(b"[" * 100_000),
    "deep_object": put(b'{"a":' * 900 + b"1" + b"}" * 900),
    "no_number": put(b'{"a": NaN}'),
    "folder": folder_in_its_place,
    "link_to_nothing": link_to("/nowhere/at/all"),
    "link_to_itself": link_to("run.json"),
    "pipe": pipe,
    "unreadable": close,
}
RECORDS = {
    "newer_version": put({"version": 2, "name": "damaged", "state": "done"}),
    "stage_is_null": put({**WHOLE, "stages": {"write": None}}),
    "unknown_status_of_a_stage": put({**WHOLE, "stages": {"write": {**STAGE, "status": "postponed"}}}),
    "endless_number": put({**WHOLE, "stages": {"write": {**STAGE, "seconds": 10**400}}}),
    "number_of_300_digits": put({**WHOLE, "stages": {"write": {**STAGE, "seconds": 1e300}}}),
    "negative_seconds": put({**WHOLE, "stages": {"write": {**STAGE, "seconds": -1.0}}}),
    "time_of_300_digits": put({**WHOLE, "running": {"stage": "write", "since": 1e300}}),
    "time_of_no_calendar": put({**WHOLE, "running": {"stage": "write", "since": 10**400}}),
    "process_without_number": put({**WHOLE, "process": {"host": runs.this_process()["host"]}}),
    "deep_inside": put(json.dumps({**WHOLE, "config": 0}).encode().replace(b"0", b"[" * 900 + b"]" * 900)),
    "no_number_inside": put(json.dumps({**WHOLE, "config": 0}).encode().replace(b"0", b"-Infinity")),
}
PROGRESS = {
    "other_types": put({"stage": "learn", "done": "1", "total": [], "unit": 3, "facts": []}),
    "endless_number": put({"stage": "learn", "done": 10**400, "total": 10**399, "unit": "", "facts": {"a": 10**400}}),
    "nested_facts": put({"stage": "learn", "done": 1, "total": 0, "unit": "", "facts": {"a": {"b": []}}}),
}


@contextlib.contextmanager
def without_rights():
    """Within it files are as closed as they say, also if the tests run as root, who may read everything.

    Only if the code lies where that one can read it too.
    """
    code = REPOSITORY / "tfx" / "launch.py"
    may_read = code.stat().st_mode & stat.S_IROTH and all(path.stat().st_mode & stat.S_IXOTH for path in code.parents)
    if os.geteuid() != 0 or not may_read:
        yield
        return
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A root with a run, and state that its finished execution left."""
    root = tmp_path_factory.mktemp("table") / "runs"
    stages.run(root, "good", "lasting")
    stages.run(root, "damaged", "other")
    return root


@pytest.fixture
def root(finished):
    """A copy that belongs to who has no rights, where that one can come to it."""
    with tempfile.TemporaryDirectory() as temporary:
        root = shutil.copytree(finished, Path(temporary, "runs"), symlinks=True)
        if os.geteuid() == 0:
            for folder, _, names in [(temporary, [], []), *os.walk(root)]:
                for path in (folder, *(os.path.join(folder, name) for name in names)):
                    os.chown(path, 65534, 65534, follow_symlinks=False)
        # A pipe that somebody waits for would wait for ever.
        signal.signal(signal.SIGALRM, lambda *_: pytest.fail("hangs"))
        signal.alarm(60)
        with without_rights():
            yield root
        signal.alarm(0)


def held(root):
    """What the run `good` holds on to: its executions and the files in them."""
    return {
        str(path.relative_to(root)): path.read_bytes()
        for link in (root / "good").glob("*/*")
        if link.is_symlink() and link.exists()
        for path in link.resolve().rglob("*")
        if path.is_file()
    }


def tell(capsys, *arguments):
    """Exit code, output and errors of a command, none of which may be a traceback."""
    code = main([*arguments])
    said = capsys.readouterr()
    assert "Traceback" not in said.err
    return code, said.out, said.err


def again(root):
    stages.run(root, "good", "lasting")
    return made(root, "good")


def made(root, name):
    """The stages of a run that were no hits."""
    return {stage for stage, told in runs.read_record(root / name)["stages"].items() if told["status"] != "cached"}


@pytest.mark.parametrize("damage", {**ANY, **RECORDS}.values(), ids={**ANY, **RECORDS})
def test_a_record(root, damage, capsys):
    where, before = f"--root={root}", held(root)
    damage(root / "damaged" / runs.RECORD)
    code, out, errors = tell(capsys, "runs", where)
    assert code == 0
    assert "good" in out
    assert "damaged" not in out
    assert re.search(f"^{root}/damaged/run.json: .*; the run is left out$", errors, re.MULTILINE)
    assert len(errors.splitlines()) == 1
    assert tell(capsys, "runs", where, "good")[0] == 0
    assert tell(capsys, "runs", where, "good", "--follow")[0] == 0
    for follow in ([], ["--follow"]):
        code, out, errors = tell(capsys, "runs", where, "damaged", *follow)
        assert (code, out) == (1, "")
        assert errors.startswith(f"lmworks runs: {root}/damaged/run.json: ")
        assert f"remove {root}/damaged\n" in errors
    assert "good" in board.find(root)
    for state in ([], ["--state"]):
        assert tell(capsys, "gc", where, "--yes", *state)[0] == 0
        assert held(root) == before
    assert (root / "damaged" / "learn" / "logs" / "artifact.json").exists()  # its links still hold on to it
    assert again(root) == set()
    capsys.readouterr()
    if damage is folder_in_its_place:
        with pytest.raises(UserError, match=r"run\.json: is a folder, and a file has to stand there; remove it"):
            stages.run(root, "damaged", "other")
    else:  # it can be run again, which is what was said
        stages.run(root, "damaged", "other")
        capsys.readouterr()
        assert tell(capsys, "runs", where)[2] == ""


@pytest.mark.parametrize("damage", {**ANY, **PROGRESS}.values(), ids={**ANY, **PROGRESS})
def test_progress(root, damage, capsys):
    where = f"--root={root}"
    record = runs.read_record(root / "damaged")
    record |= {"status": "running", "running": {"stage": "learn", "since": 0.0}, "process": {"pid": 1, "host": "other"}}
    (root / "damaged" / runs.RECORD).write_text(json.dumps(record))
    path = root / "damaged" / runs.PROGRESS
    path.touch()
    damage(path)
    assert runs.now(root / "damaged", record)[0] == "learn"
    code, out, errors = tell(capsys, "runs", where)
    assert (code, errors) == (0, "")
    assert re.search(r"^damaged +running +", out, re.MULTILINE)
    code, out, errors = tell(capsys, "runs", where, "damaged")
    assert (code, errors) == (0, "")
    assert re.search(r"^  learn +running \d+:\d\d", out, re.MULTILINE)
    assert tell(capsys, "gc", where, "--yes")[0] == 0
    stages.run(root, "damaged", "other")
    assert runs.read_record(root / "damaged")["status"] == "done"


MANIFESTS = {
    "no_value": lambda path: edit(path, "execution", value=...),
    "outputs_of_another_type": lambda path: edit(path, "execution", outputs=[{}]),
    "another_execution": lambda path: edit(path, "execution", key="other", outputs=["examples", "more"]),
    "text_that_no_index_holds": lambda path: edit(path, "execution", component="\ud800"),
    "endless_number": lambda path: edit(path, "execution", finished=10**400),
    "number_that_no_index_holds": lambda path: edit(path, "execution", finished=10**30, key="other"),
    "newer_version": lambda path: edit(path, version=2),
    "size_of_another_type": lambda path: edit(path, files=[{"path": "word.txt", "size": "7", "sha256": ""}]),
    "path_that_is_none": lambda path: edit(path, files=[{"path": "a\0b", "size": 7, "sha256": ""}]),
}


def edit(path, *below, **fields):
    manifest = part = json.loads(path.read_text())
    for name in below:
        part = part[name]
    part |= fields
    for name in [name for name, value in fields.items() if value is ...]:
        del part[name]
    path.write_text(json.dumps(manifest))


@pytest.mark.parametrize("damage", {**ANY, **MANIFESTS}.values(), ids={**ANY, **MANIFESTS})
def test_a_manifest(root, damage, capsys):
    where = f"--root={root}"
    (link,) = (path for path in (root / "damaged" / "write").iterdir() if path.is_symlink())
    manifest, before = link.resolve() / "artifact.json", held(root)
    damage(manifest)
    for command in (["runs"], ["runs", "damaged"], ["runs", "damaged", "--follow"], ["gc", "--yes"]):
        assert tell(capsys, command[0], where, *command[1:])[0] == 0
    assert "good" in board.find(root)
    assert os.path.lexists(manifest)  # a run holds on to it
    stages.run(root, "damaged", "other")
    assert made(root, "damaged") == {"write"}
    for path in root.glob("metadata.sqlite*"):
        path.unlink()
    assert again(root) == set()
    assert os.path.lexists(manifest)  # a doubt destroys nothing
    assert tell(capsys, "gc", where, "--yes", "--state")[0] == 0
    assert not os.path.lexists(manifest)
    assert held(root) == before


@pytest.mark.parametrize("damage", {**ANY, "absolute": put(b"/etc"), "null": put(b"learn/a\0b")}.values(),
                         ids=[*ANY, "absolute", "null"])  # fmt: skip
def test_a_mark_of_a_settled_state(root, damage, capsys):
    where = f"--root={root}"
    (mark,) = root.glob(f"state/learn/*/{SETTLED}")
    curves, before = mark.parent / "logs", held(root)
    damage(mark)
    assert tell(capsys, "gc", where, "--yes")[0] == 0
    assert curves.exists(), "what it was left by is not known"
    assert again(root) == set()
    assert tell(capsys, "runs", where)[0] == 0
    shutil.rmtree((root / "good" / "learn" / "logs").resolve().parent)
    assert again(root) == {"learn", "tell"}
    assert (mark.read_text() if mark.is_file() else "").startswith("learn/")
    assert tell(capsys, "gc", where, "--yes", "--state")[0] == 0
    assert not curves.exists()
    assert held(root).keys() - before.keys() <= held(root).keys()


@pytest.mark.parametrize("place", ["damaged", "damaged/learn"])
@pytest.mark.parametrize("mode", [0, 0o400])
def test_a_runs_folder_that_is_closed(root, place, mode, capsys):
    """What it links is not known: nothing at all may go."""
    where, everything = f"--root={root}", sorted((root / "store").rglob("*"))
    close(root / place, mode)
    code, out, errors = tell(capsys, "gc", where, "--yes", "--state")
    assert (code, out) == (1, "")
    assert errors.startswith(f"lmworks gc: {root / place}")
    assert "cannot be read (Permission denied), and what it links is not known, so nothing is removed: " in errors
    assert sorted((root / "store").rglob("*")) == everything
    code, out, errors = tell(capsys, "runs", where)
    assert code == 0
    assert "good" in out
    if place == "damaged":
        assert f"{root}/damaged/run.json: cannot be read: Permission denied" in errors
    assert "good" in board.find(root)
    assert again(root) == set()
    (root / place).chmod(0o700)
    (root / "lost+found").mkdir(mode=0)
    assert tell(capsys, "gc", where, "--yes")[0] == 0


@pytest.mark.parametrize("mode", [0, 0o500])
def test_an_execution_that_is_closed(root, mode, capsys):
    """It costs itself."""
    where = f"--root={root}"
    (link,) = (path for path in (root / "damaged" / "write").iterdir() if path.is_symlink())
    closed = link.resolve().parent
    shutil.rmtree(root / "damaged")
    close(closed, mode)
    code, out, errors = tell(capsys, "gc", where, "--yes")
    assert "removed 2, " in out
    assert re.search(f"{closed}.* (it|what is in it) stays" if mode == 0 else f"{closed}: cannot be removed", errors)
    assert code == (0 if mode == 0 else 1)
    assert again(root) == set()
    for path in root.glob("metadata.sqlite*"):
        path.unlink()
    stages.run(root, "damaged", "other")
    assert runs.read_record(root / "damaged")["status"] == "done"
    for path in (closed, *closed.parent.glob(f".*{closed.name}")):
        if path.exists():
            path.chmod(0o700)
    assert tell(capsys, "gc", where, "--yes")[0] == 0


@pytest.mark.parametrize("damage", [folder_in_its_place, ANY["unreadable"]], ids=["folder", "unreadable"])
def test_an_index_that_cannot_be_opened(root, damage, capsys):
    """It is no reason to lose it: its name is said, and what needs none goes on."""
    where, path = f"--root={root}", root / "metadata.sqlite"
    for journal in root.glob("metadata.sqlite-*"):
        journal.unlink()
    damage(path)
    assert tell(capsys, "runs", where)[0] == 0
    assert "good" in board.find(root)
    with pytest.raises(UserError, match=rf"^{path}: cannot be opened \(.*\); make it a file of yours, or remove it: "):
        again(root)
    assert os.path.lexists(path)
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    assert again(root) == set()


def test_a_store_with_files_that_are_no_executions(root, capsys):
    where, before = f"--root={root}", held(root)
    (root / "store" / "notes.txt").write_text("mine")
    (root / "store" / "learn" / "notes.txt").write_text("mine")
    (root / "store" / "learn" / os.fsdecode(b"caf\xe9")).mkdir()
    (root / "state" / "learn" / "notes.txt").write_text("mine")
    for path in root.glob("metadata.sqlite*"):
        path.unlink()
    assert again(root) == set()
    assert tell(capsys, "gc", where, "--yes")[0] == 0
    assert held(root) == before
    assert (root / "store" / "learn" / "notes.txt").exists()
