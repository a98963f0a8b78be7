"""Damaged objects in a root at a URL: each costs its run or execution, and what a run may hold on to stays."""

import json
import re

import pytest

from lmworks.configs.errors import UserError
from lmworks.pipeline.main import main
from lmworks.tfx import board, runs
from lmworks.tfx.artifacts import Logs
from lmworks.tfx.remote import RemoteRoot
from tests.stores import FORBIDDEN, machine, objects
from tests.tfx import remote_stages

DAMAGES = {
    "empty": b"",
    "torn": b'{"run": "dam',
    "no_text": b"\xff\xfe\x00 \x80",
    "list": b"[]",
    "null": b"null",
    "empty_object": b"{}",
    "newer_version": b'{"version": 2, "name": "damaged", "status": "done"}',
    "deep": b"[" * 100_000,
    "deep_inside": b'{"run": "damaged", "status": "done", "stages": {}, "config": ' + b"[" * 900 + b"]" * 900 + b"}",
    "no_number_inside": b'{"run": "damaged", "status": "done", "stages": {}, "config": NaN}',
    "kept_of_another_type": b'{"run": "damaged", "status": "done", "stages": {}, "kept": {"learn": []}}',
    "forbidden": None,
}


def put(s3, name, content):
    """Damages an object; without a content nobody may read it."""
    if content is None:
        FORBIDDEN.add(name)
    else:
        s3.pipe_file(f"{s3.url}/{name}", content)


@pytest.fixture
def store(s3, monkeypatch, tmp_path):
    """A store with two runs whose executions are old, looked at from another machine."""
    remote_stages.run(s3.url, "good")
    remote_stages.run(s3.url, "damaged", word="other")
    root = s3.url.removeprefix("s3://")
    for name, content in objects(s3).items():
        parts = name.split("/")
        if parts[0] == "store":
            s3.rm_file(f"{root}/{name}")
            parts[2] = f"20200101{parts[2][8:]}"
        s3.pipe_file(f"{root}/{'/'.join(parts)}", aged(content) if name.endswith(".json") else content)
    machine(monkeypatch, tmp_path, 2)
    yield s3
    FORBIDDEN.clear()


def aged(content):
    """Names of executions of years ago."""
    return re.sub(rb"(fill|learn)/\d{8}-", rb"\1/20200101-", content)


def tell(capfd, *arguments):
    code = main([*arguments])
    said = capfd.readouterr()
    assert "Traceback" not in said.err
    return code, said.out, said.err


def kept(s3):
    """Sizes of what stands in store and state."""
    return {name: s3.info(name)["size"] for place in ("store", "state") for name in s3.find(f"{s3.url}/{place}")}


def test_records(store, capfd):
    where, name, before = f"--root={store.url}", f"{store.url}/damaged/run.json", kept(store)
    whole = store.cat_file(name)
    execution = json.loads(whole)["stages"]["learn"]["execution"].partition("/")[2]
    newer = json.dumps({"version": 2, "results": [{"learn": execution}]})
    escaped = json.dumps({"version": 2, "results": [execution]}).replace(execution, execution.replace("-", "\\u002d"))
    repeated = f'{{"results": "{execution}", "results": ""}}'
    newer_versions = {"newer": newer.encode(), "escaped": escaped.encode(), "repeated": repeated.encode()}
    for damage, content in (DAMAGES | newer_versions).items():
        put(store, "damaged/run.json", content)
        code, out, errors = tell(capfd, "runs", where)
        assert (code, "good" in out, "damaged" in out) == (0, True, False), damage
        assert name in errors
        assert "it is left out" in errors
        code, _, errors = tell(capfd, "runs", where, "damaged")
        assert code == 2
        assert "has no run 'damaged'; known: good" in errors
        for state in ([], ["--state"]):
            code, out, errors = tell(capfd, "gc", where, "--yes", *state)
            assert (code, out) == (1, ""), damage
            assert name in errors
            assert (
                "what it holds on to is not known, so nothing was removed: run it again, or see whose it is" in errors
            )
            assert kept(store) == before
    assert tell(capfd, "runs", where, "good", "--follow")[0] == 0
    assert [result.status for result in remote_stages.run(store.url, "good").results] == ["cached", "cached"]
    capfd.readouterr()
    # A run whose folder was renamed is one as any other, as it is on this machine.
    FORBIDDEN.clear()
    store.pipe_file(f"{store.url}/renamed/run.json", whole)
    store.rm_file(name)
    code, out, errors = tell(capfd, "gc", where, "--yes")
    assert (code, out, errors) == (0, f"{store.url}: nothing to remove\n", "")
    assert "renamed" in tell(capfd, "runs", where)[1]


def test_another_programs_file_does_not_keep_gc_from_its_work(store, capfd):
    record = json.loads(objects(store)["damaged/run.json"])
    store.rm_file(f"{store.url}/damaged/run.json")
    store.pipe_file(f"{store.url}/docs/run.json", b'{"version": 2, "command": "make html"}')
    code, out, errors = tell(capfd, "gc", f"--root={store.url}", "--yes")
    assert (code, errors.count("\n")) == (0, 1)
    assert f"{store.url}/docs/run.json: is no record of a run, perhaps another program's file" in errors
    assert "removed 1, " in out
    assert not [name for name in kept(store) if record["stages"]["learn"]["execution"] in name]
    assert "docs/run.json" in objects(store)


def test_manifests(store, monkeypatch, tmp_path, capfd):
    where, record = f"--root={store.url}", json.loads(objects(store)["damaged/run.json"])
    place = f"store/{record['stages']['learn']['execution']}/logs/artifact.json"
    for number, damage in enumerate(("empty", "no_text", "list", "deep", "newer_version", "forbidden"), 2):
        put(store, place, DAMAGES[damage])
        machine(monkeypatch, tmp_path, number)
        for command in (["runs"], ["runs", "damaged"], ["runs", "damaged", "--follow"]):
            assert tell(capfd, command[0], where, *command[1:])[0] == 0, damage
        assert tell(capfd, "gc", where, "--yes", "--state")[:2] == (0, f"{store.url}: nothing to remove\n")
        root = RemoteRoot(store.url)
        for run, _ in runs.readable(root.mirror):
            root.fetch_kind([run], Logs.__name__)
        assert list(board.find(root.mirror)) == ["good"]
    assert [result.status for result in remote_stages.run(store.url, "good").results] == ["cached", "cached"]
    again = remote_stages.run(store.url, "damaged", word="other")
    assert [result.status for result in again.results] == ["cached", "made"]


def test_what_was_noted_of_sent_records(s3):
    """Without it, what this machine has sent is taken for another's: that costs a look, and no work."""
    damages = [DAMAGES[name] for name in ("empty", "no_text", "list", "deep")]
    for count, content in enumerate([*damages, b'{"model/record.json": 5, "a": ["b"]}', None], 1):
        with pytest.raises(UserError, match="the word is fail"):
            remote_stages.run(s3.url, word="fail")
        (tries,) = (text for name, text in objects(s3).items() if name.endswith("/tries"))
        assert tries == str(count).encode()
        (noted,) = RemoteRoot(s3.url).mirror.glob(".sent/*/*.json")
        noted.unlink()
        if content is None:
            (noted / "something").mkdir(parents=True)
        else:
            noted.write_bytes(content)
    with pytest.raises(
        UserError, match=r"\.sent/learn/.*\.json: is a folder, and a file has to stand there; remove it"
    ):
        remote_stages.run(s3.url, word="fail")
