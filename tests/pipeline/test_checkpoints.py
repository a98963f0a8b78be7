"""Checkpoints: what is kept, what is set aside, what is left as it is, and what a full disk leaves."""

import contextlib
import errno
import json
import os
import resource
from pathlib import Path

import numpy as np
import pytest

from lmworks.configs.errors import UserError
from lmworks.pipeline.train.checkpoints import Checkpoint, Checkpoints
from tests.pipeline.training import config

# Its reading is an error of input and output: nothing lies at that address of a process.
EIO_FILE = Path("/proc/self/mem")


def opened(folder, keep=2, steps=40, begin=lambda: None):
    settings = config(keep_checkpoints=keep, schedule="constant", warmup_ratio=0.0, steps=steps)
    return Checkpoints(folder, settings, "data", "float32", folder.with_name("events"), begin)


def write(checkpoints, *steps, events=None):
    for step in steps:
        state = {"weights": np.full(1000, step, np.float32)}
        facts = {"events": events or {}, "best": {"step": step}}
        checkpoints.write(Checkpoint(step, state, {"0": np.full(2, step)}, facts), best_step=step)
    checkpoints.wait()


def written(folder, *steps, keep=2):
    """Checkpoints after these steps."""
    checkpoints = opened(folder, keep)
    write(checkpoints, *steps)
    return checkpoints


def content(folder):
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and not path.is_symlink()
    }


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def change_record(path, **changes):
    record = path / "checkpoint.json"
    record.write_text(json.dumps(json.loads(record.read_text()) | changes))


def test_the_newest_are_kept_with_the_weights_they_name(tmp_path):
    checkpoints = written(tmp_path / "x", 5, 10, 15)
    kept = ["best-00000010.safetensors", "best-00000015.safetensors", "step-00000010", "step-00000015"]
    assert names(tmp_path / "x") == kept
    newest = checkpoints.newest(False, 40)
    assert newest.step == 15
    np.testing.assert_array_equal(newest.state["weights"], np.full(1000, 15, np.float32))
    np.testing.assert_array_equal(newest.best["0"], np.full(2, 15))


def lose_record(path):
    (path / "checkpoint.json").unlink()


def cut_record(path):
    (path / "checkpoint.json").write_bytes((path / "checkpoint.json").read_bytes()[:100])


def empty_record(path):
    (path / "checkpoint.json").write_text("{}")


def list_as_record(path):
    (path / "checkpoint.json").write_text("[1]")


def lose_state(path):
    (path / "state.safetensors").unlink()


def tear_state(path):
    with (path / "state.safetensors").open("r+b") as file:
        file.seek(-100, os.SEEK_END)
        file.write(b"\0" * 100)


@pytest.mark.parametrize("tear", [lose_record, cut_record, empty_record, list_as_record, lose_state, tear_state])
def test_of_torn_ones_the_newest_is_set_aside(tmp_path, tear, capfd):
    folder = tmp_path / "x"
    checkpoints = written(folder, 5, 10, 15, 20, keep=4)
    (folder / ".best-00000012.safetensors").touch()
    tear(folder / "step-00000015")
    tear(folder / "step-00000020")
    before = content(folder / "step-00000020")
    assert checkpoints.newest(False, 40).step == 10
    assert "step-00000020: is no whole checkpoint and is skipped" in capfd.readouterr().err
    assert [name for name in names(folder) if "best" not in name] == [".torn", "step-00000005", "step-00000010"]
    assert names(folder / ".torn") == ["step-00000020"]
    assert content(folder / ".torn" / "step-00000020") == before
    # The next one takes its place; and what comes after is written as ever.
    tear(folder / "step-00000010")
    assert opened(folder).newest(False, 40).step == 5
    assert names(folder / ".torn") == ["step-00000010"]
    write(opened(folder), 10)
    assert opened(folder).newest(False, 40).step == 10


def to_a_folder(path):
    path.unlink()
    path.mkdir()


def to_a_loop(path):
    path.unlink()
    path.symlink_to(path)


def to_an_input_error(path):
    path.unlink()
    path.symlink_to(EIO_FILE)


@pytest.mark.skipif(not EIO_FILE.exists(), reason="has no file that cannot be read")
@pytest.mark.parametrize(
    "name", ["step-00000010/checkpoint.json", "step-00000010/state.safetensors", "best-00000010.safetensors"]
)
@pytest.mark.parametrize("spoil", [to_a_folder, to_a_loop, to_an_input_error])
def test_what_cannot_be_read_is_an_error_and_all_stays(tmp_path, spoil, name):
    checkpoints = written(tmp_path / "x", 5, 10)
    spoil(tmp_path / "x" / name)
    before = content(tmp_path / "x"), names(tmp_path / "x")
    with pytest.raises(UserError, match=r"cannot be read \(.*\); the checkpoints stay as they are"):
        checkpoints.newest(False, 40)
    assert (content(tmp_path / "x"), names(tmp_path / "x")) == before


