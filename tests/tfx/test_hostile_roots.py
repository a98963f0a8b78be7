"""Roots that another has written, here and on S3: nothing beside them changes, nothing that is held goes, the rest stays usable."""

import hashlib
import json
import os
import shutil
import sqlite3
import sys
from pathlib import Path

import pytest

from lmworks.configs.errors import UserError
from lmworks.configs.load import ConfigError
from lmworks.pipeline.main import main
from lmworks.tfx import board, containment, fingerprint, gc, locks, remote, runs
from lmworks.tfx.artifacts import MANIFEST, Examples, execution_of, manifest_of, parse_manifest, publish
from lmworks.tfx.local import LocalRunner
from lmworks.tfx.metadata import INDEX, Metadata
from lmworks.tfx.remote import RemoteRoot
from lmworks.tfx.transfer import TooLarge
from tests.stores import machine, objects
from tests.tfx import remote_stages, stages


def tree(folder: Path) -> dict[str, tuple]:
    """Everything below a folder: type, mode, time of change and content."""
    found = {}
    for path in sorted(folder.rglob("*")):
        status = path.lstat()
        content = os.readlink(path) if path.is_symlink() else path.read_bytes() if path.is_file() else b""
        found[str(path.relative_to(folder))] = status.st_mode, status.st_mtime_ns, content
    return found


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A root with the finished run `good`, and what the word `first` made, which no run links."""
    root = tmp_path_factory.mktemp("hostile") / "runs"
    stages.run(root, "good", "first")
    stages.run(root, "good", "yes")
    return root


@pytest.fixture
def root(finished, tmp_path):
    return shutil.copytree(finished, tmp_path / "runs", symlinks=True)


@pytest.fixture
def beside(tmp_path):
    """Somebody's own files, beside the root."""
    folder = tmp_path / "beside"
    for name in ("folder/precious.txt", "folder/of/more.txt", "file.txt"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(f"{name} of somebody")
    (folder / "folder" / "link").symlink_to(folder / "file.txt")
    (folder / "empty").mkdir()
    with sqlite3.connect(folder / "own.sqlite") as database:
        database.execute("CREATE TABLE mine (content TEXT)")
    database.close()
    for path in sorted(folder.rglob("*")):  # long ago, so that any change shows
        os.utime(path, (1e9, 1e9), follow_symlinks=False)
    return folder


OUTPUTS = {"write": "examples", "learn": "logs", "tell": "examples"}


def execution(root: Path, stage: str) -> Path:
    return (root / "good" / stage / OUTPUTS[stage]).resolve().parent


def held(root: Path) -> dict[Path, dict[str, tuple]]:
    """The executions that the run `good` holds on to in the root's store."""
    found = {execution(root, stage) for stage in OUTPUTS if manifest_of(root / "good" / stage / OUTPUTS[stage])}
    return {path: tree(path) for path in found if path.is_relative_to(root.resolve() / "store")}


def unheld(root: Path, stage: str) -> Path:
    return next(path for path in sorted((root / "store" / stage).iterdir()) if path != execution(root, stage))


def change(manifest: Path, **record) -> None:
    content = json.loads(manifest.read_text())
    content["execution"] |= record
    manifest.write_text(json.dumps(content))


def forget_index(root: Path) -> None:
    for path in root.glob(f"{INDEX}*"):
        path.unlink()


def draft(root: Path, **record) -> Path:
    """Makes what is held of `write` a draft that a killed run left."""
    folder = execution(root, "write")
    key = manifest_of(folder / "examples")["execution"]["key"]
    left = shutil.copytree(folder, folder.with_name(f".{key}.{folder.name}"))
    change(left / "examples" / MANIFEST, **record)
    forget_index(root)
    shutil.rmtree(folder)
    return left


# Each plants something into a root.


def link_run(root, beside):
    shutil.copytree(root / "good", beside / "good", symlinks=True)
    shutil.rmtree(root / "good")
    (root / "good").symlink_to(beside / "good")


def link_stage_of_run(root, beside):
    shutil.rmtree(root / "good" / "learn")
    (root / "good" / "learn").symlink_to(beside / "folder")


def link_lock_of_run(root, beside):
    (root / "good" / runs.LOCK).unlink()
    (root / "good" / runs.LOCK).symlink_to(beside / "made")
    (root / "good" / "write" / "examples").unlink()
    (root / "good" / "write" / "examples").symlink_to("../../store/write/gone")


def link_drafts_of_run(root, beside):
    for name in (runs.RECORD, runs.PROGRESS, "write/log.txt"):
        path = root / "good" / name
        path.with_name(f".{path.name}.{os.getpid()}").symlink_to(beside / "file.txt")
    runs.write_progress(root / "good", "write", {"done": 1, "total": 2, "unit": "steps", "facts": {}})


def link_outputs_of_run(root, beside):
    for stage in ("write", "learn"):
        for name in ("examples", "logs", runs.LIVE):
            (root / "good" / stage / name).unlink(missing_ok=True)
            (root / "good" / stage / name).symlink_to(beside / "folder")


def link_stage_of_store(root, beside):
    shutil.move(root / "store" / "write", beside / "write")
    (root / "store" / "write").symlink_to(beside / "write")
    (beside / "write" / ".0123.draft").mkdir()


def link_store(root, beside):
    shutil.move(root / "store", beside / "store")
    (root / "store").symlink_to(beside / "store")


def link_stage_of_state(root, beside):
    shutil.rmtree(root / "state" / "write")
    (root / "state" / "write").symlink_to(beside / "folder")


def link_locks_of_state(root, beside):
    for path in (root / "state").glob("*/*.lock"):
        path.unlink()
        path.symlink_to(beside / f"{path.parent.name}.lock")


def link_draft(root, beside):
    left = draft(root)
    shutil.move(left, beside / "draft")
    left.symlink_to(beside / "draft")


def link_lock_of_index(root, beside):
    (root / "metadata.lock").unlink()
    (root / "metadata.lock").symlink_to(beside / "file.txt")


def link_index(root, beside):
    forget_index(root)
    (root / INDEX).symlink_to(beside / "own.sqlite")


def link_journals_of_index(root, beside):
    for kind in ("wal", "shm", "journal"):
        (root / f"{INDEX}-{kind}").unlink(missing_ok=True)
        (root / f"{INDEX}-{kind}").symlink_to(beside / "file.txt")


def key_elsewhere(root, beside):
    for manifest in unheld(root, "write").glob(f"*/{MANIFEST}"):
        change(manifest, key=str(beside / "made"))


def key_above(root, beside):
    for manifest in unheld(root, "write").glob(f"*/{MANIFEST}"):
        change(manifest, key="../../../beside/made")


def draft_elsewhere(root, beside):
    draft(root, id="../../beside/adopted")


def draft_over_another(root, beside):
    draft(root, id=f"learn/{execution(root, 'learn').name}")


def outputs_of_lists(root, beside):
    for manifest in unheld(root, "write").glob(f"*/{MANIFEST}"):
        change(manifest, outputs=[[]])
    forget_index(root)


def index_elsewhere(root, beside):
    """Names a whole execution that lies outside the root, newer than any inside."""
    shutil.copytree(execution(root, "write"), beside / "execution")
    with sqlite3.connect(root / INDEX) as database:
        (row,) = database.execute(
            "SELECT component, key, record FROM executions WHERE id = ?", (f"write/{execution(root, 'write').name}",)
        )
        for name in ("../../beside/execution", str(beside / "execution")):
            database.execute("INSERT INTO executions VALUES (?, ?, ?, 9e9, ?)", (name, *row))
    database.close()


def code_of_anybody(root, beside):
    """Names a module in a package whose import does harm."""
    change(
        execution(root, "write") / "examples" / MANIFEST,
        code={"hostile_package.module": "", "sys": "", "math": "", "": ""},
    )
    forget_index(root)


def pipes(root, beside):
    (root / "pipe").mkdir()
    os.mkfifo(root / "pipe" / runs.RECORD)
    for folder in (root / "pipe" / "learn" / "logs", root / "store" / "write" / "pipe" / "examples"):
        folder.mkdir(parents=True)
        os.mkfifo(folder / MANIFEST)
    os.mkfifo(root / "state" / "learn" / "pipe.lock")


def settled(text):
    def plant(root, beside):
        (root / "state" / "learn" / "0123" / "model").mkdir(parents=True)
        (root / "state" / "learn" / "0123" / "settled").write_bytes(text)

    plant.__name__ = f"settled_by_{text!r}"
    return plant


NOTHING, GOOD, MAKING = "nothing", "the run good", "making"
"""What it costs: the run that it was planted into; or the making of anything in a stage that it was planted into."""

PLANTS = {
    link_run: GOOD,
    link_stage_of_run: GOOD,
    link_lock_of_run: GOOD,
    link_drafts_of_run: NOTHING,
    link_outputs_of_run: NOTHING,
    link_stage_of_store: MAKING,
    link_store: MAKING,
    link_stage_of_state: MAKING,
    link_locks_of_state: GOOD,
    link_draft: NOTHING,
    link_lock_of_index: MAKING,
    link_index: NOTHING,
    link_journals_of_index: NOTHING,
    key_elsewhere: NOTHING,
    key_above: NOTHING,
    draft_elsewhere: NOTHING,
    draft_over_another: NOTHING,
    outputs_of_lists: NOTHING,
    index_elsewhere: NOTHING,
    code_of_anybody: NOTHING,
    pipes: NOTHING,
    settled(b"/"): NOTHING,
    settled(b"../../../beside"): NOTHING,
    settled(b"learn/a\0b"): NOTHING,
    settled(b"\xff\xfe"): NOTHING,
}


def test_a_file_of_any_size_in_place_of_a_record_costs_what_it_says_only(root, capsys):
    (root / "large").mkdir()
    (root / "folder" / runs.RECORD).mkdir(parents=True)
    (root / "state" / "learn" / "0123" / "model").mkdir(parents=True)
    forget_index(root)
    for path in (
        root / "large" / runs.RECORD,
        unheld(root, "learn") / "logs" / MANIFEST,
        root / "state" / "learn" / "0123" / "settled",
    ):
        path.write_bytes(b"")
        os.truncate(path, 1 << 40)  # of holes
    descriptors = os.listdir("/proc/self/fd")
    assert main(["runs", f"--root={root}"]) == 0
    assert main(["gc", f"--root={root}", "--yes"]) == 0
    assert len(os.listdir("/proc/self/fd")) == len(descriptors)
    errors = capsys.readouterr().err
    assert f"{root}/large/run.json: cannot be read: is larger than 64 MiB; make it a file" in errors
    stages.run(root, "good", "yes")


@pytest.mark.parametrize(("plant", "cost"), PLANTS.items(), ids=[plant.__name__ for plant in PLANTS])
def test_a_hostile_root_changes_nothing_beside_it(root, beside, plant, cost, monkeypatch, capsys):
    package = beside.parent / "packages" / "hostile_package"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text(f"import pathlib; pathlib.Path({str(beside / 'imported')!r}).touch()")
    monkeypatch.syspath_prepend(str(package.parent))
    plant(root, beside)
    before, kept = tree(beside), held(root)

    def run(name: str, word: str) -> str:
        try:
            stages.run(root, name, word)
        except UserError as error:
            return f"refused: {error}"
        return "done"

    assert main(["runs", f"--root={root}"]) == 0
    main(["runs", f"--root={root}", "good"])
    assert all(events.folder.is_relative_to(root) for events in board.find(root).values())
    for name, word, goes in (("good", "yes", cost == NOTHING), ("new", "word", cost != MAKING)):
        ended = run(name, word)
        assert ended.partition(":")[0] == ("done" if goes else "refused"), ended
        assert "\n" not in ended
    for flags in ([], ["--state"]):
        main(["gc", f"--root={root}", "--yes", *flags])
    assert "Traceback" not in capsys.readouterr().err
    assert tree(beside) == before
    now = held(root)
    assert now == kept if cost != NOTHING else len(now) == 3
    assert all(now[path] == content for path, content in kept.items() if path in now)


def test_the_top_folder_may_be_a_link(root, tmp_path):
    shutil.move(root, tmp_path / "disk")
    root.symlink_to(tmp_path / "disk")
    before = held(root)
    stages.run(root, "good", "yes")
    assert [told["status"] for told in runs.read_record(root / "good")["stages"].values()] == ["cached"] * 3
    stages.run(root, "new", "word")
    assert list(board.find(root)) == ["good", "new"]
    shutil.rmtree(root / "new")
    assert main(["gc", f"--root={root}", "--yes", "--state"]) == 0
    assert len(list((root / "store").glob("*/*"))) == 3
    assert held(root) == before


@pytest.mark.parametrize("name", ["", "logs", "logs/events"])
def test_a_stage_works_in_no_state_that_leads_out(root, beside, name, capsys):
    with pytest.raises(UserError):
        stages.run(root, "new", "bad")
    path = (root / "new" / "learn" / runs.LIVE).resolve() / name
    containment.remove(root, path)
    path.symlink_to(beside / "folder")
    before = tree(beside)
    with pytest.raises(UserError, match=f"{path}: is a link"):
        stages.run(root, "new", "bad")
    stages.run(root, "good", "yes")
    for flags in ([], ["--state"]):
        assert main(["gc", f"--root={root}", "--yes", *flags]) == 0
    assert tree(beside) == before
    assert path.parent.name != "state"
    assert os.path.lexists(path) == (
        not name
    )  # gc removes an unfinished state with the link in it, and takes no link for one


def test_what_becomes_a_link_before_it_is_removed_leads_nowhere(root, beside, monkeypatch):
    """As gc's last look at it, its renaming and its removal are three moments."""
    item = next(item for item in gc.find(root) if item.stage == "write")
    for path in (item.path, item.path.with_name(f".{gc._key(item)}.{item.path.name}")):
        shutil.copytree(item.path, beside / "write" / path.name)
    before = tree(beside)
    for owner, moment in ((gc, "_linked"), (Metadata, "forget")):
        real = getattr(owner, moment)

        def swap(*arguments, real=real):
            if not (root / "store" / "write").is_symlink():
                (root / "store" / "write").rename(root / "moved")
                (root / "store" / "write").symlink_to(beside / "write")
            return real(*arguments)

        with monkeypatch.context() as patch:
            patch.setattr(owner, moment, swap)
            removed, (reason,) = gc.collect(root, [item])
        assert removed == []
        assert f"{root}/store/write: is a link or no folder" in reason
        assert tree(beside) == before
        (root / "store" / "write").unlink()
        (root / "moved").rename(root / "store" / "write")


def test_the_folder_of_a_lock_that_becomes_a_link_is_refused(root, beside):
    (root / "state" / "learn").rename(root / "moved")
    (root / "state" / "learn").symlink_to(beside / "folder")
    before = tree(beside)
    with pytest.raises(containment.RefusedError):
        locks.acquire(root / "state" / "learn" / "0123.lock", top=root)
    with pytest.raises(containment.RefusedError):
        containment.make_folder(root, root / "state" / "learn" / "0123")
    with pytest.raises(containment.RefusedError):
        containment.remove(root, root / ".." / "beside" / "file.txt")
    assert tree(beside) == before


def test_the_log_of_a_stage_is_not_written_through_a_link(root, beside):
    runner = LocalRunner(root, "good", {})
    (root / "good" / "write" / f".log-{os.getpid()}").symlink_to(beside / "file.txt")
    before = tree(beside)
    _, child, log = runner._start(stages.nodes("yes")[0])
    child.end()
    assert not log.is_symlink()
    assert tree(beside) == before


@pytest.mark.parametrize(
    "name", ["store", "State", "metadata.sqlite", ".lock", "..", "a/b", "", "a" * 300, "é", "a\nb"]
)
def test_a_run_has_a_name_of_its_own_in_the_root(root, name, capsys):
    with pytest.raises(ConfigError, match="cannot be the name of a run"):
        LocalRunner(root, name, {})


def test_a_run_outside_the_root_is_not_shown(root, capsys):
    assert main(["runs", f"--root={root / 'store'}", "../good"]) == 2
    assert "has no run '../good'" in capsys.readouterr().err


FILES = {
    "above": ["../x"],
    "inside_and_above": ["a/../../x"],
    "absolute": ["/x"],
    "this": ["./x"],
    "empty": [""],
    "folder": ["a/"],
    "doubled_slash": ["a//b"],
    "backslash": ["..\\x"],
    "control": ["a\x1b[2J"],
    "null": ["a\0b"],
    "surrogate": ["\udcff"],
    "long": ["a" * 256],
    "long_way": ["/".join("a" * 1000)],
    "itself": [MANIFEST],
    "itself_in_capitals": [MANIFEST.upper()],
    "twice": ["a", "a"],
    "file_and_folder": ["a/b", "a"],
    "file_and_folder_far": ["a/b/c/d", "a/b"],
}
SIZES = {"negative": -1, "huge": 10**400, "of_text": "1", "true_is_no_size": 1.5}


def listed(files) -> bytes:
    entries = [{"path": path, "size": size, "sha256": digest} for path, size, digest in files]
    about = {"type": "Examples", "output": "examples", "version": 1, "digest": "", "properties": {}, "execution": {}}
    return json.dumps({**about, "files": entries}).encode()


def test_a_manifest_lists_only_what_can_be_files_below_it():
    good = [(name, 1, "0" * 64) for name in ("a", "b/c", "b/.d", "b/artifact.json", "ä b.txt")]
    assert parse_manifest(listed(good)) is not None
    for name, paths in FILES.items():
        assert parse_manifest(listed([*good[1:], *((path, 1, "0" * 64) for path in paths)])) is None, name
    for name, size in SIZES.items():
        assert parse_manifest(listed([("a", size, "0" * 64)])) is None, name
    assert parse_manifest(listed([("a", 1, "../x")])) is None
    for output in ("..", "", "a/b", ".lock", "a.b", "a\n"):
        assert parse_manifest(listed(good).replace(b'"examples"', json.dumps(output).encode())) is None, output


def test_what_is_published_can_be_read(tmp_path):
    (tmp_path / "a\nb").touch()
    with pytest.raises(UserError, match=r"examples: a file of an artifact cannot be called 'a\\nb'"):
        publish(Examples(tmp_path), "examples", {})


def test_a_record_names_only_what_lies_in_a_root():
    stage = {"status": "made", "why": "", "seconds": 1.0, "summary": "", "execution": "write/20200101-000000-abcdef"}
    good = {"run": "good", "status": "done", "stages": {"write": stage}, "kept": {"learn": "learn/1", "tell": None}}
    assert runs.parse_record(json.dumps(good).encode()) == good
    for name in ("", "/tmp", "..", ".remote", "a/b", "run.json", "a\0", "a\n", "a" * 300):
        assert runs.parse_record(json.dumps(good | {"stages": {name: stage}}).encode()) is None, name
        assert runs.parse_record(json.dumps(good | {"kept": {name: None}}).encode()) is None, name
    for name in ("", "write", "write/", "write/..", "/write/a", "a/b/c", "learn/a", "write/.a", "write/a\n", [], 1):
        assert runs.parse_record(json.dumps(good | {"stages": {"write": stage | {"execution": name}}}).encode()) is None
        assert runs.parse_record(json.dumps(good | {"kept": {"write": name}}).encode()) is None, name


def test_an_execution_has_a_key_and_an_id_that_are_names(root):
    good = execution_of(manifest_of(root / "good" / "write" / "examples"))
    assert good is not None
    for changed in (
        {"id": "../x"},
        {"id": "a/b/c"},
        {"id": ""},
        {"key": "/x"},
        {"key": ".."},
        {"key": ""},
        {"outputs": [".."]},
    ):
        assert execution_of({"execution": good | changed}) is None, changed


def test_a_record_imports_nothing(root, beside, monkeypatch):
    (beside / "hostile").mkdir()
    (beside / "hostile" / "__init__.py").write_text("raise SystemExit('imported')")
    monkeypatch.syspath_prepend(str(beside))
    assert fingerprint.changed_code({"hostile.module": "", "sys": "", "": ""}) == ["hostile.module", "sys", ""]
    assert "hostile" not in sys.modules
    assert fingerprint.changed_versions({"": "1", "../hostile": "1"}) == ["", "../hostile"]


@pytest.fixture(scope="module")
def sent():
    """What two runs of `remote_stages` send, and none of which is young; filled by the first test that needs it."""
    return {}


OLD, HELD = "20200101-000000-aaaaaa", "20200101-000000-bbbbbb"


@pytest.fixture
def bucket(s3, sent, monkeypatch, tmp_path):
    """A bucket with the run `good`, an old execution that no run names, and a state; on a machine that knows nothing of it."""
    if not sent:
        remote_stages.run(s3.url, "good", kilobytes=1)
        everything = objects(s3)
        s3.rm(s3.url, recursive=True)
        names = sorted({name.split("/")[2] for name in everything if name.startswith("store/")})
        for name, content in everything.items():
            for made in names:
                name, content = name.replace(made, HELD), content.replace(made.encode(), HELD.encode())
            sent[name] = content
            if name.startswith("store/learn/"):
                sent[name.replace(HELD, OLD)] = content.replace(HELD.encode(), OLD.encode())
        sent["state/learn/0123/model/record.json"] = b"{}"
        machine(monkeypatch, tmp_path, 2)
    for name, content in sent.items():
        s3.pipe_file(f"{s3.url}/{name}", content)
    return s3


def test_a_file_of_any_size_in_place_of_a_record_in_a_bucket_is_not_read_whole(bucket, monkeypatch, capsys):
    monkeypatch.setattr(containment, "LARGEST", 1 << 20)
    put(bucket, "large/run.json", b" " * (1 << 21))
    put(bucket, "empty/run.json", b"")
    assert main(["runs", f"--root={bucket.url}"]) == 0
    out, errors = capsys.readouterr()
    assert "good" in out
    assert f"{bucket.url}/large/run.json: is larger than 1 MiB; it is left out" in errors
    assert (
        f"{bucket.url}/empty/run.json: is no record of a run, perhaps another program's file; it is left out" in errors
    )
    with pytest.raises(TooLarge):
        RemoteRoot(bucket.url).store.read("large/run.json")
    remote_stages.run(bucket.url, "large")


def put(bucket, name: str, content) -> None:
    path = f"{bucket.url.removeprefix('s3://')}/{name}"
    text = content if isinstance(content, bytes) else json.dumps(content).encode()
    # As it is: fsspec would make another name of some.
    bucket.call_s3("put_object", Bucket=path.partition("/")[0], Key=path.partition("/")[2], Body=text)


def record(sent, name: str, **changed) -> dict:
    return json.loads(sent["good/run.json"]) | {"run": name} | changed


# Each plants something into a bucket, under a name of its own, and returns what must be said of it.


def stage_named(name):
    def plant(bucket, sent, beside, mine):
        told = record(sent, mine)["stages"]["learn"]
        stages = {str(name(beside)): told | {"execution": f"learn/{HELD}"}, "learn": told}
        put(bucket, f"{mine}/run.json", record(sent, mine, stages=stages))
        put(bucket, f"{mine}-kept/run.json", record(sent, f"{mine}-kept", kept={str(name(beside)): f"learn/{HELD}"}))
        return f"{mine}/run.json: is no record of a run", f"{mine}-kept/run.json: is no record of a run"

    return plant


def execution_named(name):
    def plant(bucket, sent, beside, mine):
        told = record(sent, mine)["stages"]["learn"]
        put(bucket, f"{mine}/run.json", record(sent, mine, stages={"learn": told | {"execution": name(beside)}}))
        return (f"{mine}/run.json: is no record of a run",)

    return plant


def run_named(name):
    def plant(bucket, sent, beside, mine):
        put(bucket, f"{name}/run.json", record(sent, name))
        return ()

    return plant


def logs_changed(change, output="logs"):
    """Changes the manifest of an output that `board` fetches, of an execution that another run names."""

    def plant(bucket, sent, beside, mine):
        execution = f"20200101-000000-{mine}"
        for name, content in sent.items():
            if name.startswith(f"store/learn/{OLD}/") and name.endswith(MANIFEST):
                put(bucket, name.replace(OLD, execution), content.replace(OLD.encode(), execution.encode()))
        place = f"store/learn/{execution}/{output}"
        manifest = json.loads(sent[f"store/learn/{OLD}/logs/{MANIFEST}"].replace(OLD.encode(), execution.encode()))
        change(manifest, beside)
        for name in ("a", "a/b"):
            put(bucket, f"{place}/{name}", b"x")
        put(bucket, f"{place}/{MANIFEST}", manifest)
        told = record(sent, mine)["stages"]["learn"]
        stages = {"learn": told | {"execution": f"learn/{execution}"}}
        put(bucket, f"{mine}/run.json", record(sent, mine, stages=stages))
        return (f"{place}/{MANIFEST}: is no manifest of this execution",) if output == "logs" else ()

    return plant


def file_named(*paths, size=1):
    def change(manifest, beside):
        digest = hashlib.sha256(b"x").hexdigest()
        named = [path(beside) if callable(path) else path for path in paths]
        manifest["files"] += [{"path": str(path), "size": size, "sha256": digest} for path in named]

    return logs_changed(change)


def output_named(name):
    def change(manifest, beside):
        manifest["output"] = name
        manifest["execution"]["outputs"] = ["logs", "model", name]

    return logs_changed(change, name)


def keys_named(*names):
    def plant(bucket, sent, beside, mine):
        for name in names:
            put(bucket, name, b"{}")
        return ()

    return plant


def state_of_the_next_run(bucket, sent, beside, mine):
    """Its records name files outside, and so do its own names."""
    with pytest.raises(UserError):
        remote_stages.run(bucket.url, "new", word="fail")
    (place,) = {
        name.rpartition("/model/")[0] for name in objects(bucket) if "/learn/" in name and "/model/tries" in name
    }
    shutil.rmtree(os.environ[remote.ENVIRONMENT])
    files = {"../../../../../../beside/file.txt": "", str(beside / "file.txt"): ""}
    put(bucket, f"{place}/model/step/record.json", {"progress": 9, "files": files})
    put(bucket, f"{place}/model/step/deep.json", b"[" * 100_000)
    put(bucket, f"{place}/model/step/huge.json", b'{"progress": 1' + b"0" * 400 + b"}")
    put(bucket, f"{place}/model/step/none.json", b'{"progress": NaN}')
    names = ("../x", "../../../../../../beside/made", "a/../../b", "/x", "c//d", "model/tries/below", "e\x1b[2J")
    for name in names:
        put(bucket, f"{place}/{name}", b"x")
    return tuple(f"{name!r} can be no file in it" for name in names)


def above(beside):
    return f"../../../../../../{beside.name}/folder"


BUCKETS = {
    "records": {
        "stage_absolute": stage_named(lambda beside: beside / "folder"),
        "stage_above": stage_named(above),
        "stage_hidden": stage_named(lambda _: ".remote"),
        "stage_of_the_record": stage_named(lambda _: "run.json"),
        "stage_empty": stage_named(lambda _: ""),
        "execution_absolute": execution_named(lambda beside: str(beside / "folder")),
        "execution_above": execution_named(above),
        "execution_empty": execution_named(lambda _: ""),
        "execution_of_one": execution_named(lambda _: "store"),
        "execution_of_three": execution_named(lambda _: f"learn/{HELD}/logs"),
        "execution_of_another_stage": execution_named(lambda _: f"fill/{HELD}"),
        "execution_no_text": execution_named(lambda _: ["learn"]),
    },
    "runs_and_keys": {
        "run_as_the_store": run_named("STORE"),
        "run_hidden": run_named(".remote"),
        "run_as_the_index": run_named(INDEX),
        "run_as_the_lock_of_the_index": run_named("metadata.lock"),
        "run_with_controls": run_named("a\x1b[2J"),
        "run_above": run_named(".."),
        "keys_above": keys_named(
            "store/fill/../../x", "store/../../beside/x", "../x", "../../beside/x", "store/learn/../x/y"
        ),
        "keys_odd": keys_named(
            "store//x", "store/fill//x", "/x", "store/fill/a\x1bb/x/artifact.json", f"store/fill/{'a' * 900}"
        ),
        "keys_short": keys_named(
            "store/x", "state/x", "state/learn/x", "store/learn", f"store/learn/{HELD}/logs/{MANIFEST}/x"
        ),
    },
    "manifests": {
        "files_absolute": file_named(lambda beside: beside / "made"),
        "files_above": file_named(above, "../../../../../../beside/made"),
        "files_with_itself": file_named(MANIFEST),
        "files_twice": file_named("a", "a"),
        "files_in_the_way": file_named("a", "a/b"),
        "files_below_zero": file_named("a", size=-1),
        "files_huge": file_named("a", size=10**400),
        "output_above": output_named(".."),
        "output_live": output_named(runs.LIVE),
        "output_lock": output_named(".lock"),
        "id_of_another": logs_changed(lambda manifest, _: manifest["execution"].update(id=f"learn/{HELD}")),
    },
    "state": {"state": state_of_the_next_run},
}
"""Planted together, as what one costs must not be what another costs; each was seen to do harm alone where it could."""


@pytest.mark.parametrize("plants", BUCKETS.values(), ids=BUCKETS)
def test_a_hostile_bucket_changes_nothing_on_this_machine(bucket, sent, beside, tmp_path, plants, monkeypatch, capsys):
    said = [words for name, plant in plants.items() for words in plant(bucket, sent, beside, name.replace("_", "-"))]
    before = tree(beside)
    monkeypatch.setattr(board, "serve", lambda *_: None)
    url = bucket.url
    capsys.readouterr()
    for command in ("runs", "board"):
        assert main([command, f"--root={url}"]) == 0
    remote_stages.run(url, "new")
    mirror = RemoteRoot(url).mirror
    assert (mirror / "good" / "learn" / "logs" / "events.out.tfevents.1").exists()
    assert "new" in board.find(mirror)
    for flags in ([], ["--state"]):
        main(["gc", f"--root={url}", "--yes", *flags])
    assert main(["runs", f"--root={url}"]) == 0
    out, errors = capsys.readouterr()
    assert "Traceback" not in errors
    assert "\x1b" not in out + errors
    assert [words for words in said if words not in errors] == []
    assert tree(beside) == before
    assert {path.name for path in tmp_path.iterdir()} <= {"beside", "machine-1", "machine-2"}
    for path in mirror.rglob("*"):
        assert path.resolve().is_relative_to(mirror), path
    left = objects(bucket)
    for name, content in sent.items():
        if f"/{HELD}/" in name:
            assert left[name] == content, name


def test_a_share_is_not_written_through_its_links(beside, monkeypatch, tmp_path):
    """A root at `file://…`, which others have put links into."""
    machine(monkeypatch, tmp_path, 1)
    share = tmp_path / "share"
    remote_stages.run(f"file://{share}")
    (tmp_path / "other").mkdir()
    for link in (share / "store" / "fill", share / "new"):
        containment.remove(share, link)
        link.symlink_to(beside / "folder")
    before = tree(beside)
    with pytest.raises(UserError, match="is behind a link, and nothing is changed through one"):
        remote_stages.run(f"file://{share}", "other", kilobytes=2)
    with pytest.raises(UserError, match="is behind a link, and nothing is changed through one"):
        remote_stages.run(f"file://{share}", "new")
    with pytest.raises(UserError, match="is behind a link, and nothing is changed through one"):
        RemoteRoot(f"file://{share}").store.remove(["store/fill/precious.txt"])
    assert tree(beside) == before


def test_a_mirror_is_not_written_through_its_links(bucket, beside):
    root = RemoteRoot(bucket.url)
    root.look("learn")
    folder = root.mirror / "store" / "learn" / HELD
    folder.mkdir(parents=True)
    (folder / "logs").symlink_to(beside / "folder")
    before = tree(beside)
    with pytest.raises(UserError, match="is a link or no folder"):
        root.fetch(folder, "logs")
    (folder / "logs").unlink()
    (folder / "logs").mkdir()
    (folder / "logs" / "events.out.tfevents.1").symlink_to(beside / "empty.txt")
    (folder / "logs" / f".events.out.tfevents.1.{os.getpid()}").symlink_to(beside / "file.txt")
    root.fetch(folder, "logs")
    assert manifest_of(folder / "logs") is not None
    assert tree(beside) == before
