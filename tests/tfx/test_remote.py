"""Roots at a URL: what is sent, fetched, found again, and what a kill, a fault or another machine does to it."""

import contextlib
import hashlib
import json
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from lmworks.configs.errors import UserError
from lmworks.configs.load import ConfigError
from lmworks.pipeline.main import main
from lmworks.tfx import kept_state, transfer
from lmworks.tfx.remote import RemoteRoot
from tests.conftest import REPOSITORY
from tests.stores import FAULTS, machine, objects
from tests.tfx import remote_stages
from tests.tfx.conftest import until


def statuses(runner) -> list[str]:
    return [result.status for result in runner.results]


def whole(s3) -> list[str]:
    """The executions, each of which must be whole, with the content that its manifests say."""
    found = objects(s3)
    names = sorted({"/".join(name.split("/")[1:3]) for name in found if name.startswith("store/")})
    for name in names:
        manifests = {
            key: json.loads(text)
            for key, text in found.items()
            if key.startswith(f"store/{name}/") and key.endswith("/artifact.json")
        }
        assert manifests, name
        for key, manifest in manifests.items():
            folder = key.removesuffix("artifact.json")
            assert set(manifest["execution"]["outputs"]) == {one.split("/")[3] for one in manifests}
            for entry in manifest["files"]:
                assert hashlib.sha256(found[folder + entry["path"]]).hexdigest() == entry["sha256"]
    return names


def test_what_is_made_is_sent_and_found_by_another_machine(s3, monkeypatch, tmp_path):
    assert statuses(remote_stages.run(s3.url)) == ["made", "made"]
    assert [name.split("/")[0] for name in whole(s3)] == ["fill", "learn"]
    record = json.loads(objects(s3)["one/run.json"])
    assert record["status"] == "done"
    assert statuses(remote_stages.run(s3.url)) == ["cached", "cached"]

    machine(monkeypatch, tmp_path, 2)
    there = remote_stages.run(s3.url, "two")
    assert statuses(there) == ["cached", "cached"]
    assert not list((tmp_path / "machine-2").rglob("*.bin"))  # nobody read them
    assert there.results[1].folder.name == record["stages"]["learn"]["execution"].split("/")[1]
    assert json.loads(objects(s3)["two/run.json"])["stages"]["learn"]["summary"] == "3000 bytes, try 1"

    other = remote_stages.run(s3.url, "two", word="other")
    assert statuses(other) == ["cached", "made"]
    assert len(list((tmp_path / "machine-2").rglob("*.bin"))) == 3
    assert len(whole(s3)) == 3


def test_a_damaged_object_is_found_when_it_is_fetched(s3, monkeypatch, tmp_path):
    remote_stages.run(s3.url)
    (name,) = [name for name in objects(s3) if name.endswith("part-001.bin")]
    s3.pipe_file(f"{s3.url}/{name}", b"x" * 1000)
    machine(monkeypatch, tmp_path, 2)
    with pytest.raises(UserError, match=r"part-001\.bin: its content is not what was uploaded"):
        remote_stages.run(s3.url, word="other")
    assert not list((tmp_path / "machine-2").rglob("part-001.bin"))
    s3.rm_file(f"{s3.url}/{name}")
    assert statuses(remote_stages.run(s3.url, word="other")) == ["made", "made"]  # what has a hole is none


def test_what_was_removed_from_the_store_is_sent_again(s3):
    remote_stages.run(s3.url)
    (name,) = [name for name in whole(s3) if name.startswith("fill/")]
    s3.rm(f"{s3.url}/store/{name}", recursive=True)
    assert statuses(remote_stages.run(s3.url)) == ["cached", "cached"]
    assert len(whole(s3)) == 2
    for lost in ("examples/artifact.json", "examples/part-001.bin"):  # a removal that was cut
        s3.rm_file(f"{s3.url}/store/{name}/{lost}")
        assert statuses(remote_stages.run(s3.url)) == ["cached", "cached"]
        assert len(whole(s3)) == 2