@pytest.mark.parametrize("name", ["../../events/evil", "/tmp/evil", "a/../../../evil", ""])
@pytest.mark.parametrize("kind", ["files", "events", "best"])
def test_a_record_that_names_files_elsewhere_is_torn(tmp_path, kind, name, capfd):
    """As one in a bucket may, which others write to: event files are copied by these names."""
    folder = tmp_path / "x" / "y"
    written(folder, 5)
    path = folder / "step-00000005"
    record = json.loads((path / "checkpoint.json").read_text())
    changes = {
        "files": {"files": record["files"] | {name: ""}},
        "events": {"facts": record["facts"] | {"events": {name: 1}}},
        "best": {"best": name or "none"},
    }
    change_record(path, **changes[kind])
    assert opened(folder).newest(False, 5) is None
    assert "is no whole checkpoint and is skipped: checkpoint.json is torn" in capfd.readouterr().err


def test_too_many_open_files_are_an_error_and_all_stays(tmp_path):
    checkpoints = written(tmp_path / "x", 5, 10)
    before, limits = content(tmp_path / "x"), resource.getrlimit(resource.RLIMIT_NOFILE)
    held = [os.open("/dev/null", os.O_RDONLY)]
    resource.setrlimit(resource.RLIMIT_NOFILE, (held[0] + 1, limits[1]))
    try:
        with contextlib.suppress(OSError):
            while True:  # those below are taken too
                held.append(os.open("/dev/null", os.O_RDONLY))
        with pytest.raises(UserError, match="Too many open files"):
            checkpoints.newest(False, 40)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
        for handle in held:
            os.close(handle)
    assert content(tmp_path / "x") == before


def test_weights_stay_where_a_record_that_may_name_them_cannot_be_read(tmp_path):
    checkpoints = written(tmp_path / "x", 5, 10)
    to_a_loop(tmp_path / "x" / "step-00000005" / "checkpoint.json")
    before = names(tmp_path / "x")
    with pytest.raises(OSError, match="symbolic links"):
        checkpoints.prune(1, 10)
    assert names(tmp_path / "x") == before


def test_another_version_is_an_error_and_all_stays(tmp_path):
    checkpoints = written(tmp_path / "x", 5, 10)
    change_record(tmp_path / "x" / "step-00000010", version=99)
    before = content(tmp_path / "x")
    with pytest.raises(UserError, match=r"step-00000010: has the format 99, and this version of lmworks reads \d"):
        checkpoints.newest(True, 40)
    assert content(tmp_path / "x") == before


@pytest.mark.parametrize("published", [False, True])
def test_fewer_steps_leave_the_checkpoints_of_more_as_they_are(tmp_path, published, capfd):
    folder = tmp_path / "x"
    written(folder, 15, 20)
    before = content(folder)
    shorter = opened(folder, steps=10)
    assert shorter.newest(published, 10) is None
    assert "starts anew: step 20 of a checkpoint is beyond train.steps=10" in capfd.readouterr().err
    write(shorter, 2, 4, 6, 8, 10)
    shorter.prune(1, 10)
    after = content(folder)
    for name in [name for name in before if name.endswith("checkpoint.json")]:
        mark = {"finished": True} if published else {}
        assert json.loads(after.pop(name)) == json.loads(before.pop(name)) | mark
    assert before.items() <= after.items()
    assert [name for name in names(folder) if "step" in name] == ["step-00000010", "step-00000015", "step-00000020"]
    assert opened(folder, steps=10).newest(True, 10).step == 10
    assert opened(folder, steps=18).newest(True, 18).step == 15
    assert opened(folder, steps=60).newest(True, 60).step == 20


def test_weights_of_the_same_step_are_each_runs_own(tmp_path):
    """Of another processor, say, where the longer run had been."""
    folder = tmp_path / "x"
    written(folder, 20)
    shorter = opened(folder, steps=10)
    facts = {"events": {}, "best": {"step": 20}}
    shorter.write(Checkpoint(10, {"weights": np.ones(3)}, {"0": np.full(2, 7)}, facts), best_step=20)
    shorter.wait()
    assert opened(folder).newest(False, 40).best["0"][0] == 20
    assert opened(folder, steps=10).newest(False, 10).best["0"][0] == 7


