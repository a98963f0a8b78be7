"""Whole runs with a root in S3, on machines that vanish. `make test-slow`."""

import json
import os
import signal
import subprocess
import sys

import pytest

from lmworks.tfx.artifacts import manifest_of
from tests.conftest import REPOSITORY, lmworks
from tests.stores import machine, objects
from tests.tfx.conftest import until

pytestmark = pytest.mark.slow

SETTINGS = ["--set=train.steps=400", "--set=train.checkpoint_every=20", "--set=export.formats=[saved_model]"]
EAGER = "import sys; from lmworks.tfx import kept_state; from lmworks.pipeline.main import main; kept_state.SECONDS = 0.3; sys.exit(main(sys.argv[1:]))"


def test_a_machine_that_vanishes_and_another_that_goes_on(s3, monkeypatch, tmp_path):
    arguments = ["run", "--config=configs/tiny.yaml", *SETTINGS]
    assert lmworks(*arguments, f"--root={tmp_path}/whole").returncode == 0
    whole = manifest_of(tmp_path / "whole" / "tiny" / "train" / "model")

    command = [sys.executable, "-c", EAGER, *arguments, f"--root={s3.url}"]
    first = subprocess.Popen(command, cwd=REPOSITORY, stderr=subprocess.DEVNULL, start_new_session=True)
    prefix = f"{s3.url.removeprefix('s3://')}/state/train"
    until(lambda: any(name.endswith("checkpoint.json") for name in s3.find(prefix)) or first.poll() is not None)
    os.killpg(first.pid, signal.SIGKILL)
    assert first.wait() == -signal.SIGKILL

    machine(monkeypatch, tmp_path, 2)
    done = lmworks(*arguments, f"--root={s3.url}")
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"{s3.url}/tiny\n"
    assert [line.split()[:2] for line in done.stderr.splitlines() if "… " not in line and not line.startswith(" ")] == [
        ["ingest", "hit"], ["preprocess", "hit"], ["train", "made"], ["evaluate", "made"], ["export", "made"],
    ]  # fmt: skip
    (log,) = (tmp_path / "machine-2").glob("*/tiny/train/log.txt")
    assert "goes on from the checkpoint of step" in log.read_text(errors="replace")
    found = objects(s3)
    record = json.loads(found["tiny/run.json"])
    model = json.loads(found[f"store/{record['stages']['train']['execution']}/model/artifact.json"])
    assert model["digest"] == whole["digest"]  # the same weights, bit for bit
    assert not [name for name in found if name.startswith("state/")]

    machine(monkeypatch, tmp_path, 3)
    again = lmworks(*arguments, f"--root={s3.url}")
    assert again.returncode == 0, again.stderr
    assert [line.split()[1] for line in again.stderr.splitlines() if not line.startswith(" ")] == ["hit"] * 5