@pytest.mark.slow  # processes, one of them killed
def test_a_kill_in_the_middle_of_an_upload_tears_nothing_and_makes_nothing_twice(s3, monkeypatch, tmp_path):
    command = [sys.executable, "-m", "tests.tfx.remote_stages", s3.url, "one", "120", "500"]
    child = subprocess.Popen(command, cwd=REPOSITORY, stderr=subprocess.DEVNULL)
    root = s3.url.removeprefix("s3://")
    until(lambda: len(s3.find(f"{root}/store")) >= 3 or child.poll() is not None)
    child.kill()
    child.wait()
    before = s3.find(f"{root}/store", detail=True)
    assert 3 <= len(before) < 120
    assert not any(name.endswith("artifact.json") for name in before)
    with monkeypatch.context() as patch:
        machine(patch, tmp_path, 2)
        elsewhere = remote_stages.run(s3.url, "elsewhere", 120, 500)  # to which a half-sent execution is none
        assert statuses(elsewhere) == ["made", "made"]
    for name in s3.find(f"{root}/store"):
        if name not in before:
            s3.rm_file(name)

    again = remote_stages.run(s3.url, "one", 120, 500)
    assert statuses(again) == ["cached", "made"]
    assert [name.split("/")[0] for name in whole(s3)] == ["fill", "learn"]
    after = s3.find(f"{root}/store", detail=True)
    assert {name: after[name]["LastModified"] for name in before} == {
        name: one["LastModified"] for name, one in before.items()
    }
    assert json.loads(objects(s3)["one/run.json"])["status"] == "done"


def test_what_a_stage_kept_goes_on_on_another_machine(s3, monkeypatch, tmp_path):
    for number in (1, 2):
        machine(monkeypatch, tmp_path, number)
        with pytest.raises(UserError, match="the word is fail"):
            remote_stages.run(s3.url, word="fail")
        kept = {name.split("/", 3)[3]: text for name, text in objects(s3).items() if name.startswith("state/learn/")}
        assert kept == {"model/tries": str(number).encode(), "model/record.json": b"{}"}
    assert json.loads(objects(s3)["one/run.json"])["status"] == "failed"
    machine(monkeypatch, tmp_path, 3)
    done = remote_stages.run(s3.url, word="yes")
    assert statuses(done) == ["cached", "made"]
    assert json.loads(objects(s3)["one/run.json"])["stages"]["learn"]["summary"] == "3000 bytes, try 3"
    assert not [name for name in objects(s3) if name.startswith("state/")]


def keep(url: str, step: int) -> None:
    """A stage that fails at a step, and keeps only the latest."""
    root = RemoteRoot(url)
    state = root.mirror / "state" / "learn" / "key"
    with contextlib.suppress(KeyError), root.keeping("learn", state):
        for old in sorted(state.glob("step-*")):
            assert int(old.name[5:]) < step
            shutil.rmtree(old)
        (state / f"step-{step}").mkdir(parents=True)
        (state / f"step-{step}" / "weights").write_text(str(step))
        (state / f"step-{step}" / "record.json").write_text("{}")
        raise KeyError


def kept(s3) -> set[str]:
    return {
        name.split("/")[3]
        for name in objects(s3)
        if name.startswith("state/learn/key/") and name.endswith("/record.json")
    }


def test_the_machine_that_got_further_is_gone_on_from(s3, monkeypatch, tmp_path):
    for number, step in ((1, 3), (2, 9), (1, 12), (1, 13), (2, 20)):  # each goes on where the one before it stopped
        machine(monkeypatch, tmp_path, number)
        keep(s3.url, step)
        assert kept(s3) == {f"step-{step}"}
    mirror = RemoteRoot(s3.url).mirror
    assert [path.name for path in (mirror / "state" / "learn" / "key").iterdir()] == ["step-20"]


def test_what_got_further_here_is_not_replaced_by_what_another_machine_sent(s3, monkeypatch, tmp_path):
    """Compared by what the records say of their progress; hidden folders are for this machine only."""

    def state_of(number: int) -> Path:
        machine(monkeypatch, tmp_path, number)
        return RemoteRoot(s3.url).mirror / "state" / "learn" / "key"

    def work(number: int, step: int, sends: bool = True) -> list[str]:
        """The steps that a machine has when it starts; it goes on to `step`, and fails."""
        state, root = state_of(number), RemoteRoot(s3.url)
        with contextlib.suppress(KeyError), monkeypatch.context() as patch, root.keeping("learn", state):
            before = sorted(path.name for path in state.glob("step-*"))
            if not sends:
                patch.setattr(root.store, "upload", lambda *_: (_ for _ in ()).throw(UserError("no network")))
            for old in state.glob("step-*"):
                shutil.rmtree(old)
            for folder in (state / f"step-{step}", state / ".torn" / f"step-{step + 1}"):
                folder.mkdir(parents=True)
                (folder / "weights").write_text(str(step))
                (folder / "record.json").write_text(json.dumps({"progress": step}))
            raise KeyError
        return before

    assert work(1, 100) == []
    assert work(1, 150, sends=False) == ["step-100"]
    assert work(2, 120) == ["step-100"]
    assert work(1, 160) == ["step-150"], "not 120"
    assert kept(s3) == {"step-160"}
    assert not [name for name in objects(s3) if "/.torn/" in name]
    assert work(2, 170) == ["step-160"]


