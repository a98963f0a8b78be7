"""Kills at any moment, and two runs at once: nothing half is ever read, and the same command finishes."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from lmworks.tfx.artifacts import manifest_of
from tests.conftest import REPOSITORY, lmworks

pytestmark = pytest.mark.slow
STAGES = ("ingest", "preprocess", "train", "evaluate", "export")


def start(root) -> subprocess.Popen:
    command = [sys.executable, "-m", "lmworks.pipeline.main", "run", "--config=configs/tiny.yaml", f"--root={root}"]
    return subprocess.Popen(command, cwd=REPOSITORY, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def processes_of(root) -> list[int]:
    """The runner by its command line; stages, which learn their work after they have started, by where they log."""
    found = []
    for path in Path("/proc").glob("[0-9]*"):
        try:
            told = (path / "cmdline").read_text() + os.readlink(path / "fd" / "1")
        except OSError:
            continue
        if str(root) in told and int(path.name) != os.getpid():
            found.append(int(path.name))
    return found


def wait_until_gone(root) -> None:
    for _ in range(100):
        if not processes_of(root):
            return
        time.sleep(0.1)
    pytest.fail(f"orphans: {processes_of(root)}")


def assert_whole(root) -> None:
    done = lmworks("run", "--config=configs/tiny.yaml", f"--root={root}")
    assert done.returncode == 0, done.stderr
    executions = [path for stage in (root / "store").iterdir() for path in stage.iterdir()]
    assert not [path for path in executions if path.name.startswith(".")]
    assert all(manifest_of(output) for path in executions for output in path.iterdir())
    made = {path.parent.name for path in executions}
    assert made == set(STAGES)
    assert len(executions) == len(STAGES)


@pytest.mark.skipif(not Path("/proc").exists(), reason="finds processes through /proc")
@pytest.mark.parametrize("seconds", [1.5, 4.0, 8.0, 14.0, 21.0, 28.0])
def test_runner_killed(tmp_path, seconds):
    runner = start(tmp_path)
    time.sleep(seconds)
    runner.kill()
    runner.communicate()
    wait_until_gone(tmp_path)
    assert_whole(tmp_path)


@pytest.mark.skipif(not Path("/proc").exists(), reason="finds processes through /proc")
def test_stage_killed_is_an_error_and_the_next_run_finishes(tmp_path):
    runner = start(tmp_path)
    while not (stages := [pid for pid in processes_of(tmp_path) if pid != runner.pid and is_stage(pid, "train")]):
        time.sleep(0.05)
        assert runner.poll() is None
    time.sleep(4)
    os.kill(stages[0], signal.SIGKILL)
    _, errors = runner.communicate(timeout=60)
    assert runner.returncode == 1
    assert "train: ended by signal 9" in errors
    record = json.loads((tmp_path / "tiny" / "run.json").read_text())
    assert record["status"] == "failed"
    wait_until_gone(tmp_path)
    assert_whole(tmp_path)


def is_stage(pid: int, name: str) -> bool:
    """Whether the process works on the stage, rather than waiting for its turn."""
    try:
        return os.readlink(f"/proc/{pid}/fd/1").endswith(f"/{name}/log.txt")
    except OSError:
        return False


def test_two_runs_at_once_make_each_stage_once(tmp_path):
    runs = [start(tmp_path) for _ in range(2)]
    for run in runs:
        _, errors = run.communicate(timeout=300)
        assert run.returncode == 0, errors
    assert_whole(tmp_path)


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to mount a small tmpfs")
def test_full_disk_is_one_clear_line_and_nothing_is_published(tmp_path):
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(disk)], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip(f"cannot mount a tmpfs: {mounted.stderr.decode().strip()}")
    try:
        done = lmworks(
            "run", "--config=configs/tiny.yaml", f"--root={disk}", env={**os.environ, "TMPDIR": str(tmp_path)}
        )
        assert done.returncode == 1
        assert "disk is full" in done.stderr
        assert "Traceback" not in done.stderr
        outputs = [path for path in (disk / "store").glob("*/*/*") if path.is_dir()]
        assert all(manifest_of(path) for path in outputs)
    finally:
        subprocess.run(["umount", str(disk)], check=True)


FILL = """
import os, keras

class Fill(keras.callbacks.Callback):
    def on_train_end(self, logs=None):
        if "ROOM" in os.environ:
            with open(os.path.join(os.environ["DISK"], "filler"), "wb", buffering=0) as file:
                try:
                    while True:
                        file.write(bytes(4096))
                except OSError:
                    file.truncate(file.tell() - int(os.environ["ROOM"]))
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to mount a small tmpfs")
def test_a_disk_that_is_full_at_the_end_of_training_is_called_that(tmp_path):
    """Wherever it is: in the copy of the logs, in the weights, in what is written last."""
    disk = tmp_path / "disk"
    disk.mkdir()
    (tmp_path / "fill_disk.py").write_text(FILL)
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", str(disk)], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip(f"cannot mount a tmpfs: {mounted.stderr.decode().strip()}")
    environment = {**os.environ, "PYTHONPATH": str(tmp_path), "DISK": str(disk), "TMPDIR": str(tmp_path)}
    command = ["run", "--config=configs/tiny.yaml", f"--root={disk}", "--until=train"]
    command += ["--set=train.callbacks=[fill_disk:Fill]", "--set=train.steps=20", "--set=train.evaluate_every=20"]
    try:
        for room in (0, 60_000, 250_000):
            done = lmworks(*command, env={**environment, "ROOM": str(room)})
            assert done.returncode == 1
            assert "train: the disk is full" in done.stderr, (room, done.stderr)
            assert not list((disk / "store" / "train").glob("*"))
            (disk / "filler").unlink()
        done = lmworks(*command, env=environment)
        assert done.returncode == 0, done.stderr
        assert "goes on from the checkpoint of step 20" in (disk / "tiny" / "train" / "log.txt").read_text()
    finally:
        subprocess.run(["umount", str(disk)], check=True)