def test_a_finished_run_of_other_code_is_not_gone_on_from(tmp_path, capfd):
    folder = tmp_path / "x"
    written(folder, 20)
    change_record(folder / "step-00000020", code={"lmworks.pipeline.train.loop": "another"})
    assert opened(folder).newest(False, 40).changed_code == ("pipeline.train.loop",), (
        "a killed one is, and that is recorded"
    )
    before, begun = content(folder), []
    anew = opened(folder, begin=lambda: begun.append(names(folder)))
    assert anew.newest(True, 60) is None
    assert "starts anew: the finished run was made by other code (pipeline.train.loop)" in capfd.readouterr().err
    assert content(folder) == before
    # Only what takes its place removes it, before the state counts as unfinished.
    write(anew, 5)
    assert begun == [[]]
    assert opened(folder).newest(False, 60).step == 5


@pytest.mark.parametrize("shorter_code", ["as before", "another"])
def test_a_shorter_run_beside_a_finished_one_makes_it_no_killed_run(tmp_path, capfd, shorter_code):
    """60 steps are finished; 30 are asked for and killed; the code changes before or after that; 60 are asked for again."""
    folder = tmp_path / "x"

    def change_code(path):
        change_record(path, code={"lmworks.pipeline.train.loop": "another"})

    written(folder, 60)
    if shorter_code == "another":
        change_code(folder / "step-00000060")
    shorter = opened(folder, steps=30)
    assert shorter.newest(True, 30) is None
    write(shorter, 10)  # the state counts as unfinished from here on
    assert names(folder)[-2:] == ["step-00000010", "step-00000060"]
    if shorter_code == "as before":
        change_code(folder / "step-00000060")
        change_code(folder / "step-00000010")
    again = opened(folder, steps=60)
    checkpoint = again.newest(False, 60)
    assert checkpoint.step == 10, "the killed run is gone on from, the finished one is not"
    assert checkpoint.changed_code == (() if shorter_code == "another" else ("pipeline.train.loop",))
    write(again, 20)
    assert [name for name in names(folder) if "step" in name] == ["step-00000010", "step-00000020"]


def test_a_finished_run_beside_a_shorter_one_is_gone_on_from_with_the_same_code(tmp_path):
    folder = tmp_path / "x"
    written(folder, 60)
    shorter = opened(folder, steps=30)
    shorter.newest(True, 30)
    write(shorter, 10)
    checkpoint = opened(folder, steps=90).newest(False, 90)
    assert (checkpoint.step, checkpoint.changed_code) == (60, ())


def test_another_warm_up_of_a_falling_learning_rate_is_why_a_run_starts_anew(tmp_path):
    def checkpoints(name, ratio):
        settings = config(schedule="linear", warmup_ratio=ratio)
        return Checkpoints(tmp_path / name, settings, "data", "float32", tmp_path / "events", lambda: None)

    write(checkpoints("before", 0.0), 5)
    reason = checkpoints("now", 0.5).describe_other_lengths([tmp_path / "before"])
    assert "(train.warmup_ratio: was 0.0 and is 0.5); they stay" in reason


def test_event_files_that_are_gone_or_cut_come_back(tmp_path):
    events = tmp_path / "events"
    events.mkdir()
    for name in ("a", "b", "c"):
        (events / name).write_bytes(name.encode() * 100)
    write(opened(tmp_path / "x"), 5, events={"a": 10, "b": 20, "c": 30})
    (events / "a").unlink()
    (events / "b").write_bytes(b"b" * 5)
    (events / "c").write_bytes(b"c" * 200)
    opened(tmp_path / "x").newest(False, 40)
    assert [(events / name).read_bytes() for name in ("a", "b", "c")] == [b"a" * 10, b"b" * 20, b"c" * 200]


def test_a_full_disk_is_an_error_of_the_system_and_leaves_what_was_whole(tmp_path):
    checkpoints = written(tmp_path / "x", 5)
    before, limits = content(tmp_path / "x"), resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 16, limits[1]))
    try:
        state = {"weights": np.zeros(1 << 16, np.float32)}
        checkpoints.write(Checkpoint(10, state, {}, {"events": {}}), best_step=0)
        with pytest.raises(OSError, match=r"state\.safetensors") as told:
            checkpoints.wait()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert told.value.errno == errno.EFBIG  # for want of a full disk, a file that may not grow
    assert content(tmp_path / "x") == before
    assert checkpoints.newest(False, 40).step == 5