def test_a_send_that_was_cut_does_not_cost_what_is_here(s3, monkeypatch):
    root = RemoteRoot(s3.url)
    keep(s3.url, 3)
    real = root.store.system.put_file

    def cut(local, path, *more, **options):
        if path.endswith("record.json"):
            raise PermissionError("the network went away")
        return real(local, path, *more, **options)

    with monkeypatch.context() as patch:
        patch.setattr(root.store.system, "put_file", cut)
        keep(s3.url, 9)
    assert kept(s3) == {"step-3"}
    state = root.mirror / "state" / "learn" / "key"
    with root.keeping("learn", state):
        assert (state / "step-9" / "record.json").exists()


def test_what_has_not_changed_is_not_sent_again(s3, monkeypatch, tmp_path):
    keep(s3.url, 3)
    root = s3.url.removeprefix("s3://")
    before = s3.info(f"{root}/state/learn/key/step-3/weights")["LastModified"]
    time.sleep(1.1)  # as exact as an S3 tells time
    monkeypatch.setattr(kept_state, "SECONDS", 0.05)
    for number in (1, 2):
        machine(monkeypatch, tmp_path, number)
        there = RemoteRoot(s3.url)
        state = there.mirror / "state" / "learn" / "key"
        with contextlib.suppress(KeyError), there.keeping("learn", state):
            (state / "new").write_text(str(number))
            until(lambda number=number: objects(s3).get("state/learn/key/new") == str(number).encode())
            raise KeyError
        assert s3.info(f"{root}/state/learn/key/step-3/weights")["LastModified"] == before


def test_state_that_cannot_be_fetched_whole_stays_in_the_store(s3, monkeypatch, tmp_path):
    keep(s3.url, 3)
    before = objects(s3)
    machine(monkeypatch, tmp_path, 2)
    root = RemoteRoot(s3.url)
    state = root.mirror / "state" / "learn" / "key"
    real = root.store.system.get_file

    def cut(path, *more, **options):
        if path.endswith("record.json"):
            raise PermissionError("the network went away")
        return real(path, *more, **options)

    with monkeypatch.context() as patch:
        patch.setattr(root.store.system, "get_file", cut)
        with pytest.raises(UserError, match="the network went away"), root.keeping("learn", state):
            pytest.fail("without its state")
    assert not any(path.is_file() for path in state.rglob("*"))
    assert objects(s3) == before
    keep(s3.url, 4)
    assert kept(s3) == {"step-4"}


def test_state_is_sent_while_a_stage_works(s3, monkeypatch):
    monkeypatch.setattr(kept_state, "SECONDS", 0.05)
    root = RemoteRoot(s3.url)
    state = root.mirror / "state" / "learn" / "key"
    with root.keeping("learn", state):
        (state / "step-1").mkdir(parents=True)
        (state / "step-1" / "weights").write_text("1")
        (state / "step-1" / "record.json").write_text("{}")
        until(lambda: "state/learn/key/step-1/record.json" in objects(s3))
        (state / "step-1" / "record.json").unlink()
        (state / "step-1" / "weights").write_text("22")
        until(lambda: objects(s3).get("state/learn/key/step-1/weights") == b"22")
        until(lambda: "state/learn/key/step-1/record.json" not in objects(s3))


