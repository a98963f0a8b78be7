"""Runs in processes of their own, which a test can look at, kill and let go on."""

import contextlib
import json
import subprocess
import sys
import time

import pytest

from lmworks.tfx import runs
from tests.conftest import REPOSITORY


def until(what, seconds=120.0):
    """The first truth, or a failure."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if found := what():
            return found
        time.sleep(0.02)
    return pytest.fail("waited in vain")


def _is_at_learn(progress):
    with contextlib.suppress(FileNotFoundError):
        return json.loads(progress.read_text())["stage"] == "learn"


@pytest.fixture
def start(tmp_path):
    """Starts runs in processes of their own, which wait at `learn` for the file `tmp_path/release`."""
    started = []

    def begin(name="one", word="yes"):
        command = [sys.executable, "-m", "tests.tfx.stages", tmp_path, name, word, tmp_path / "release"]
        started.append(subprocess.Popen(command, cwd=REPOSITORY, stderr=subprocess.PIPE, text=True))
        until(lambda: _is_at_learn(tmp_path / name / runs.PROGRESS))
        return started[-1]

    yield begin
    for process in started:
        process.kill()
        process.communicate()