def test_a_busy_store_is_asked_again(s3, monkeypatch, capfd):
    import s3fs

    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    monkeypatch.setattr(s3fs.S3FileSystem, "retries", 1)
    s3fs.S3FileSystem.clear_instance_cache()
    monkeypatch.setitem(FAULTS, "left", 8)
    assert statuses(remote_stages.run(s3.url)) == ["made", "made"]
    assert FAULTS["left"] == 0
    assert len(whole(s3)) == 2
    assert "reduce your request rate.; once more in" in capfd.readouterr().err


def test_a_store_that_stays_busy_loses_nothing(s3, monkeypatch):
    import s3fs

    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    monkeypatch.setattr(s3fs.S3FileSystem, "retries", 1)
    s3fs.S3FileSystem.clear_instance_cache()
    monkeypatch.setitem(FAULTS, "left", 999)
    with pytest.raises(UserError, match=r"/examples/part-00\d.bin: .*reduce your request rate"):
        remote_stages.run(s3.url)
    assert json.loads(objects(s3)["one/run.json"])["status"] == "failed"
    monkeypatch.setitem(FAULTS, "left", 0)
    assert statuses(remote_stages.run(s3.url)) == ["cached", "made"]
    assert len(whole(s3)) == 2


@pytest.mark.parametrize(
    ("url", "setting", "words"),
    [
        ("s3://no-such-bucket/runs", {}, "no-such-bucket/runs: The specified bucket does not exist"),
        ("s3://bucket/runs", {"AWS_ENDPOINT_URL": "http://127.0.0.1:9"}, "Could not connect to the endpoint URL"),
        ("s3://bucket/runs", {"AWS_ACCESS_KEY_ID": "", "AWS_SECRET_ACCESS_KEY": "", "AWS_EC2_METADATA_DISABLED": "true"},
         "Unable to locate credentials; set AWS_ACCESS_KEY_ID"),
    ],
)  # fmt: skip
def test_a_store_that_cannot_be_used_is_one_line_before_any_work(s3, monkeypatch, capfd, tmp_path, url, setting, words):
    import s3fs

    for name, value in setting.items():
        monkeypatch.setenv(name, value) if value else monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr(transfer, "_TRIES", 2)
    monkeypatch.setattr(s3fs.S3FileSystem, "retries", 1)
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    s3fs.S3FileSystem.clear_instance_cache()
    assert main(["run", f"--config={REPOSITORY}/configs/tiny.yaml", f"--root={url}"]) == 1
    last = capfd.readouterr().err.splitlines()[-1]
    assert last.startswith(f"lmworks run: {url}")
    assert words in last
    assert not list(tmp_path.rglob("run.json"))


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("s3://key:very-secret@bucket/runs", "the URL must not hold a password, a key or a `?`"),
        ("s3://key:very-secret/more@bucket/runs", "the URL must not hold a password, a key or a `?`"),
        ("https://host/runs?sig=very-secret", "the URL must not hold a password, a key or a `?`"),
        ("s4://bucket/runs", "--root=s4://bucket/runs: Protocol not known: s4"),
    ],
)
def test_bad_urls(url, words):
    with pytest.raises(ConfigError) as caught:
        RemoteRoot(url)
    assert words in str(caught.value)
    assert "very-secret" not in str(caught.value)


def test_a_package_that_is_not_installed_is_named(monkeypatch):
    import fsspec

    monkeypatch.setitem(sys.modules, "gcsfs", None)
    monkeypatch.delitem(fsspec.registry, "gs", raising=False) if "gs" in fsspec.registry else None
    with pytest.raises(
        UserError, match=r"--root=gs://bucket: needs a package that is not installed: pip install 'lmworks\[gcs\]'"
    ):
        RemoteRoot("gs://bucket")


def test_any_url_of_fsspec_is_a_root(monkeypatch, tmp_path):
    machine(monkeypatch, tmp_path, 1)
    url = f"file://{tmp_path}/share"
    assert statuses(remote_stages.run(url)) == ["made", "made"]
    machine(monkeypatch, tmp_path, 2)
    assert statuses(remote_stages.run(url, word="other")) == ["cached", "made"]
    assert len(list((tmp_path / "share" / "store").glob("*/*/*/artifact.json"))) == 5
    assert not list((tmp_path / "share").rglob(".*.[0-9]*"))


def test_runs_are_listed_from_anywhere(s3, monkeypatch, tmp_path, capfd):
    remote_stages.run(s3.url)
    machine(monkeypatch, tmp_path, 2)
    assert main(["runs", f"--root={s3.url}"]) == 0
    assert capfd.readouterr().out.splitlines()[1].split()[:2] == ["one", "done"]
    assert main(["runs", f"--root={s3.url}", "one"]) == 0
    out = capfd.readouterr().out
    (name,) = [name for name in whole(s3) if name.startswith("learn/")]
    assert f"    {s3.url}/store/{name}/\n" in out
    assert main(["runs", f"--root={s3.url}", "one", "--follow"]) == 0
    assert main(["runs", f"--root={s3.url}", "none"]) == 2
    assert f"{s3.url}: has no run 'none'; known: one" in capfd.readouterr().err


def test_to_look_writes_nothing(s3, capfd):
    assert main(["runs", f"--root={s3.url}"]) == 0
    assert f"{s3.url}: no runs yet" in capfd.readouterr().err
    assert objects(s3) == {}
    assert main(["runs", "--root=s3://no-such-bucket/runs"]) == 1
    assert "no-such-bucket/runs: The specified bucket does not exist" in capfd.readouterr().err


def test_logs_are_fetched_for_tensorboard(s3, monkeypatch, tmp_path):
    remote_stages.run(s3.url)
    machine(monkeypatch, tmp_path, 2)
    root = RemoteRoot(s3.url)
    root.look_at_runs()
    root.fetch_kind([root.mirror / "one"], "Logs")
    assert (root.mirror / "one" / "learn" / "logs" / "events.out.tfevents.1").exists()
    assert not list(root.mirror.rglob("size.txt"))


def test_gc_removes_what_no_run_names_and_is_not_young(s3, capfd):
    remote_stages.run(s3.url)
    remote_stages.run(s3.url, word="other")  # the first one of `learn` is named no more
    with pytest.raises(UserError):
        remote_stages.run(s3.url, "two", word="fail")
    assert main(["gc", f"--root={s3.url}", "--yes"]) == 0
    assert capfd.readouterr().out == f"{s3.url}: nothing to remove\n"
    root = s3.url.removeprefix("s3://")
    (young,) = {name.split("/")[2] for name in whole_names(s3, "learn")} - named(s3)
    for name, content in objects(s3).items():
        if young in name:
            s3.pipe_file(f"{root}/{name.replace(young, '20200101-000000-abcdef')}", content)
            s3.rm_file(f"{root}/{name}")
    s3.pipe_file(f"{root}/store/fill/20200101-000000-abcdef/examples/part-000.bin", b"half")  # a cut upload
    s3.pipe_file(f"{root}/store/fill/notes.txt/keep", b"of somebody")
    assert main(["gc", f"--root={s3.url}", "--yes", "--state"]) == 0
    out = capfd.readouterr().out
    assert "learn       executions that no run links: 1" in out
    assert "fill        executions that no run links: 1, 4 bytes" in out
    assert "learn       states that work could go on from: 1" in out
    left = objects(s3)
    assert not [name for name in left if "20200101" in name or name.startswith("state/")]
    assert "store/fill/notes.txt/keep" in left
    assert statuses(remote_stages.run(s3.url, word="other")) == ["cached", "cached"]


def test_a_run_that_failed_anew_holds_on_to_its_results(s3, monkeypatch, tmp_path):
    remote_stages.run(s3.url)
    before = {name: told["execution"] for name, told in json.loads(objects(s3)["one/run.json"])["stages"].items()}
    machine(monkeypatch, tmp_path, 2)
    monkeypatch.setattr(remote_stages.LocalRunner, "_stage", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        remote_stages.run(s3.url)
    record = json.loads(objects(s3)["one/run.json"])
    assert (record["stages"], record["kept"]) == ({}, before)
    monkeypatch.undo()


def whole_names(s3, stage: str) -> set[str]:
    return {name for name in objects(s3) if name.startswith(f"store/{stage}/")}


def named(s3) -> set[str]:
    records = [json.loads(text) for name, text in objects(s3).items() if name.endswith("/run.json")]
    return {str(told["execution"]).split("/")[-1] for record in records for told in record.get("stages", {}).values()}


def test_a_preview_needs_a_folder(capfd):
    assert main(["preview", f"--config={REPOSITORY}/configs/tiny.yaml", "--root=s3://bucket/runs"]) == 2
    assert "a preview needs a root of this machine" in capfd.readouterr().err
